//! What is read from the kernel, beside what the tools print of the same rules.

mod chains;

use std::{fs, process::Command};

use nix::sched::{CloneFlags, unshare};
use serde_json::Value as Json;

use super::{
    dump,
    ruleset::{comment, messages},
    *,
};
use crate::netfilter::{
    rules::{Action, CandidateRule, Packet, PacketPath, PathPosition, RulePosition, Rules, read::Outputs},
    services,
};

/// Rules that iptables-nft is to make; for IPv6 where the address is one.
const IPTABLES: &[&str] = &[
    "-t raw -A PREROUTING -p tcp -m multiport --dports 80,443 -j NOTRACK",
    "-t raw -A PREROUTING -p tcp -m multiport --sports 80,443,1000:2000 -j NOTRACK",
    "-t raw -A PREROUTING -p udp -m multiport ! --ports 9 -j CT --notrack",
    "-t raw -A PREROUTING -p tcp --dport 443 -j NOTRACK",
    "-t raw -A PREROUTING -p tcp --sport 1:100 ! --dport 5:6 -j NOTRACK",
    "-t raw -A PREROUTING -i cni0 -j CT --notrack",
    "-t raw -A PREROUTING -i cni+ -j CT --notrack",
    "-t raw -A PREROUTING -s 10.244.1.5 -d 10.96.7.7 -j NOTRACK",
    "-t raw -A PREROUTING -s 10.0.0.0/8 ! -d 10.96.0.0/13 -j NOTRACK",
    "-t raw -A PREROUTING -s 10.0.0.0/255.0.255.0 -j NOTRACK",
    "-t raw -A PREROUTING ! -i lo -p tcp ! --dport 22 -j NOTRACK",
    "-t raw -N OWN",
    "-t raw -A PREROUTING -p udp -j NOTRACK",
    "-t raw -A PREROUTING -p tcp -j OWN",
    "-t raw -A PREROUTING -p tcp -g OWN",
    "-t raw -A PREROUTING ! -p tcp -j OWN",
    "-t raw -A OWN -p tcp --dport 22 -j NOTRACK",
    "-t raw -A OWN -p tcp --dport 443 -j NOTRACK",
    "-t raw -A OWN -m addrtype --dst-type LOCAL -j NOTRACK",
    "-t raw -A OWN -m mark --mark 0x4000/0x4000 -j NOTRACK",
    "-t raw -A PREROUTING -p tcp --dport 443 -j ACCEPT",
    "-t raw -A PREROUTING -p tcp --dport 80:443 -j NOTRACK",
    "-t raw -A OUTPUT -o eth0 -p udp --dport 9 -j RETURN",
    "-t raw -A OUTPUT -p udp --dport 8472 -j DROP",
    "-A INPUT -p udp --dport 8472 -j DROP",
    "-A INPUT -p udp --dport 8472 -j REJECT",
    "-A INPUT -p tcp -j REJECT --reject-with tcp-reset",
    "-t security -A INPUT -p tcp --dport 9 -j DROP",
    "-P FORWARD DROP",
];

/// The same for ip6tables.
const IP6TABLES: &[&str] = &[
    "-t raw -A OUTPUT -p udp --dport 9 -j NOTRACK",
    "-t raw -A PREROUTING -s fd00::/8 -j NOTRACK",
    "-t raw -A PREROUTING -d fd00::/9 -p udp -j NOTRACK",
    "-t raw -A PREROUTING ! -s fd00::2 -p tcp --dport 443 -j NOTRACK",
    "-A INPUT -p udp --dport 8472 -j REJECT",
];

