//! Rules that are read for the packets that meet them, beside all rules read at once.

use std::{
    fmt::Write as _,
    net::{IpAddr, Ipv4Addr},
};

use super::*;
use crate::{
    model::bypass::service::Service,
    netfilter::{
        link::Attributes,
        rules::{
            complete,
            netlink::{aim::RuleTests, ruleset::NEW_RULE},
        },
    },
};

/// Services of the generated rules, more than are read at once.
const SERVICES: u8 = 100;

fn both() -> (Rules, Rules) {
    (Rules::read().0, Rules::of(read_all().into()))
}

fn assert_same(packets: impl IntoIterator<Item = Packet>) -> usize {
    let (late, all) = both();
    assert_eq!(late.unread(), [""; 0]);
    let mut found = 0;
    for packet in packets {
        let expected = all.candidates(&packet, &ALL);
        assert_eq!(late.candidates(&packet, &ALL), expected, "{packet:?}");
        assert_eq!(late.unread_late(), None);
        found += expected.len();
    }
    found
}

/// A packet to a Service of the generated rules.
fn to(destination: IpAddr, protocol: u8, port: Option<u16>) -> Packet {
    Packet {
        protocol,
        destination,
        destination_port: port,
        source: match destination {
            IpAddr::V4(_) => [10, 244, 1, 5].into(),
            IpAddr::V6(_) => "fd00::1:5".parse().unwrap(),
        },
        ..packets().remove(0)
    }
}

fn to_services(address: impl Fn(u8) -> IpAddr) -> Vec<Packet> {
    let mut packets = Vec::new();
    for service in [1, 7, SERVICES, SERVICES + 1] {
        for (protocol, port) in [(6, Some(80)), (6, Some(81)), (6, None), (17, Some(80)), (1, None)] {
            packets.push(to(address(service), protocol, port));
        }
    }
    packets
}

/// iptables-nft's, as kube-proxy writes them; `more` goes to the table nat.
fn kube_proxy(more: &str) -> String {
    let (mut chains, mut rules) = (String::new(), String::new());
    for n in 1..=SERVICES {
        writeln!(chains, ":KUBE-SVC-{n} - [0:0]\n:KUBE-SEP-{n} - [0:0]").unwrap();
        writeln!(
            rules,
            "-A KUBE-SERVICES -d 10.96.0.{n}/32 -p tcp -m comment --comment \"shop/web-{n}:http cluster IP\" -m tcp --dport 80 -j KUBE-SVC-{n}\n\
             -A KUBE-SVC-{n} -m comment --comment \"shop/web-{n}:http -> 10.244.1.{n}:8080\" -j KUBE-SEP-{n}\n\
             -A KUBE-SEP-{n} -p tcp -m comment --comment \"shop/web-{n}:http\" -m tcp -j DNAT --to-destination 10.244.1.{n}:8080\n\
             -A KUBE-NODEPORTS -p tcp -m comment --comment \"shop/web-{n}:http\" -m tcp --dport {} -j KUBE-SVC-{n}",
            30_000 + u32::from(n)
        )
        .unwrap();
    }
    format!(
        "*nat\n:PREROUTING ACCEPT [0:0]\n:INPUT ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n:KUBE-SERVICES - [0:0]\n\
         :KUBE-NODEPORTS - [0:0]\n:MORE - [0:0]\n{chains}-A PREROUTING -j MORE\n-A PREROUTING -j KUBE-SERVICES\n\
         -A OUTPUT -j KUBE-SERVICES\n{more}\n{rules}-A KUBE-SERVICES -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS\n\
         -A KUBE-SERVICES -d 10.96.0.7/32 -j MORE\nCOMMIT\n\
         *filter\n:INPUT DROP [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n:KUBE-SERVICES - [0:0]\n\
         -A INPUT -p udp -j ACCEPT\n-A INPUT -j KUBE-SERVICES\n\
         -A KUBE-SERVICES -d 10.96.0.{}/32 -p tcp -m comment --comment \"shop/none:http has no endpoints\" -m tcp --dport 80 -j REJECT\n\
         COMMIT\n",
        SERVICES + 1
    )
}

