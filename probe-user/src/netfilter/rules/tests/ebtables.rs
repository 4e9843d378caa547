//! Rules of ebtables, as its tools print them.

use super::*;
use crate::model::{finding::Fix, rule::RuleFlow};

fn rules(tool: Tool, text: &str) -> Rules {
    let mut rules = Rules::of(Outputs {
        saves: vec![save(tool, Family::Bridge, text)],
        ..Outputs::default()
    });
    let devices = [
        bridge::device(1, "cni0", None),
        bridge::device(2, "veth1", Some(1)),
        bridge::device(3, "veth2", Some(1)),
    ];
    rules.bridges = Bridges::new(&devices, [false; 2]);
    rules
}

/// A UDP packet between two pods of one bridge.
fn bridged() -> Packet {
    Packet {
        path: PacketPath::Forward,
        input: Some("veth1".to_owned()),
        output: Some("veth2".to_owned()),
        ..packet()
    }
}

/// What is made of a rule in FORWARD.
fn answer(rule: &str) -> &'static str {
    let text = format!("*filter\n:INPUT ACCEPT\n:FORWARD ACCEPT\n:own ACCEPT\n[1:84] -A FORWARD {rule}\n");
    let candidates = rules(Tool::EbtablesNft, &text).candidates(&bridged(), &ALL);
    match candidates.as_slice() {
        [] => "no",
        [one] if one.certain => "yes",
        _ => "perhaps",
    }
}

#[test]
fn matches() {
    for (rule, expected) in [
        ("-j DROP", "yes"),
        ("-j ACCEPT", "no"),
        ("-j CONTINUE", "no"),
        ("-p IPv4 -j DROP", "yes"),
        ("-p ! IPv4 -j DROP", "no"),
        ("-p IPv6 -j DROP", "no"),
        ("-p ARP -j DROP", "no"),
        ("-p 0x0800 -j DROP", "yes"),
        ("-p 0x88cc -j DROP", "no"),
        ("-p 802_1Q --vlan-id 5 -j DROP", "perhaps"),
        ("-i veth1 -j DROP", "yes"),
        ("-i veth+ -j DROP", "yes"),
        ("-i ! veth1 -j DROP", "no"),
        ("! -i veth2 -j DROP", "yes"),
        ("-o veth2 -j DROP", "yes"),
        ("--logical-in cni0 --logical-out cni0 -j DROP", "yes"),
        ("--logical-in cni1 -j DROP", "no"),
        ("-s 02:00:00:00:00:01 -j DROP", "perhaps"),
        ("-p IPv4 --ip-src 10.0.0.0/8 -j DROP", "yes"),
        ("-p IPv4 --ip-src ! 10.0.0.0/8 -j DROP", "no"),
        (
            "-p IPv4 --ip-dst 10.0.0.1 --ip-proto udp --ip-dport 8000:9000 -j DROP",
            "yes",
        ),
        ("-p IPv4 --ip-proto tcp --ip-dport 8472 -j DROP", "no"),
        ("-p IPv4 --ip-proto udp --ip-sport ! 40000 -j DROP", "no"),
        ("-p IPv4 --ip-tos 0x10 -j DROP", "perhaps"),
        ("-p IPv4 --limit 3/sec --limit-burst 5 -j DROP", "perhaps"),
        (
            "--log-level notice --log-prefix \"-p ARP -j ACCEPT\" -j DROP",
            "yes",
        ),
        ("-j mark --mark-set 0x5 --mark-target DROP", "yes"),
        ("-j mark --mark-set 0x5", "no"),
        ("-j DROP -c 5 400", "yes"),
    ] {
        assert_eq!(answer(rule), expected, "{rule}");
    }
}

#[test]
fn chains_have_policies() {
    let text = |policy: &str, forward: &str| {
        format!(
            "*filter\n:FORWARD {forward}\n:own {policy}\n[1:84] -A FORWARD -i veth1 -j own\n[3:9] -A own -p ARP -j DROP\n"
        )
    };
    for (policy, forward, expected) in [
        ("ACCEPT", "DROP", ""),
        ("RETURN", "ACCEPT", ""),
        ("DROP", "ACCEPT", "ebtables-nft: bridge filter own policy DROP"),
        (
            "RETURN",
            "DROP",
            "ebtables-nft: bridge filter FORWARD policy DROP",
        ),
    ] {
        let rules = rules(Tool::EbtablesNft, &text(policy, forward));
        assert_eq!(named(&rules, &bridged()).join("; "), expected);
    }
}

