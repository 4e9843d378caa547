//! What keeps pods' packets from being forwarded.

use super::{Finding, KIND, Role, SettingsFacts, setting};

pub(super) fn faults(seen: &SettingsFacts) -> Vec<Finding> {
    let mut faults = Vec::new();
    faults.extend(off(seen));
    faults.extend(bridge_filtering(seen));
    faults.extend(dropped(seen));
    faults
}

fn off(seen: &SettingsFacts) -> Option<Finding> {
    if seen.devices.is_empty() {
        return None;
    }
    let set = |fault: Finding, name: &str| {
        fault.run(
            ["sysctl", "-w", &format!("{name}=1")],
            "permanently by a file in /etc/sysctl.d, one there may set it to 0",
        )
    };
    if seen.forwarding == Some(false) {
        let fault = Finding::failed(
            KIND,
            "IP forwarding is off: pods can't reach other nodes, and can't be reached",
        );
        return Some(set(fault.seen("net.ipv4.ip_forward = 0"), "net.ipv4.ip_forward"));
    }
    let off: Vec<_> = seen
        .devices
        .iter()
        .filter(|device| device.forwarding == Some(false))
        .collect();
    let names: Vec<_> = off.iter().map(|device| device.name.as_str()).collect();
    let fault = Finding::failed(
        KIND,
        format!(
            "IP forwarding is off for packets that arrive on {}",
            names.join(", ")
        ),
    );
    (!off.is_empty()).then(|| {
        off.iter().fold(fault, |fault, device| {
            let name = setting(&device.name, "forwarding");
            set(fault.seen(format!("{name} = 0")), &name)
        })
    })
}

/// A Service whose backend is on the same bridge: without it the answer does not pass conntrack, which would translate it
/// back.
fn bridge_filtering(seen: &SettingsFacts) -> Option<Finding> {
    let has_bridge = seen.devices.iter().any(|device| device.role == Role::Bridge);
    if !has_bridge || seen.services == 0 || seen.bridge_filtering == Some(true) {
        return None;
    }
    let fault = Finding::failed(
        KIND,
        "a Service is unreachable from a pod on its endpoint's node: the reply bypasses NAT and has the \
         endpoint's address",
    );
    let set = |fault: Finding| {
        fault.run(
            ["sysctl", "-w", "net.bridge.bridge-nf-call-iptables=1"],
            "permanently by a file in /etc/sysctl.d",
        )
    };
    Some(match seen.bridge_filtering {
        None => set(fault
            .seen("br_netfilter is not loaded: net.bridge.bridge-nf-call-iptables is missing")
            .run(
                ["modprobe", "br_netfilter"],
                "permanently by a file in /etc/modules-load.d",
            )),
        Some(_) => set(fault.seen("net.bridge.bridge-nf-call-iptables = 0")),
    })
}

fn dropped(seen: &SettingsFacts) -> Vec<Finding> {
    let fault = |dropper: &super::Dropper| {
        let says = format!("a rule drops {}", dropper.way);
        let (fault, counted) = match dropper.rule.packets {
            Some(0) => (
                Finding::warning(
                    KIND,
                    format!("a rule would drop {}; it has no hits yet", dropper.way),
                ),
                String::new(),
            ),
            Some(packets) => (
                Finding::failed(KIND, says),
                format!("; it counted {packets} packets"),
            ),
            None => (Finding::warning(KIND, says), "; it has no counter".to_owned()),
        };
        let fault = fault.seen(format!("{}{counted}", dropper.rule));
        let fault = fault.fixed_by(dropper.rule.fixes(&dropper.flow));
        if seen.flannel_mtu.is_some() {
            fault.advise(
                "flannel accepts the pod network in its chain FLANNEL-FWD: check why this chain has no \
                 effect on this node.",
            )
        } else {
            fault
        }
    };
    seen.droppers.iter().map(fault).collect()
}
