//! Chains at the ports of a bridge, in the bridge, and above it.

use super::*;
use crate::model::network::Device;

pub(super) fn device(index: u32, name: &str, controller: Option<u32>) -> Device {
    Device {
        index,
        name: name.to_owned(),
        up: true,
        ethernet: true,
        mtu: 1500,
        mac: None,
        controller,
        bridge: name.starts_with("cni"),
        received: 0,
        sent: 0,
        send_failures: 0,
        vxlan: None,
        xdp: None,
    }
}

/// cni0 with two ports, and eth0.
fn bridges(calls_ip: bool) -> Bridges {
    let devices = [
        device(1, "cni0", None),
        device(2, "veth1", Some(1)),
        device(3, "veth2", Some(1)),
        device(4, "eth0", None),
    ];
    Bridges::new(&devices, [calls_ip; 2])
}

/// A chain at each hook of each layer, each with one rule that drops what is not certain to be dropped by one before it.
fn everywhere() -> Rules {
    let chain = |family: &str, hook: &str, prio: i32, more: &str| {
        let name = format!("{family}-{hook}");
        format!(
            r#"{{"chain":{{"family":"{family}","table":"t","name":"{name}","type":"filter","hook":"{hook}","prio":{prio},
            "policy":"accept"{more}}}}},
            {{"rule":{{"family":"{family}","table":"t","chain":"{name}","handle":1,
            "expr":[{{"match":{{"op":"==","left":{{"meta":{{"key":"mark"}}}},"right":1}}}},{{"drop":null}}]}}}}"#
        )
    };
    let mut chains = Vec::new();
    for hook in ["prerouting", "input", "forward", "output", "postrouting"] {
        chains.push(chain("bridge", hook, 0, ""));
        chains.push(chain("ip", hook, 0, ""));
    }
    for (hook, device) in [("ingress", "veth1"), ("egress", "veth2")] {
        chains.push(chain("netdev", hook, 0, &format!(r#","dev":"{device}""#)));
    }
    nft(&format!(r#"{{"nftables":[{}]}}"#, chains.join(",")))
}

fn between(path: PacketPath, input: Option<&str>, output: Option<&str>) -> Packet {
    Packet {
        path,
        input: input.map(str::to_owned),
        output: output.map(str::to_owned),
        ..packet()
    }
}

#[test]
fn chains_on_the_way() {
    let (veth1, veth2, cni0, eth0) = (Some("veth1"), Some("veth2"), Some("cni0"), Some("eth0"));
    let arrives = "netdev-ingress bridge-prerouting";
    let leaves = "bridge-postrouting netdev-egress";
    for (packet, calls_ip, expected) in [
        (
            between(PacketPath::In, veth1, None),
            false,
            format!("{arrives} bridge-input ip-prerouting ip-input"),
        ),
        (
            between(PacketPath::In, veth1, None),
            true,
            format!("{arrives} ip-prerouting bridge-input ip-input"),
        ),
        // It may have come by this port, or by the other.
        (
            between(PacketPath::In, cni0, None),
            false,
            format!("{arrives} bridge-input ip-prerouting ip-input"),
        ),
        (
            between(PacketPath::In, eth0, None),
            true,
            "ip-prerouting ip-input".to_owned(),
        ),
        (
            between(PacketPath::Forward, veth1, eth0),
            false,
            format!("{arrives} bridge-input ip-prerouting ip-forward ip-postrouting"),
        ),
        (
            between(PacketPath::Forward, eth0, veth2),
            false,
            format!("ip-prerouting ip-forward ip-postrouting bridge-output {leaves}"),
        ),
        (
            between(PacketPath::Out, None, veth2),
            false,
            format!("ip-output ip-postrouting bridge-output {leaves}"),
        ),
        (
            between(PacketPath::Forward, veth1, veth2),
            false,
            format!("{arrives} bridge-forward {leaves}"),
        ),
        (
            between(PacketPath::Forward, veth1, veth2),
            true,
            format!(
                "{arrives} ip-prerouting bridge-forward ip-forward bridge-postrouting ip-postrouting netdev-egress"
            ),
        ),
        // By the same bridge, but routed.
        (
            between(PacketPath::Forward, cni0, cni0),
            false,
            format!("{arrives} bridge-input ip-prerouting ip-forward ip-postrouting bridge-output {leaves}"),
        ),
    ] {
        let mut rules = everywhere();
        rules.bridges = bridges(calls_ip);
        let candidates = rules.candidates(&packet, &ALL);
        let chains: Vec<&str> = candidates.iter().map(|rule| rule.chain.as_str()).collect();
        assert_eq!(chains.join(" "), expected, "{packet:?}");
    }
}

#[test]
fn where_the_packet_was_dropped() {
    let (veth1, veth2, cni0, eth0) = (Some("veth1"), Some("veth2"), Some("cni0"), Some("eth0"));
    let mut rules = everywhere();
    rules.bridges = bridges(true);
    for (packet, device, expected) in [
        (
            between(PacketPath::Forward, veth1, None),
            veth1,
            "netdev-ingress bridge-prerouting ip-prerouting bridge-input",
        ),
        (
            between(PacketPath::In, veth1, None),
            cni0,
            "netdev-ingress bridge-prerouting ip-prerouting bridge-input",
        ),
        (
            between(PacketPath::Forward, veth1, veth2),
            veth2,
            "bridge-forward ip-forward bridge-postrouting ip-postrouting netdev-egress",
        ),
        (
            between(PacketPath::Forward, eth0, veth2),
            veth2,
            "bridge-output bridge-postrouting netdev-egress",
        ),
        (
            between(PacketPath::In, cni0, None),
            cni0,
            "ip-prerouting ip-input",
        ),
        (
            between(PacketPath::Forward, cni0, eth0),
            eth0,
            "ip-prerouting ip-forward ip-postrouting",
        ),
    ] {
        let position = rules.position(packet.input.as_deref(), device);
        let packet = Packet { position, ..packet };
        let candidates = rules.candidates(&packet, &ALL);
        let chains: Vec<&str> = candidates.iter().map(|rule| rule.chain.as_str()).collect();
        assert_eq!(chains.join(" "), expected, "{packet:?}");
    }
}

#[test]
fn names_of_devices() {
    let meta = |key: &str, name: &str| {
        compare(
            &format!(r#"{{"meta":{{"key":"{key}"}}}}"#),
            "==",
            &format!(r#""{name}""#),
        )
    };
    let drop = r#"{"drop":null}"#;
    let at = |family: &str, hook: &str, matching: &str, packet: &Packet| {
        let base = format!(r#","type":"filter","hook":"{hook}","prio":0,"policy":"accept""#);
        let json = ruleset(family, &base, &[("input", &format!("{matching},{drop}"))]);
        let mut rules = nft(&json);
        rules.bridges = bridges(true);
        let found = rules.candidates(packet, &ALL);
        match found.as_slice() {
            [] => "no",
            [rule] if rule.certain => "yes",
            _ => "perhaps",
        }
    };
    let bridged = between(PacketPath::Forward, Some("veth1"), Some("veth2"));
    let unknown = between(PacketPath::In, Some("cni0"), None);
    for (family, hook, key, name, packet, expected) in [
        ("bridge", "prerouting", "iifname", "veth1", &bridged, "yes"),
        ("bridge", "prerouting", "iifname", "veth*", &bridged, "yes"),
        ("bridge", "prerouting", "iifname", "cni0", &bridged, "no"),
        ("bridge", "prerouting", "ibrname", "cni0", &bridged, "yes"),
        ("bridge", "prerouting", "ibrname", "cni1", &bridged, "no"),
        ("bridge", "forward", "oifname", "veth2", &bridged, "yes"),
        ("bridge", "forward", "obrname", "cni0", &bridged, "yes"),
        // iptables has the bridge's name.
        ("ip", "forward", "iifname", "cni0", &bridged, "yes"),
        ("ip", "forward", "iifname", "veth1", &bridged, "no"),
        ("bridge", "input", "iifname", "veth1", &unknown, "perhaps"),
        ("bridge", "input", "iifname", "veth*", &unknown, "yes"),
        ("bridge", "input", "iifname", "eth0", &unknown, "no"),
    ] {
        assert_eq!(
            at(family, hook, &meta(key, name), packet),
            expected,
            "{family} {hook} {key} {name}"
        );
    }
}

#[test]
fn ethernet_types() {
    let kind = r#"{"payload":{"protocol":"ether","field":"type"}}"#;
    let arp = r#"{"payload":{"protocol":"arp","field":"operation"}}"#;
    let source = r#"{"payload":{"protocol":"ether","field":"saddr"}}"#;
    for (matching, expected) in [
        (compare(kind, "==", r#""ip""#), "1"),
        (compare(kind, "==", r#""ip6""#), ""),
        (compare(kind, "==", r#""arp""#), ""),
        (compare(kind, "!=", r#""ip""#), ""),
        (compare(kind, "==", "35020"), ""),
        // Tagged.
        (compare(kind, "==", r#""8021q""#), "1?"),
        (compare(kind, "==", "33024"), "1?"),
        (compare(arp, "==", r#""request""#), ""),
        (compare(source, "==", r#""02:00:00:00:00:01""#), "1?"),
    ] {
        let json = ruleset(
            "inet",
            BASE,
            &[("input", &format!(r#"{matching},{{"drop":null}}"#))],
        );
        assert_eq!(handles(&json, &packet()), expected, "{matching}");
    }
}