#[test]
fn a_list_of_ebtables_legacy() {
    let text = "Bridge table: filter\n\nBridge chain: INPUT, entries: 0, policy: ACCEPT\n\n\
                Bridge chain: FORWARD, entries: 2, policy: ACCEPT\n\
                -p IPv4 --ip-dst 10.0.0.9 -j DROP , pcnt = 5 -- bcnt = 420\n\
                -p IPv4 --ip-proto udp --ip-dport 8472 -j DROP , pcnt = 7 -- bcnt = 588\n\
                Bridge table: broute\n\nBridge chain: BROUTING, entries: 1, policy: ACCEPT\n-j DROP , pcnt = 9 -- bcnt = 9\n";
    let rules = rules(Tool::EbtablesLegacy, text);
    let found = rules.candidates(&bridged(), &ALL);
    let [rule] = found.as_slice() else {
        panic!("{found:?}")
    };
    let words = "-A FORWARD -p IPv4 --ip-proto udp --ip-dport 8472 -j DROP";
    assert_eq!(
        rule.to_string(),
        format!("ebtables-legacy: bridge filter FORWARD rule 2: {words}")
    );
    assert_eq!((rule.packets, rule.certain), (Some(7), true));
    let flow = RuleFlow::between(PacketPath::Forward, 17, packet().source, packet().destination);
    let commands: Vec<String> = rule.fixes(&flow).iter().map(Fix::to_string).collect();
    assert_eq!(commands.len(), 1);
    assert!(
        commands[0].starts_with(
            "ebtables-legacy -t filter -D FORWARD -p IPv4 --ip-proto udp --ip-dport 8472 -j DROP  #"
        ),
        "{commands:?}"
    );
}

#[test]
fn packets_are_accepted_before_a_rule_that_drops_others_too() {
    let text = "*filter\n:FORWARD ACCEPT\n[5:420] -A FORWARD -p IPv4 -j DROP\n";
    let found = rules(Tool::EbtablesNft, text).candidates(&bridged(), &ALL);
    let flow = RuleFlow {
        destination_port: Some(8472),
        ..RuleFlow::between(PacketPath::Forward, 17, packet().source, packet().destination)
    };
    let commands: Vec<String> = found[0].fixes(&flow).iter().map(Fix::to_string).collect();
    let start = "ebtables-nft -t filter -I FORWARD -p IPv4 --ip-src 10.0.0.2 --ip-dst 10.0.0.1 --ip-proto udp --ip-dport 8472 -j ACCEPT";
    assert!(commands[0].starts_with(start), "{commands:?}");
    assert_eq!(commands.len(), 2, "the opposite direction");
}

#[test]
fn rules_of_ebtables_nft_are_named_once() {
    let drop = [("input", r#"{"drop":null}"#)];
    let base = r#","type":"filter","hook":"forward","prio":-200,"policy":"accept""#;
    let json = ruleset("bridge", base, &drop)
        .replace("\"fw\"", "\"filter\"")
        .replace("\"input\"", "\"FORWARD\"");
    let mut rules = Rules::of(Outputs {
        saves: vec![save(
            Tool::EbtablesNft,
            Family::Bridge,
            "*filter\n:FORWARD ACCEPT\n[5:420] -A FORWARD -j DROP\n",
        )],
        nft: Some(json),
        ..Outputs::default()
    });
    rules.bridges = Bridges::new(
        &[
            bridge::device(1, "cni0", None),
            bridge::device(2, "veth1", Some(1)),
            bridge::device(3, "veth2", Some(1)),
        ],
        [false; 2],
    );
    assert_eq!(
        named(&rules, &bridged()),
        ["ebtables-nft: bridge filter FORWARD rule 1: -A FORWARD -j DROP"]
    );
}
