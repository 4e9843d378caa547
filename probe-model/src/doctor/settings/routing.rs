//! Routing that loses packets: rp_filter, and policy rules.

use super::{DeviceSettings, Finding, KIND, SettingsFacts, seconds, setting};

pub(super) fn faults(seen: &SettingsFacts) -> Vec<Finding> {
    let mut faults = Vec::new();
    faults.extend(reverse_path(seen));
    faults.extend(policies(seen));
    faults.extend(rejections(seen));
    faults
}

/// Strict is many distributions' setting, and harms only packets that come by another way than they would go.
fn reverse_path(seen: &SettingsFacts) -> Option<Finding> {
    let growth = seen.reverse_path;
    let strict = strict(seen);
    if strict.is_empty() || growth.total == 0 {
        return None;
    }
    let devices = strict.join(", ");
    let fault = match growth.grown {
        0 => Finding::warning(
            KIND,
            format!(
                "packets were dropped by the reverse path filter: the route to their source uses another \
                 device; rp_filter is strict on {devices}"
            ),
        ),
        grown => Finding::failed(
            KIND,
            format!(
                "{grown} packets were dropped in {} by the reverse path filter: the route to their source \
                 uses another device; rp_filter is strict on {devices}",
                seconds(seen)
            ),
        ),
    };
    let fault = fault
        .seen(format!("IPReversePathFilter: {} since boot", growth.total))
        .seen(format!(
            "net.ipv4.conf.all.rp_filter = {}; the larger of it and the device's value applies",
            seen.rp_filter
        ));
    let fault = seen.strays.iter().fold(fault, |fault, (device, packets)| {
        fault.seen(format!(
            "dropped with reason IP_RPFILTER at {device}: {packets} packets"
        ))
    });
    let way =
        "Or route replies by the device that these packets arrive on: check the routes to their sources.";
    // Loose mode on other devices has no effect.
    let fault = match seen.strays.is_empty() {
        true if strict.len() > 1 => fault.advise(
            "Set rp_filter to 2 only on the device that these packets arrive on: probe path shows \
                     it.",
        ),
        _ => strict.iter().fold(fault, |fault, name| {
            fault.run(
                ["sysctl", "-w", &format!("{}=2", setting(name, "rp_filter"))],
                "loose mode on this device only, permanently by a file in /etc/sysctl.d",
            )
        }),
    };
    Some(fault.advise(way))
}

/// The devices that drop: those where it was seen, or else all that may.
fn strict(seen: &SettingsFacts) -> Vec<&str> {
    const STRICT: u8 = 1;
    if !seen.strays.is_empty() {
        return seen.strays.iter().map(|(device, _)| device.as_str()).collect();
    }
    // 2 on either side makes it loose.
    let effective = |device: &DeviceSettings| device.rp_filter.max(seen.rp_filter);
    seen.devices
        .iter()
        .filter(|device| effective(device) == STRICT)
        .map(|device| device.name.as_str())
        .collect()
}

fn policies(seen: &SettingsFacts) -> Vec<Finding> {
    let fault = |fact: &super::PolicyFact| {
        let (source, device) = (fact.source, &fact.policy.device);
        let fault = match &fact.overlay {
            None => Finding::failed(
                KIND,
                format!(
                    "packets from {source} to pods of this node leave by {device} and are lost: a routing rule sends them there"
                ),
            ),
            // The network there may route pods' addresses.
            Some(overlay) => Finding::warning(
                KIND,
                format!(
                    "packets from pods of this node to pods of other nodes leave by {device}, not by {overlay}: a routing rule sends them there"
                ),
            ),
        };
        let fault = fault
            .seen(format!(
                "ip route get {} from {}: {}",
                fact.destination,
                fact.source,
                fact.policy.words()
            ))
            .seen(format!("ip rule: {}: {}", fact.policy.priority, fact.policy.rule));
        fault.fixed_by(fact.policy.fixes())
    };
    seen.policies.iter().map(fault).collect()
}

fn rejections(seen: &SettingsFacts) -> Vec<Finding> {
    let fault = |rejection: &super::PolicyRejection| {
        let (source, destination, rule) = (rejection.source, rejection.destination, &rejection.rule);
        Finding::failed(
            KIND,
            "packets from pods here to pods of other nodes are rejected by a routing rule",
        )
        .seen(format!("ip route get {destination} from {source}: rejected"))
        .seen(format!("ip rule: {}: {rule}", rule.priority))
        .fixed_by(rule.fixes())
    };
    seen.rejections.iter().map(fault).collect()
}

#[cfg(test)]
mod tests {
    use super::{
        super::{Growth, PolicyFact, Role},
        *,
    };
    use crate::{finding::Fix, routing::PolicyRoute};

    fn device(name: &str, rp_filter: u8) -> DeviceSettings {
        DeviceSettings {
            name: name.to_owned(),
            role: Role::Bridge,
            mtu: 1450,
            forwarding: Some(true),
            rp_filter,
        }
    }

    #[test]
    fn which_device_is_loosened() {
        let all = || vec![device("cni0", 0), device("flannel.1", 0), device("eth0", 0)];
        let stray = |name: &str| vec![(name.to_owned(), 7)];
        for (name, all_devices, devices, strays, expected) in [
            (
                "the one that drops",
                1,
                all(),
                stray("eth0"),
                vec!["net.ipv4.conf.eth0.rp_filter=2"],
            ),
            (
                "with a dot",
                1,
                all(),
                stray("eth0.5"),
                vec!["net/ipv4/conf/eth0.5/rp_filter=2"],
            ),
            ("not seen which", 1, all(), Vec::new(), Vec::new()),
            (
                "only one can be",
                0,
                vec![device("cni0", 2), device("eth0", 1)],
                Vec::new(),
                vec!["net.ipv4.conf.eth0.rp_filter=2"],
            ),
            (
                "all is loose, and a device strict",
                2,
                vec![device("eth0", 1)],
                Vec::new(),
                vec!["none"],
            ),
        ] {
            let seen = SettingsFacts {
                rp_filter: all_devices,
                devices,
                strays,
                reverse_path: Growth::of(1, 5),
                ..SettingsFacts::default()
            };
            let Some(finding) = reverse_path(&seen) else {
                assert_eq!(expected, ["none"], "{name}");
                continue;
            };
            let commands: Vec<_> = finding
                .fixes
                .iter()
                .filter_map(|fix| match fix {
                    Fix::Command { argv, .. } => argv.last().cloned(),
                    Fix::Text(_) => None,
                })
                .collect();
            assert_eq!(commands, expected, "{name}");
        }
    }

    #[test]
    fn policy_rules() {
        let seen = SettingsFacts {
            policies: vec![PolicyFact {
                source: "192.168.0.11".parse().unwrap(),
                destination: "10.77.1.2".parse().unwrap(),
                overlay: None,
                policy: PolicyRoute {
                    priority: 30400,
                    rule: "from 192.168.0.11 lookup 30400".to_owned(),
                    table: 30400,
                    device: "eth0".to_owned(),
                    main: Some("cni0".to_owned()),
                },
            }],
            ..SettingsFacts::default()
        };
        let found = policies(&seen);
        assert!(
            found[0]
                .what
                .contains("from 192.168.0.11 to pods of this node leave by eth0")
        );
        assert!(found[0].evidence[1].contains("30400: from 192.168.0.11"));
        assert!(found[0].fixes[0].to_string().starts_with("systemctl disable"));
    }
}