/// Rules of nft.
const NFT: &str = r#"
table inet own {
    counter named { }
    set ports { type inet_service; flags interval; elements = { 80, 443, 1000-2000, 8472 } }
    set hosts { type ipv4_addr; elements = { 10.0.0.2, 10.0.0.3 } }
    set pairs { type ipv4_addr . inet_service; flags interval; elements = { 10.0.0.0/8 . 8000-9000, 11.0.0.1 . 80 } }
    set seen { type ipv4_addr; flags dynamic, timeout; timeout 1m; }
    map ways { type inet_service : verdict; elements = { 80 : accept, 8472 : jump web } }
    chain web {
        tcp dport { 80, 443 } counter notrack
        udp dport { 8000-9000, 53 } counter notrack comment "of the web"
    }
    chain early {
        type filter hook prerouting priority raw; policy accept;
        iifname "cni0" jump web
        iifname "eth0" udp dport 8472 counter drop
        iifname { "eth*", "lo" } counter drop
        iifname "eth*" counter drop
        iif "lo" counter drop
        ip saddr 10.0.0.0/8 ip daddr 10.0.0.1 udp sport 1 udp dport 8472 counter notrack
        ip saddr 10.0.0.2 ip daddr 10.0.0.1 counter notrack
        ip saddr != 10.0.0.0/9 counter drop
        ip6 saddr fd00::/8 counter drop
        ip6 daddr { fd00::1, fd01::/16 } counter drop
        ip saddr @hosts udp dport @ports counter drop
        ip saddr . udp dport @pairs counter drop
        udp dport vmap @ways
        udp dport != 1-100 counter drop
        udp dport > 8000 counter drop
        meta l4proto { tcp, udp } th dport 8472 counter drop
        meta l4proto udp counter drop
        meta nfproto ipv6 counter drop
        ip protocol vmap { tcp : jump web, udp : goto web }
        fib daddr type local counter drop
        ct state established,related accept
        meta mark 0x00000004 drop
        add @seen { ip saddr } counter notrack
        ip saddr @seen counter drop
        limit rate 5/second counter drop
        udp dport 22 counter name "named" drop
        counter reject
    }
    chain last { type filter hook input priority filter + 5; policy drop; }
}
table ip6 six { chain c { type filter hook prerouting priority 0; ip6 saddr fd00::2 udp dport 8472 drop; }; }
table ip asleep { flags dormant; chain c { type filter hook prerouting priority 0; drop; }; }
table netdev at { chain c { type filter hook ingress device "lo" priority 0; udp dport 8472 drop; }; }
"#;

fn packets() -> Vec<Packet> {
    let mut packets = Vec::new();
    for (path, protocol, input) in [
        (PacketPath::In, 17, "eth0"),
        (PacketPath::In, 6, "cni0"),
        (PacketPath::In, 6, "lo"),
        (PacketPath::Out, 17, "eth0"),
        (PacketPath::Forward, 6, "eth1"),
    ] {
        for (source, destination) in [
            ("10.0.0.2", "10.0.0.1"),
            ("10.244.1.5", "10.96.7.7"),
            ("192.0.2.1", "192.0.2.2"),
            ("fd00::2", "fd00::1"),
        ] {
            for ports in [(40_000, 8472), (80, 443), (1, 22), (443, 80), (5, 9)] {
                packets.push(Packet {
                    path,
                    protocol,
                    source: source.parse().unwrap(),
                    destination: destination.parse().unwrap(),
                    source_port: Some(ports.0),
                    destination_port: Some(ports.1),
                    input: (path != PacketPath::Out).then(|| input.to_owned()),
                    output: (path != PacketPath::In).then(|| "eth0".to_owned()),
                    is_new: false,
                    position: PathPosition::Anywhere,
                });
            }
        }
    }
    packets
}

const ALL: [Action; 3] = [Action::Drop, Action::Reject, Action::NoTrack];

/// Without their texts, which are ours for nft's rules.
fn bare(candidates: Vec<CandidateRule>) -> Vec<CandidateRule> {
    let bare = candidates.into_iter().map(|candidate| CandidateRule {
        text: String::new(),
        ..candidate
    });
    bare.collect()
}

fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{program} {arguments:?}: {told}");
    String::from_utf8(output.stdout).unwrap()
}