fn restore(text: &str) {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), text).unwrap();
    run("iptables-nft-restore", &[&file.path().to_string_lossy()]);
}

fn sorted(mut services: Vec<Service>) -> Vec<String> {
    for service in &mut services {
        service.endpoints.sort();
    }
    let mut named: Vec<String> = services.iter().map(|service| format!("{service:?}")).collect();
    named.sort();
    named.dedup();
    named
}

fn assert_same_services(address: impl Fn(u8) -> IpAddr) {
    let (late, _) = Rules::read();
    let all = services::of(&Outputs::from(read_all()));
    for n in 1..=SERVICES {
        let address = address(n);
        let here = |service: &&Service| (service.address.ip(), service.address.port()) == (address, 80);
        let expected: Vec<Service> = all.iter().filter(here).cloned().collect();
        assert!(
            matches!(expected.as_slice(), [one] if one.endpoints.len() == 1),
            "{expected:?}"
        );
        let found = late.services_at(6, address, 80);
        let found = found.into_iter().filter(|service| here(&service)).collect();
        assert_eq!(sorted(found), sorted(expected));
    }
}

#[test]
fn rules_of_one_packet() {
    if !has_tools() {
        return;
    }
    apart(|| {
        by_words("iptables-nft", IPTABLES);
        by_words("ip6tables-nft", IP6TABLES);
        nft(NFT);
        let found = assert_same(packets());
        assert!(found > 200, "{found}");
    });
}

#[test]
fn rules_of_iptables_in_nat() {
    if !has_tools() {
        return;
    }
    apart(|| {
        // iptables-nft itself lets nobody drop there.
        let queue = "-A MORE -p tcp -m tcp --dport 81 -j RETURN\n-A MORE -p tcp -m tcp --dport 80 -j NFQUEUE --queue-num 1";
        restore(&kube_proxy(queue));
        let address = |n: u8| IpAddr::from([10, 96, 0, n]);
        let mut packets = to_services(address);
        for port in [30_001, 30_100, 30_101] {
            packets.push(to([192, 0, 2, 1].into(), 6, Some(port)));
        }
        let found = assert_same(packets);
        assert!(found > 20, "{found}");
        assert_same_services(address);
        let (late, sets) = Rules::read();
        let refused: Vec<&Service> = sets.iter().flat_map(|set| &set.services).collect();
        assert!(
            matches!(refused.as_slice(), [one] if one.refused && one.address.ip() == address(SERVICES + 1)),
            "{refused:?}"
        );
        // A node port is at every address of the node.
        let found = late.services_at(6, [192, 0, 2, 1].into(), 30_007);
        assert!(
            matches!(found.as_slice(), [one] if one.is_node_port() && one.title() == "shop/web-7:http" && one.endpoints.len() == 1),
            "{found:?}"
        );
        // The position is that among all rules, as iptables numbers them.
        let candidates = late.candidates(&to(address(7), 6, Some(80)), &[Action::Drop]);
        let queue = candidates.iter().find(|rule| rule.table == "nat").unwrap();
        assert_eq!(
            (queue.chain.as_str(), queue.place),
            ("MORE", RulePosition::Position(2))
        );
    });
}

