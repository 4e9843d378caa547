//! The host's settings: conntrack's table, forwarding, bridge filtering, rp_filter, MTU, checksums, the clock.

mod conntrack;
mod forwarding;
mod routing;
mod services;
mod sizes;
#[cfg(test)]
mod tests;

use std::{net::IpAddr, time::Duration};

use ipnet::IpNet;

use super::{Answer, Check, Finding, Kind};
use crate::probe_command;
use crate::{
    bypass::service::ServiceRules,
    routing::{PolicyRoute, PolicyRule},
    rule::{CandidateRule, RuleFlow},
    vxlan::Overlay,
};

const KIND: Kind = Kind::Doctor(Check::Settings);

/// All that was collected; counters are of a window.
#[derive(Clone, Debug, Default)]
pub struct SettingsFacts {
    pub window: Duration,
    pub conntrack: Option<Table>,
    /// `net.ipv4.ip_forward`
    pub forwarding: Option<bool>,
    /// `net.ipv4.conf.all.rp_filter`
    pub rp_filter: u8,
    /// Packets that rp_filter dropped.
    pub reverse_path: Growth,
    /// The devices that they came by, as far as that was seen, with how many; empty: it was not.
    pub strays: Vec<(String, u64)>,
    /// Where policy routing takes packets to this node's pods away from their bridge.
    pub policies: Vec<PolicyFact>,
    /// The devices that pods' packets use.
    pub devices: Vec<DeviceSettings>,
    /// `net.bridge.bridge-nf-call-iptables`; `None`: br_netfilter is not loaded.
    pub bridge_filtering: Option<bool>,
    /// Services that kube-proxy's rules are for.
    pub services: usize,
    /// Those of kube-proxy's rule sets, if there are several.
    pub rule_sets: Vec<ServiceRules>,
    /// Cluster IPs that are addresses of another network.
    pub cluster_ips: Vec<ClusterIpOverlap>,
    /// Routing rules that reject packets from pods here to those of another node.
    pub rejections: Vec<PolicyRejection>,
    /// This node's pods, by the bridge's address.
    pub pods: Option<IpNet>,
    /// Rules that drop what goes from or to pods.
    pub droppers: Vec<Dropper>,
    pub overlays: Vec<Overlay>,
    /// FLANNEL_MTU.
    pub flannel_mtu: Option<u32>,
    /// UDP packets with a wrong checksum.
    pub checksum_errors: Growth,
    /// VXLAN devices, and whether they leave checksums to what is below.
    pub offload: Vec<(String, Option<bool>)>,
    pub clock: Option<Clock>,
    /// What could not be looked at, and why.
    pub unknown: Vec<String>,
}

/// A routing policy rule that takes packets to this node's pods away from their bridge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyFact {
    /// The node's address that the packets are from.
    pub source: IpAddr,
    /// A pod's.
    pub destination: IpAddr,
    /// The VXLAN device that packets to pods of other nodes should leave by; `None`: the packets are to this node's own pods.
    pub overlay: Option<String>,
    pub policy: PolicyRoute,
}

/// A routing policy rule that rejects packets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyRejection {
    pub source: IpAddr,
    pub destination: IpAddr,
    pub rule: PolicyRule,
}

/// Cluster IPs within a network that this node has a route to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterIpOverlap {
    pub network: IpNet,
    /// The device that the network is at.
    pub device: String,
    /// Pods of another node, else the network of the device itself.
    pub is_of_pods: bool,
    /// Names and addresses, some of them.
    pub services: Vec<String>,
    pub count: usize,
}

/// A counter that only goes up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Growth {
    /// At the end.
    pub total: u64,
    /// While it was looked at.
    pub grown: u64,
}

impl Growth {
    pub const fn of(before: u64, after: u64) -> Self {
        Self {
            total: after,
            grown: after.saturating_sub(before),
        }
    }
}

/// conntrack's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Table {
    pub entries: u64,
    pub room: u64,
    /// `None`: its counts could not be asked for.
    pub counts: Option<Counts>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub insert_failed: Growth,
    pub drop: Growth,
    pub early_drop: Growth,
}

/// What a device is to the pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Bridge,
    Vxlan,
    Underlay,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceSettings {
    pub name: String,
    pub role: Role,
    pub mtu: u32,
    pub forwarding: Option<bool>,
    pub rp_filter: u8,
}

