//! Gathers what the settings check judges.

mod routing;

use std::{collections::HashSet, net::IpAddr, thread, time::Instant};

use ipnet::IpNet;

use self::routing::{ReversePathDrops, far_pods, policies};
use super::{CheckContext, kubelet::Kubelet};
use crate::{
    attribution::procfs::Proc,
    commands::{rule_book::RuleSnapshot, vxlan::checksums},
    host::{cni, proc_net::setting, subnet_env},
    kernel::clock_sync,
    model::{
        Finding,
        bypass::service::Service,
        doctor::{
            Answer, Check,
            settings::{
                Clock, ClusterIpOverlap, Counts, DeviceSettings, Dropper, Growth, Role, SettingsFacts, Table,
                judge,
            },
        },
        finding::Kind,
        rule::{Action, PacketPath, RuleFlow},
        vxlan::{Overlay, overlay::Tables},
    },
    netfilter::{
        conntrack::{self, Conntrack},
        rules::{Packet, PathPosition},
    },
    rtnetlink::{RouteError, Routing, offload},
};

/// Programs that keep clocks, by the kernel's names of them, which are cut.
const KEEPERS: [&str; 6] = [
    "chronyd",
    "ntpd",
    "systemd-timesyn",
    "ptp4l",
    "phc2sys",
    "openntpd",
];
const TCP: u8 = 6;
/// Services named of one network, and networks that are reported.
const NAMED: usize = 3;
const OVERLAPS: usize = 8;

pub fn run(node: &CheckContext) -> Answer {
    let (tables, nets) = match tables() {
        Ok(tables) => tables,
        Err(error) => {
            return Answer::of(
                Check::Settings,
                "not checked",
                vec![Finding::warning(Kind::Doctor(Check::Settings), error.to_string())],
            );
        }
    };
    let overlays = Overlay::all(&tables);
    let bridge = bridge(node);
    let bridge = tables
        .devices
        .iter()
        .find(|device| device.bridge && device.name == bridge);
    let has_files = node.root.text(subnet_env::PATH).is_ok()
        || node
            .root
            .names(cni::DIRECTORY)
            .is_ok_and(|names| names.iter().any(|name| cni::is_one(name)));
    if bridge.is_none() && overlays.is_empty() && !has_files && !Kubelet::find(node).is_here {
        let why =
            "not a Kubernetes node: no kubelet, no CNI configuration, no pod bridge and no VXLAN device";
        return Answer::not_applicable(Check::Settings, why);
    }
    let begun = Instant::now();
    let mut seen = SettingsFacts {
        window: node.settings.duration,
        forwarding: switch("net/ipv4/ip_forward"),
        rp_filter: setting("net/ipv4/conf/all/rp_filter").unwrap_or(0) as u8,
        bridge_filtering: switch("net/bridge/bridge-nf-call-iptables"),
        flannel_mtu: node
            .root
            .text(subnet_env::PATH)
            .ok()
            .and_then(|text| subnet_env::parse(&text).mtu),
        clock: clock(),
        ..SettingsFacts::default()
    };
    let vxlans = overlays
        .iter()
        .map(|overlay| (overlay.device.name.clone(), overlay.device.mtu, Role::Vxlan));
    let underlays = overlays
        .iter()
        .filter_map(|overlay| overlay.underlay.as_ref())
        .map(|underlay| (underlay.name.clone(), underlay.mtu, Role::Underlay));
    let bridges = bridge.map(|bridge| (bridge.name.clone(), bridge.mtu, Role::Bridge));
    seen.devices = bridges
        .into_iter()
        .chain(vxlans)
        .chain(underlays)
        .map(device)
        .collect();
    seen.devices.dedup_by(|one, other| one.name == other.name);
    seen.offload = overlays
        .iter()
        .map(|overlay| {
            (
                overlay.device.name.clone(),
                offload::checksums(&overlay.device.name),
            )
        })
        .collect();
    seen.pods = bridge.and_then(|bridge| {
        let of_bridge = |(index, net): &&(u32, IpNet)| *index == bridge.index && net.addr().is_ipv4();
        nets.iter().find(of_bridge).map(|(_, net)| net.trunc())
    });

    let (before, mut asker) = counts(&mut seen.unknown);
    let (errors, strays) = (checksums::udp(), checksums::reverse_path());
    let drops = ReversePathDrops::begin(node);
    let snapshot = node.rules();
    seen.services = snapshot.services.len();
    seen.rule_sets = snapshot.rule_sets.as_ref().clone();
    seen.cluster_ips = cluster_ips(&snapshot.services, &nets, &tables, &overlays);
    seen.unknown.extend(snapshot.unread());
    if let (Some(pods), Some(bridge)) = (seen.pods, bridge) {
        seen.droppers = droppers(&snapshot, pods, &bridge.name, &overlays);
        seen.policies = policies(pods, bridge.index, &nets);
        let far = far_pods(pods, (bridge.index, &bridge.name), &overlays);
        seen.policies.extend(far.0);
        seen.rejections = far.1;
    }
    thread::sleep(node.settings.duration.saturating_sub(begun.elapsed()));
    seen.checksum_errors = Growth::of(errors, checksums::udp());
    seen.reverse_path = Growth::of(strays, checksums::reverse_path());
    seen.strays = drops.map_or_else(Vec::new, |drops| drops.by_device(&tables));
    let after = asker.as_mut().and_then(|asker| asker.counts().ok());
    seen.conntrack = table(before, after);
    seen.overlays = overlays;
    judge(&seen)
}

