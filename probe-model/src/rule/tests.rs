use std::process::Command;

use super::{
    samples::{iptables, nft, policy},
    *,
};
use crate::finding::Fix;

fn flow(path: PacketPath, port: u16) -> RuleFlow {
    RuleFlow {
        destination_port: Some(port),
        ..RuleFlow::between(
            path,
            if port == 8472 { 17 } else { 6 },
            [192, 168, 88, 12].into(),
            [192, 168, 88, 11].into(),
        )
    }
}

fn drop(words: &[&str]) -> CandidateRule {
    iptables(Tool::IptablesNft, "filter", Action::Drop, words)
}

fn argv(fix: &Fix) -> &[String] {
    match fix {
        Fix::Command { argv, .. } => argv,
        Fix::Text(_) => &[],
    }
}

/// Whoever may write a rule chooses its comment.
const HOSTILE: [&str; 18] = [
    "$(touch /tmp/x)",
    "`id`",
    "it's",
    "a\"b",
    "a\\b",
    "a\\\"b'$HOME",
    "; reboot",
    "| sh",
    "&& reboot &",
    "> /etc/passwd",
    "!history",
    "^caret^",
    "*?[a]{b,c}~",
    "#comment",
    "-j",
    "",
    "ünïcode 监控",
    "${IFS}'\"'\"'",
];

#[test]
fn a_comment_never_reaches_a_shell() {
    for comment in HOSTILE {
        for action in [Action::Drop, Action::NoTrack] {
            let words = [
                "INPUT",
                "-p",
                "udp",
                "--dport",
                "8472",
                "-m",
                "comment",
                "--comment",
                comment,
                "-j",
                "X",
            ];
            let rule = iptables(Tool::IptablesLegacy, "filter", action, &words);
            let fixes = rule.fixes(&flow(PacketPath::In, 8472));
            let mut expected = vec!["iptables-legacy", "-t", "filter", "-D"];
            expected.extend(words);
            assert_eq!(argv(&fixes[0]), expected, "{comment}");
            let printed = fixes[0].to_string();
            let (command, _) = printed.split_once("  # ").unwrap();
            assert_eq!(shlex::split(command).unwrap(), expected, "{printed}");
            // shlex leaves the rest of the line out, as a shell does.
            assert_eq!(shlex::split(&printed).unwrap(), expected, "{printed}");
            let bare = unquoted(command);
            assert!(
                !bare.contains(['$', '`', ';', '|', '&', '<', '>', '\n', '!', '*']),
                "{bare}"
            );
            let said = Command::new("/bin/sh")
                .args(["-c", &format!("printf '%s\\n' {printed}")])
                .output()
                .unwrap();
            let lines: String = expected.iter().map(|word| format!("{word}\n")).collect();
            assert_eq!(String::from_utf8(said.stdout).unwrap(), lines);
        }
    }
}

/// What a shell does not find in quotes or behind a backslash.
fn unquoted(line: &str) -> String {
    let (mut bare, mut quote) = (String::new(), None);
    let mut characters = line.chars();
    while let Some(character) = characters.next() {
        match (quote, character) {
            (None | Some('"'), '\\') => drop_next(&mut characters),
            (None, '\'' | '"') => quote = Some(character),
            (Some(open), _) if open == character => quote = None,
            (Some('"'), '$' | '`') => bare.push(character),
            (Some(_), _) => {}
            (None, _) => bare.push(character),
        }
    }
    bare
}

fn drop_next(characters: &mut std::str::Chars<'_>) {
    characters.next();
}

#[test]
fn no_command_of_what_a_terminal_does_not_show() {
    for comment in [
        "a\nb",
        "\u{1b}[2J",
        "a\tb",
        "a\0",
        "a\u{202e}b",
        "a\u{fffd}b",
        "e\u{301}",
        "\u{3164}",
    ] {
        let rule = drop(&[
            "INPUT",
            "-p",
            "udp",
            "--dport",
            "8472",
            "-m",
            "comment",
            "--comment",
            comment,
            "-j",
            "DROP",
        ]);
        let fixes = rule.fixes(&flow(PacketPath::In, 8472));
        assert!(
            matches!(fixes.as_slice(), [Fix::Text(text)] if !text.contains(comment) && !text.contains("-D")),
            "{fixes:?}"
        );
    }
}