/// What the tools print in this thread's network namespace.
fn tools() -> Outputs {
    let save = |family, program| Save {
        tool: Tool::IptablesNft,
        family,
        text: run(program, &["-c"]),
    };
    Outputs {
        saves: vec![
            save(Family::Ip, "iptables-nft-save"),
            save(Family::Ip6, "ip6tables-nft-save"),
        ],
        nft: Some(run("nft", &["--json", "--handle", "list", "ruleset"])),
        nft_text: Some(run("nft", &["--stateless", "--handle", "list", "ruleset"])),
        ..Outputs::default()
    }
}

fn nft(rules: &str) {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), rules).unwrap();
    run("nft", &["-f", &file.path().to_string_lossy()]);
}

fn by_words(program: &str, rules: &[&str]) {
    for rule in rules {
        run(program, &rule.split(' ').collect::<Vec<_>>());
    }
}

/// In a network namespace of its own, which ends with the thread.
fn apart<T: Send + 'static>(look: impl FnOnce() -> T + Send + 'static) -> T {
    let look = || {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        look()
    };
    std::thread::spawn(look).join().unwrap()
}

fn read_all() -> Printed {
    read(|_, _| false).unwrap().unwrap()
}

/// Whether the tools of this machine are here: not everywhere that tests run.
fn has_tools() -> bool {
    let there = |name: &str| Command::new(name).arg("--version").output().is_ok();
    let here =
        nix::unistd::geteuid().is_root() && ["nft", "iptables-nft", "ip6tables-nft"].into_iter().all(there);
    if !here {
        eprintln!("skipped: no nft, no iptables-nft, or not root");
    }
    here
}

/// Each rule, alone and with its text; then all together.
#[test]
fn iptables_rules_as_by_the_tools() {
    if !has_tools() {
        return;
    }
    apart(|| {
        by_words("iptables-nft", IPTABLES);
        by_words("ip6tables-nft", IP6TABLES);
        let (by_tools, by_kernel) = (Rules::of(tools()), Rules::of(read_all().into()));
        assert_eq!(by_kernel.unread(), [""; 0]);
        let every = |rules: &Rules| {
            let mut every: Vec<String> = ALL
                .iter()
                .flat_map(|a| rules.every(*a))
                .map(|s| format!("{s:?}"))
                .collect();
            every.sort();
            every
        };
        assert_eq!(every(&by_kernel), every(&by_tools));
        for packet in packets() {
            let candidates = |rules: &Rules| rules.candidates(&packet, &ALL);
            assert_eq!(candidates(&by_kernel), candidates(&by_tools), "{packet:?}");
        }
        let removal = |rules: &Rules| {
            let removals = rules.every(Action::NoTrack);
            removals
                .into_iter()
                .filter_map(|rule| rule.words)
                .collect::<Vec<_>>()
        };
        let words = "PREROUTING -p tcp -m multiport --dports 80,443 -j NOTRACK";
        let words: Vec<String> = words.split(' ').map(str::to_owned).collect();
        assert!(removal(&by_kernel).contains(&words));
    });
}

