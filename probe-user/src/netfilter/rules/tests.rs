//! The walk and both parsers, by tables of rules, packets and what is to be named.

use std::{net::UdpSocket, process::Command};

use nix::sched::{CloneFlags, unshare};

use super::read::Save;
use super::*;

mod bridge;
mod changes;
mod ebtables;
mod legacy;
mod reached;

const ALL: [Action; 3] = [Action::Drop, Action::Reject, Action::NoTrack];

/// A UDP packet of VXLAN that comes in by eth0.
fn packet() -> Packet {
    Packet {
        path: PacketPath::In,
        protocol: 17,
        source: "10.0.0.2".parse().unwrap(),
        destination: "10.0.0.1".parse().unwrap(),
        source_port: Some(40_000),
        destination_port: Some(8472),
        input: Some("eth0".to_owned()),
        output: None,
        is_new: false,
        position: PathPosition::Anywhere,
    }
}

fn packet6() -> Packet {
    Packet {
        source: "fd00::2".parse().unwrap(),
        destination: "fd00::1".parse().unwrap(),
        ..packet()
    }
}

fn save(tool: Tool, family: Family, text: &str) -> Save {
    Save {
        tool,
        family,
        text: text.to_owned(),
    }
}

fn legacy(text: &str) -> Rules {
    Rules::of(Outputs {
        saves: vec![save(Tool::IptablesLegacy, Family::Ip, text)],
        ..Outputs::default()
    })
}

fn nft(json: &str) -> Rules {
    nft_listed(json, None)
}

fn nft_listed(json: &str, text: Option<&str>) -> Rules {
    let nft_text = text.map(str::to_owned);
    let rules = Rules::of(Outputs {
        nft: Some(json.to_owned()),
        nft_text,
        ..Outputs::default()
    });
    assert_eq!(rules.unread(), [""; 0]);
    rules
}

/// What is named; with a question mark if it isn't certain.
fn named(rules: &Rules, packet: &Packet) -> Vec<String> {
    let candidates = rules.candidates(packet, &ALL);
    candidates
        .iter()
        .map(|s| format!("{}{s}", if s.certain { "" } else { "? " }))
        .collect()
}

/// The positions of the rules in INPUT that are named, for the rule texts there.
fn input(rules: &[&str], packet: &Packet) -> String {
    let mut text = "*filter\n:INPUT ACCEPT [0:0]\n:A - [0:0]\n:B - [0:0]\n:C - [0:0]\n".to_owned();
    for rule in rules {
        text += &format!("[1:2] -A {rule}\n");
    }
    let rules = legacy(&(text + "COMMIT\n"));
    let mut places = Vec::new();
    for candidate in rules.candidates(packet, &ALL) {
        let sure = if candidate.certain { "" } else { "?" };
        let RulePosition::Position(position) = candidate.place else {
            panic!("{candidate}")
        };
        places.push(format!("{}{position}{sure}", candidate.chain));
    }
    places.join(" ")
}

#[test]
fn iptables_matches() {
    let (yes, no, maybe) = ("INPUT1", "", "INPUT1?");
    for (matches, expected) in [
        ("", yes),
        ("-p udp", yes),
        ("-p tcp", no),
        ("! -p tcp", yes),
        ("! -p udp", no),
        ("-p 17", yes),
        ("-p 18", no),
        ("-p all", yes),
        ("-p nobodyknows", maybe),
        ("! -p nobodyknows", maybe),
        ("-s 10.0.0.0/8", yes),
        ("-s 10.0.0.2/32", yes),
        ("-s 10.0.0.2", yes),
        ("-s 10.0.0.3/32", no),
        ("! -s 10.0.0.0/8", no),
        ("! -s 11.0.0.0/8", yes),
        ("-s 10.0.0.0/255.255.0.0", yes),
        ("-s 10.0.0.2/255.0.0.255", maybe),
        ("-d 10.0.0.1/32", yes),
        ("-d 10.0.0.2/32", no),
        ("-d 0.0.0.0/0", yes),
        ("-s ::/0", no),
        ("-i eth0", yes),
        ("-i eth1", no),
        ("-i eth+", yes),
        ("-i et", no),
        ("-i +", yes),
        ("! -i lo", yes),
        ("! -i eth+", no),
        ("-p udp -m udp --dport 8472", yes),
        ("-p udp -m udp --dport 8473", no),
        ("-p udp -m udp ! --dport 8472", no),
        ("-p udp -m udp ! --dport 1:100", yes),
        ("-p udp -m udp --dport 8000:9000", yes),
        ("-p udp -m udp --dport 8472:8472", yes),
        ("-p udp -m udp --dport 8473:", no),
        ("-p udp -m udp --dport :8472", yes),
        ("-p udp -m udp --sport 40000", yes),
        ("-p udp -m udp --sport 8472", no),
        ("-p udp -m udp --dport otv", maybe),
        ("-p udp -m multiport --dports 53,8000:9000", yes),
        ("-p udp -m multiport --dports 53,80", no),
        ("-p udp -m multiport ! --dports 53,80", yes),
        ("-p udp -m multiport ! --dports 53,8472", no),
        ("-p udp -m multiport --sports 40000,1", yes),
        ("-p udp -m multiport --ports 1,40000", yes),
        ("-p udp -m multiport --ports 8472", yes),
        ("-p udp -m multiport ! --ports 8472", no),
        ("-p udp -m multiport --ports 1,2", no),
        ("-m comment --comment \"-j ACCEPT \\\" -p tcp\"", yes),
        ("-m comment --comment -p", yes),
        ("-m addrtype --dst-type LOCAL", yes),
        ("-m addrtype ! --dst-type LOCAL", no),
        ("-m addrtype --dst-type BROADCAST", maybe),
        ("-m addrtype --dst-type BROADCAST,LOCAL", yes),
        ("-m addrtype --src-type LOCAL", maybe),
        ("-m iprange --src-range 10.0.0.1-10.0.0.3", yes),
        ("-m iprange --src-range 10.0.0.3-10.0.0.4", no),
        ("-m iprange ! --dst-range 10.0.0.1-10.0.0.3", no),
        ("-m conntrack --ctstate NEW", maybe),
        ("-m conntrack ! --ctstate NEW", maybe),
        ("-m state --state NEW -p tcp", no),
        ("-m set --match-set x src,dst", maybe),
        ("-m mark ! --mark 0x4000/0x4000", maybe),
        ("-m u32 --u32 \"0x0=0x1\"", maybe),
        ("-m string --string \"!\" -p udp", maybe),
        ("-m socket", maybe),
        ("-f", maybe),
        ("! -f", maybe),
        ("-p udp -m limit --limit 5/sec -m udp --dport 1", no),
    ] {
        for target in ["DROP", "REJECT --reject-with icmp-port-unreachable"] {
            let rule = format!("INPUT {matches} -j {target}");
            assert_eq!(input(&[&rule], &packet()), expected, "{rule}");
        }
    }
}

#[test]
fn what_is_unknown_of_the_packet_may_match() {
    let unknown = Packet {
        source_port: None,
        destination_port: None,
        input: None,
        ..packet()
    };
    for matches in [
        "-p udp -m udp --dport 1",
        "-p udp -m udp ! --sport 1",
        "-i eth0",
        "! -i eth0",
    ] {
        let rule = format!("INPUT {matches} -j DROP");
        assert_eq!(input(&[&rule], &unknown), "INPUT1?", "{rule}");
    }
    // A device that there isn't is known.
    let text =
        "*mangle\n:PREROUTING ACCEPT\n-A PREROUTING -o eth0 -j DROP\n-A PREROUTING ! -o eth0 -j DROP\n";
    assert_eq!(
        named(&legacy(text), &unknown),
        ["iptables-legacy: mangle PREROUTING rule 2: -A PREROUTING ! -o eth0 -j DROP"]
    );
}

