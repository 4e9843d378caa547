//! Whether a rule that is certain is the one that did it.

use super::*;
use crate::model::rule;

/// The rule that is named, with a question mark if it is not certain.
fn first(rules: &[&str]) -> String {
    let mut text = "*filter\n:INPUT ACCEPT [0:0]\n:A - [0:0]\n:B - [0:0]\n".to_owned();
    for rule in rules {
        text += &format!("[1:2] -A {rule}\n");
    }
    let candidates = legacy(&(text + "COMMIT\n")).candidates(&packet(), &[Action::Drop]);
    rule::first(candidates).map_or_else(String::new, |rule| {
        let RulePosition::Position(position) = rule.place else {
            panic!("{rule}")
        };
        format!("{}{position}{}", rule.chain, if rule.certain { "" } else { "?" })
    })
}

#[test]
fn rules_around_which_something_leads() {
    let mark = "-m mark --mark 1";
    for (rules, expected) in [
        (vec!["INPUT -j DROP"], "INPUT1"),
        // An accept before the only rule: the packet was dropped, so it did not match.
        (
            vec![&*format!("INPUT {mark} -j ACCEPT"), "INPUT -j DROP"],
            "INPUT2",
        ),
        // One of both.
        (
            vec![&*format!("INPUT {mark} -j DROP"), "INPUT -j DROP"],
            "INPUT2?",
        ),
        // Behind the jump to A, if the mark is there.
        (
            vec![
                &*format!("A {mark} -j RETURN"),
                "A -j DROP",
                "INPUT -j A",
                "INPUT -j DROP",
            ],
            "A2?",
        ),
        // No way leads around what is behind a chain with a return in it.
        (
            vec![
                &*format!("A {mark} -j RETURN"),
                "INPUT -j A",
                "INPUT -j DROP",
                "INPUT -j DROP",
            ],
            "INPUT2",
        ),
        // Accepted by A, if the mark is not there.
        (
            vec![
                &*format!("A {mark} -j RETURN"),
                "A -j ACCEPT",
                "INPUT -j A",
                "INPUT -j DROP",
            ],
            "INPUT2",
        ),
        // To B by another way, with a rule before it that may match.
        (
            vec![
                "B -j DROP",
                &*format!("INPUT {mark} -j B"),
                "INPUT -m limit --limit 1/second -j DROP",
                "INPUT -j B",
            ],
            "B1?",
        ),
    ] {
        assert_eq!(first(&rules), expected, "{rules:?}");
    }
}

#[test]
fn chains_of_one_priority() {
    let one = "*filter\n:INPUT ACCEPT [0:0]\n[1:2] -A INPUT -j DROP\nCOMMIT\n";
    let rules = |texts: &[(Tool, &str)]| {
        let saves = texts.iter().map(|(tool, text)| save(*tool, Family::Ip, text));
        Rules::of(Outputs {
            saves: saves.collect(),
            ..Outputs::default()
        })
    };
    let is_certain = |rules: Rules| {
        let candidates = rules.candidates(&packet(), &[Action::Drop]);
        rule::first(candidates).is_some_and(|rule| rule.certain)
    };
    assert!(is_certain(rules(&[(Tool::IptablesLegacy, one)])));
    assert!(!is_certain(rules(&[
        (Tool::IptablesLegacy, one),
        (Tool::IptablesNft, one)
    ])));
    // The other one does nothing.
    let other = one.replace("-j DROP", "-p tcp -j DROP");
    assert!(is_certain(rules(&[
        (Tool::IptablesLegacy, &other),
        (Tool::IptablesNft, one)
    ])));
    // It is the one that moved.
    let other = one.replace("[1:2] -A", "[0:0] -A");
    assert!(is_certain(rules(&[
        (Tool::IptablesLegacy, &other),
        (Tool::IptablesNft, one)
    ])));
}

/// Of two base chains, one after the other, each may have dropped the packet.
#[test]
fn an_accept_leads_to_the_next_base_chain() {
    let mark = "-m mark --mark 1";
    for (first, expected) in [
        // A return leads around the accept, to the rule behind the jump or to the policy.
        (
            vec![
                format!("A {mark} -j RETURN"),
                "A -j ACCEPT".to_owned(),
                "INPUT -j A".to_owned(),
                "INPUT -j DROP".to_owned(),
            ],
            false,
        ),
        (
            vec![
                format!("A {mark} -j RETURN"),
                "A -j ACCEPT".to_owned(),
                "INPUT -j A".to_owned(),
            ],
            false,
        ),
        (
            vec![format!("INPUT {mark} -g A"), "INPUT -j ACCEPT".to_owned()],
            false,
        ),
        (
            vec![
                format!("A {mark} -j RETURN"),
                "INPUT -j A".to_owned(),
                "INPUT -j DROP".to_owned(),
            ],
            true,
        ),
        (vec![format!("A {mark} -j RETURN"), "INPUT -j A".to_owned()], true),
    ] {
        let rules: String = first.iter().map(|rule| format!("[1:2] -A {rule}\n")).collect();
        let text = format!(
            "*mangle\n:INPUT DROP [1:2]\n:A - [0:0]\n{rules}COMMIT\n*filter\n:INPUT ACCEPT [0:0]\n[1:2] -A INPUT -j DROP\nCOMMIT\n"
        );
        let candidates = legacy(&text).candidates(&packet(), &[Action::Drop]);
        let named = rule::first(candidates).unwrap();
        assert_eq!(named.certain, expected, "{rules}: {named}");
    }
}

/// nft lists two matches where the kernel has one, which matches if either field is another.
#[test]
fn matches_that_nft_joins() {
    let port = |side: &str, op: &str, value: u16| {
        compare(
            &format!(r#"{{"payload":{{"protocol":"udp","field":"{side}"}}}}"#),
            op,
            &value.to_string(),
        )
    };
    // Of a packet from 40000 to 8472.
    for (matches, expected) in [
        ([port("sport", "!=", 1), port("dport", "!=", 2)], "1"),
        ([port("sport", "!=", 40_000), port("dport", "!=", 2)], "1?"),
        ([port("dport", "!=", 8472), port("sport", "!=", 1)], "1?"),
        ([port("sport", "!=", 40_000), port("dport", "!=", 8472)], ""),
        ([port("sport", "<", 50_000), port("dport", "<", 5)], "1?"),
        // Not of the same operator.
        ([port("sport", "!=", 40_000), port("dport", "<", 9000)], ""),
        ([port("sport", "==", 40_000), port("dport", "==", 2)], ""),
    ] {
        let rule = [("input", &*format!(r#"{},{{"drop":null}}"#, matches.join(",")))];
        assert_eq!(
            handles(&ruleset("inet", BASE, &rule), &packet()),
            expected,
            "{matches:?}"
        );
        // A statement between them keeps them apart.
        let rule = [(
            "input",
            &*format!(r#"{},{{"drop":null}}"#, matches.join(r#",{"counter":null},"#)),
        )];
        let apart = handles(&ruleset("inet", BASE, &rule), &packet());
        assert!(!apart.contains('?'), "{matches:?}");
    }
}
