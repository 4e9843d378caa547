//! Packets that rp_filter drops, by device, and packets to pods that policy routing takes away from their bridge.

use std::{
    collections::{BTreeMap, HashSet},
    fs,
    net::IpAddr,
    os::unix::fs::MetadataExt as _,
};

use ipnet::IpNet;

use super::{super::CheckContext, one_of};
use crate::{
    host::proc_net::setting,
    kernel::drops::DropsProbe,
    model::{
        doctor::settings::{PolicyFact, PolicyRejection},
        routing::RouteQuery,
        vxlan::{Overlay, overlay::Tables},
    },
    rtnetlink::Routing,
};

const CONF: &str = "/proc/sys/net/ipv4/conf";
const REASON: &str = "IP_RPFILTER";
/// Addresses of the node that are looked up.
const SOURCES: usize = 8;
/// Peers of one device whose pods are looked up.
const PEERS: usize = 64;

/// Counts TCP packets that are dropped, where rp_filter may be why.
pub struct ReversePathDrops {
    probe: DropsProbe,
    netns: u32,
}

impl ReversePathDrops {
    /// `None`: no device is strict, or this kernel or this process can't count.
    pub fn begin(node: &CheckContext) -> Option<Self> {
        let mut names = fs::read_dir(CONF).ok()?.flatten();
        let is_strict = |name: &str| setting(&format!("net/ipv4/conf/{name}/rp_filter")) == Some(1);
        if !names.any(|entry| is_strict(&entry.file_name().to_string_lossy())) {
            return None;
        }
        let netns = fs::metadata("/proc/thread-self/ns/net").ok()?.ino() as u32;
        let probe = DropsProbe::load(&node.settings.source, &HashSet::new()).ok()?;
        // Without reasons (before 5.17) none is known for rp_filter's.
        probe.reasons.as_ref()?;
        Some(Self { probe, netns })
    }

    /// The devices they came by, each with how many.
    pub fn by_device(mut self, tables: &Tables) -> Vec<(String, u64)> {
        self.probe.detach();
        let reasons = self.probe.reasons.as_ref();
        let is_reason = |number: u32| {
            let name = reasons.and_then(|names| names.get(&number));
            name.is_some_and(|name| name == REASON)
        };
        let mut devices: BTreeMap<String, u64> = BTreeMap::new();
        // What was counted until an error is still true.
        let _ = self.probe.drops(|key, count| {
            let device = tables.devices.iter().find(|device| device.index == key.input);
            if key.netns == self.netns
                && is_reason(key.reason)
                && let Some(device) = device
            {
                *devices.entry(device.name.clone()).or_default() += count.packets;
            }
        });
        devices.into_iter().collect()
    }
}

/// Where policy routing sends packets from this node's pods to those of other nodes, other than by the VXLAN device; and the rules that
/// reject them. A tunnel without Ethernet header, such as WireGuard's, is meant to have them. `bridge`: index and name.
pub fn far_pods(
    pods: IpNet,
    bridge: (u32, &str),
    overlays: &[Overlay],
) -> (Vec<PolicyFact>, Vec<PolicyRejection>) {
    let (mut facts, mut rejections) = (Vec::<PolicyFact>::new(), Vec::<PolicyRejection>::new());
    let (Some(source), Ok(mut routing)) = (one_of(pods), Routing::open()) else {
        return (facts, rejections);
    };
    for overlay in overlays.iter().filter(|overlay| overlay.device.up) {
        let peers = overlay.peers.iter().filter(|peer| !peer.is_direct());
        let nets = peers.filter_map(|peer| peer.routes.iter().find(|net| net.addr().is_ipv4()));
        for destination in nets.take(PEERS).filter_map(|net| one_of(*net)) {
            let query = RouteQuery {
                source: Some(source),
                destination,
                mark: 0,
                input: Some((bridge.0, bridge.1.to_owned())),
            };
            if let Ok(Some(rule)) = routing.rejection(&query)
                && !rejections.iter().any(|known| known.rule == rule)
            {
                rejections.push(PolicyRejection {
                    source,
                    destination,
                    rule,
                });
            }
            let Ok(Some((device, policy))) = routing.detour(&query) else {
                continue;
            };
            let is_underlay = overlay
                .underlays()
                .any(|underlay| underlay.index == device && underlay.ethernet);
            if is_underlay && !facts.iter().any(|fact| fact.policy.rule == policy.rule) {
                facts.push(PolicyFact {
                    source,
                    destination,
                    overlay: Some(overlay.device.name.clone()),
                    policy,
                });
            }
        }
    }
    (facts, rejections)
}

/// Where policy routing sends packets from the node's own addresses to its pods, other than by their bridge.
pub fn policies(pods: IpNet, bridge: u32, nets: &[(u32, IpNet)]) -> Vec<PolicyFact> {
    let (Some(destination), Ok(mut routing)) = (one_of(pods), Routing::open()) else {
        return Vec::new();
    };
    let own: Vec<IpAddr> = nets.iter().map(|(_, net)| net.addr()).collect();
    let sources = own
        .iter()
        .filter(|address| address.is_ipv4() == destination.is_ipv4() && !address.is_loopback());
    let mut facts: Vec<PolicyFact> = Vec::new();
    for source in sources.take(SOURCES) {
        let query = RouteQuery {
            source: Some(*source),
            destination,
            mark: 0,
            input: None,
        };
        let Ok(Some((device, policy))) = routing.detour(&query) else {
            continue;
        };
        let is_known = facts.iter().any(|fact| fact.policy.rule == policy.rule);
        if device != bridge && !is_known {
            facts.push(PolicyFact {
                source: *source,
                destination,
                overlay: None,
                policy,
            });
        }
    }
    facts
}