#[test]
fn iptables_ways() {
    let cases: [(&[&str], &str); 30] = [
        // The first certain verdict ends it.
        (&["INPUT -j DROP", "INPUT -j DROP"], "INPUT1"),
        (&["INPUT -j ACCEPT", "INPUT -j DROP"], ""),
        (&["INPUT -p tcp -j ACCEPT", "INPUT -j DROP"], "INPUT2"),
        (
            &["INPUT -m state --state ESTABLISHED -j ACCEPT", "INPUT -j DROP"],
            "INPUT2",
        ),
        (
            &[
                "INPUT -m mark --mark 1 -j DROP",
                "INPUT -j DROP",
                "INPUT -j REJECT",
            ],
            "INPUT1? INPUT2",
        ),
        (
            &[
                "INPUT -m mark --mark 1 -j DROP",
                "INPUT -j ACCEPT",
                "INPUT -j DROP",
            ],
            "INPUT1?",
        ),
        (
            &[
                "INPUT -j LOG --log-prefix \"-j DROP\"",
                "INPUT -j MARK --set-mark 1",
                "INPUT -j DROP",
            ],
            "INPUT3",
        ),
        (&["INPUT -p udp", "INPUT -j DROP"], "INPUT2"),
        // The base chain's end is the policy's, which accepts.
        (&["INPUT -j RETURN", "INPUT -j DROP"], ""),
        // Chains of one's own.
        (&["INPUT -j A", "A -p udp -j DROP"], "A1"),
        (&["INPUT -p tcp -j A", "A -j DROP", "INPUT -j DROP"], "INPUT2"),
        (
            &["INPUT -j A", "A -j RETURN", "A -j DROP", "INPUT -j DROP"],
            "INPUT2",
        ),
        (&["INPUT -j A", "A -p tcp -j DROP", "INPUT -j DROP"], "INPUT2"),
        (&["INPUT -j A", "A -j ACCEPT", "INPUT -j DROP"], ""),
        (
            &[
                "INPUT -j A",
                "A -j B",
                "B -j DROP",
                "A -j REJECT",
                "INPUT -j DROP",
            ],
            "B1",
        ),
        (&["INPUT -j A", "A -j B", "B -j RETURN", "A -j REJECT"], "A2"),
        (
            &["INPUT -m mark --mark 1 -j A", "A -j DROP", "INPUT -j REJECT"],
            "A1? INPUT2",
        ),
        (
            &["INPUT -m mark --mark 1 -j A", "A -j ACCEPT", "INPUT -j REJECT"],
            "INPUT2",
        ),
        (
            &[
                "INPUT -j A",
                "A -m mark --mark 1 -j RETURN",
                "A -j DROP",
                "INPUT -j DROP",
            ],
            "A2 INPUT2",
        ),
        (&["INPUT -j A", "A -j LOG", "INPUT -j DROP"], "INPUT2"),
        // Going is not jumping: the way back leads behind the last jump.
        (&["INPUT -g A", "A -p tcp -j DROP", "INPUT -j DROP"], ""),
        (&["INPUT -g A", "A -j DROP"], "A1"),
        (
            &[
                "INPUT -j A",
                "A -g B",
                "A -j DROP",
                "B -p tcp -j DROP",
                "INPUT -j REJECT",
            ],
            "INPUT2",
        ),
        (
            &["INPUT -m mark --mark 1 -g A", "A -j ACCEPT", "INPUT -j REJECT"],
            "INPUT2",
        ),
        (
            &[
                "INPUT -j A",
                "A -m mark --mark 1 -g B",
                "A -j DROP",
                "INPUT -j DROP",
            ],
            "A2 INPUT2",
        ),
        // Two ways to one rule.
        (&["INPUT -m mark --mark 1 -j A", "INPUT -j A", "A -j DROP"], "A1"),
        // A program decides.
        (
            &["INPUT -j NFQUEUE --queue-num 1", "INPUT -j DROP"],
            "INPUT1? INPUT2",
        ),
        (
            &[
                "INPUT -m mark --mark 1 -j REJECT",
                "INPUT -p tcp -j A",
                "A -j DROP",
            ],
            "INPUT1?",
        ),
        // Round and round.
        (&["INPUT -j A", "A -j A", "INPUT -j DROP"], "INPUT2"),
        (
            &[
                "INPUT -j A",
                "A -j B",
                "A -j B",
                "B -j A",
                "B -j A",
                "B -j DROP",
                "INPUT -j DROP",
            ],
            "B3",
        ),
    ];
    for (rules, expected) in cases {
        assert_eq!(input(rules, &packet()), expected, "{rules:?}");
    }
}

#[test]
fn tables_are_met_in_the_kernels_order() {
    let table = |name: &str, rules: &str| {
        format!("*{name}\n:PREROUTING ACCEPT [0:0]\n:INPUT ACCEPT [0:0]\n{rules}\nCOMMIT\n")
    };
    let maybe = |chain: &str| format!("[7:8] -A {chain} -m mark --mark 1 -j DROP");
    let both = maybe("INPUT") + "\n" + &maybe("PREROUTING");
    let order = ["security", "filter", "mangle", "raw"]
        .map(|name| table(name, &both))
        .concat();
    let candidates = legacy(&order).candidates(&packet(), &ALL);
    let met: Vec<_> = candidates
        .iter()
        .map(|s| format!("{} {}", s.table, s.chain))
        .collect();
    assert_eq!(
        met,
        [
            "raw PREROUTING",
            "mangle PREROUTING",
            "filter PREROUTING",
            "security PREROUTING",
            "raw INPUT",
            "mangle INPUT",
            "filter INPUT",
            "security INPUT",
        ]
    );
    assert!(candidates.iter().all(|s| s.packets == Some(7)));

    // An accept is the table's only; a drop is everyone's.
    let accept = table("mangle", "-A INPUT -j ACCEPT\n-A INPUT -j DROP");
    let drop = table("filter", "-A INPUT -j DROP");
    let later = table("security", "-A INPUT -j DROP");
    assert_eq!(
        named(&legacy(&[&*later, &*drop, &*accept].concat()), &packet()),
        ["iptables-legacy: filter INPUT rule 1: -A INPUT -j DROP"]
    );
    // Unless it was left by an accept that may have matched.
    let drop = table(
        "filter",
        "-A INPUT -m state --state ESTABLISHED -j ACCEPT\n-A INPUT -j DROP",
    );
    assert_eq!(
        named(&legacy(&[&*later, &*drop, &*accept].concat()), &packet()),
        [
            "iptables-legacy: filter INPUT rule 2: -A INPUT -j DROP",
            "iptables-legacy: security INPUT rule 1: -A INPUT -j DROP",
        ]
    );
    // Not every packet is seen by nat.
    let nat = table("nat", "-A PREROUTING -j DROP");
    assert_eq!(
        named(&legacy(&(nat + &later)), &packet()),
        [
            "? iptables-legacy: nat PREROUTING rule 1: -A PREROUTING -j DROP",
            "iptables-legacy: security INPUT rule 1: -A INPUT -j DROP",
        ]
    );
}

