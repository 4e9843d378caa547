//! Whether the pods' bridge, flannel's subnet, the CNI configuration and the node's podCIDR are of one mind.

mod address;
mod configuration;
mod leftovers;
mod reservations;
#[cfg(test)]
mod tests;

use std::net::IpAddr;

use ipnet::IpNet;

use super::{Answer, Check, Finding, Kind};
use crate::finding::Fix;
use crate::{
    host::{CniNetwork, CniPlugin, Reserved, SubnetEnv},
    network::{Device, Route},
    plural::counted,
};

const KIND: Kind = Kind::Doctor(Check::Bridge);

/// flannel's VXLAN device.
pub const FLANNEL: &str = "flannel.1";

/// All that was looked at.
#[derive(Clone, Debug)]
pub struct BridgeFacts {
    pub devices: Vec<Device>,
    /// Each with the index of its device.
    pub addresses: Vec<(u32, IpNet)>,
    pub routes: Vec<Route>,
    /// `None`: it is not there; the error in words.
    pub subnet_env: Option<Result<SubnetEnv, String>>,
    /// By the names of their files, in the order in which the runtime takes them: the first counts.
    pub networks: Vec<(String, Result<CniNetwork, String>)>,
    /// The kubelet runs, or is configured. Without one nobody needs a CNI configuration.
    pub has_kubelet: bool,
    /// The node, as the API reports it; else why it is unknown.
    pub node: Result<ApiNode, String>,
    pub reservations: Vec<Reserved>,
    /// Where they are.
    pub reserved_in: String,
    /// What could not be looked at, and why.
    pub unknown: Vec<String>,
}

/// What the API says of this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiNode {
    pub name: String,
    pub pod_cidrs: Vec<IpNet>,
    /// flannel takes its subnet from podCIDR here, and not from etcd.
    pub by_flannel: bool,
}

/// Who says which addresses this node's pods have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Authority {
    PodCidr,
    SubnetEnv,
    Cni,
}

impl Authority {
    const fn name(self) -> &'static str {
        match self {
            Self::PodCidr => "the node's podCIDR",
            Self::SubnetEnv => "flannel's subnet.env",
            Self::Cni => "the CNI configuration",
        }
    }
}

/// What should be, of one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Expected {
    /// The bridge's address with its prefix: of the pods' subnet.
    bridge: IpNet,
    says: Authority,
}

/// What the rules use.
struct Facts<'a> {
    seen: &'a BridgeFacts,
    /// The plugin that makes pods' devices.
    main: Option<&'a CniPlugin>,
    /// The bridge's name, whether or not it is there.
    bridge_name: &'a str,
    bridge: Option<&'a Device>,
    env: Option<&'a SubnetEnv>,
    /// What subnet.env says, where pods are given addresses by it.
    leased: Option<IpNet>,
    expected: Option<Expected>,
}

impl Facts<'_> {
    fn nets<'a>(&'a self, device: &'a Device) -> impl Iterator<Item = IpNet> + 'a {
        let of_device = |(index, net): &(u32, IpNet)| (*index == device.index).then_some(*net);
        self.seen.addresses.iter().filter_map(of_device)
    }

    fn node_name(&self) -> &str {
        self.seen.node.as_ref().map_or("NODE", |node| &node.name)
    }

    /// Pods that have an address, as far as is known.
    fn pods(&self) -> usize {
        let there = self.seen.reservations.iter();
        there.filter(|reserved| reserved.gone != Some(true)).count()
    }
}

/// What it comes to.
pub fn judge(seen: &BridgeFacts) -> Answer {
    let first = seen.networks.first();
    let main = first.and_then(|(_, network)| network.as_ref().ok()?.main());
    let bridge_name = main.and_then(|plugin| plugin.bridge.as_deref()).unwrap_or("cni0");
    let bridge = seen.devices.iter().find(|device| device.name == bridge_name);
    let flannel = seen.devices.iter().any(|device| device.name == FLANNEL);
    if first.is_none() && seen.subnet_env.is_none() && bridge.is_none() && !flannel {
        return Answer::not_applicable(
            Check::Bridge,
            "no CNI configuration, no subnet.env of flannel, no cni0: no pod of this node is on a bridge",
        );
    }
    if let (Some((file, _)), Some(plugin)) = (first, main)
        && plugin.bridge.is_none()
        && bridge.is_none()
        && !flannel
    {
        let why = format!(
            "the network plugin is {} ({file}), which uses no bridge",
            plugin.kind
        );
        return Answer::not_applicable(Check::Bridge, why);
    }
    let env = seen.subnet_env.as_ref().and_then(|env| env.as_ref().ok());
    // A range in the file goes before flannel's.
    let by_env = main.is_none_or(|plugin| plugin.ranges.is_empty());
    let leased = env.filter(|_| by_env).and_then(|env| v4(&env.subnets));
    let facts = Facts {
        seen,
        main,
        bridge_name,
        bridge,
        env,
        leased,
        expected: expected(seen, main, leased),
    };
    let mut faults = configuration::faults(&facts);
    faults.extend(address::faults(&facts));
    faults.extend(leftovers::faults(&facts));
    faults.extend(reservations::faults(&facts));
    let mut unknown = seen.unknown.clone();
    if let Err(why) = &seen.node {
        unknown.push(format!("the node's podCIDR: {why}"));
    }
    Answer::of(Check::Bridge, summary(&facts), faults).without(unknown)
}