#[test]
fn what_was_not_read_whole_is_no_base_of_a_command() {
    let whole = drop(&["INPUT", "-p", "udp", "--dport", "8472", "-j", "DROP"]);
    for text in [
        "-A INPUT -p udp --dport 8472 -m comment --comment \"aaa…",
        "-A INPUT --dport 8472 [partly read]",
    ] {
        let rule = CandidateRule {
            words: None,
            text: text.to_owned(),
            ..whole.clone()
        };
        let fixes = rule.fixes(&flow(PacketPath::In, 8472));
        assert!(matches!(fixes.as_slice(), [Fix::Text(_)]), "{fixes:?}");
    }
}

fn commands(fixes: &[Fix]) -> Vec<String> {
    fixes.iter().map(|fix| argv(fix).join(" ")).collect()
}

#[test]
fn only_these_packets_are_let_through() {
    let net = |net: &str| RuleFlow {
        path: PacketPath::Forward,
        protocol: None,
        source: Some(net.parse().unwrap()),
        destination: None,
        source_port: None,
        destination_port: None,
    };
    let v6 = RuleFlow::between(
        PacketPath::In,
        6,
        "fd00::1".parse().unwrap(),
        "fd00::2".parse().unwrap(),
    );
    for (rule, flow, expected) in [
        // A rule for this port or this address goes.
        (
            drop(&["INPUT", "-p", "udp", "--dport", "8472", "-j", "DROP"]),
            flow(PacketPath::In, 8472),
            vec!["iptables-nft -t filter -D INPUT -p udp --dport 8472 -j DROP"],
        ),
        (
            drop(&["INPUT", "-s", "192.168.88.12/32", "-j", "DROP"]),
            flow(PacketPath::In, 8472),
            vec!["iptables-nft -t filter -D INPUT -s 192.168.88.12/32 -j DROP"],
        ),
        (
            nft(
                Family::Inet,
                "own",
                "web",
                Action::Drop,
                "tcp dport 443 counter drop",
            ),
            flow(PacketPath::Forward, 443),
            vec!["nft delete rule inet own web handle 9"],
        ),
        // A rule that keeps others out stays.
        (
            drop(&["INPUT", "-j", "DROP"]),
            flow(PacketPath::In, 8472),
            vec![
                "iptables-nft -t filter -I INPUT -p udp -s 192.168.88.12 -d 192.168.88.11 --dport 8472 -j ACCEPT",
            ],
        ),
        (
            drop(&[
                "INPUT",
                "!",
                "-s",
                "10.0.0.1/32",
                "!",
                "--dport",
                "22",
                "-j",
                "DROP",
            ]),
            flow(PacketPath::In, 8472),
            vec![
                "iptables-nft -t filter -I INPUT -p udp -s 192.168.88.12 -d 192.168.88.11 --dport 8472 -j ACCEPT",
            ],
        ),
        (
            drop(&["INPUT", "-m", "comment", "--comment", "--dport", "-j", "DROP"]),
            flow(PacketPath::In, 8472),
            vec![
                "iptables-nft -t filter -I INPUT -p udp -s 192.168.88.12 -d 192.168.88.11 --dport 8472 -j ACCEPT",
            ],
        ),
        (
            nft(
                Family::Ip,
                "own",
                "in",
                Action::Drop,
                "counter drop comment \"tcp dport 443\"",
            ),
            flow(PacketPath::In, 443),
            vec![
                "nft insert rule ip own in ip saddr 192.168.88.12 ip daddr 192.168.88.11 tcp dport 443 accept",
            ],
        ),
        (
            drop(&["FORWARD", "-s", "10.0.0.0/8", "-j", "REJECT"]),
            flow(PacketPath::Forward, 443),
            vec![
                "iptables-nft -t filter -I FORWARD -p tcp -s 192.168.88.12 -d 192.168.88.11 --dport 443 -j ACCEPT",
                "iptables-nft -t filter -I FORWARD -p tcp -s 192.168.88.11 -d 192.168.88.12 --sport 443 -j ACCEPT",
            ],
        ),
        (
            nft(
                Family::Inet,
                "own",
                "in",
                Action::Drop,
                "tcp dport != 22 counter drop",
            ),
            v6,
            vec!["nft insert rule inet own in ip6 saddr fd00::1 ip6 daddr fd00::2 meta l4proto tcp accept"],
        ),
        // A policy stays what it is.
        (
            policy(Tool::IptablesLegacy, "INPUT", &[]),
            flow(PacketPath::In, 8472),
            vec![
                "iptables-legacy -t filter -A INPUT -p udp -s 192.168.88.12 -d 192.168.88.11 --dport 8472 -j ACCEPT",
            ],
        ),
        (
            policy(Tool::Nft, "last", &[]),
            flow(PacketPath::In, 443),
            vec![
                "nft add rule ip filter last ip saddr 192.168.88.12 ip daddr 192.168.88.11 tcp dport 443 accept",
            ],
        ),
        (
            policy(Tool::IptablesLegacy, "FORWARD", &["mine"]),
            net("10.244.1.0/24"),
            vec![
                "iptables-legacy -t filter -A FORWARD -m conntrack --ctorigsrc 10.244.1.0/24 -j ACCEPT",
                "iptables-legacy -t filter -A FORWARD -m conntrack --ctreplsrc 10.244.1.0/24 -j ACCEPT",
            ],
        ),
    ] {
        assert_eq!(commands(&rule.fixes(&flow)), expected, "{rule}");
    }
}