#[test]
fn rules_of_nft_in_nat() {
    if !has_tools() {
        return;
    }
    apart(|| {
        let (mut chains, mut empty, mut elements) = (String::new(), String::new(), Vec::new());
        for n in 1..=SERVICES {
            let service = format!("service-NWBZK7IH-shop/web-{n}/tcp/http");
            let endpoint = format!("endpoint-5OJB2KTY-shop/web-{n}/tcp/http__10.244.1.{n}/8080");
            writeln!(empty, "chain {service} {{ }}\nchain {endpoint} {{ }}").unwrap();
            writeln!(
                chains,
                "chain {service} {{\nnumgen random mod 1 vmap {{ 0 : goto {endpoint} }}\n}}\n\
                 chain {endpoint} {{\nmeta l4proto tcp dnat to 10.244.1.{n}:8080\n}}"
            )
            .unwrap();
            elements.push(format!("10.96.0.{n} . tcp . 80 : goto {service}"));
        }
        // Of other packets than those to Services; asked once by the destination and once by the source.
        let blocked: Vec<String> = (1..=SERVICES).map(|n| format!("10.244.1.{n}")).collect();
        nft(&format!("table ip kube-proxy {{\n{empty}\n}}"));
        nft(&format!(
            "table ip kube-proxy {{\n\
             set blocked {{\ntype ipv4_addr\nelements = {{ {} }}\n}}\n\
             map service-ips {{\ntype ipv4_addr . inet_proto . inet_service : verdict\nelements = {{ {} }}\n}}\n\
             map no-endpoint-services {{\ntype ipv4_addr . inet_proto . inet_service : verdict\n\
             elements = {{ 10.96.0.101 . tcp . 80 : goto reject-chain }}\n}}\n\
             chain reject-chain {{\nreject\n}}\n{chains}\n\
             chain services {{\nip daddr . meta l4proto . th dport vmap @service-ips\nip daddr 10.96.0.7 tcp dport 81 counter drop\n\
             ip daddr @blocked counter drop\nip saddr @blocked counter drop\n}}\n\
             chain filter-input {{\ntype filter hook input priority -110\n\
             ip daddr . meta l4proto . th dport vmap @no-endpoint-services\n}}\n\
             chain nat-prerouting {{\ntype nat hook prerouting priority -100\njump services\n}}\n}}",
            blocked.join(", "),
            elements.join(", ")
        ));
        let address = |n: u8| IpAddr::from([10, 96, 0, n]);
        let mut packets = to_services(address);
        packets.push(to([10, 244, 1, 9].into(), 6, Some(80)));
        let found = assert_same(packets);
        assert!(found > 20, "{found}");
        assert_same_services(address);
        let dropped = |port| {
            Rules::read()
                .0
                .candidates(&to(address(7), 6, Some(port)), &[Action::Drop])
        };
        for (port, text) in [
            (81, "ip daddr 10.96.0.7 tcp dport 81 counter drop"),
            (82, "ip saddr @blocked counter drop"),
        ] {
            let dropped = dropped(port);
            let texts: Vec<&str> = dropped.iter().map(|rule| rule.text.as_str()).collect();
            assert_eq!(texts, [text]);
        }
    });
}

/// A rule of nat may have done what another is certain to do: if they can't be read, none is.
#[test]
fn rules_of_nat_that_change() {
    if !has_tools() {
        return;
    }
    apart(|| {
        restore(&kube_proxy(""));
        run(
            "iptables-nft",
            &["-I", "INPUT", "-p", "tcp", "--dport", "80", "-j", "DROP"],
        );
        let (rules, _) = Rules::read();
        let first = |n: u8| {
            rules
                .candidates(&to([10, 96, 0, n].into(), 6, Some(80)), &[Action::Drop])
                .remove(0)
        };
        assert!(first(1).certain);
        assert_eq!(rules.unread_late(), None);
        run("iptables-nft", &["-t", "nat", "-A", "MORE", "-j", "RETURN"]);
        // What was read is as it was.
        assert!(first(1).certain);
        assert!(!first(2).certain);
        assert_eq!(
            rules.unread_late().as_deref(),
            Some("rules of nat were not read: the rules changed while they were read")
        );
    });
}