fn tables() -> Result<(Tables, Vec<(u32, IpNet)>), RouteError> {
    let mut routing = Routing::open()?;
    let nets = routing.nets()?;
    let tables = routing.tables()?;
    Ok((tables, nets))
}

/// The name of the pods' bridge.
fn bridge(node: &CheckContext) -> String {
    let names = node.root.names(cni::DIRECTORY).unwrap_or_default();
    let first = names.iter().find(|name| cni::is_one(name));
    let text = first.and_then(|name| node.root.text(format!("{}/{name}", cni::DIRECTORY)).ok());
    let network = text.and_then(|text| cni::parse(&text).ok());
    let named = network.and_then(|network| network.main()?.bridge.clone());
    named.unwrap_or_else(|| cni::BRIDGE.to_owned())
}

fn device((name, mtu, role): (String, u32, Role)) -> DeviceSettings {
    let of = |setting: &str| format!("net/ipv4/conf/{name}/{setting}");
    DeviceSettings {
        forwarding: switch(&of("forwarding")),
        rp_filter: setting(&of("rp_filter")).unwrap_or(0) as u8,
        mtu,
        role,
        name,
    }
}

fn switch(name: &str) -> Option<bool> {
    setting(name).map(|value| value != 0)
}

fn counts(unknown: &mut Vec<String>) -> (Option<conntrack::Counts>, Option<Conntrack>) {
    let asked = Conntrack::open(None).and_then(|mut asker| Ok((asker.counts()?, asker)));
    match asked {
        Ok((counts, asker)) => (Some(counts), Some(asker)),
        Err(conntrack::ConntrackError::NotLoaded) => (None, None),
        Err(error) => {
            unknown.push(format!("conntrack's counts: {error}"));
            (None, None)
        }
    }
}

fn table(before: Option<conntrack::Counts>, after: Option<conntrack::Counts>) -> Option<Table> {
    let counts = before.zip(after).map(|(before, after)| Counts {
        insert_failed: Growth::of(before.insert_failed, after.insert_failed),
        drop: Growth::of(before.drop, after.drop),
        early_drop: Growth::of(before.early_drop, after.early_drop),
    });
    Some(Table {
        entries: setting("net/netfilter/nf_conntrack_count")?,
        room: setting("net/netfilter/nf_conntrack_max")?,
        counts,
    })
}

