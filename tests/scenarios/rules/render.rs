//! Rule sets as the tools take them.

use std::{fmt::Write as _, mem};

use crate::{
    generate::{Attached, GeneratedRule, Matching, RuleSet, Side, Stack, Target},
    packet::{ICMP, TCP, UDP},
};

/// Which program is to read what.
pub fn files(sets: &[&RuleSet]) -> Vec<(&'static str, String)> {
    vec![
        ("iptables-legacy-restore", iptables(sets, Stack::Legacy)),
        ("iptables-nft-restore", iptables(sets, Stack::IptablesNft)),
        ("nft", sets.iter().map(|set| nft(set)).collect()),
    ]
}

/// What the comment of a rule begins with.
pub fn comment_id(id: u32) -> String {
    format!("r{id}")
}

/// Whether a rule of iptables can't have both.
pub fn is_alike(one: &Matching, other: &Matching) -> bool {
    mem::discriminant(one) == mem::discriminant(other)
}

/// Whether it asks for a transport protocol's ports.
pub fn is_of_ports(condition: &Matching) -> bool {
    matches!(
        condition,
        Matching::SourcePort(..) | Matching::DestinationPort(..) | Matching::Ports(..) | Matching::Pairs(_)
    )
}

fn comment(rule: &GeneratedRule) -> String {
    match rule.id % 4 {
        0 => format!("{} -m x ! -s 1.2.3.4 -j ACCEPT", comment_id(rule.id)),
        1 => format!("{} ip saddr 1.2.3.4 accept", comment_id(rule.id)),
        _ => comment_id(rule.id),
    }
}

fn iptables(sets: &[&RuleSet], stack: Stack) -> String {
    let mut text = String::new();
    for table in ["raw", "mangle", "filter", "security"] {
        let (mut chains, mut rules) = (String::new(), String::new());
        for set in sets {
            for at in set
                .attached
                .iter()
                .filter(|at| at.stack == stack && at.table == table)
            {
                for number in 0..at.chains.len() {
                    writeln!(chains, ":{} - [0:0]", chain_name(set, at, number)).unwrap();
                }
                let (base, first) = (at.hook.to_uppercase(), chain_name(set, at, 0));
                writeln!(rules, "[0:0] -A {base} -s 10.100.{}.0/24 -j {first}", set.net).unwrap();
                for (number, chain) in at.chains.iter().enumerate() {
                    for rule in chain {
                        let counter = rule.counter.unwrap_or_default();
                        let name = chain_name(set, at, number);
                        write!(rules, "[{counter}:{}] -A {name}", counter * 40).unwrap();
                        for condition in &rule.conditions {
                            rules.push(' ');
                            rules.push_str(&iptables_match(condition));
                        }
                        write!(rules, " -m comment --comment \"{}\"", comment(rule)).unwrap();
                        rules.push_str(&match rule.target {
                            Target::Drop => " -j DROP".to_owned(),
                            Target::Reject => " -j REJECT".to_owned(),
                            Target::Accept => " -j ACCEPT".to_owned(),
                            Target::Return => " -j RETURN".to_owned(),
                            Target::Jump(to) => format!(" -j {}", chain_name(set, at, to)),
                            Target::Goto(to) => format!(" -g {}", chain_name(set, at, to)),
                            Target::NoTrack => " -j CT --notrack".to_owned(),
                            Target::Nothing => String::new(),
                        });
                        rules.push('\n');
                    }
                }
            }
        }
        if !rules.is_empty() {
            write!(text, "*{table}\n{chains}{rules}COMMIT\n").unwrap();
        }
    }
    text
}

fn chain_name(set: &RuleSet, at: &Attached, number: usize) -> String {
    format!("S{}-{}-{number}", set.net, at.hook)
}

fn protocol(number: u8) -> &'static str {
    match number {
        TCP => "tcp",
        UDP => "udp",
        ICMP => "icmp",
        _ => unreachable!(),
    }
}