const PUBLIC: &str = "192.168.88.12";

#[test]
fn owners() {
    let notrack = |words: &[&str]| iptables(Tool::IptablesNft, "raw", Action::NoTrack, words);
    let comment = |chain: &'static str, comment: &'static str| {
        [
            chain,
            "-p",
            "tcp",
            "--dport",
            "443",
            "-m",
            "comment",
            "--comment",
            comment,
            "-j",
            "X",
        ]
    };
    let table = |name: &str, chain: &str| nft(Family::Inet, name, chain, Action::Drop, "tcp dport 443 drop");
    for (rule, expected, path, fix) in [
        (
            drop(&comment("KUBE-SERVICES", "shop/web:http has no endpoints")),
            Some(RuleOwner::KubeProxy),
            PacketPath::Forward,
            "kubectl -n shop get endpoints web  # ",
        ),
        (
            drop(&comment(
                "KUBE-EXTERNAL-SERVICES",
                "shop/web:http has no local endpoints",
            )),
            Some(RuleOwner::KubeProxy),
            PacketPath::In,
            "kubectl -n shop get endpoints web  # ",
        ),
        (
            drop(&comment("KUBE-SERVICES", "$(id)/-oyaml:x has no endpoints")),
            Some(RuleOwner::KubeProxy),
            PacketPath::Forward,
            "Check whether the Service's selector matches a pod",
        ),
        (
            drop(&[
                "KUBE-FORWARD",
                "-m",
                "conntrack",
                "--ctstate",
                "INVALID",
                "-j",
                "DROP",
            ]),
            Some(RuleOwner::KubeProxy),
            PacketPath::Forward,
            "kube-proxy drops packets in conntrack state INVALID",
        ),
        (
            table("kube-proxy", "filter-forward"),
            Some(RuleOwner::KubeProxy),
            PacketPath::Forward,
            "kube-proxy creates this rule for a Service",
        ),
        (
            drop(&["KUBE-POD-FW-ABC", "-j", "REJECT"]),
            Some(RuleOwner::KubeRouter),
            PacketPath::Forward,
            "Allow TCP port 443 from 192.168.88.12 to 192.168.88.11 in the NetworkPolicy that selects the pod; kube-router",
        ),
        (
            drop(&["KUBE-NWPLCY-DEFAULT", "-j", "REJECT"]),
            Some(RuleOwner::KubeRouter),
            PacketPath::Forward,
            "Allow TCP port 443",
        ),
        (
            drop(&[
                "cali-tw-cali123",
                "-m",
                "comment",
                "--comment",
                "cali:abc",
                "-j",
                "DROP",
            ]),
            Some(RuleOwner::Calico),
            PacketPath::Forward,
            "Allow TCP port 443 from 192.168.88.12 to 192.168.88.11 in the NetworkPolicy",
        ),
        (
            drop(&comment(
                "cali-INPUT",
                "Drop IPv4 VXLAN packets from non-allowed hosts",
            )),
            Some(RuleOwner::Calico),
            PacketPath::In,
            "Make 192.168.88.12 known to Calico, so that Felix adds it to the ipset cali40all-vxlan-net",
        ),
        (
            drop(&comment("FORWARD", "cali:wUHhoiAYhphO9Mso")),
            Some(RuleOwner::Calico),
            PacketPath::Forward,
            "Allow TCP port 443 from 192.168.88.12 to 192.168.88.11 by a GlobalNetworkPolicy",
        ),
        (
            notrack(&["cali-PREROUTING", "-p", "udp", "--dport", "4789", "-j", "NOTRACK"]),
            Some(RuleOwner::Calico),
            PacketPath::In,
            "Felix keeps this rule",
        ),
        (
            drop(&["CILIUM_FORWARD", "-j", "DROP"]),
            Some(RuleOwner::Cilium),
            PacketPath::Forward,
            "Allow TCP port 443",
        ),
        (
            drop(&["ANTREA-FORWARD", "-j", "DROP"]),
            Some(RuleOwner::Antrea),
            PacketPath::Forward,
            "Allow TCP port 443",
        ),
        (
            drop(&["FLANNEL-FWD", "-j", "DROP"]),
            Some(RuleOwner::Flannel),
            PacketPath::Forward,
            "Restart flannel on this node",
        ),
        (
            drop(&["DOCKER-ISOLATION-STAGE-2", "-o", "docker0", "-j", "DROP"]),
            Some(RuleOwner::Docker),
            PacketPath::Forward,
            "iptables-nft -t filter -I DOCKER-USER -p tcp -s 192.168.88.12 -d 192.168.88.11 --dport 443 -j ACCEPT",
        ),
        (
            iptables(
                Tool::IptablesNft,
                "raw",
                Action::Drop,
                &[
                    "PREROUTING",
                    "-d",
                    "172.17.0.2/32",
                    "!",
                    "-i",
                    "br-15fc2fdf8f2c",
                    "-j",
                    "DROP",
                ],
            ),
            Some(RuleOwner::Docker),
            PacketPath::In,
            "iptables-nft -t raw -I PREROUTING -p tcp -s 192.168.88.12 -d 192.168.88.11 --dport 443 -j ACCEPT",
        ),
        (
            policy(Tool::IptablesNft, "FORWARD", &["DOCKER", "DOCKER-USER"]),
            Some(RuleOwner::Docker),
            PacketPath::Forward,
            "iptables-nft -t filter -A FORWARD -p tcp -s 192.168.88.12 -d 192.168.88.11 --dport 443 -j ACCEPT",
        ),
        (
            drop(&["ufw-user-input", "-p", "udp", "--dport", "443", "-j", "DROP"]),
            Some(RuleOwner::Ufw),
            PacketPath::In,
            "ufw insert 1 allow proto tcp from 192.168.88.12 to 192.168.88.11 port 443  # ",
        ),
        (
            drop(&["ufw-reject-forward", "-j", "REJECT"]),
            Some(RuleOwner::Ufw),
            PacketPath::Forward,
            "ufw route allow proto tcp from 192.168.88.12 to 192.168.88.11 port 443  # ",
        ),
        (
            drop(&["ufw6-before-output", "-j", "DROP"]),
            Some(RuleOwner::Ufw),
            PacketPath::Out,
            "ufw allow out proto tcp from 192.168.88.12 to 192.168.88.11 port 443  # ",
        ),
        (
            table("firewalld", "filter_INPUT"),
            Some(RuleOwner::Firewalld),
            PacketPath::In,
            "firewall-cmd --permanent --add-port=443/tcp  # ",
        ),
        (
            drop(&["IN_public_deny", "-j", "DROP"]),
            Some(RuleOwner::Firewalld),
            PacketPath::In,
            "firewall-cmd --permanent --add-port=443/tcp  # ",
        ),
        (
            drop(&["FWDI_public", "-j", "REJECT"]),
            Some(RuleOwner::Firewalld),
            PacketPath::Forward,
            "Allow TCP port 443 from 192.168.88.12 to 192.168.88.11 in firewalld",
        ),
        (
            drop(&["LIBVIRT_FWI", "-o", "virbr0", "-j", "REJECT"]),
            Some(RuleOwner::Libvirt),
            PacketPath::Forward,
            "Let libvirt forward TCP port 443",
        ),
        (
            drop(&comment("OUTPUT", "NodeLocal DNS Cache: skip conntrack")),
            Some(RuleOwner::NodeLocalDns),
            PacketPath::Out,
            "NodeLocal DNSCache keeps this rule",
        ),
        // Left over: nothing writes it again.
        (
            notrack(&comment("OUTPUT", "NodeLocal DNS Cache: skip conntrack")),
            Some(RuleOwner::NodeLocalDns),
            PacketPath::Out,
            "iptables-nft -t raw -D OUTPUT -p tcp --dport 443 -m comment --comment 'NodeLocal DNS Cache: skip conntrack' -j X",
        ),
        // Nobody's, or only looking like somebody's.
        (
            drop(&comment("INPUT", "ticket 7, see cali:x")),
            None,
            PacketPath::In,
            "iptables-nft -t filter -D INPUT",
        ),
        (
            drop(&["IN_office", "-p", "tcp", "--dport", "443", "-j", "DROP"]),
            None,
            PacketPath::In,
            "iptables-nft -t filter -D IN_office",
        ),
        (
            policy(Tool::IptablesNft, "INPUT", &["DOCKER"]),
            None,
            PacketPath::In,
            "iptables-nft -t filter -A INPUT",
        ),
    ] {
        assert_eq!(rule.owner, expected, "{rule}");
        let fixes = rule.fixes(&flow(path, 443));
        let printed: Vec<String> = fixes.iter().map(ToString::to_string).collect();
        assert!(printed[0].starts_with(fix), "{rule}: {printed:?}");
        let is_leftover = expected == Some(RuleOwner::NodeLocalDns) && rule.action == Action::NoTrack;
        for (text, fix) in printed.iter().zip(&fixes) {
            let words = argv(fix);
            let has = |word: &str| words.iter().any(|other| other == word);
            assert!(
                expected.is_none() || is_leftover || !has("-D") && !has("delete"),
                "{text}"
            );
            assert!(
                !has("-P") && !has("-F") && !has("flush") && !text.contains("policy accept"),
                "{text}"
            );
            // Nothing is accepted that does not name these packets.
            assert!(!has("ACCEPT") && !has("accept") || has(PUBLIC), "{text}");
        }
    }
}