#[test]
fn paths_have_their_hooks() {
    let chains = ["PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"];
    let mut text = "*mangle\n".to_owned();
    for chain in chains {
        text += &format!(":{chain} ACCEPT [0:0]\n[0:0] -A {chain} -m mark --mark 1 -j DROP\n");
    }
    for (path, expected) in [
        (PacketPath::In, vec!["PREROUTING", "INPUT"]),
        (PacketPath::Out, vec!["OUTPUT", "POSTROUTING"]),
        (PacketPath::Forward, vec!["PREROUTING", "FORWARD", "POSTROUTING"]),
    ] {
        let candidates = legacy(&text).candidates(&Packet { path, ..packet() }, &ALL);
        assert_eq!(
            candidates.iter().map(|s| s.chain.as_str()).collect::<Vec<_>>(),
            expected
        );
    }
}

#[test]
fn a_policy_is_reached_if_nothing_else_decides() {
    let text = |rules: &str| format!("*filter\n:INPUT DROP [12:720]\n:A - [0:0]\n{rules}COMMIT\n");
    for (rules, expected) in [
        ("", vec!["iptables-legacy: filter INPUT policy DROP"]),
        ("-A INPUT -j ACCEPT\n", vec![]),
        (
            "-A INPUT -j A\n-A A -j RETURN\n",
            vec!["iptables-legacy: filter INPUT policy DROP"],
        ),
        (
            "-A INPUT -g A\n-A INPUT -j ACCEPT\n",
            vec!["iptables-legacy: filter INPUT policy DROP"],
        ),
        (
            "-A INPUT -m mark --mark 1 -j ACCEPT\n",
            vec!["iptables-legacy: filter INPUT policy DROP"],
        ),
        (
            "-A INPUT -j DROP\n",
            vec!["iptables-legacy: filter INPUT rule 1: -A INPUT -j DROP"],
        ),
    ] {
        assert_eq!(named(&legacy(&text(rules)), &packet()), expected, "{rules}");
    }
    let candidates = legacy(&text("")).candidates(&packet(), &[Action::Drop]);
    assert_eq!(
        (candidates[0].place, candidates[0].packets),
        (RulePosition::Policy, Some(12))
    );
    // What nobody asked for isn't named, yet ends the way.
    assert_eq!(
        legacy(&text("-A INPUT -j REJECT\n")).candidates(&packet(), &[Action::Drop]),
        []
    );
    // The policy of iptables-nft mostly doesn't count, which isn't the same as nothing.
    for (counter, packets) in [("[0:0]", None), ("[3:4]", Some(3))] {
        let text = format!("*filter\n:INPUT DROP {counter}\n");
        let saves = vec![save(Tool::IptablesNft, Family::Ip, &text)];
        let rules = Rules::of(Outputs {
            saves,
            ..Outputs::default()
        });
        assert_eq!(rules.candidates(&packet(), &ALL)[0].packets, packets);
    }
}

#[test]
fn untracked_is_not_the_end() {
    let text = "*raw\n:PREROUTING ACCEPT [0:0]\n-A PREROUTING -p udp -j CT --notrack\n\
        -A PREROUTING -p udp -j CT --zone 5\n-A PREROUTING -j NOTRACK\nCOMMIT\n*filter\n:INPUT DROP [0:0]\nCOMMIT\n";
    assert_eq!(
        named(&legacy(text), &packet()),
        [
            "iptables-legacy: raw PREROUTING rule 1: -A PREROUTING -p udp -j CT --notrack",
            "iptables-legacy: raw PREROUTING rule 3: -A PREROUTING -j NOTRACK",
            "iptables-legacy: filter INPUT policy DROP",
        ]
    );
    assert_eq!(legacy(text).candidates(&packet(), &[Action::NoTrack]).len(), 2);
}

#[test]
fn each_address_family_has_its_tables() {
    let text = |address| format!("*filter\n:INPUT ACCEPT [0:0]\n[0:0] -A INPUT -d {address} -j DROP\n");
    let rules = Rules::of(Outputs {
        saves: vec![
            save(Tool::IptablesLegacy, Family::Ip, &text("10.0.0.0/8")),
            save(Tool::IptablesLegacy, Family::Ip6, &text("fd00::/8")),
        ],
        ..Outputs::default()
    });
    let four = "iptables-legacy: filter INPUT rule 1: -A INPUT -d 10.0.0.0/8 -j DROP";
    assert_eq!(named(&rules, &packet()), [four]);
    assert_eq!(
        named(&rules, &packet6()),
        ["ip6tables-legacy: filter INPUT rule 1: -A INPUT -d fd00::/8 -j DROP"]
    );
    // As a socket for both sees it.
    let mapped = Packet {
        destination: "::ffff:10.0.0.1".parse().unwrap(),
        ..packet()
    };
    assert_eq!(named(&rules, &mapped), [four]);
}

#[test]
fn texts_are_short_and_harmless() {
    let long = format!(
        "*filter\n:INPUT ACCEPT\n[1:2] -A INPUT -m comment --comment \"\u{1b}[2J{}\" -j DROP",
        "ö".repeat(600)
    );
    let candidates = legacy(&long).candidates(&packet(), &ALL);
    assert_eq!(candidates[0].text.chars().count(), 500);
    assert!(candidates[0].text.ends_with("ö…"));
    // The words are those of the rule itself, for whoever prints a command to judge.
    let words = candidates[0].words.as_ref().unwrap();
    assert_eq!(words[4], format!("\u{1b}[2J{}", "ö".repeat(600)));
    assert!(
        candidates[0]
            .text
            .starts_with("-A INPUT -m comment --comment \"\u{fffd}[2Jö")
    );
    let name = legacy("*fil\u{1b}ter\n:INPUT DROP [0:0]");
    assert_eq!(
        named(&name, &packet()),
        ["iptables-legacy: fil\u{fffd}ter INPUT policy DROP"]
    );
}

/// What doctor prints for pods that a policy drops: once it is there, new connections pass.
#[test]
fn addresses_of_the_connection() {
    let new = Packet {
        path: PacketPath::Forward,
        protocol: 6,
        source: "10.244.1.2".parse().unwrap(),
        destination: "10.244.2.2".parse().unwrap(),
        is_new: true,
        ..packet()
    };
    let later = Packet {
        is_new: false,
        ..new.clone()
    };
    for (matches, packet, drops) in [
        ("--ctorigsrc 10.244.1.0/24", &new, false),
        ("--ctreplsrc 10.244.2.0/24", &new, false),
        ("--ctorigsrc 10.244.2.0/24", &new, true),
        ("--ctreplsrc 10.244.1.0/24", &new, true),
        ("! --ctorigsrc 10.244.1.0/24", &new, true),
        // It may be an answer, or the first.
        ("--ctorigsrc 10.244.1.0/24", &later, true),
        ("--ctstate NEW", &new, true),
    ] {
        let text = format!("*filter\n:FORWARD DROP [9:9]\n-A FORWARD -m conntrack {matches} -j ACCEPT\n");
        let candidates = legacy(&text).candidates(packet, &[Action::Drop]);
        assert_eq!(!candidates.is_empty(), drops, "{matches}");
    }
}