/// Each of nft's rules by itself in its chain, so that none hides another, and all together.
#[test]
fn nft_rules_as_by_the_tool() {
    if !has_tools() {
        return;
    }
    apart(|| {
        nft(NFT);
        let (by_tools, by_kernel) = (Rules::of(tools()), Rules::of(read_all().into()));
        assert_eq!(by_kernel.unread(), [""; 0]);
        for action in ALL {
            let every = |rules: &Rules| {
                let mut every: Vec<_> = bare(rules.every(action))
                    .iter()
                    .map(|s| format!("{s:?}"))
                    .collect();
                every.sort();
                every
            };
            assert_eq!(every(&by_kernel), every(&by_tools));
        }
        for packet in packets() {
            let candidates = |rules: &Rules| bare(rules.candidates(&packet, &ALL));
            assert_eq!(candidates(&by_kernel), candidates(&by_tools), "{packet:?}");
        }
        // One rule after the other.
        let early = NFT
            .split("policy accept;")
            .nth(1)
            .unwrap()
            .split('}')
            .next()
            .unwrap();
        assert!(early.contains("iifname"));
        let chain = NFT
            .split("chain early")
            .nth(1)
            .unwrap()
            .split("chain last")
            .next()
            .unwrap();
        let rules: Vec<&str> = chain
            .lines()
            .skip(2)
            .map(str::trim)
            .filter(|line| line.len() > 1)
            .collect();
        assert!(rules.len() > 25, "{rules:?}");
        for rule in rules {
            run("nft", &["flush", "chain", "inet", "own", "early"]);
            run("nft", &["add", "rule", "inet", "own", "early", rule]);
            let (by_tools, by_kernel) = (Rules::of(tools()), Rules::of(read_all().into()));
            // What nft doesn't show: the kernel asks for IPv4 before it puts such an address in.
            let all = !rule.starts_with("add @seen { ip saddr }");
            for packet in packets().into_iter().filter(|p| all || p.source.is_ipv4()) {
                let candidates = |rules: &Rules| bare(rules.candidates(&packet, &ALL));
                assert_eq!(candidates(&by_kernel), candidates(&by_tools), "{rule} {packet:?}");
            }
        }
    });
}

