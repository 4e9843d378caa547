//! The bridge's address, and who of bridge, subnet.env and podCIDR is wrong.

use ipnet::IpNet;

use super::{Authority, Expected, Facts, Finding, KIND, list, pod_cidr, renew_pods, restart_flannel};
use crate::{network::Device, plural::counted};

pub(super) fn faults(facts: &Facts<'_>) -> Vec<Finding> {
    let mut faults = Vec::new();
    // Whatever its address should be.
    faults.extend(
        facts
            .bridge
            .filter(|bridge| !bridge.up)
            .map(|bridge| down(facts, bridge)),
    );
    let Some(expected) = facts.expected else {
        return faults;
    };
    let stale = stale_lease(facts, expected);
    // flannel writes subnet.env when it starts, and the bridge plugin uses it.
    let is_stale = stale.is_some();
    faults.extend(stale);
    match facts.bridge {
        Some(bridge) if bridge.up => faults.extend(wrong_address(facts, bridge, expected, is_stale)),
        Some(_) => {}
        None if facts.pods() > 0 => faults.push(no_bridge(facts)),
        None => {}
    }
    faults
}

/// subnet.env, or a fixed range, is of another subnet than the node's.
fn stale_lease(facts: &Facts<'_>, expected: Expected) -> Option<Finding> {
    if expected.says != Authority::PodCidr {
        return None;
    }
    let subnet = expected.bridge.trunc();
    let node = facts.node_name();
    if let Some(lease) = facts.leased.filter(|lease| lease.trunc() != subnet) {
        let fault = Finding::failed(KIND, format!(
            "flannel assigns pod addresses of {}, but this node's podCIDR is {subnet}: other nodes have no \
             route to them",
            lease.trunc()
        ))
        .seen(format!("/run/flannel/subnet.env: FLANNEL_SUBNET={lease}"))
        .seen(format!("node {node}: podCIDR {subnet}"))
        .run(["rm", "/run/flannel/subnet.env"], "flannel writes it again when it starts")
        .fix(restart_flannel(node));
        let right = facts
            .bridge
            .is_some_and(|bridge| facts.nets(bridge).any(|net| net == expected.bridge));
        return Some(if right {
            fault.advise(format!(
                "Leave {} as it is: its address is right.",
                facts.bridge_name
            ))
        } else {
            fault
        });
    }
    let plugin = facts.main?;
    let range = plugin.ranges.iter().find(|range| range.addr().is_ipv4())?;
    if facts.leased.is_some() || subnet.contains(range) {
        return None;
    }
    let file = facts.seen.networks.first().map_or("", |(file, _)| file);
    Some(
        Finding::failed(
            KIND,
            format!(
                "the CNI configuration assigns pod addresses of {range}, but this node's podCIDR is {subnet}"
            ),
        )
        .seen(format!("{file}: subnet {range}"))
        .seen(format!("node {node}: podCIDR {subnet}"))
        .advise(format!(
            "Replace {range} by {subnet} in {file}: the runtime reads it for the next pod."
        )),
    )
}

fn down(facts: &Facts<'_>, bridge: &Device) -> Finding {
    let name = &bridge.name;
    let nets = facts.nets(bridge).filter(|net| net.addr().is_ipv4());
    Finding::failed(KIND, format!("{name} is down: pods of this node have no network"))
        .seen(format!("{name} is not up; its address: {}", list(nets)))
        .run(
            ["ip", "link", "set", name, "up"],
            "and find out what took it down",
        )
}

fn wrong_address(facts: &Facts<'_>, bridge: &Device, expected: Expected, stale: bool) -> Option<Finding> {
    let name = &bridge.name;
    let nets: Vec<IpNet> = facts.nets(bridge).filter(|net| net.addr().is_ipv4()).collect();
    let wanted = expected.bridge;
    match nets.as_slice() {
        // The next pod brings it its address.
        [] => None,
        [first, ..] if *first != wanted => Some(conflict(facts, bridge, expected, &nets, stale)),
        [_] => None,
        [_, others @ ..] => Some(others.iter().fold(
            Finding::warning(KIND, format!(
                "{name} has another address beside {wanted}: pods of that subnet no longer belong to this \
                 node"
            ))
            .seen(format!("{name}: {}", list(nets.iter().copied()))),
            |fault, other| fault.run(["ip", "addr", "del", &other.to_string(), "dev", name], ""),
        )),
    }
}

/// What the bridge plugin refuses.
fn conflict(facts: &Facts<'_>, bridge: &Device, expected: Expected, nets: &[IpNet], stale: bool) -> Finding {
    let (name, wanted) = (&bridge.name, expected.bridge);
    let has = list(nets.iter().copied());
    if facts.main.is_some_and(|plugin| plugin.force_address) {
        return Finding::warning(
            KIND,
            format!(
                "{name} has {has} instead of {wanted}: the next pod start changes it (forceAddress) and \
                 disconnects running pods"
            ),
        );
    }
    let fault = Finding::failed(
        KIND,
        format!("no new pod can start: \"{name}\" already has an IP address different from {wanted}"),
    )
    .seen(format!("{name}: {has}"))
    .seen(format!("{}: {}", expected.says.name(), wanted.trunc()));
    let mut fault = match facts.leased {
        Some(lease) => fault.seen(format!("/run/flannel/subnet.env: FLANNEL_SUBNET={lease}")),
        None => fault,
    };
    let node = facts.node_name();
    if expected.says == Authority::SubnetEnv && facts.seen.node.is_err() {
        fault = fault.fix(pod_cidr(
            node,
            "if it is the bridge's subnet, subnet.env is outdated: only restart flannel on this node",
        ));
    }
    if stale {
        fault = fault
            .advise("First apply the fix for flannel above: otherwise the bridge gets its old subnet again.");
    }
    let pods = match facts.pods() {
        0 => String::new(),
        pods => format!(
            "disconnects {} until they are created again",
            counted(pods, "pod on it", "pods on it")
        ),
    };
    fault = fault.run(["ip", "link", "set", name, "down"], pods).run(
        ["ip", "link", "delete", name],
        format!("the plugin creates it for the next pod, with {wanted}"),
    );
    renew_pods(fault, node)
}

fn no_bridge(facts: &Facts<'_>) -> Finding {
    let name = facts.bridge_name;
    let fault = Finding::failed(
        KIND,
        format!(
            "{name} is missing, and {} disconnected",
            counted(facts.pods(), "pod that was on it is", "pods that were on it are")
        ),
    )
    .seen(format!(
        "{}: {}",
        facts.seen.reserved_in,
        counted(facts.pods(), "address is reserved", "addresses are reserved")
    ));
    renew_pods(fault, facts.node_name())
}