/// A scan of a network doesn't have probe read rules all the time.
#[test]
fn servers_without_end() {
    if !has_tools() {
        return;
    }
    apart(|| {
        restore(&kube_proxy(""));
        let (rules, _) = Rules::read();
        let mut unread = Vec::new();
        for n in 0..600_u16 {
            let [a, b] = n.to_be_bytes();
            rules.candidates(&to([198, 18, a, b].into(), 6, Some(80)), &[Action::Drop]);
            unread.extend(rules.unread_late());
        }
        assert!(
            unread.len() == 600 - 512
                && unread[0]
                    == "rules of nat were not read: packets to more than 512 servers failed within 10 s",
            "{unread:?}"
        );
    });
}

/// What is not understood is written by its tool, for the one rule that is named.
#[test]
fn a_rule_in_its_tools_words() {
    if !has_tools() {
        return;
    }
    apart(|| {
        by_words(
            "iptables-nft",
            &[
                "-t raw -A PREROUTING -p udp -j ACCEPT",
                "-t raw -A PREROUTING -p tcp -m statistic --mode nth --every 2 --packet 0 -m comment --comment cali:x -j NOTRACK",
                "-t raw -A PREROUTING -m limit --limit 5/min -j DROP",
            ],
        );
        nft(
            "table inet own { chain c { type filter hook prerouting priority 0; limit rate 5/second counter drop; }; }",
        );
        let (late, _) = both();
        let all = Rules::of(tools());
        let packet = to([192, 0, 2, 1].into(), 6, Some(80));
        let (mut found, expected) = (late.candidates(&packet, &ALL), all.candidates(&packet, &ALL));
        assert_ne!(found, expected);
        complete(&mut found);
        assert_eq!(found, expected);
        assert_eq!(found.len(), 3);
        // One that is there no more stays as it was read.
        let mut found = late.candidates(&packet, &ALL);
        run("iptables-nft", &["-t", "raw", "-F"]);
        complete(&mut found);
        assert!(is_partly_read(&found[1].text), "{found:?}");
        // One that exempts packets was read so.
        assert!(found[0].text.contains("--mode nth --every 2"), "{found:?}");
    });
}

/// Matches whose structures are read: as iptables writes them.
#[test]
fn matches_in_words() {
    if !has_tools() {
        return;
    }
    apart(|| {
        by_words(
            "iptables-nft",
            &[
                "-A INPUT -m conntrack --ctstate NEW,RELATED -j DROP",
                "-A INPUT -m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT -j DROP",
                "-A INPUT -m conntrack --ctstate INVALID,UNTRACKED,SNAT --ctorigsrc 10.0.0.0/8 -j DROP",
                "-A INPUT -m conntrack ! --ctorigsrc 10.0.0.1 --ctreplsrc 10.244.0.0/16 -j DROP",
                "-A INPUT -m conntrack --ctorigdst 10.96.0.1 ! --ctrepldst 192.0.2.0/24 -j DROP",
                "-A INPUT -m conntrack --ctstate NEW --ctproto 6 -j DROP",
                "-A INPUT -m iprange --src-range 10.0.0.1-10.0.0.9 -j DROP",
                "-A INPUT -m iprange ! --src-range 10.0.0.1-10.0.0.9 ! --dst-range 10.1.0.1-10.1.0.9 -j DROP",
                "-A INPUT -m mark --mark 0x4000/0x4000 -j DROP",
                "-A INPUT -m mark ! --mark 7 -j DROP",
            ],
        );
        by_words(
            "ip6tables-nft",
            &[
                "-A INPUT -m conntrack --ctorigsrc fd00::/8 -j DROP",
                "-A INPUT -m iprange --dst-range fd00::1-fd00::9 -j DROP",
            ],
        );
        let every = |rules: Rules| {
            let every = rules.every(Action::Drop).into_iter().map(|rule| rule.to_string());
            // Of a protocol, it is not understood.
            let mut every: Vec<String> = every
                .map(|rule| {
                    rule.replace(
                        "-m conntrack --ctstate NEW --ctproto 6",
                        "-m conntrack [xt match conntrack]",
                    )
                })
                .collect();
            every.sort();
            every
        };
        let (by_tools, by_kernel) = (every(Rules::of(tools())), every(Rules::read().0));
        assert_eq!(by_kernel, by_tools);
        assert_eq!(by_tools.len(), 12);
    });
}