/// The rules that catch packets from a pod to one of another node, and back; or to somewhere else.
fn droppers(snapshot: &RuleSnapshot, pods: IpNet, bridge: &str, overlays: &[Overlay]) -> Vec<Dropper> {
    let far = overlays.iter().find_map(|overlay| {
        let net = overlay
            .peers
            .iter()
            .flat_map(|peer| &peer.routes)
            .find(|net| net.addr().is_ipv4())?;
        Some((
            one_of(*net)?,
            Some(overlay.device.name.clone()),
            "pods of other nodes",
        ))
    });
    // 192.0.2.0/24 is reserved for documentation (RFC 5737).
    let far = far.unwrap_or((IpAddr::from([192, 0, 2, 1]), None, "others"));
    let Some(pod) = one_of(pods) else {
        return Vec::new();
    };
    let (address, device, who) = far;
    let here = Some(bridge.to_owned());
    let ways = [
        (
            pod,
            address,
            here.clone(),
            device.clone(),
            format!("traffic from pods to {who}"),
        ),
        (address, pod, device, here, format!("traffic from {who} to pods")),
    ];
    let mut found: Vec<Dropper> = Vec::new();
    for (source, destination, input, output, way) in ways {
        let packet = Packet {
            path: PacketPath::Forward,
            protocol: TCP,
            source,
            destination,
            source_port: None,
            destination_port: None,
            input,
            output,
            is_new: true,
            position: PathPosition::Anywhere,
        };
        // All pods of this node, whatever they talk to.
        let end = |address: IpAddr| (address == pod).then_some(pods);
        let flow = RuleFlow {
            path: PacketPath::Forward,
            protocol: None,
            source: end(source),
            destination: end(destination),
            source_port: None,
            destination_port: None,
        };
        let mut candidates = snapshot
            .rules
            .candidates(&packet, &[Action::Drop, Action::Reject]);
        candidates.retain(|candidate| candidate.certain);
        for rule in snapshot.whole(candidates) {
            match found.iter_mut().find(|known| known.rule == rule) {
                Some(known) => known.way = format!("traffic between pods and {who}"),
                None => found.push(Dropper {
                    rule,
                    way: way.clone(),
                    flow,
                }),
            }
        }
    }
    found
}

/// Cluster IPs that are within the network of a device, or within the pods' of another node.
fn cluster_ips(
    services: &[Service],
    nets: &[(u32, IpNet)],
    tables: &Tables,
    overlays: &[Overlay],
) -> Vec<ClusterIpOverlap> {
    let own: HashSet<IpAddr> = nets.iter().map(|(_, net)| net.addr()).collect();
    let name = |index: u32| {
        let mut devices = tables.devices.iter();
        devices.find(|device| device.index == index && device.name != "lo")
    };
    let of_nodes = nets
        .iter()
        .filter_map(|(index, net)| Some((net.trunc(), name(*index)?.name.clone(), false)));
    let of_pods = overlays.iter().flat_map(|overlay| {
        let routes = overlay.peers.iter().flat_map(|peer| &peer.routes);
        routes.map(|net| (*net, overlay.device.name.clone(), true))
    });
    let is_network = |net: &IpNet| net.prefix_len() > 0 && net.prefix_len() < net.max_prefix_len();
    let mut found = Vec::new();
    for (network, device, is_of_pods) in of_nodes.chain(of_pods).filter(|(net, ..)| is_network(net)) {
        let is_within = |service: &&Service| {
            let address = service.address.ip();
            service.is_cluster_ip && network.contains(&address) && !own.contains(&address)
        };
        let mut within: Vec<_> = services.iter().filter(is_within).collect();
        within.sort_by_key(|service| service.address);
        let named = within.iter().take(NAMED).map(ToString::to_string).collect();
        within.dedup_by_key(|service| service.address.ip());
        if !within.is_empty() && found.len() < OVERLAPS {
            found.push(ClusterIpOverlap {
                network,
                device,
                is_of_pods,
                services: named,
                count: within.len(),
            });
        }
    }
    found
}

/// An address that a pod there may have.
fn one_of(net: IpNet) -> Option<IpAddr> {
    net.hosts().nth(1)
}

fn clock() -> Option<Clock> {
    let kept = clock_sync::kept()?;
    let proc = Proc::new("/proc".into());
    let names = proc.pids().into_iter().filter_map(|pid| proc.identity(pid));
    let keeper = names
        .map(|(name, _)| name)
        .find(|name| KEEPERS.contains(&name.as_str()));
    Some(Clock {
        synchronised: kept.synchronised,
        maximal_error_us: kept.maximal_error_us,
        keeper,
    })
}
