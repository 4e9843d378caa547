//! host-local's reservations: of pods that are gone, of another subnet, and how full the range is.

use std::{net::IpAddr, time::Duration};

use super::{Facts, Finding, KIND};
use crate::finding::Fix;
use crate::{host::Reserved, plural::counted};

/// A sandbox that is being made has its address before the runtime lists it.
const YOUNG: Duration = Duration::from_secs(120);
/// As many are named.
const NAMED: usize = 5;
/// Percent of the range that are nearly all.
const NEARLY: usize = 90;

pub(super) fn faults(facts: &Facts<'_>) -> Vec<Finding> {
    let Some(expected) = facts.expected else {
        return Vec::new();
    };
    let subnet = expected.bridge.trunc();
    let all = &facts.seen.reservations;
    let place = &facts.seen.reserved_in;
    let is_gone = |reserved: &&Reserved| reserved.gone == Some(true) && reserved.age >= YOUNG;
    let gone: Vec<&Reserved> = all.iter().filter(is_gone).collect();
    let mut faults = Vec::new();
    let v4 = |reserved: &&Reserved| reserved.reservation.address.is_ipv4();
    let strangers: Vec<&Reserved> = all
        .iter()
        .filter(v4)
        .filter(|reserved| reserved.gone != Some(true) && !subnet.contains(&reserved.reservation.address))
        .collect();
    if !strangers.is_empty() {
        let living = strangers.iter().any(|reserved| reserved.gone == Some(false));
        let says = format!(
            "{} not of {subnet}",
            counted(
                strangers.len(),
                "pod has an address that is",
                "pods have addresses that are"
            )
        );
        let fault = if living {
            Finding::failed(KIND, says)
        } else {
            Finding::warning(KIND, says)
        };
        faults.push(super::renew_pods(
            fault.seen(format!("in {place}: {}", named(&strangers))),
            facts.node_name(),
        ));
    }
    let inside = all
        .iter()
        .filter(v4)
        .filter(|reserved| subnet.contains(&reserved.reservation.address));
    let used = inside.count();
    let room = room(subnet);
    let full = room.is_some_and(|room| used >= room);
    if let Some(room) = room.filter(|room| used * 100 >= room * NEARLY) {
        let says = match full {
            true => format!("no new pod can start: no IP addresses available in {subnet}"),
            false => format!("addresses run out: {used} of the {room} in {subnet} are reserved"),
        };
        let fault = if full {
            Finding::failed(KIND, says)
        } else {
            Finding::warning(KIND, says)
        };
        let fault = fault.seen(format!(
            "{place}: {used} reserved, {} of them by deleted pods",
            gone.len()
        ));
        faults.push(match gone.is_empty() {
            true => fault.advise("Run fewer pods on this node (maxPods of kubelet), or give nodes larger subnets (node-cidr-mask-size of the cluster)."),
            false => fault.advise("Remove the reservations of deleted pods, as shown below."),
        });
    }
    if !gone.is_empty() {
        let files: Vec<_> = gone
            .iter()
            .take(NAMED)
            .map(|reserved| format!("{place}/{}", reserved.reservation.address))
            .collect();
        let fault = Finding::warning(
            KIND,
            format!(
                "{}, as after a crash",
                counted(
                    gone.len(),
                    "address is reserved for a deleted pod",
                    "addresses are reserved for deleted pods"
                )
            ),
        )
        .seen(format!("in {place}: {}", named(&gone)))
        .seen("the container runtime has no such sandboxes");
        let more = if gone.len() > NAMED { "and so on" } else { "" };
        let argv = std::iter::once("rm".to_owned()).chain(files);
        faults.push(fault.fix(Fix::run(argv, more)));
    }
    faults
}

/// How many addresses host-local gives: neither the network's own, nor the bridge's, nor the last.
fn room(subnet: ipnet::IpNet) -> Option<usize> {
    let bits = u32::from(subnet.max_prefix_len().checked_sub(subnet.prefix_len())?);
    (subnet.addr().is_ipv4() && (2..=16).contains(&bits)).then(|| (1 << bits) - 3)
}

fn named(reserved: &[&Reserved]) -> String {
    let address = |reserved: &&Reserved| -> (IpAddr, String) {
        let container = &reserved.reservation.container;
        let id: String = container.chars().take(13).collect();
        (reserved.reservation.address, id)
    };
    let mut all: Vec<_> = reserved.iter().map(address).collect();
    all.sort();
    let mut text: Vec<_> = all
        .iter()
        .take(NAMED)
        .map(|(address, id)| format!("{address} ({id})"))
        .collect();
    if all.len() > NAMED {
        text.push(format!("and {} more", all.len() - NAMED));
    }
    text.join(", ")
}