/// A rule, or a policy, that certainly catches what goes from or to pods, if nothing before it lets it go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dropper {
    pub rule: CandidateRule,
    /// Which way.
    pub way: String,
    /// The packets that it drops.
    pub flow: RuleFlow,
}

/// The node's clock.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Clock {
    pub synchronised: bool,
    /// Microseconds that it may be off.
    pub maximal_error_us: i64,
    /// A program that runs and keeps clocks.
    pub keeper: Option<String>,
}

/// What it comes to.
pub fn judge(seen: &SettingsFacts) -> Answer {
    let mut faults = conntrack::faults(seen);
    faults.extend(forwarding::faults(seen));
    faults.extend(services::faults(seen));
    faults.extend(routing::faults(seen));
    faults.extend(sizes::faults(seen));
    faults.extend(checksums(seen));
    faults.extend(seen.clock.as_ref().and_then(clock));
    Answer::of(Check::Settings, summary(seen), faults).without(seen.unknown.clone())
}

/// A device's setting as sysctl takes it: a dot in the device's name, as flannel's or a VLAN's has, would separate.
fn setting(device: &str, name: &str) -> String {
    match device.contains('.') {
        true => format!("net/ipv4/conf/{device}/{name}"),
        false => format!("net.ipv4.conf.{device}.{name}"),
    }
}

fn seconds(seen: &SettingsFacts) -> String {
    format!("{} s", seen.window.as_secs_f64().round())
}

fn checksums(seen: &SettingsFacts) -> Option<Finding> {
    let Growth { total, grown } = seen.checksum_errors;
    if grown == 0 {
        return None;
    }
    let says = format!(
        "{grown} UDP packets with a wrong checksum were dropped in {}",
        seconds(seen)
    );
    let fault = match seen.overlays.is_empty() {
        true => Finding::warning(KIND, says),
        false => Finding::failed(KIND, says),
    };
    let device = seen
        .overlays
        .first()
        .map_or("flannel.1", |overlay| &overlay.device.name);
    Some(
        fault
            .seen(format!("Udp InCsumErrors: {total} since boot"))
            .run(
                ["ethtool", "-K", device, "tx-checksum-ip-generic", "off"],
                "on the sending nodes: some kernels and network cards offload VXLAN checksums wrongly",
            )
            .fix(probe_command::vxlan("shows which peers send them")),
    )
}

fn clock(clock: &Clock) -> Option<Finding> {
    if clock.synchronised {
        return None;
    }
    let fault = Finding::warning(
        KIND,
        "the clock is not synchronized: certificates, leases and log times depend on it",
    )
    .seen("adjtimex: STA_UNSYNC");
    Some(match &clock.keeper {
        Some(keeper) => fault
            .seen(format!("{keeper} runs"))
            .advise(format!("Check whether {keeper} reaches its servers.")),
        None => fault
            .seen("no time daemon runs (chronyd, ntpd, systemd-timesyncd, ptp4l)")
            .run(["systemctl", "enable", "--now", "systemd-timesyncd"], "or chrony"),
    })
}

fn summary(seen: &SettingsFacts) -> String {
    let mut parts = Vec::new();
    if let Some(table) = seen.conntrack {
        parts.push(format!(
            "conntrack has {} of {} entries",
            table.entries, table.room
        ));
        let past = table.counts.unwrap_or_default();
        for (name, growth) in [
            ("insert_failed", past.insert_failed),
            ("drop", past.drop),
            ("early_drop", past.early_drop),
        ] {
            if growth.total > 0 && growth.grown == 0 {
                parts.push(format!("{name} {} before", growth.total));
            }
        }
    } else {
        parts.push("conntrack is not loaded".to_owned());
    }
    for (device, on) in &seen.offload {
        let word = match on {
            Some(true) => "on",
            Some(false) => "off",
            None => "unknown",
        };
        parts.push(format!("checksum offload of {device} is {word}"));
    }
    let errors = seen.checksum_errors;
    if errors.total > 0 && errors.grown == 0 {
        parts.push(format!("{} wrong UDP checksums before", errors.total));
    }
    if seen.clock.as_ref().is_some_and(|clock| clock.synchronised) {
        parts.push("the clock is synchronized".to_owned());
    }
    parts.join("; ")
}