/// firewalld's change applies when it is reloaded; what an owner makes lasting stands behind what helps at once.
#[test]
fn fixes_in_their_order() {
    let firewalld = nft(
        Family::Inet,
        "firewalld",
        "filter_INPUT",
        Action::Reject,
        "reject",
    );
    assert_eq!(
        commands(&firewalld.fixes(&flow(PacketPath::In, 8472))),
        [
            "firewall-cmd --permanent --add-port=8472/udp",
            "firewall-cmd --reload"
        ]
    );
    let ufw = policy(Tool::IptablesNft, "FORWARD", &["ufw-before-forward"]);
    assert_eq!(ufw.owner, Some(RuleOwner::Ufw));
    assert_eq!(
        commands(&ufw.fixes(&flow(PacketPath::Forward, 443))),
        [
            "iptables-nft -t filter -A FORWARD -p tcp -s 192.168.88.12 -d 192.168.88.11 --dport 443 -j ACCEPT",
            "iptables-nft -t filter -A FORWARD -p tcp -s 192.168.88.11 -d 192.168.88.12 --sport 443 -j ACCEPT",
            "ufw route allow proto tcp from 192.168.88.12 to 192.168.88.11 port 443",
        ]
    );
}

#[test]
fn candidates_that_count() {
    let rule = |chain: &str, certain: bool, packets: Option<u64>| CandidateRule {
        certain,
        packets,
        ..drop(&[chain, "-j", "DROP"])
    };
    let all = vec![
        rule("A", true, Some(0)),
        rule("B", false, None),
        rule("C", true, Some(3)),
        rule("D", true, None),
    ];
    let chains = |rules: Vec<CandidateRule>| rules.into_iter().map(|rule| rule.chain).collect::<Vec<_>>();
    // B may have done it, and is before C.
    assert_eq!(chains(decisive(all.clone())), ["C", "D", "B"]);
    let is_certain = |rules: &[CandidateRule]| first(rules.to_vec()).map(|rule| (rule.chain, rule.certain));
    assert_eq!(is_certain(&all), Some(("C".to_owned(), false)));
    assert_eq!(chains(decisive(all[..2].to_vec())), ["B"]);
    assert_eq!(first(all[..1].to_vec()), None);
    // Nothing leads around C to D.
    assert_eq!(chains(decisive(all[2..].to_vec())), ["C", "D"]);
    assert_eq!(is_certain(&all[2..]), Some(("C".to_owned(), true)));
    // Something may.
    let around = |mut rule: CandidateRule| {
        rule.reached = false;
        rule
    };
    let several = [around(all[2].clone()), all[3].clone()];
    assert_eq!(is_certain(&several), Some(("C".to_owned(), false)));
    // There is no other.
    assert_eq!(is_certain(&several[..1]), Some(("C".to_owned(), true)));
}

#[test]
fn names_of_services_in_commands() {
    for (service, is_command) in [
        ("shop/web:http", true),
        ("shop/web", true),
        ("shop/$(reboot)", false),
        ("-n/web", false),
        ("nothing", false),
        ("", false),
    ] {
        let is = matches!(endpoints(service), Fix::Command { .. });
        assert_eq!(is, is_command, "{service}");
    }
}