fn iptables_match(condition: &Matching) -> String {
    let is =
        |not: bool, option: &str, value: String| format!("{}{option} {value}", if not { "! " } else { "" });
    let range = |first: u16, last: u16| {
        if first == last {
            first.to_string()
        } else {
            format!("{first}:{last}")
        }
    };
    match condition {
        Matching::Source(address, length, not) => is(*not, "-s", format!("{address}/{length}")),
        Matching::Destination(address, length, not) => is(*not, "-d", format!("{address}/{length}")),
        Matching::SourceRange(first, last, not) => {
            format!(
                "-m iprange {}",
                is(*not, "--src-range", format!("{first}-{last}"))
            )
        }
        Matching::Protocol(number, not) => is(*not, "-p", protocol(*number).to_owned()),
        Matching::SourcePort(first, last, not) => is(*not, "--sport", range(*first, *last)),
        Matching::DestinationPort(first, last, not) => is(*not, "--dport", range(*first, *last)),
        Matching::Ports(side, ranges, not) => {
            let option = match side {
                Side::Source => "--sports",
                Side::Destination => "--dports",
                Side::Either => "--ports",
            };
            let ranges: Vec<String> = ranges.iter().map(|(first, last)| range(*first, *last)).collect();
            format!("-m multiport {}", is(*not, option, ranges.join(",")))
        }
        Matching::Input(device, not) => is(*not, "-i", (*device).to_owned()),
        Matching::Output(device, not) => is(*not, "-o", (*device).to_owned()),
        Matching::Local(not) => format!("-m addrtype {}", is(*not, "--dst-type", "LOCAL".to_owned())),
        Matching::Opaque(iptables, _) => (*iptables).to_owned(),
        Matching::Protocols(_) | Matching::Named(..) | Matching::Pairs(_) | Matching::Map(_) => {
            unreachable!()
        }
    }
}

/// The name of a chain of nft that is attached to a hook.
pub fn base_name(at: &Attached) -> String {
    format!("b{}", at.chains[0][0].id)
}

fn nft(set: &RuleSet) -> String {
    let mut text = String::new();
    for at in set.attached.iter().filter(|at| at.stack == Stack::Nft) {
        let (mut objects, mut chains, mut base) = (String::new(), String::new(), String::new());
        for chain in at.chains.iter().rev() {
            let mut rules = String::new();
            for rule in chain {
                nft_rule(at, rule, &mut objects, &mut rules);
            }
            base = rules;
            writeln!(chains, "chain c{} {{\n{base}}}", chain[0].id).unwrap();
        }
        let policy = match at.policy {
            Some(id) => {
                writeln!(objects, "counter p{id} {{\npackets 0 bytes 0\n}}").unwrap();
                base = format!("jump c{}\ncounter name \"p{id}\"\n", at.chains[0][0].id);
                "drop"
            }
            None => "accept",
        };
        writeln!(
            text,
            "table {} s{} {{\n{objects}{chains}chain {} {{\ntype {} hook {} priority {}; policy {policy};\nip saddr != \
             10.100.{}.0/24 accept\n{base}}}\n}}",
            at.table,
            set.net,
            base_name(at),
            if at.is_nat { "nat" } else { "filter" },
            at.hook,
            at.priority,
            set.net
        )
        .unwrap();
    }
    text
}

