//! MTUs: a packet and VXLAN's headers have to find room in the underlay's.

use super::{Finding, KIND, Role, SettingsFacts};
use crate::vxlan::{Overlay, overlay::Underlay};

pub(super) fn faults(seen: &SettingsFacts) -> Vec<Finding> {
    let overlays = seen.overlays.iter();
    let with_underlay = overlays.filter_map(|overlay| Some((overlay, overlay.underlay.as_ref()?)));
    with_underlay
        .flat_map(|(overlay, underlay)| of_overlay(seen, overlay, underlay))
        .collect()
}

fn of_overlay(seen: &SettingsFacts, overlay: &Overlay, underlay: &Underlay) -> Vec<Finding> {
    let (name, mtu) = (&overlay.device.name, overlay.device.mtu);
    let overhead = overlay.overhead();
    let most = underlay.mtu.saturating_sub(overhead);
    let room = format!(
        "{}: MTU {}, of which VXLAN takes {overhead}",
        underlay.name, underlay.mtu
    );
    let mut faults = Vec::new();
    if mtu > most {
        faults.push(
            Finding::failed(KIND, format!(
                "large packets between nodes are lost or fragmented: {name} has MTU {mtu}, and {} carries \
                 only {most}",
                underlay.name
            ))
            .seen(format!("{name}: MTU {mtu}"))
            .seen(room.clone())
            .run(["ip", "link", "set", name, "mtu", &most.to_string()], "until flannel restarts")
            .advise(format!(
                "To make it permanent, set the MTU of {}, which flannel uses, or MTU of Backend in its \
                 net-conf.json.",
                underlay.name
            )),
        );
    }
    if let Some(flannel) = seen
        .flannel_mtu
        .filter(|flannel| name == super::super::bridge::FLANNEL && *flannel != mtu)
    {
        let says = format!("pods get MTU {flannel}, but {name} has {mtu}");
        let fault = if flannel > most {
            Finding::failed(KIND, says)
        } else {
            Finding::warning(KIND, says)
        };
        faults.push(
            fault
                .seen(format!("/run/flannel/subnet.env: FLANNEL_MTU={flannel}"))
                .seen(room)
                .advise(
                    "Restart flannel on this node: it writes the MTU again; pods keep theirs until they \
                         are created again.",
                ),
        );
    }
    let wider = seen
        .devices
        .iter()
        .find(|device| device.role == Role::Bridge && device.mtu > mtu);
    if let Some(bridge) = wider {
        faults.push(
            Finding::warning(KIND, format!(
                "{} carries packets of {} bytes that {name} does not: pods that get no ICMP error lose them",
                bridge.name, bridge.mtu
            ))
            .seen(format!("{}: MTU {}; {name}: MTU {mtu}", bridge.name, bridge.mtu))
            .run(
                ["ip", "link", "set", &bridge.name, "mtu", &mtu.to_string()],
                "for new pods: mtu in the CNI configuration",
            ),
        );
    }
    faults
}