/// As nft writes them, where they are simple.
#[test]
fn nft_rules_in_its_words() {
    if !has_tools() {
        return;
    }
    apart(|| {
        let rules = [
            "iifname \"cni0\" jump web",
            "iifname \"eth*\" drop",
            "ip saddr 10.0.0.0/8 ip daddr 10.0.0.1 udp sport 1 udp dport 8472 notrack",
            "ip saddr != 10.0.0.0/9 drop",
            "ip6 saddr fd00::/8 drop",
            "tcp dport { 80, 443 } notrack comment \"of the web\"",
            "udp dport { 53, 8000-9000 } notrack",
            "udp dport 1-100 drop",
            "udp dport @ports drop",
            "ip saddr . udp dport { 10.0.0.1 . 80 } drop",
            "udp dport vmap { 53 : accept, 80 : jump web }",
            "meta l4proto udp drop",
            "fib daddr type local drop",
            "iifname { \"cni0\", \"eth*\" } drop",
            "iif \"lo\" meta mark 0x00000004 drop",
            "ct state established,related accept",
            "log prefix \"bad \" drop",
            "meta l4proto tcp reject with tcp reset",
            "ct original zone set 5",
            "ct zone set 6",
            "counter name \"seen\" quota name \"much\" ct helper set \"ftp\" drop",
        ];
        let body = rules.join("\n");
        nft(&format!(
            "table inet own {{\ncounter seen {{}}\nquota much {{ over 1 mbytes }}\n\
             ct helper ftp {{ type \"ftp\" protocol tcp; }}\nset ports {{ type inet_service; }}\nchain web {{}}\nchain c {{\n\
             type filter hook input priority 0;\n{body}\n}}\n}}"
        ));
        let document: Json = serde_json::from_str(&read_all().nft).unwrap();
        let written: Vec<String> = document["nftables"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(|item| item.get("rule"))
            .map(|rule| crate::netfilter::rules::nft_text::written(&rule["expr"], rule["comment"].as_str()))
            .collect();
        assert_eq!(written, rules);
    });
}

/// What isn't understood is named, makes the rule an uncertain one, and isn't repeated in a command.
#[test]
fn what_is_not_understood() {
    if !has_tools() {
        return;
    }
    apart(|| {
        by_words(
            "iptables-nft",
            &["-t raw -A PREROUTING -p udp -m statistic --mode nth --every 2 --packet 0 -j NOTRACK"],
        );
        let rules = Rules::of(read_all().into());
        let candidates = rules.candidates(&packets()[0], &ALL);
        let [candidate] = candidates.as_slice() else {
            panic!("{candidates:?}")
        };
        assert_eq!(
            candidate.to_string(),
            "iptables-nft: raw PREROUTING rule 1: -A PREROUTING -p udp -m statistic [xt match statistic] -j NOTRACK"
        );
        assert!(!candidate.certain);
        assert_eq!(candidate.place, RulePosition::Position(1));
        assert_eq!(
            candidate.words, None,
            "what is not understood is no base of a command"
        );
    });
}

/// A table in which nft has put something that iptables doesn't know is nft's to show.
#[test]
fn a_table_that_nft_has_changed() {
    if !has_tools() {
        return;
    }
    apart(|| {
        by_words(
            "iptables-nft",
            &["-t raw -A PREROUTING -p tcp -m multiport --dports 80,443 -j NOTRACK"],
        );
        run(
            "nft",
            &[
                "add",
                "rule",
                "ip",
                "raw",
                "PREROUTING",
                "tcp dport 443 counter notrack",
            ],
        );
        let rules = Rules::of(read_all().into());
        let web = packets()
            .into_iter()
            .find(|p| p.protocol == 6 && p.destination_port == Some(443));
        let candidates = rules.candidates(&web.unwrap(), &ALL);
        let texts: Vec<_> = candidates.iter().map(|s| (s.text.as_str(), s.certain)).collect();
        assert_eq!(
            texts,
            [
                ("meta l4proto tcp [xt match multiport] counter notrack", false),
                ("tcp dport 443 counter notrack", true)
            ]
        );
        let every = rules.every(Action::NoTrack);
        let tools: Vec<_> = every.iter().map(|candidate| candidate.tool).collect();
        assert_eq!(tools, [Tool::Nft, Tool::Nft], "{every:?}");
        assert!(matches!(every[1].place, RulePosition::Handle(_)));
        // And what iptables-nft has shown isn't read again.
        assert!(read(|_, table| table == "raw").unwrap().unwrap().saves.is_empty());
    });
}

#[test]
fn rules_that_change_meanwhile() {
    let dump = Dump {
        changed: true,
        ..Dump::default()
    };
    assert_eq!(
        printed(&dump, |_, _| false).unread,
        ["the rules changed each time they were read, so some may be missing"]
    );
}

/// Names and comments are anybody's: none makes a line or an option of its own.
#[test]
fn hostile_names() {
    if !has_tools() {
        return;
    }
    apart(|| {
        let comment = "x\"\n[0:0] -A PREROUTING -j NOTRACK\n\u{1b}[1m\\";
        let rule = [
            "-t",
            "raw",
            "-A",
            "PREROUTING",
            "-p",
            "udp",
            "-m",
            "comment",
            "--comment",
            comment,
            "-j",
            "NOTRACK",
        ];
        run("iptables-nft", &rule);
        let every = Rules::of(read_all().into()).every(Action::NoTrack);
        assert_eq!(every.len(), 1, "{every:?}");
        assert!(!every[0].text.contains(char::is_control), "{every:?}");
        let text = &every[0].text;
        assert!(
            text.starts_with("-A PREROUTING -p udp -m comment --comment \"x"),
            "{text}"
        );
        assert!(text.ends_with("\" -j NOTRACK"), "{text}");
    });
}

/// The kernel's messages, cut off anywhere and with any byte turned, end in less, never in a panic.
#[test]
fn broken_messages() {
    let whole = fs::read(FIXTURE).unwrap();
    assert!(messages(&whole).count() > 50);
    let look = |bytes: &[u8]| {
        let dump = Dump {
            bytes: bytes.to_vec(),
            ..Dump::default()
        };
        Rules::of(printed(&dump, |_, _| false).into())
            .every(Action::Drop)
            .len()
    };
    assert!(look(&whole) > 10);
    for end in (0..whole.len()).step_by(97) {
        look(&whole[..end]);
    }
    let mut turned = whole.clone();
    for at in (0..whole.len()).step_by(31) {
        turned[at] ^= 0xff;
        look(&turned);
        turned[at] = whole[at];
    }
}

#[test]
fn lengths_that_are_wrong() {
    // Of a whole message with five bytes, which nothing pads.
    let mut message = vec![21, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0];
    assert_eq!(messages(&message).count(), 1);
    message[0] = 17;
    assert_eq!(messages(&message[..17]).count(), 0);
    message[0] = 15;
    assert_eq!(messages(&message).count(), 0);
    for (data, expected) in [
        (b"\x00\x02a\x00".as_slice(), Some("a")),
        (b"\x01\x01x\x00\x01b", Some("b")),
        (b"\x00\x09a", None),
        (b"\x00", None),
        (b"\x01\x01x", None),
        (b"\x00\x02\xff\x00", Some("\u{fffd}")),
    ] {
        assert_eq!(comment(data).as_deref(), expected, "{data:?}");
    }
}

/// What Linux 6.18 tells of the rules above, as it comes.
const FIXTURE: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/src/netfilter/rules/netlink/fixtures/ruleset"
);