fn nft_rule(at: &Attached, rule: &GeneratedRule, objects: &mut String, rules: &mut String) {
    let id = rule.id;
    let mut words: Vec<String> = Vec::new();
    let named = rule.conditions.iter().find_map(|condition| match condition {
        Matching::Protocol(number, false) => Some(protocol(*number)),
        _ => None,
    });
    // Ports ask for the protocol by themselves.
    let is_said = |condition: &Matching| {
        let has_ports = rule
            .conditions
            .iter()
            .any(|other| is_of_ports(other) || matches!(other, Matching::Map(_)));
        matches!(condition, Matching::Protocol(..)) && has_ports && id.is_multiple_of(2)
    };
    let mut map = None;
    for condition in rule.conditions.iter().filter(|condition| !is_said(condition)) {
        match condition {
            Matching::Map(ranges) => map = Some(ranges),
            Matching::Named(_, elements, _) => {
                let elements: Vec<String> = elements
                    .iter()
                    .map(|(address, length)| format!("{address}/{length}"))
                    .collect();
                let elements = elements.join(", ");
                writeln!(
                    objects,
                    "set s{id} {{\ntype ipv4_addr\nflags interval\nelements = {{ {elements} }}\n}}"
                )
                .unwrap();
                words.push(nft_match(condition, named, id));
            }
            _ => words.push(nft_match(condition, named, id)),
        }
    }
    words.push(match rule.counter {
        Some(packets) => format!("counter packets {packets} bytes {}", packets * 40),
        None => {
            writeln!(objects, "counter n{id} {{\npackets 0 bytes 0\n}}").unwrap();
            format!("counter name \"n{id}\"")
        }
    });
    let chain = |to: usize| format!("c{}", at.chains[to][0].id);
    let verdict = match rule.target {
        Target::Drop => "drop".to_owned(),
        Target::Reject if map.is_some() => "drop".to_owned(),
        Target::Reject => "reject".to_owned(),
        Target::Accept => "accept".to_owned(),
        Target::Return => "return".to_owned(),
        Target::Jump(to) => format!("jump {}", chain(to)),
        Target::Goto(to) => format!("goto {}", chain(to)),
        Target::NoTrack => "notrack".to_owned(),
        Target::Nothing => String::new(),
    };
    let Some(ranges) = map else {
        writeln!(
            rules,
            "{} {verdict} comment \"{}\"",
            words.join(" "),
            comment(rule)
        )
        .unwrap();
        return;
    };
    let elements: Vec<String> = ranges
        .iter()
        .map(|range| format!("{} : {verdict}", port_range(*range)))
        .collect();
    let mut elements = format!("{{ {} }}", elements.join(", "));
    if id.is_multiple_of(3) {
        writeln!(
            objects,
            "map m{id} {{\ntype inet_service : verdict\nflags interval\nelements = {elements}\n}}"
        )
        .unwrap();
        elements = format!("@m{id}");
    }
    let key = named.unwrap_or("tcp");
    let (words, comment) = (words.join(" "), comment(rule));
    writeln!(objects, "counter a{id} {{\npackets 0 bytes 0\n}}").unwrap();
    writeln!(
        rules,
        "{words} {key} dport vmap {elements} comment \"{comment}\"\ncounter name \"a{id}\""
    )
    .unwrap();
}

fn port_range((first, last): (u16, u16)) -> String {
    if first == last {
        first.to_string()
    } else {
        format!("{first}-{last}")
    }
}

fn nft_match(condition: &Matching, named: Option<&str>, id: u32) -> String {
    let op = |not: bool| if not { "!= " } else { "" };
    let of = named.unwrap_or("th");
    let device = |name: &str| format!("\"{}\"", name.replace('+', "*"));
    match condition {
        Matching::Source(address, length, not) => format!("ip saddr {}{address}/{length}", op(*not)),
        Matching::Destination(address, length, not) => format!("ip daddr {}{address}/{length}", op(*not)),
        Matching::SourceRange(first, last, not) => format!("ip saddr {}{first}-{last}", op(*not)),
        Matching::Protocol(number, not) if id.is_multiple_of(5) => {
            format!("ip protocol {}{}", op(*not), protocol(*number))
        }
        Matching::Protocol(number, not) => format!("meta l4proto {}{}", op(*not), protocol(*number)),
        Matching::Protocols(numbers) => {
            let names: Vec<&str> = numbers.iter().map(|number| protocol(*number)).collect();
            format!("meta l4proto {{ {} }}", names.join(", "))
        }
        Matching::SourcePort(first, last, not) => {
            format!("{of} sport {}{}", op(*not), port_range((*first, *last)))
        }
        Matching::DestinationPort(first, last, not) => {
            format!("{of} dport {}{}", op(*not), port_range((*first, *last)))
        }
        Matching::Ports(side, ranges, not) => {
            let side = if *side == Side::Source { "sport" } else { "dport" };
            let ranges: Vec<String> = ranges.iter().copied().map(port_range).collect();
            format!("{of} {side} {}{{ {} }}", op(*not), ranges.join(", "))
        }
        Matching::Input(name, not) => format!("iifname {}{}", op(*not), device(name)),
        Matching::Output(name, not) => format!("oifname {}{}", op(*not), device(name)),
        Matching::Local(not) => format!("fib daddr type {}local", op(*not)),
        Matching::Opaque(_, nft) => (*nft).to_owned(),
        Matching::Named(is_source, _, not) => {
            format!(
                "ip {} {}@s{id}",
                if *is_source { "saddr" } else { "daddr" },
                op(*not)
            )
        }
        Matching::Pairs(pairs) => {
            let pairs: Vec<String> = pairs
                .iter()
                .map(|(address, port)| format!("{address} . {port}"))
                .collect();
            format!("ip saddr . {of} dport {{ {} }}", pairs.join(", "))
        }
        Matching::Map(_) => unreachable!(),
    }
}