/// The podCIDR, if it is known and flannel uses it; flannel's lease; the configuration's subnet.
fn expected(seen: &BridgeFacts, main: Option<&CniPlugin>, leased: Option<IpNet>) -> Option<Expected> {
    let of = |net: IpNet, says| {
        Some(Expected {
            bridge: first_of(net)?,
            says,
        })
    };
    let node = seen.node.as_ref().ok();
    // From etcd flannel leases what it likes.
    let goes_by = |node: &&ApiNode| node.by_flannel || leased.is_none();
    if let Some(cidr) = node.filter(goes_by).and_then(|node| v4(&node.pod_cidrs)) {
        return of(cidr, Authority::PodCidr);
    }
    if let Some(leased) = leased {
        return Some(Expected {
            bridge: leased,
            says: Authority::SubnetEnv,
        });
    }
    let given = main.and_then(|plugin| v4(&plugin.ranges))?;
    of(given, Authority::Cni)
}

fn v4(nets: &[IpNet]) -> Option<IpNet> {
    nets.iter().find(|net| net.addr().is_ipv4()).copied()
}

/// A subnet's first address, which the bridge plugin takes.
fn first_of(net: IpNet) -> Option<IpNet> {
    let first = match net.network() {
        IpAddr::V4(v4) => IpAddr::from(v4.to_bits().checked_add(1)?.to_be_bytes()),
        IpAddr::V6(v6) => IpAddr::from(v6.to_bits().checked_add(1)?.to_be_bytes()),
    };
    IpNet::new(first, net.prefix_len()).ok()
}

fn overlap(one: &IpNet, other: &IpNet) -> bool {
    one.contains(&other.network()) || other.contains(&one.network())
}

fn list(nets: impl Iterator<Item = IpNet>) -> String {
    let nets: Vec<_> = nets.map(|net| net.to_string()).collect();
    nets.join(", ")
}

fn summary(facts: &Facts<'_>) -> String {
    let mut parts = Vec::new();
    match facts.bridge {
        Some(bridge) => {
            let nets = list(facts.nets(bridge).filter(|net| net.addr().is_ipv4()));
            let nets = if nets.is_empty() {
                "no IPv4 address".to_owned()
            } else {
                nets
            };
            parts.push(format!("{} has {nets}", bridge.name));
        }
        None => parts.push(format!("{} is not there", facts.bridge_name)),
    }
    if let Some(expected) = facts.expected {
        let says = expected.says.name();
        parts.push(format!(
            "pods of this node have {} ({says})",
            expected.bridge.trunc()
        ));
    }
    if let Some((file, _)) = facts.seen.networks.first() {
        parts.push(format!("configured by {file}"));
    }
    let count = facts.seen.reservations.len();
    if count > 0 {
        parts.push(counted(count, "address is reserved", "addresses are reserved"));
    }
    parts.join("; ")
}

/// flannel's restart on this node, as one command for each name that its namespace has.
fn restart_flannel(node: &str) -> Fix {
    let of_node = format!("spec.nodeName={node}");
    Fix::run(
        [
            "kubectl",
            "-n",
            "kube-flannel",
            "delete",
            "pod",
            "-l",
            "app=flannel",
            "--field-selector",
            &of_node,
        ],
        "in older installations flannel is in kube-system",
    )
}

/// The subnet that Kubernetes gave the node.
fn pod_cidr(node: &str, why: &str) -> Fix {
    Fix::run(
        ["kubectl", "get", "node", node, "-o", "jsonpath={.spec.podCIDR}"],
        why,
    )
}

/// Commands that recreate pods that are disconnected, or whose addresses are no longer routed to them.
fn renew_pods(fault: Finding, node: &str) -> Finding {
    let of_node = format!("spec.nodeName={node}");
    fault
        .run(
            [
                "kubectl",
                "get",
                "pods",
                "-A",
                "-o",
                "wide",
                "--field-selector",
                &of_node,
            ],
            "pods with an address of the bridge, not of the node",
        )
        .advise("Delete each of these pods: a restarted container keeps the old address.")
}