/// Whatever a rule consists of, it is left out only for packets that it can't match.
#[test]
fn tests_that_leave_a_rule_out() {
    if !has_tools() {
        return;
    }
    apart(|| {
        let rules = [
            ("ip daddr 10.0.0.1 drop", false),
            ("ip daddr 192.0.2.1 drop", true),
            ("ip daddr != 10.0.0.1 drop", true),
            ("ip daddr 10.0.0.0/24 drop", true),
            ("ip saddr 10.0.0.1 drop", true),
            ("tcp dport 81 drop", false),
            ("tcp sport 81 drop", true),
            ("tcp dport != 81 drop", true),
            ("tcp dport 81-90 drop", true),
            ("udp dport 80 drop", false),
            ("meta l4proto udp drop", false),
            ("ip protocol udp drop", false),
            ("meta mark 17 drop", true),
            // What is done before the test is done to every packet.
            ("notrack ip daddr 10.0.0.1 drop", true),
            ("counter ip daddr 10.0.0.1 drop", false),
            ("ct state new ip daddr 10.0.0.1 drop", false),
            ("fib daddr type local tcp dport 81 drop", false),
            ("meta mark set 1 ip daddr 10.0.0.1 drop", true),
        ];
        let body: Vec<&str> = rules.iter().map(|(rule, _)| *rule).collect();
        nft(&format!(
            "table ip own {{\nchain c {{\n{}\n}}\n}}",
            body.join("\n")
        ));
        let aim = Aim {
            protocol: 6,
            destination: Ipv4Addr::new(192, 0, 2, 1).into(),
            port: Some(80),
        };
        let dump = dump::dump().unwrap().unwrap();
        let found = messages(&dump.bytes).filter(|message| message.kind == NEW_RULE);
        let found: Vec<Attributes<'_>> = found.map(|message| message.attributes.within(4)).collect();
        assert_eq!(found.len(), rules.len());
        for ((rule, may_match), expressions) in rules.iter().zip(&found) {
            let tests = RuleTests::of(Family::Ip, *expressions);
            assert_eq!(tests.may_match(&aim), *may_match, "{rule}: {tests:?}");
            // Of a table for both families, an address is known by what was asked before.
            let tests = RuleTests::of(Family::Inet, *expressions);
            assert!(
                tests.may_match(&aim) || !rule.contains("ip daddr"),
                "{rule}: {tests:?}"
            );
        }
        let unknown_port = Aim { port: None, ..aim };
        assert!(RuleTests::of(Family::Ip, found[5]).may_match(&unknown_port));
    });
}

/// Rules that choose a conntrack zone, in their tools' words.
#[test]
fn zones_as_by_the_tools() {
    if !has_tools() {
        return;
    }
    apart(|| {
        by_words(
            "iptables-nft",
            &[
                "-t raw -A PREROUTING -i cni0 -j CT --zone 5",
                "-t raw -A PREROUTING -i eth0 -j CT --zone-orig 7",
                "-t raw -A OUTPUT -p tcp -j CT --zone-reply 8",
                "-t raw -A OUTPUT -p udp -j CT --zone mark",
                "-t raw -A OUTPUT -p tcp -j CT --notrack",
            ],
        );
        by_words("ip6tables-nft", &["-t raw -A PREROUTING -j CT --zone 9"]);
        nft(
            "table inet own { chain c { type filter hook prerouting priority -300; \
             iif \"lo\" ct zone set 5; ip saddr 10.0.0.1 ct original zone set 6; \
             udp dport 9 ct reply zone set 7; ct zone 8 accept; }; }",
        );
        let zones = |rules: &Rules| {
            let zones = rules.zones().into_iter();
            let mut zones: Vec<String> = zones.map(|(rule, zone)| format!("{zone}: {rule}")).collect();
            zones.sort();
            zones
        };
        let (by_kernel, by_tools) = (zones(&Rules::read().0), zones(&Rules::of(tools())));
        assert_eq!(by_kernel, by_tools);
        assert_eq!(by_kernel.len(), 7, "{by_kernel:#?}");
    });
}