#[test]
#[ignore = "writes the fixture"]
fn write_the_fixture() {
    apart(|| {
        by_words("iptables-nft", IPTABLES);
        by_words("ip6tables-nft", IP6TABLES);
        nft(NFT);
        fs::write(FIXTURE, dump::dump().unwrap().unwrap().bytes).unwrap();
    });
}

/// kube-proxy's Services, in both of its modes.
#[test]
fn services_as_by_the_tools() {
    if !has_tools() {
        return;
    }
    apart(|| {
        let sep = |chain: &str, to: &str| format!("-t nat -A {chain} -p tcp -j DNAT --to-destination {to}");
        for chain in ["KUBE-SERVICES", "KUBE-SVC-WEB", "KUBE-SEP-ONE", "KUBE-SEP-TWO"] {
            run("iptables-nft", &["-t", "nat", "-N", chain]);
        }
        for rule in [
            "-t nat -A PREROUTING -j KUBE-SERVICES".to_owned(),
            "-t nat -A KUBE-SERVICES -d 10.96.7.7/32 -p tcp -m comment --comment shop/web:http -m tcp --dport 80 -j KUBE-SVC-WEB".to_owned(),
            "-t nat -A KUBE-SVC-WEB -m statistic --mode random --probability 0.5 -j KUBE-SEP-ONE".to_owned(),
            "-t nat -A KUBE-SVC-WEB -j KUBE-SEP-TWO".to_owned(),
            sep("KUBE-SEP-ONE", "10.244.1.7:8080"),
            sep("KUBE-SEP-TWO", "10.244.2.7:8080"),
        ] {
            by_words("iptables-nft", &[&rule]);
        }
        nft(r#"table ip kube-proxy {
            chain endpoint-5OJB2KTY-kube-system/kube-dns/tcp/dns-tcp__10.180.0.1/53 { }
            chain service-NWBZK7IH-kube-system/kube-dns/tcp/dns-tcp { }
            map service-ips {
                type ipv4_addr . inet_proto . inet_service : verdict
                elements = { 172.30.0.10 . tcp . 53 : goto service-NWBZK7IH-kube-system/kube-dns/tcp/dns-tcp }
            }
            map no-endpoint-services {
                type ipv4_addr . inet_proto . inet_service : verdict
                elements = { 172.30.0.45 . tcp . 80 comment "shop/empty:http" : drop }
            }
            chain services {
                type nat hook prerouting priority dstnat;
                ip daddr . meta l4proto . th dport vmap @no-endpoint-services
                ip daddr . meta l4proto . th dport vmap @service-ips
            }
        }"#);
        let named = |outputs: &Outputs| {
            let mut named: Vec<String> = services::of(outputs).iter().map(|s| format!("{s:?}")).collect();
            named.sort();
            named
        };
        let by_kernel = named(&Outputs::from(read_all()));
        assert_eq!(by_kernel, named(&tools()));
        assert_eq!(by_kernel.len(), 3, "{by_kernel:#?}");
    });
}
