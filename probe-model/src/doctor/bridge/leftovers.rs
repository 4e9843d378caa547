//! What a former network left behind: devices and routes that have the pods' addresses, pods that are on no bridge.

use ipnet::IpNet;

use super::{FLANNEL, Facts, Finding, KIND, overlap, renew_pods, restart_flannel};
use crate::finding::Fix;
use crate::{network::Device, plural::counted};

pub(super) fn faults(facts: &Facts<'_>) -> Vec<Finding> {
    let mut faults = Vec::new();
    if let Some(expected) = facts.expected {
        let subnet = expected.bridge.trunc();
        for device in &facts.seen.devices {
            let is_bridge = device.name == facts.bridge_name;
            for net in facts.nets(device).filter(|_| !is_bridge) {
                faults.extend(other_device(facts, device, net, subnet));
            }
        }
        faults.extend(routes(facts, subnet));
    }
    faults.extend(without_bridge(facts));
    faults
}

/// An address that has no business on that device.
fn other_device(facts: &Facts<'_>, device: &Device, net: IpNet, subnet: IpNet) -> Option<Finding> {
    let name = &device.name;
    let all = facts.env.map(|env| env.networks.as_slice()).unwrap_or_default();
    let single = net.prefix_len() == net.max_prefix_len();
    if name == FLANNEL {
        // The subnet's own number, alone.
        if net.addr() == subnet.network() || net.addr().is_ipv6() {
            return None;
        }
        return Some(
            Finding::failed(
                KIND,
                format!(
                    "{name} has {}, which is outside {subnet}: replies from other nodes are misrouted",
                    net.addr()
                ),
            )
            .seen(format!("{name}: {net}"))
            .run(
                ["ip", "link", "delete", name],
                "flannel creates it when it starts",
            )
            .fix(restart_flannel(facts.node_name())),
        );
    }
    // A pod's own device on the host's side has the gateway's, or a single address.
    if single {
        return None;
    }
    let remedy = if device.bridge {
        Fix::run(
            ["ip", "link", "delete", name],
            "if a former network plugin left it, otherwise give it another subnet",
        )
    } else {
        Fix::run(
            ["ip", "addr", "del", &net.to_string(), "dev", name],
            "if it is left over, otherwise the cluster needs another pod network",
        )
    };
    if overlap(&net, &subnet) {
        return Some(
            Finding::failed(
                KIND,
                format!("{name} also has the pods' subnet: packets to pods are routed to it"),
            )
            .seen(format!("{name}: {net}"))
            .seen(format!("pods of this node: {subnet}"))
            .fix(remedy),
        );
    }
    let network = all.iter().find(|network| overlap(network, &net))?;
    Some(
        Finding::warning(
            KIND,
            format!(
                "{name} has addresses of the pod network: pods of other nodes with these addresses are \
             unreachable from this node"
            ),
        )
        .seen(format!("{name}: {net}"))
        .seen(format!("all pods: {network}"))
        .fix(remedy),
    )
}

/// Routes of the whole of this node's subnet, or a part of it, that lead elsewhere.
fn routes(facts: &Facts<'_>, subnet: IpNet) -> Vec<Finding> {
    let strays = facts.seen.routes.iter().filter(|route| {
        subnet.contains(&route.prefix)
            && route.prefix.prefix_len() < route.prefix.max_prefix_len()
            && route.device.is_some_and(|index| !is(facts, index))
    });
    let fault = |route: &crate::network::Route| {
        let device = facts
            .seen
            .devices
            .iter()
            .find(|device| Some(device.index) == route.device)?;
        // What its own address causes is reported with that address.
        if facts.nets(device).any(|net| net.trunc() == route.prefix) {
            return None;
        }
        Some(
            Finding::failed(
                KIND,
                format!(
                    "a route sends packets for this node's own pods elsewhere: {} by {}",
                    route.prefix, device.name
                ),
            )
            .seen(format!("pods of this node: {subnet}"))
            .run(
                [
                    "ip",
                    "route",
                    "del",
                    &route.prefix.to_string(),
                    "dev",
                    &device.name,
                ],
                "",
            ),
        )
    };
    strays.filter_map(fault).collect()
}

fn is(facts: &Facts<'_>, index: u32) -> bool {
    facts.bridge.is_some_and(|bridge| bridge.index == index)
}

/// Pods' devices that the bridge plugin made (`veth` and eight hex digits) and that are in no bridge, nor have a route.
fn without_bridge(facts: &Facts<'_>) -> Option<Finding> {
    let has_bridge = facts.main.is_none_or(|plugin| plugin.bridge.is_some());
    let made = |name: &str| {
        let number = name.strip_prefix("veth");
        number.is_some_and(|hex| hex.len() == 8 && hex.bytes().all(|byte| byte.is_ascii_hexdigit()))
    };
    let routed = |index: u32| facts.seen.routes.iter().any(|route| route.device == Some(index));
    let lost: Vec<&str> = facts
        .seen
        .devices
        .iter()
        .filter(|device| device.controller.is_none() && made(&device.name) && !routed(device.index))
        .map(|device| device.name.as_str())
        .collect();
    if lost.is_empty() || !has_bridge {
        return None;
    }
    let fault = Finding::failed(
        KIND,
        format!(
            "{} in no bridge, as after {} was deleted and created again",
            counted(
                lost.len(),
                "pod is disconnected: its device is",
                "pods are disconnected: their devices are"
            ),
            facts.bridge_name
        ),
    )
    .seen(lost.join(", "));
    Some(renew_pods(fault, facts.node_name()))
}