/// All of them at once, and the rule sets in their order.
#[test]
fn services_in_a_list() {
    if !has_tools() {
        return;
    }
    apart(|| {
        restore(&kube_proxy(""));
        nft(r#"table ip6 kube-proxy {
            chain endpoint-5OJB2KTY-kube-system/kube-dns/tcp/dns-tcp__fd00..1/53 { }
            chain service-NWBZK7IH-kube-system/kube-dns/tcp/dns-tcp { }
            chain external-NWBZK7IH-kube-system/kube-dns/tcp/dns-tcp { }
            chain reject-chain { reject; }
            map service-ips {
                type ipv6_addr . inet_proto . inet_service : verdict
                elements = { fd01::10 . tcp . 53 : goto service-NWBZK7IH-kube-system/kube-dns/tcp/dns-tcp }
            }
            map service-nodeports {
                type inet_proto . inet_service : verdict
                elements = { tcp . 30053 : goto external-NWBZK7IH-kube-system/kube-dns/tcp/dns-tcp }
            }
            map no-endpoint-services {
                type ipv6_addr . inet_proto . inet_service : verdict
                elements = { fd01::45 . tcp . 80 comment "shop/empty:http" : drop, fd01::46 . udp . 80 comment "shop/none:http" : goto reject-chain }
            }
            chain services {
                type nat hook prerouting priority dstnat;
                ip6 daddr . meta l4proto . th dport vmap @service-ips
                meta l4proto . th dport vmap @service-nodeports
            }
            chain filter-input {
                type filter hook input priority -110;
                ip6 daddr . meta l4proto . th dport vmap @no-endpoint-services
            }
        }"#);
        let (rules, sets) = Rules::read_with_services();
        assert_eq!(rules.unread(), [""; 0]);
        assert!(!rules.has_services_late());
        let names: Vec<&str> = sets.iter().map(|set| set.name.as_str()).collect();
        assert_eq!(names, ["iptables-nft", "nft"]);
        let listed: Vec<Service> = sets.into_iter().flat_map(|set| set.services).collect();
        let expected = sorted(services::of(&tools()));
        assert_eq!(sorted(listed), expected);
        assert_eq!(expected.len(), 2 * usize::from(SERVICES) + 1 + 4);
        // The tables that a packet passes there are known without their rules.
        let passed = rules.passed("PREROUTING", false);
        assert_eq!(passed, ["iptables-nft nat"]);
        assert_eq!(rules.passed("PREROUTING", true), ["nft ip6 kube-proxy services"]);
    });
}

/// No chain of type nat is at a hook: no packet comes to these, and they are kube-proxy's all the same.
#[test]
fn services_that_no_hook_leads_to() {
    if !has_tools() {
        return;
    }
    apart(|| {
        by_words(
            "iptables-nft",
            &[
                "-t nat -N KUBE-SERVICES",
                "-t nat -N KUBE-SVC-A",
                "-t nat -A KUBE-SERVICES -d 10.96.7.7/32 -p tcp -m comment --comment web/ingress:tls -m tcp --dport 443 -j KUBE-SVC-A",
            ],
        );
        let (rules, sets) = Rules::read_with_services();
        let names = sets.iter().flat_map(|set| &set.services);
        let names: Vec<&str> = names.filter_map(|service| service.name.as_deref()).collect();
        assert_eq!(names, ["web/ingress:tls"]);
        assert!(!rules.has_services_late());
    });
}