/// iptables-save escapes by rules of its own, which are not the shell's.
#[test]
fn words_of_rules_are_what_iptables_takes() {
    for (comment, saved) in [
        ("it's", r#""it\'s""#),
        (r#"a"b"#, r#""a\"b""#),
        (r"a\b", r#""a\\b""#),
        ("$(reboot)", r#""$(reboot)""#),
        ("plain", "plain"),
    ] {
        let text = format!("*filter\n:INPUT ACCEPT\n-A INPUT -m comment --comment {saved} -j DROP\n");
        let candidates = legacy(&text).candidates(&packet(), &ALL);
        let words = candidates[0].words.as_ref().unwrap();
        assert_eq!(
            words,
            &["INPUT", "-m", "comment", "--comment", comment, "-j", "DROP"],
            "{saved}"
        );
    }
}

/// A comment may have line feeds: what stands behind one is no rule, and the rule is found all the same.
#[test]
fn a_comment_of_several_lines() {
    let text = "*filter\n:INPUT ACCEPT\n-A INPUT -m comment --comment \"a\n-A INPUT -p udp -j REJECT\n*raw\n\\\"\" -j DROP\n\
                -A INPUT -m comment --comment \"b\" -j DROP\n";
    let rules = legacy(text);
    let candidates = rules.candidates(&packet(), &ALL);
    assert_eq!(candidates.len(), 1, "the first ends the walk: {candidates:?}");
    assert_eq!(
        (candidates[0].table.as_str(), candidates[0].action),
        ("filter", Action::Drop)
    );
    assert_eq!(candidates[0].place, RulePosition::Position(1));
    assert!(!candidates[0].text.contains('\n'));
    assert_eq!(
        candidates[0].words.as_ref().map(|words| words[4].as_str()),
        Some("a\n-A INPUT -p udp -j REJECT\n*raw\n\"")
    );
    assert_eq!(rules.every(Action::Drop).len(), 2);
    // A quote that is never closed is one odd line.
    let odd = "*filter\n:INPUT ACCEPT\n-A INPUT -m comment --comment \"a -j DROP\n-A INPUT -j DROP\n";
    let rules = legacy(odd).every(Action::Drop);
    assert_eq!(
        rules.iter().map(|rule| rule.place).collect::<Vec<_>>(),
        [RulePosition::Position(2)]
    );
}

#[test]
fn there_is_an_end_to_candidates() {
    let maybe = "-A INPUT -m mark --mark 1 -j DROP\n".repeat(100);
    let text = format!("*filter\n:INPUT ACCEPT [0:0]\n{maybe}-A INPUT -j DROP\n");
    let candidates = legacy(&text).candidates(&packet(), &ALL);
    assert_eq!(candidates.len(), 16);
    // The one that's certain is among them.
    assert_eq!(candidates[15].place, RulePosition::Position(101));
}

#[test]
fn there_is_an_end_to_walks() {
    // Two to the power of many.
    let mut text = "*filter\n:INPUT ACCEPT [0:0]\n".to_owned();
    (0..40).for_each(|n| text += &format!(":N{n} - [0:0]\n"));
    (0..39).for_each(|n| text += &format!("-A N{n} -j N{m}\n-A N{n} -j N{m}\n-A N{n} -j N{m}\n", m = n + 1));
    text += "-A INPUT -j N0\n-A INPUT -j DROP\n";
    legacy(&text).candidates(&packet(), &ALL);
}

/// A ruleset of nft, with a table of that family and chains `input` (a base chain), `a` and `b`.
fn ruleset(family: &str, base: &str, rules: &[(&str, &str)]) -> String {
    let mut items = vec![format!(
        r#"{{"table":{{"family":"{family}","name":"fw","handle":1}}}}"#
    )];
    for (name, more) in [("input", base), ("a", ""), ("b", "")] {
        items.push(format!(
            r#"{{"chain":{{"family":"{family}","table":"fw","name":"{name}","handle":1{more}}}}}"#
        ));
    }
    for (handle, (chain, expressions)) in rules.iter().enumerate() {
        items.push(format!(
            r#"{{"rule":{{"family":"{family}","table":"fw","chain":"{chain}","handle":{},"expr":[{expressions}]}}}}"#,
            handle + 1
        ));
    }
    for (kind, more) in [
        (
            "set",
            r#""name":"nets","elem":[{"prefix":{"addr":"10.0.0.0","len":8}},"192.168.0.1"]"#,
        ),
        (
            "set",
            r#""name":"ports","elem":[53,{"range":[8000,9000]},{"elem":{"val":99,"timeout":5,"expires":2}}]"#,
        ),
        (
            "set",
            r#""name":"pairs","elem":[{"concat":["10.0.0.1","udp",8472]},{"concat":["10.0.0.9","udp",1]}]"#,
        ),
        ("set", r#""name":"none""#),
        ("set", r#""name":"timed","flags":["timeout"],"elem":["10.0.0.2"]"#),
        (
            "map",
            r#""name":"to","map":"verdict","elem":[[1,{"drop":null}],[8472,{"jump":{"target":"a"}}]]"#,
        ),
        (
            "map",
            r#""name":"rest","map":"verdict","elem":[["*",{"drop":null}],[1,{"accept":null}]]"#,
        ),
    ] {
        items.push(format!(
            r#"{{"{kind}":{{"family":"{family}","table":"fw",{more}}}}}"#
        ));
    }
    format!(
        r#"{{"nftables":[{{"metainfo":{{"version":"1.0.6"}}}},{}]}}"#,
        items.join(",")
    )
}

const BASE: &str = r#","type":"filter","hook":"input","prio":0,"policy":"accept""#;
const DROPS: &str = r#","type":"filter","hook":"input","prio":0,"policy":"drop""#;

/// The handles of the rules named.
fn handles(json: &str, packet: &Packet) -> String {
    let candidates = nft(json).candidates(packet, &ALL);
    let place = |s: &CandidateRule| match s.place {
        RulePosition::Handle(handle) => handle.to_string(),
        RulePosition::Position(_) | RulePosition::Policy => "policy".to_owned(),
    };
    candidates
        .iter()
        .map(|s| place(s) + if s.certain { "" } else { "?" })
        .collect::<Vec<_>>()
        .join(" ")
}

fn compare(left: &str, op: &str, right: &str) -> String {
    format!(r#"{{"match":{{"op":"{op}","left":{left},"right":{right}}}}}"#)
}

#[test]
fn nft_matches() {
    let saddr = r#"{"payload":{"protocol":"ip","field":"saddr"}}"#;
    let saddr6 = r#"{"payload":{"protocol":"ip6","field":"saddr"}}"#;
    let daddr = r#"{"payload":{"protocol":"ip","field":"daddr"}}"#;
    let dport = r#"{"payload":{"protocol":"udp","field":"dport"}}"#;
    let tcp = r#"{"payload":{"protocol":"tcp","field":"dport"}}"#;
    let th = r#"{"payload":{"protocol":"th","field":"sport"}}"#;
    let raw = r#"{"payload":{"base":"transport","offset":16,"len":16}}"#;
    let iif = r#"{"meta":{"key":"iifname"}}"#;
    let oif = r#"{"meta":{"key":"oifname"}}"#;
    let l4proto = r#"{"meta":{"key":"l4proto"}}"#;
    let nfproto = r#"{"meta":{"key":"nfproto"}}"#;
    let ct = r#"{"ct":{"key":"state"}}"#;
    let flags = r#"{"&":[{"payload":{"protocol":"tcp","field":"flags"}},2]}"#;
    let fib = r#"{"fib":{"result":"type","flags":["daddr"]}}"#;
    let fib_both = r#"{"fib":{"result":"type","flags":["daddr","iif"]}}"#;
    let concat = format!(r#"{{"concat":[{daddr},{l4proto},{dport}]}}"#);
    let (yes, no, maybe) = ("1", "", "1?");
    for (left, op, right, expected) in [
        (dport, "==", "8472", yes),
        (dport, "==", "8473", no),
        (dport, "!=", "8473", yes),
        (dport, "!=", "8472", no),
        (dport, "<", "8472", no),
        (dport, "<=", "8472", yes),
        (dport, ">", "8471", yes),
        (dport, ">=", "8473", no),
        (dport, "<", "0", no),
        (dport, ">", "18446744073709551615", no),
        (dport, "~", "8472", maybe),
        (dport, "<", r#""x""#, maybe),
        (dport, "==", r#""otv""#, maybe),
        (dport, "==", "-1", maybe),
        (dport, "==", "1e3", maybe),
        (dport, "==", "null", maybe),
        (dport, "==", r#"{"set":[53,8472]}"#, yes),
        (dport, "==", r#"{"set":[53,80]}"#, no),
        (dport, "!=", r#"{"set":[53,80]}"#, yes),
        (dport, "!=", r#"{"set":[53,8472]}"#, no),
        (dport, "==", r#"{"set":[53,{"range":[8000,9000]}]}"#, yes),
        (dport, "==", r#"{"set":[53,{"odd":1}]}"#, maybe),
        (dport, "in", "[53,8472]", yes),
        (dport, "==", r#"{"range":[1,8471]}"#, no),
        (dport, "!=", r#"{"range":[1,8471]}"#, yes),
        (dport, "==", r#"{"range":[1]}"#, maybe),
        (dport, "==", r#""@ports""#, yes),
        (dport, "!=", r#""@ports""#, no),
        (dport, "==", r#""@none""#, no),
        (dport, "==", r#""@missing""#, maybe),
        // What is asked of another protocol isn't there.
        (tcp, "==", "8472", no),
        (tcp, "!=", "1", no),
        (flags, "==", "2", maybe),
        (th, "==", "40000", yes),
        (raw, "==", "8472", yes),
        (raw, "==", "1", no),
        (saddr, "==", r#""10.0.0.2""#, yes),
        (saddr, "==", r#""10.0.0.3""#, no),
        (saddr, "==", r#"{"prefix":{"addr":"10.0.0.0","len":8}}"#, yes),
        (saddr, "==", r#"{"prefix":{"addr":"10.1.0.0","len":16}}"#, no),
        (saddr, "!=", r#"{"prefix":{"addr":"10.1.0.0","len":16}}"#, yes),
        (saddr, "==", r#"{"prefix":{"addr":"10.1.0.0","len":99}}"#, maybe),
        (saddr, "==", r#"{"range":["10.0.0.1","10.0.0.2"]}"#, yes),
        (saddr, "==", r#"{"range":["10.0.0.3","10.0.0.9"]}"#, no),
        (saddr, "==", r#""@nets""#, yes),
        (saddr, "!=", r#""@nets""#, no),
        (saddr, "==", r#""@timed""#, maybe),
        (saddr6, "==", r#""::1""#, no),
        (saddr6, "!=", r#""::1""#, no),
        (iif, "==", r#""eth0""#, yes),
        (iif, "==", r#""eth*""#, yes),
        (iif, "!=", r#""lo""#, yes),
        (iif, "==", r#""lo""#, no),
        (iif, "==", "2", maybe),
        (oif, "==", r#""eth0""#, no),
        (oif, "!=", r#""eth0""#, yes),
        (l4proto, "==", r#""udp""#, yes),
        (l4proto, "==", "17", yes),
        (l4proto, "==", r#"{"set":["tcp","icmp"]}"#, no),
        (nfproto, "==", r#""ipv4""#, yes),
        (nfproto, "==", r#""ipv6""#, no),
        (nfproto, "==", "10", no),
        (ct, "in", r#"["established","related"]"#, maybe),
        (ct, "==", r#""new""#, maybe),
        (fib, "==", r#""local""#, yes),
        (fib, "!=", r#""local""#, no),
        (fib_both, "==", r#""local""#, maybe),
        (&concat, "==", r#"{"concat":["10.0.0.1","udp",8472]}"#, yes),
        (&concat, "==", r#""@pairs""#, yes),
        (&concat, "!=", r#""@pairs""#, no),
        (
            &concat,
            "==",
            r#"{"set":[{"concat":["10.0.0.1","tcp",8472]}]}"#,
            no,
        ),
        (&concat, "==", "8472", maybe),
        ("null", "==", "1", maybe),
        (r#"{"payload":"udp"}"#, "==", "1", maybe),
    ] {
        let rule = compare(left, op, right) + r#",{"counter":null},{"drop":null}"#;
        assert_eq!(
            handles(&ruleset("inet", BASE, &[("input", &rule)]), &packet()),
            expected,
            "{rule}"
        );
    }
}

#[test]
fn nft_ways() {
    let mark = compare(r#"{"meta":{"key":"mark"}}"#, "==", "1");
    let tcp = compare(r#"{"meta":{"key":"l4proto"}}"#, "==", "6");
    let (accept, drop, back) = (r#"{"accept":null}"#, r#"{"drop":null}"#, r#"{"return":null}"#);
    let (jump, goto) = (r#"{"jump":{"target":"a"}}"#, r#"{"goto":{"target":"a"}}"#);
    let maybe = |then: &str| format!("{mark},{then}");
    let (maybe_drop, maybe_jump, maybe_accept) = (maybe(drop), maybe(jump), maybe(accept));
    let other = format!("{tcp},{drop}");
    let vmap = |data: &str| {
        format!(r#"{{"vmap":{{"key":{{"payload":{{"protocol":"th","field":"dport"}}}},"data":{data}}}}}"#)
    };
    let odd = r#"{"something":{"new":1}}"#;
    let odd_drop = format!("{odd},{drop}");
    let (to, rest, missing) = (vmap(r#""@to""#), vmap(r#""@rest""#), vmap(r#""@missing""#));
    let set = vmap(r#"{"set":[[{"range":[1,9]},{"accept":null}],[8472,{"drop":null}]]}"#);
    let unsure = vmap(r#"{"set":[["otv",{"accept":null}],[8472,{"drop":null}]]}"#);
    let unsure_rest = vmap(r#"{"set":[["*",{"drop":null}],["otv",{"accept":null}]]}"#);
    let go_on = vmap(r#"{"set":[[8472,{"continue":null}]]}"#);
    let cases: &[(&[(&str, &str)], &str)] = &[
        (&[("input", drop), ("input", drop)], "1"),
        (&[("input", accept), ("input", drop)], ""),
        (&[("input", &maybe_accept), ("input", drop)], "2"),
        (&[("input", &maybe_drop), ("input", accept)], "1?"),
        (&[("input", r#"{"reject":{"type":"tcp reset"}}"#)], "1"),
        (&[("input", jump), ("a", drop), ("input", drop)], "2"),
        (&[("input", jump), ("a", back), ("input", drop)], "3"),
        (&[("input", jump), ("a", &other), ("input", drop)], "3"),
        (&[("input", goto), ("a", back), ("input", drop)], ""),
        (&[("input", goto), ("a", drop)], "2"),
        (&[("input", &maybe_jump), ("a", drop), ("input", drop)], "2? 3"),
        (
            &[("input", r#"{"jump":{"target":"gone"}}"#), ("input", drop)],
            "2",
        ),
        (
            &[("input", r#"{"notrack":null},{"accept":null}"#), ("input", drop)],
            "1",
        ),
        (&[("input", r#"{"queue":{"num":1}}"#), ("input", drop)], "1? 2"),
        (&[("input", r#"{"limit":{"rate":5}},{"drop":null}"#)], "1?"),
        (
            &[(
                "input",
                r#"{"log":{"prefix":"x"}},{"mangle":{"key":1,"value":1}},{"drop":null}"#,
            )],
            "1",
        ),
        (&[("input", &odd_drop), ("input", odd), ("input", drop)], "1? 3"),
        (
            &[("input", r#"{"snat":{"addr":"1.2.3.4"}}"#), ("input", drop)],
            "",
        ),
        (&[("input", r#"{"xt":null},{"drop":null}"#)], "1?"),
        (
            &[(
                "input",
                r#"{"xt":{"type":"match","name":"comment"}},{"drop":null}"#,
            )],
            "1",
        ),
        (
            &[(
                "input",
                r#"{"xt":{"type":"match","name":"addrtype"}},{"drop":null}"#,
            )],
            "1?",
        ),
        (
            &[
                ("input", r#"{"xt":{"type":"target","name":"REJECT"}}"#),
                ("input", drop),
            ],
            "1",
        ),
        (&[("input", r#"{"xt":{"type":"target","name":"CT"}}"#)], "1?"),
        (&[("input", &to), ("a", drop)], "2"),
        (&[("input", &to), ("a", back), ("input", drop)], "3"),
        (&[("input", &rest), ("input", accept)], "1"),
        (&[("input", &missing), ("input", drop)], "2"),
        (&[("input", &set), ("input", accept)], "1"),
        (&[("input", &unsure), ("input", accept)], "1?"),
        (&[("input", &unsure_rest), ("input", accept)], "1?"),
        (&[("input", &go_on), ("input", drop)], "2"),
        // Not even a rule.
        (&[("input", ""), ("input", drop)], "2"),
        (
            &[
                ("input", "1,[],{},null,{\"match\":1},{\"vmap\":[]},{\"jump\":1}"),
                ("input", drop),
            ],
            "2",
        ),
    ];
    for (rules, expected) in cases {
        assert_eq!(
            handles(&ruleset("inet", BASE, rules), &packet()),
            *expected,
            "{rules:?}"
        );
    }
    assert_eq!(
        handles(
            &ruleset("inet", DROPS, &[("input", jump), ("a", back)]),
            &packet()
        ),
        "policy"
    );
    assert_eq!(
        handles(&ruleset("inet", DROPS, &[("input", accept)]), &packet()),
        ""
    );
}

#[test]
fn nft_families() {
    let drop = [("input", r#"{"drop":null}"#)];
    for (family, four, six) in [
        ("ip", "1", ""),
        ("ip6", "", "1"),
        ("inet", "1", "1"),
        ("bridge", "", ""),
        ("arp", "", ""),
    ] {
        let json = ruleset(family, BASE, &drop);
        assert_eq!(
            (&*handles(&json, &packet()), &*handles(&json, &packet6())),
            (four, six),
            "{family}"
        );
    }
    let dormant = ruleset("inet", BASE, &drop).replace(
        r#""name":"fw","handle""#,
        r#""name":"fw","flags":["dormant"],"handle""#,
    );
    assert_eq!(handles(&dormant, &packet()), "");
    // nft 1.0.6 has no more than chance words in its JSON.
    let chance = dormant.replace(r#"["dormant"]"#, r#""b""#);
    for (flags, expected) in [("dormant", ""), ("owner, dormant", ""), ("owner", "1")] {
        let text =
            format!("table inet fw {{ # handle 1\n\tflags {flags}\n\n\tchain in {{ # handle 2\n\t}}\n}}\n");
        let candidates = nft_listed(&chance, Some(&text)).candidates(&packet(), &ALL);
        assert_eq!(candidates.len(), expected.len(), "{flags}");
    }
}

#[test]
fn nft_devices() {
    let drop = [("input", r#"{"drop":null}"#)];
    let ingress = r#","type":"filter","hook":"ingress","prio":0,"policy":"accept""#;
    for (device, path, expected) in [
        (r#","dev":"eth0""#, PacketPath::In, "1"),
        (r#","dev":"eth1""#, PacketPath::In, ""),
        (r#","dev":["eth1","eth0"]"#, PacketPath::In, "1"),
        (r#","dev":["eth1","eth*"]"#, PacketPath::Forward, "1"),
        (r#","dev":"eth0""#, PacketPath::Out, ""),
        // nft 1.0 doesn't say.
        ("", PacketPath::In, "1?"),
    ] {
        let json = ruleset("netdev", &format!("{ingress}{device}"), &drop);
        assert_eq!(handles(&json, &Packet { path, ..packet() }), expected, "{device}");
    }
    // The list says it then.
    for (devices, expected) in [
        ("device \"eth0\"", 1),
        ("device \"ens1\"", 0),
        ("devices = { ens1, eth0 }", 1),
        ("devices = { ens1, lo }", 0),
    ] {
        let text = format!(
            "table netdev fw {{ # handle 1\n\tchain input {{ # handle 1\n\t\ttype filter hook ingress {devices} priority \
             filter; policy accept;\n\t\tdrop # handle 1\n\t}}\n}}\n"
        );
        let rules = nft_listed(&ruleset("netdev", ingress, &drop), Some(&text));
        let candidates = rules.candidates(&packet(), &ALL);
        assert_eq!(
            candidates.iter().filter(|s| s.certain).count(),
            expected,
            "{devices}"
        );
        assert_eq!(candidates.len(), expected);
    }
}

#[test]
fn nft_priorities() {
    let chain = |name: &str, prio: &str| {
        format!(
            r#"{{"chain":{{"family":"ip","table":"t","name":"{name}","type":"filter","hook":"input","prio":{prio}}}}},
            {{"rule":{{"family":"ip","table":"t","chain":"{name}","handle":1,"expr":[{{"drop":null}}]}}}}"#
        )
    };
    let json = |chains: &[String]| format!(r#"{{"nftables":[{}]}}"#, chains.join(","));
    let met = |json: &str| {
        nft(json)
            .candidates(&packet(), &ALL)
            .iter()
            .map(|s| s.chain.clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(
        met(&json(&[chain("late", "10"), chain("early", "-5")])),
        ["early"]
    );
    assert_eq!(
        met(&json(&[chain("late", r#""filter""#), chain("early", r#""raw""#)])),
        ["early"]
    );
    // Which of these comes first nobody knows.
    assert_eq!(
        met(&json(&[
            chain("one", "0"),
            chain("other", "0"),
            chain("late", "1")
        ])),
        ["one", "other"]
    );
}

#[test]
fn a_set_that_rules_change_is_no_fact() {
    let add = r#"{"set":{"op":"add","elem":1,"set":"@nets"}}"#;
    let saddr = r#"{"payload":{"protocol":"ip","field":"saddr"}}"#;
    let rule = compare(saddr, "==", r#""@nets""#) + r#",{"drop":null}"#;
    assert_eq!(
        handles(&ruleset("ip", BASE, &[("a", add), ("input", &rule)]), &packet()),
        "2?"
    );
    let not = compare(saddr, "!=", r#""@nets""#) + r#",{"drop":null}"#;
    assert_eq!(
        handles(&ruleset("ip", BASE, &[("a", add), ("input", &not)]), &packet()),
        "2?"
    );
}

#[test]
fn nft_texts() {
    let rule = compare(r#"{"payload":{"protocol":"udp","field":"dport"}}"#, "==", "8472")
        + r#",{"counter":{"packets":5,"bytes":6}},{"drop":null}"#;
    let json = ruleset("inet", BASE, &[("input", &rule)]);
    assert_eq!(
        named(&nft(&json), &packet()),
        ["nft: inet fw input handle 1: udp dport 8472 counter drop"]
    );
    assert_eq!(nft(&json).candidates(&packet(), &ALL)[0].packets, Some(5));
    let policy = ruleset("ip", DROPS, &[]);
    assert_eq!(named(&nft(&policy), &packet()), ["nft: ip fw input policy drop"]);

    let text = "table ip fw { # handle 9\n\tchain input { # handle 1\n\t\tbad # handle 1\n\t}\n}\n\
        table inet fw { # handle 1\n\tset s { # handle 2\n\t\ttype ipv4_addr\n\t\telements = { 1.2.3.4 }\n\t}\n\n\
        \tchain input { # handle 1\n\t\ttype filter hook input priority filter; policy accept;\n\
        \t\tudp dport { 8472,\n\t\t\t     99 } drop comment \"a # handle 3\" # handle 1\n\t}\n}\n";
    assert_eq!(
        named(&nft_listed(&json, Some(text)), &packet()),
        ["nft: inet fw input handle 1: udp dport { 8472, 99 } drop comment \"a # handle 3\""]
    );

    for (expressions, expected) in [
        (
            compare(
                r#"{"payload":{"protocol":"ip","field":"saddr"}}"#,
                "!=",
                r#"{"prefix":{"addr":"10.0.0.0","len":8}}"#,
            ),
            "ip saddr != 10.0.0.0/8",
        ),
        (
            compare(
                r#"{"meta":{"key":"l4proto"}}"#,
                "==",
                r#"{"set":["tcp",{"range":[1,2]}]}"#,
            ) + r#",{"reject":null}"#,
            "meta l4proto { tcp, 1-2 } reject",
        ),
        (
            r#"{"vmap":{"key":{"meta":{"key":"iifname"}},"data":{"set":[["lo",{"jump":{"target":"a"}}]]}}}"#
                .to_owned(),
            "iifname vmap { lo : jump a }",
        ),
        (
            r#"{"limit":{"rate":5}},{"drop":null}"#.to_owned(),
            r#"{"limit":{"rate":5}} drop"#,
        ),
        (r#"{"match":{"left":1}}"#.to_owned(), r#"{"match":{"left":1}}"#),
    ] {
        let json = format!("[{expressions}]");
        assert_eq!(
            nft_text::written(&serde_json::from_str(&json).unwrap(), None),
            expected
        );
    }
}

#[test]
fn odd_json_is_no_accident() {
    for json in ["", "[]", "{}", "null", r#"{"nftables":5}"#, &"[".repeat(100_000)] {
        let rules = Rules::of(Outputs {
            nft: Some(json.to_owned()),
            ..Outputs::default()
        });
        assert_eq!(rules.unread().len(), 1, "{json}");
        assert!(rules.unread()[0].starts_with("nft's list of rules isn't understood: "));
    }
    for json in [
        r#"{"nftables":[]}"#,
        r#"{"nftables":[1,null,[],{},"x",{"rule":1},{"chain":[]},{"table":{"family":7}},{"set":{}},{"map":null}]}"#,
        r#"{"nftables":[{"table":{"family":"ip","name":{}}},{"rule":{"family":"ip","table":"t","chain":"c","handle":-1}}]}"#,
        r#"{"nftables":[{"set":{"family":"ip","table":"t","name":"s","elem":{"a":[[[]]]}}}]}"#,
    ] {
        assert_eq!(named(&nft(json), &packet()), [""; 0]);
    }
    // Every piece of a real one left out once, and every byte broken.
    let json = ruleset(
        "inet",
        BASE,
        &[("input", &compare(r#"{"meta":{"key":"iif"}}"#, "==", r#""@nets""#))],
    );
    for at in 0..json.len() {
        for with in ["", "[", "{", "\"", "-", "9", "null,"] {
            let broken = format!("{}{with}{}", &json[..at], &json[at + 1..]);
            Rules::of(Outputs {
                nft: Some(broken),
                ..Outputs::default()
            })
            .candidates(&packet(), &ALL);
        }
    }
}

#[test]
fn odd_saves_are_no_accident() {
    let text = "*filter\n:INPUT DROP [12:720]\n[5:3] -A INPUT -s 1.2.3.4/32 ! -i lo -m comment --comment \"a \\\" b\" -j DROP\n";
    for at in 0..text.len() {
        for with in ["", "\"", "\\", "!", "\n", " ", "-", "\u{fffd}"] {
            legacy(&format!("{}{with}{}", &text[..at], &text[at + 1..])).candidates(&packet(), &ALL);
        }
    }
    for odd in [
        "-A",
        "-A INPUT -j",
        "-A INPUT !",
        "-A INPUT -s",
        "-A INPUT -m",
        "[x -A",
        ":",
        "*",
        "\"",
        "-A INPUT --dport",
    ] {
        legacy(&format!("*filter\n:INPUT DROP [0:0]\n{odd}\n")).candidates(&packet(), &ALL);
    }
}

#[test]
fn rules_of_iptables_nft_are_named_once() {
    let rule =
        compare(r#"{"payload":{"protocol":"udp","field":"dport"}}"#, "==", "8472") + r#",{"drop":null}"#;
    let alone = ruleset("ip", BASE, &[("input", &rule)]).replace(r#""fw""#, r#""filter""#);
    let json = alone
        .replace(r#""name":"input""#, r#""name":"INPUT""#)
        .replace(r#""chain":"input""#, r#""chain":"INPUT""#);
    let text = "*filter\n:INPUT ACCEPT [0:0]\n[5:6] -A INPUT -p udp -m udp --dport 8472 -j DROP\nCOMMIT\n";
    let of = |saves: Vec<Save>, json: Option<&str>| {
        Rules::of(Outputs {
            saves,
            nft: json.map(str::to_owned),
            ..Outputs::default()
        })
    };
    let own = "iptables-nft: filter INPUT rule 1: -A INPUT -p udp -m udp --dport 8472 -j DROP";
    let nfts = "nft: ip filter INPUT handle 1: udp dport 8472 drop";
    let nft_save = |text| save(Tool::IptablesNft, Family::Ip, text);
    // A chain of nft's own in the same table, which iptables-nft-save leaves out, with or without its own chains.
    for text in [
        text,
        "# Table `filter' contains incompatible base-chains, use 'nft' tool to list them.\n*filter\nCOMMIT\n",
    ] {
        let both = of(vec![nft_save(text)], Some(&alone));
        assert!(
            named(&both, &packet())
                .contains(&"nft: ip filter input handle 1: udp dport 8472 drop".to_owned()),
            "{text}"
        );
    }
    assert_eq!(named(&of(vec![nft_save(text)], Some(&json)), &packet()), [own]);
    // Without it, nft's account does.
    assert_eq!(named(&of(vec![], Some(&json)), &packet()), [nfts]);
    // Another table, another family, and the other kind of iptables hide nothing.
    assert_eq!(
        named(
            &of(vec![nft_save("*raw\n:PREROUTING ACCEPT\n")], Some(&json)),
            &packet()
        ),
        [nfts]
    );
    assert_eq!(
        named(
            &of(vec![save(Tool::IptablesNft, Family::Ip6, text)], Some(&json)),
            &packet()
        ),
        [nfts]
    );
    let legacy = of(vec![save(Tool::IptablesLegacy, Family::Ip, text)], Some(&json));
    assert_eq!(named(&legacy, &packet()), [&own.replace("nft", "legacy"), nfts]);

    for odd in [
        "# Table `filter' is incompatible, use 'nft' tool.\n",
        "# Table `filter' contains incompatible base-chains, use 'nft' tool to list them.\n",
    ] {
        assert_eq!(of(vec![nft_save(odd)], Some(&json)).unread(), [""; 0]);
        assert_eq!(
            of(vec![nft_save(odd)], None).unread(),
            ["iptables-nft can't show its table filter, and nft failed"]
        );
    }
}

#[test]
#[ignore = "needs root, iptables of both kinds and nft"]
fn real_tools_and_packets() {
    // Of this thread alone. Nothing below reaches the machine's own rules.
    unshare(CloneFlags::CLONE_NEWNET).unwrap();
    let sh = |command: &str| {
        let status = Command::new("sh").args(["-c", command]).status().unwrap();
        assert!(status.success(), "{command}");
    };
    sh("ip link set lo up");
    let send = |address: &str, port: u16| {
        let socket = UdpSocket::bind(if address.contains(':') {
            "[::1]:0"
        } else {
            "127.0.0.1:0"
        })
        .unwrap();
        // Refused or dropped: the counters tell.
        let _ = socket.send_to(b"x", (address, port));
        Packet {
            path: PacketPath::In,
            protocol: 17,
            source: address.parse().unwrap(),
            destination: address.parse().unwrap(),
            source_port: Some(socket.local_addr().unwrap().port()),
            destination_port: Some(port),
            input: Some("lo".to_owned()),
            output: None,
            is_new: false,
            position: PathPosition::Anywhere,
        }
    };
    let check = |packet: &Packet, actions: &[Action], expected: &str| {
        let (rules, _) = Rules::read();
        assert_eq!(rules.unread(), [""; 0]);
        let candidates = rules.candidates(packet, actions);
        assert_eq!(
            candidates.iter().map(ToString::to_string).collect::<Vec<_>>(),
            [expected]
        );
        assert!(candidates[0].certain);
        assert_eq!(candidates[0].packets, Some(1), "{expected}");
    };
    for (tool, port) in [("legacy", 1001), ("nft", 1002)] {
        for (v, address) in [("", "127.0.0.1"), ("6", "::1")] {
            let ip = format!("ip{v}tables-{tool}");
            let network = if v == "6" { "::1/128" } else { "127.0.0.0/8" };
            sh(&format!(
                "{ip} -N OWN && {ip} -A INPUT -p tcp -j DROP && {ip} -A INPUT -p udp -j OWN \
                 && {ip} -A OWN -s {network} ! -i eth+ -p udp -m udp --dport {port} \
                 -m comment --comment 'not \"this\"' -j DROP \
                 && {ip} -t raw -A PREROUTING -p udp -m multiport --dports 1000:{port},7 -j CT --notrack"
            ));
            let packet = send(address, port);
            check(
                &packet,
                &[Action::Drop],
                &format!(
                    "{ip}: filter OWN rule 1: -A OWN -s {network} ! -i eth+ -p udp -m udp --dport {port} \
                 -m comment --comment \"not \\\"this\\\"\" -j DROP"
                ),
            );
            check(
                &packet,
                &[Action::NoTrack],
                &format!(
                    "{ip}: raw PREROUTING rule 1: -A PREROUTING -p udp -m multiport --dports 1000:{port},7 -j CT --notrack"
                ),
            );
        }
    }
    if Command::new("nft").arg("--version").status().is_err() {
        eprintln!("no nft here");
        return;
    }
    sh("nft -f - <<'END'
        table inet firewall {
            set ports { type inet_service; flags interval; elements = { 1003, 5000-6000 }; }
            map verdicts { type ipv4_addr . inet_proto . inet_service : verdict
                elements = { 127.0.0.1 . udp . 1004 : jump own, 127.0.0.2 . udp . 1004 : accept }; }
            chain own { counter reject comment \"here\"; }
            chain input {
                type filter hook input priority filter + 5; policy accept;
                iifname != \"lo\" drop
                meta nfproto ipv4 udp dport @ports counter drop
                ip daddr . meta l4proto . th dport vmap @verdicts
                ip6 saddr ::1 udp dport vmap { 1005 : goto own, 1-9 : drop }
            }
        }
        table netdev edge {
            chain in { type filter hook ingress device lo priority 0; udp dport 1006 counter drop; }
            chain other { type filter hook ingress device lo priority 1; udp dport 1006 counter drop; }
        }
END");
    let handle = |text: &str| {
        let output = Command::new("nft")
            .args(["-s", "-a", "list", "ruleset"])
            .output()
            .unwrap();
        let output = String::from_utf8(output.stdout).unwrap();
        let line = output
            .lines()
            .find(|line| line.trim().starts_with(text))
            .unwrap()
            .to_owned();
        line.rsplit_once(" # handle ").unwrap().1.to_owned()
    };
    let drop = [Action::Drop];
    let text = "udp dport @ports counter drop";
    let shown = format!("meta nfproto ipv4 {text}");
    check(
        &send("127.0.0.1", 1003),
        &drop,
        &format!("nft: inet firewall input handle {}: {shown}", handle(&shown)),
    );
    let (text, reject) = ("counter reject comment \"here\"", [Action::Reject]);
    check(
        &send("127.0.0.1", 1004),
        &reject,
        &format!("nft: inet firewall own handle {}: {text}", handle(text)),
    );
    let text = "udp dport 1006 counter drop";
    check(
        &send("127.0.0.1", 1006),
        &drop,
        &format!("nft: netdev edge in handle {}: {text}", handle(text)),
    );
    // Without iptables-nft-save, its rules are nft's.
    assert_eq!(
        Rules::read()
            .0
            .candidates(&send("127.0.0.2", 1004), &[Action::Drop, Action::Reject]),
        []
    );
}

#[test]
fn tables_that_a_packet_passes() {
    let text = "*raw\n:PREROUTING ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n:OWN - [0:0]\nCOMMIT\n\
                *nat\n:PREROUTING ACCEPT [0:0]\nCOMMIT\n*mangle\n:PREROUTING ACCEPT [0:0]\nCOMMIT\n";
    let rules = legacy(text);
    assert_eq!(
        rules.passed("PREROUTING", false),
        [
            "iptables-legacy raw",
            "iptables-legacy mangle",
            "iptables-legacy nat"
        ]
    );
    assert_eq!(rules.passed("OUTPUT", false), ["iptables-legacy raw"]);
    assert!(rules.passed("PREROUTING", true).is_empty() && rules.passed("FORWARD", false).is_empty());
}

#[test]
fn zones_that_rules_choose() {
    for (text, expected) in [
        ("-A PREROUTING -i cni0 -j CT --zone 5", Some(5)),
        ("-A PREROUTING -i eth0 -j CT --zone-orig 7", Some(7)),
        ("iifname \"cni0\" ct zone set 5", Some(5)),
        ("iifname \"cni0\" ct original zone set 6", Some(6)),
        ("ct zone 5 accept", None),
        ("-A PREROUTING -j CT --notrack", None),
        ("accept comment \"ct zone set 5\"", None),
    ] {
        assert_eq!(zone(text), expected, "{text}");
    }
}
