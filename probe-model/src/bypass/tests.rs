use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
};

use super::{
    diagnosis::{BypassFacts, diagnose, see, settle},
    finding::Fault,
    rule::{Intended, NotrackRule},
    service::{Mode, Service, Services},
    stream::{Direction, Server, UntrackedCount, UntrackedStream, once},
    view::{JudgedStream, View},
};
use crate::{
    Finding, Verdict,
    doctor::{CheckVerdict, bypass::judge},
    finding::Kind,
    network::Device,
    owner::Name,
    rule::{
        Action, CandidateRule, Tool,
        samples::{iptables, notrack},
    },
};

const SECOND: u64 = 1_000_000_000;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn stream(source: &str, destination: &str, port: u16, server: Server) -> UntrackedStream {
    UntrackedStream {
        source: ip(source),
        destination: ip(destination),
        protocol: 6,
        port,
        server,
        direction: Direction::Forwarded,
        input: Some(2),
        output: Some(3),
    }
}

fn count(packets: u64, syn: u64) -> UntrackedCount {
    UntrackedCount {
        packets,
        syn,
        first_ns: SECOND,
        last_ns: SECOND,
        ..UntrackedCount::default()
    }
}

fn services() -> Services {
    let service = |name: &str, address: &str, endpoint: &str| Service {
        name: Some(name.to_owned()),
        address: address.parse().unwrap(),
        is_cluster_ip: true,
        protocol: 6,
        endpoints: vec![endpoint.parse().unwrap()],
        refused: false,
        mode: Mode::Iptables,
    };
    Services::new(vec![
        service("shop/web:https", "10.96.7.7:443", "10.244.2.7:8443"),
        service("kube-system/kube-dns:dns-tcp", "10.96.0.10:53", "10.244.1.2:53"),
    ])
}

fn rule(name: &str, since: u64) -> NotrackRule {
    NotrackRule {
        rule: CandidateRule {
            packets: Some(since + 7),
            ..notrack(name)
        },
        since: Some(since),
        moved_ns: SECOND,
        first_moved_ns: SECOND,
        intended: None,
    }
}

struct Node {
    services: Services,
    rules: HashMap<String, NotrackRule>,
    own: HashSet<IpAddr>,
}

impl Node {
    fn new(rules: &[NotrackRule]) -> Self {
        Self {
            services: services(),
            rules: rules.iter().map(|rule| (rule.name(), rule.clone())).collect(),
            own: HashSet::new(),
        }
    }

    fn faults(
        &self,
        streams: &[(UntrackedStream, UntrackedCount, &str)],
        now: u64,
        to_the_end: bool,
    ) -> Vec<String> {
        let names = HashMap::new();
        let known = BypassFacts {
            services: &self.services,
            rules: &self.rules,
            own: &self.own,
            tunnel_ports: &HashSet::from([8472]),
            names: &names,
        };
        let mut seen: Vec<JudgedStream> = streams
            .iter()
            .map(|(stream, count, rule)| {
                let candidates = if rule.is_empty() {
                    vec![]
                } else {
                    vec![notrack(rule)]
                };
                see(*stream, *count, candidates, known)
            })
            .collect();
        settle(&mut seen, known);
        let found = diagnose(&seen, known, now * SECOND, to_the_end);
        found
            .iter()
            .map(|finding| {
                format!(
                    "{} {} {} {}",
                    finding.kind.name(),
                    finding.service.as_deref().unwrap_or("-"),
                    finding
                        .rules
                        .join(",")
                        .replace("iptables-nft: raw PREROUTING rule 3: -A PREROUTING ", ""),
                    finding.packets.unwrap_or(0)
                )
            })
            .collect()
    }
}

#[test]
fn what_breaks() {
    let node = Node::new(&[rule("A", 9)]);
    let request = stream("10.244.1.5", "10.96.7.7", 443, Server::Destination);
    let reply = stream("10.244.2.7", "10.244.1.5", 8443, Server::Source);
    let asked = stream("10.244.1.5", "10.244.2.7", 8443, Server::Destination);
    let world = stream("10.244.1.5", "203.0.113.9", 443, Server::Destination);
    let refusal = stream("10.96.7.7", "10.244.1.5", 443, Server::Source);
    let refused = |packets, rst| UntrackedCount {
        rst,
        ..count(packets, 0)
    };
    for (streams, expected) in [
        (
            vec![(request, count(3, 3), "A")],
            vec!["untracked-request shop/web:https A 3"],
        ),
        (
            vec![(reply, count(2, 0), "A")],
            vec!["untracked-reply shop/web:https A 2"],
        ),
        // Who dials the endpoint misses nothing.
        (
            vec![(reply, count(2, 0), "A"), (asked, count(2, 1), "A")],
            vec!["untracked - A 4"],
        ),
        (vec![(world, count(1, 1), "A")], vec!["untracked - A 1"]),
        (vec![(world, count(1, 1), "")], vec!["untracked -  1"]),
        (
            vec![(world, count(1, 1), "A"), (request, count(1, 1), "A")],
            vec!["untracked-request shop/web:https A 1", "untracked - A 1"],
        ),
        // The node refuses what was not translated; that is no fault of its own.
        (
            vec![(request, count(3, 3), "A"), (refusal, refused(3, 3), "")],
            vec!["untracked-request shop/web:https A 3"],
        ),
        (
            vec![(request, count(3, 3), "A"), (refusal, refused(3, 2), "")],
            vec!["untracked-request shop/web:https A 3", "untracked -  3"],
        ),
        (vec![(refusal, refused(3, 3), "")], vec!["untracked -  3"]),
        // The counter is all there is to see.
        (vec![], vec!["untracked - A 9"]),
    ] {
        assert_eq!(node.faults(&streams, 2, false), expected);
    }
    // Over after ten seconds, in a run to the end not at all.
    let streams = [(request, count(3, 3), "A")];
    assert!(node.faults(&streams, 12, false).is_empty());
    assert_eq!(node.faults(&streams, 12, true).len(), 1);
    assert!(Node::new(&[rule("A", 0)]).faults(&[], 2, true).is_empty());
}

#[test]
fn what_is_intended() {
    let mut node = Node::new(&[NotrackRule {
        intended: Some(Intended::Cilium),
        ..rule("cilium", 9)
    }]);
    let link_local = stream("10.244.1.5", "169.254.20.10", 53, Server::Destination);
    let other_port = stream("10.244.1.5", "169.254.20.10", 22, Server::Destination);
    let dns = stream("10.244.1.5", "10.96.0.10", 53, Server::Destination);
    let world = stream("10.244.1.5", "203.0.113.9", 443, Server::Destination);
    assert!(node.faults(&[(link_local, count(1, 1), "")], 2, false).is_empty());
    assert!(
        node.faults(&[(world, count(1, 1), "cilium")], 2, false)
            .is_empty()
    );
    assert_eq!(node.faults(&[(other_port, count(1, 1), "")], 2, false).len(), 1);
    // The DNS Service's address is NodeLocal DNSCache's only where the node has it.
    assert_eq!(node.faults(&[(dns, count(1, 1), "")], 2, false).len(), 1);
    node.own.insert(ip("10.96.0.10"));
    assert!(node.faults(&[(dns, count(1, 1), "")], 2, false).is_empty());
}

#[test]
fn rules_that_serve_a_purpose() {
    for (words, expected) in [
        (
            &["CILIUM_PRE_raw", "-j", "CT", "--notrack"][..],
            Some(Intended::Cilium),
        ),
        (
            &["PREROUTING", "-d", "169.254.20.10/32", "-j", "NOTRACK"],
            Some(Intended::NodeLocalDns),
        ),
        (
            &[
                "OUTPUT",
                "-s",
                "169.254.25.10/32",
                "-m",
                "comment",
                "--comment",
                "NodeLocal DNS Cache: skip conntrack",
                "-j",
                "NOTRACK",
            ],
            Some(Intended::NodeLocalDns),
        ),
        (&["PREROUTING", "-p", "tcp", "-j", "NOTRACK"], None),
    ] {
        let rule = iptables(Tool::IptablesNft, "raw", Action::NoTrack, words);
        assert_eq!(Intended::of_rule(&rule, || false), expected, "{rule}");
    }
}

#[test]
fn rules_that_exempt_nothing_or_serve_synproxy() {
    let (loopback, synproxy) = (Some(Intended::Loopback), Some(Intended::Synproxy));
    for (text, has_synproxy, expected) in [
        ("-A PREROUTING -i lo -j NOTRACK", false, loopback),
        ("-A PREROUTING -i lo -p tcp -j CT --notrack", false, loopback),
        ("-A PREROUTING ! -i lo -j NOTRACK", false, None),
        ("-A PREROUTING -i lo0 -j NOTRACK", false, None),
        ("-A PREROUTING -i lo+ -j NOTRACK", false, None),
        ("-A OUTPUT -o lo -j NOTRACK", false, None),
        // What a comment says counts for nothing; `_` is a space in it.
        (
            "-A PREROUTING -p tcp -m comment --comment not_-i_lo_-j_SYNPROXY -j NOTRACK",
            false,
            None,
        ),
        (
            "tcp dport 80 notrack comment \"as with iif lo notrack, tcp flags syn\"",
            true,
            None,
        ),
        ("iifname \"lo\" notrack", false, loopback),
        ("iif \"lo\" counter packets 3 bytes 180 notrack", false, loopback),
        ("iifname != \"lo\" notrack", false, None),
        ("oifname \"lo\" notrack", false, None),
        (
            "-A PREROUTING -p tcp -m tcp --dport 443 --tcp-flags FIN,SYN,RST,ACK SYN -j CT --notrack",
            true,
            synproxy,
        ),
        (
            "-A PREROUTING -p tcp -m tcp --dport 443 --tcp-flags FIN,SYN,RST,ACK SYN -j CT --notrack",
            false,
            None,
        ),
        ("tcp dport 443 tcp flags syn notrack", true, synproxy),
        (
            "tcp dport 443 tcp flags & (fin | syn | rst | ack) == syn notrack",
            true,
            synproxy,
        ),
        (
            "-A PREROUTING -p tcp -m tcp --dport 443 -j CT --notrack",
            true,
            None,
        ),
    ] {
        let rule = match text.strip_prefix("-A ") {
            Some(words) => {
                let words: Vec<_> = words.split(' ').map(|word| word.replace('_', " ")).collect();
                let words: Vec<_> = words.iter().map(String::as_str).collect();
                iptables(Tool::IptablesNft, "raw", Action::NoTrack, &words)
            }
            None => CandidateRule {
                tool: Tool::Nft,
                words: None,
                text: text.to_owned(),
                ..iptables(Tool::IptablesNft, "raw", Action::NoTrack, &["PREROUTING"])
            },
        };
        assert_eq!(Intended::of_rule(&rule, || has_synproxy), expected, "{text}");
    }
}

/// NodeLocal DNSCache may listen on any address; its rules without an address of this node are left over.
#[test]
fn rules_of_node_local_dns() {
    let words = [
        "PREROUTING",
        "-m",
        "comment",
        "--comment",
        "NodeLocal DNS Cache: skip conntrack",
        "-j",
        "NOTRACK",
    ];
    let of_cache = NotrackRule {
        rule: iptables(Tool::IptablesNft, "raw", Action::NoTrack, &words),
        ..rule("", 9)
    };
    let dns = stream("10.244.1.5", "169.254.25.10", 53, Server::Destination);
    let names = HashMap::new();
    let mut node = Node::new(std::slice::from_ref(&of_cache));
    for (is_own, expected) in [(true, Some(Intended::NodeLocalDns)), (false, None)] {
        if is_own {
            node.own.insert(ip("169.254.25.10"));
        } else {
            node.own.clear();
        }
        let known = BypassFacts {
            services: &node.services,
            rules: &node.rules,
            own: &node.own,
            tunnel_ports: &HashSet::new(),
            names: &names,
        };
        let seen = see(dns, count(1, 1), vec![of_cache.rule.clone()], known);
        assert_eq!(seen.intended, expected);
        let findings = diagnose(&[seen], known, 2 * SECOND, true);
        assert_eq!(findings.is_empty(), is_own);
    }
}

/// The rules are read after the packets are counted: a rule's counter is told to have moved later than they.
#[test]
fn what_was_seen_and_is_over_is_no_new_finding() {
    let mut moved = rule("A", 9);
    moved.moved_ns = 3 * SECOND;
    let node = Node::new(&[moved]);
    let request = stream("10.244.1.5", "10.96.7.7", 443, Server::Destination);
    let faults = |streams: &[_], now| node.faults(streams, now, false);
    assert_eq!(faults(&[(request, count(9, 9), "A")], 12), Vec::<String>::new());
    assert_eq!(faults(&[], 12), ["untracked - A 9"]);
}

/// Of a packet that comes between the two reads only the rule's counter shows, until the next snapshot.
#[test]
fn a_counter_that_just_moved_waits_for_the_next_snapshot() {
    let mut moved = rule("A", 1);
    (moved.moved_ns, moved.first_moved_ns) = (2 * SECOND + 1, 2 * SECOND + 1);
    let node = Node::new(&[moved]);
    for (now, to_the_end, expected) in [(2, false, 0), (2, true, 1), (3, false, 1)] {
        assert_eq!(
            node.faults(&[], now, to_the_end).len(),
            expected,
            "{now} {to_the_end}"
        );
    }
}

fn device(index: u32, name: &str, controller: Option<u32>) -> Device {
    Device {
        index,
        name: name.to_owned(),
        up: true,
        ethernet: true,
        mtu: 1500,
        mac: None,
        controller,
        bridge: false,
        received: 0,
        sent: 0,
        send_failures: 0,
        vxlan: None,
        xdp: None,
    }
}

#[test]
fn each_packet_once() {
    let devices = [
        device(1, "lo", None),
        device(2, "eth0", None),
        device(3, "cni0", None),
        device(4, "veth5", Some(3)),
        device(5, "veth6", Some(3)),
    ];
    let through = |direction, input, output| UntrackedStream {
        direction,
        input,
        output,
        ..stream("10.0.0.1", "10.0.0.2", 9, Server::Destination)
    };
    use Direction::{Delivered, Forwarded, Outgoing};
    for (streams, kept) in [
        // Routed to a pod: the bridge and its port.
        (
            vec![(Forwarded, Some(2), Some(3)), (Forwarded, Some(2), Some(4))],
            1,
        ),
        // From port to port of the bridge: no other device has it.
        (vec![(Forwarded, Some(5), Some(4))], 1),
        (vec![(Outgoing, None, Some(3)), (Outgoing, None, Some(4))], 1),
        (vec![(Outgoing, None, Some(1)), (Delivered, Some(1), None)], 1),
        (vec![(Delivered, Some(2), None)], 1),
        (vec![(Forwarded, Some(2), Some(3)), (Outgoing, None, Some(4))], 2),
    ] {
        let streams: Vec<_> = streams
            .into_iter()
            .map(|(direction, input, output)| (through(direction, input, output), UntrackedCount::default()))
            .collect();
        assert_eq!(once(streams.clone(), &devices).len(), kept, "{streams:?}");
    }
}

/// `nf_conntrack_icmpv6_error()` never tracks it.
#[test]
fn group_membership_is_not_counted() {
    for (protocol, destination, kept) in [
        (0, "ff02::16", 0),
        (0, "ff0e::1:2", 0),
        // A hop-by-hop header to one host is no report.
        (0, "fd00::2", 1),
        (17, "ff02::fb", 1),
        (0, "224.0.0.22", 1),
    ] {
        let stream = UntrackedStream {
            protocol,
            ..stream("fe80::1", destination, 0, Server::Neither)
        };
        let kept_now = once(vec![(stream, UntrackedCount::default())], &[]).len();
        assert_eq!(kept_now, kept, "{protocol} to {destination}");
    }
}

/// A node between two others routes their encapsulated packets, which its plugin's rule exempts too.
#[test]
fn another_nodes_overlay_is_intended_where_the_plugin_exempts_it() {
    let words = "cali-PREROUTING -p udp -m udp --dport 8472 -j NOTRACK";
    let words: Vec<&str> = words.split(' ').collect();
    let felix = iptables(Tool::IptablesNft, "raw", Action::NoTrack, &words);
    let between = |source: &str, port| UntrackedStream {
        protocol: 17,
        ..stream(source, "192.168.99.13", port, Server::Destination)
    };
    let node = Node::new(&[]);
    let names = HashMap::from([(
        ip("10.244.1.5"),
        Name {
            namespace: "shop".to_owned(),
            pod: "web".to_owned(),
        },
    )]);
    let known = BypassFacts {
        services: &node.services,
        rules: &node.rules,
        own: &node.own,
        tunnel_ports: &HashSet::from([8472]),
        names: &names,
    };
    for (what, stream, rule, intended) in [
        ("a node's", between("192.168.88.11", 8472), felix.clone(), true),
        (
            "no tunnel's port",
            between("192.168.88.11", 53),
            felix.clone(),
            false,
        ),
        (
            "someone's rule",
            between("192.168.88.11", 8472),
            notrack("r1"),
            false,
        ),
        ("a pod's", between("10.244.1.5", 8472), felix, false),
    ] {
        let seen = see(stream, count(9, 0), vec![rule], known);
        let expected = intended.then_some(Intended::Overlay);
        assert_eq!(seen.intended, expected, "{what}");
    }
}

#[test]
fn names_of_faults() {
    let names: HashSet<_> = Fault::ALL.map(Fault::name).into();
    assert_eq!(names.len(), Fault::ALL.len());
}

/// Encapsulated packets between nodes, and what the node says and hears itself, need no conntrack.
#[test]
fn the_nodes_own_traffic_may_be_untracked() {
    let own = "192.168.88.11";
    let peer = "192.168.88.12";
    let outer = |source: &str, destination: &str| UntrackedStream {
        protocol: 17,
        ..stream(source, destination, 8472, Server::Destination)
    };
    let answer = |syn_ack: u64| UntrackedCount {
        syn_ack,
        ..count(9, 0)
    };
    let ssh = (stream(peer, own, 22, Server::Destination), count(9, 3), "r1");
    let reply = |syn_ack: u64| (stream(own, peer, 22, Server::Source), answer(syn_ack), "r1");
    for (what, streams, findings) in [
        (
            "the overlay, both ways",
            vec![
                (outer(own, peer), count(9, 0), "r1"),
                (outer(peer, own), count(9, 0), "r1"),
            ],
            0,
        ),
        (
            "another's overlay",
            vec![(outer("10.1.1.1", peer), count(9, 0), "r1")],
            1,
        ),
        ("SSH to the node", vec![ssh, reply(3)], 0),
        (
            "SSH, seen in the middle",
            vec![(ssh.0, count(9, 0), "r1"), reply(0)],
            0,
        ),
        // The other way is tracked, so conntrack sees half of the connection.
        ("one way only", vec![ssh], 1),
        // Somebody had to translate it: a NodePort.
        ("refused", vec![ssh, reply(0)], 1),
        (
            "between pods",
            vec![
                (
                    stream("10.244.1.5", "10.244.2.9", 22, Server::Destination),
                    count(9, 3),
                    "r1",
                ),
                (
                    stream("10.244.2.9", "10.244.1.5", 22, Server::Source),
                    answer(3),
                    "r1",
                ),
            ],
            1,
        ),
    ] {
        let mut node = Node::new(&[rule("r1", 9)]);
        node.own.insert(ip(own));
        let found = node.faults(&streams, 2 * SECOND, true);
        assert_eq!(found.len().min(1), findings, "{what}: {found:?}");
    }
}

#[test]
fn without_all_rules_and_packets_nothing_is_verified() {
    type Change = fn(&mut View);
    let rows: [(&str, Change, Verdict); 5] = [
        ("all seen", |_| {}, Verdict::Ok),
        (
            "rules",
            |view| view.unread.push("nft takes longer than 3 s".to_owned()),
            Verdict::Unknown,
        ),
        (
            "kernel",
            |view| view.unseen.push("packets delivered"),
            Verdict::Unknown,
        ),
        ("room", |view| view.rest = 1, Verdict::Unknown),
        (
            "fault",
            |view| {
                view.rest = 1;
                view.findings
                    .push(Finding::failed(Kind::Bypass(Fault::ALL[0]), "broken"));
            },
            Verdict::Faulty,
        ),
    ];
    for (name, change, verdict) in rows {
        let mut view = View {
            time: jiff::Timestamp::UNIX_EPOCH,
            now_ns: 0,
            streams: Vec::new(),
            rules: Vec::new(),
            findings: Vec::new(),
            services: 0,
            devices: HashMap::new(),
            names: HashMap::new(),
            rest: 0,
            seen_by: Vec::new(),
            unseen: Vec::new(),
            unread: Vec::new(),
        };
        change(&mut view);
        assert_eq!(view.verdict(), verdict, "{name}");
        let answer = judge(&view).verdict;
        let of_check = match verdict {
            Verdict::Ok => CheckVerdict::Ok,
            Verdict::Unknown => CheckVerdict::Unknown,
            Verdict::Faulty => CheckVerdict::Failed,
        };
        assert_eq!(answer, of_check, "{name}");
    }
}

/// A Service of IPVS at its cluster IP and at a node port, as streams show it.
mod by_ipvs {
    use super::*;
    use crate::bypass::virtual_server::{InTable, VirtualConnection};

    const OWN: &str = "192.168.88.11";

    fn services() -> Services {
        let server = |address: &str, protocol, endpoint: &str| Service {
            name: None,
            address: address.parse().unwrap(),
            is_cluster_ip: false,
            protocol,
            endpoints: vec![endpoint.parse().unwrap()],
            refused: false,
            mode: Mode::Ipvs,
        };
        Services::new(vec![
            server("10.96.7.7:443", 6, "10.244.2.7:8443"),
            server("192.168.88.11:30443", 6, "10.244.2.7:8443"),
            server("10.96.0.10:53", 17, "10.244.2.9:53"),
        ])
    }

    struct Row {
        stream: UntrackedStream,
        count: UntrackedCount,
        in_ipvs: InTable,
        /// What conntrack has of a reply.
        dialled: Option<&'static str>,
    }

    fn request(source: &str, count: UntrackedCount, state: Option<(&str, &str)>) -> Row {
        let found = |(virtual_server, state): (&str, &str)| {
            InTable::Found(VirtualConnection {
                virtual_server: virtual_server.parse().unwrap(),
                state: state.to_owned(),
            })
        };
        Row {
            stream: stream(source, "10.244.2.7", 8443, Server::Destination),
            count,
            in_ipvs: state.map_or(InTable::Unread, found),
            dialled: None,
        }
    }

    fn other(stream: UntrackedStream, count: UntrackedCount) -> Row {
        Row {
            stream,
            count,
            in_ipvs: InTable::Unread,
            dialled: None,
        }
    }

    /// The findings, and what each stream is taken for.
    fn found(rows: Vec<Row>) -> (Vec<Finding>, Vec<Option<Intended>>) {
        let services = services();
        let rules = HashMap::from([("A".to_owned(), rule("A", 9))]);
        let rules: HashMap<String, NotrackRule> =
            rules.into_values().map(|rule| (rule.name(), rule)).collect();
        let own = [OWN, "10.96.7.7", "10.96.0.10"].map(ip);
        let (own, names, tunnel_ports) = (HashSet::from(own), HashMap::new(), HashSet::new());
        let known = BypassFacts {
            services: &services,
            rules: &rules,
            own: &own,
            tunnel_ports: &tunnel_ports,
            names: &names,
        };
        let mut seen: Vec<JudgedStream> = rows
            .into_iter()
            .map(|row| JudgedStream {
                translated: row.dialled.map(|_| true),
                dialled: row.dialled.map(|dialled| dialled.parse().unwrap()),
                in_ipvs: row.in_ipvs,
                ..see(row.stream, row.count, vec![notrack("A")], known)
            })
            .collect();
        settle(&mut seen, known);
        let intended = seen.iter().map(|seen| seen.intended).collect();
        (diagnose(&seen, known, 2 * SECOND, false), intended)
    }

    #[test]
    fn a_service_that_works_has_no_finding() {
        let waits = |source| request(source, count(2, 2), None);
        for (what, row) in [
            ("answered", request("10.244.1.5", count(9, 2), None)),
            ("the answer may be on its way", waits("10.244.1.5")),
            (
                "answered, as IPVS says",
                request(
                    "192.168.88.12",
                    count(2, 2),
                    Some(("192.168.88.11:30443", "ESTABLISHED")),
                ),
            ),
            (
                "refused by its endpoint",
                request(
                    "192.168.88.12",
                    count(2, 2),
                    Some(("192.168.88.11:30443", "CLOSE")),
                ),
            ),
            (
                "replies, translated back",
                other(
                    stream("10.96.7.7", "10.244.1.5", 443, Server::Source),
                    count(3, 0),
                ),
            ),
            (
                "what IPVS does not know any more",
                other(
                    UntrackedStream {
                        direction: Direction::Delivered,
                        ..stream("10.244.1.5", "10.96.7.7", 443, Server::Destination)
                    },
                    count(3, 0),
                ),
            ),
            (
                "datagrams",
                other(
                    UntrackedStream {
                        protocol: 17,
                        ..stream("10.244.1.5", "10.244.2.9", 53, Server::Destination)
                    },
                    count(3, 0),
                ),
            ),
        ] {
            let (findings, intended) = found(vec![row]);
            assert_eq!(findings, [], "{what}");
            assert_eq!(intended, [Some(Intended::Ipvs)], "{what}");
        }
    }

    #[test]
    fn what_had_to_be_masqueraded_does_not_answer() {
        let datagram = UntrackedStream {
            protocol: 17,
            ..stream("10.96.0.10", "10.244.2.9", 53, Server::Destination)
        };
        for (row, service, certain) in [
            (
                request(
                    "192.168.88.12",
                    count(4, 4),
                    Some(("192.168.88.11:30443", "SYN_RECV")),
                ),
                "192.168.88.11:30443",
                false,
            ),
            // A pod need not be masqueraded: the endpoint may be gone.
            (
                request("10.244.1.5", count(4, 4), Some(("10.96.7.7:443", "SYN_RECV"))),
                "10.96.7.7:443",
                false,
            ),
            (
                request("10.96.7.7", count(4, 4), Some(("10.96.7.7:443", "SYN_RECV"))),
                "10.96.7.7:443",
                true,
            ),
            (
                request("10.244.2.7", count(4, 4), Some(("10.96.7.7:443", "SYN_RECV"))),
                "10.96.7.7:443",
                true,
            ),
            (other(datagram, count(4, 0)), "10.96.0.10:53", true),
        ] {
            let source = row.stream.source;
            let (findings, _) = found(vec![row]);
            let [finding] = findings.as_slice() else {
                panic!("{service}: {findings:?}");
            };
            assert_eq!(finding.kind, Kind::Bypass(Fault::Untracked));
            assert_eq!(
                finding.what.split("; by ").next(),
                Some(
                    format!(
                        "the Service at {service} does not answer {source}: its packets bypass conntrack, so IPVS translates \
                         them to an endpoint, but nothing masquerades them"
                    )
                    .as_str()
                )
            );
            assert_eq!(finding.service.as_deref(), Some(service));
            assert_eq!(finding.certain, certain, "{service} {source}");
            if service != "10.96.0.10:53" {
                let evidence = &finding.evidence[0];
                let state = format!("4 SYN; SYN_RECV to {service} in IPVS' table");
                assert!(evidence.ends_with(&state), "{evidence}");
            }
        }
    }

    /// As in any mode: nothing has to translate it.
    #[test]
    fn what_ipvs_does_not_translate_is_judged_as_ever() {
        let direct = Row {
            in_ipvs: InTable::Absent,
            ..request("10.244.1.5", count(4, 4), None)
        };
        let (findings, intended) = found(vec![direct]);
        assert_eq!(intended, [None]);
        assert_eq!(findings.len(), 1);
        assert!(findings[0].what.starts_with("packets of 10.244.1.5 bypass"));
        assert_eq!(findings[0].service, None);
    }

    /// Several Services have the endpoint; conntrack has the one that was dialled.
    #[test]
    fn a_reply_breaks_the_service_that_was_dialled() {
        let reply = || {
            other(
                UntrackedStream {
                    direction: Direction::Delivered,
                    ..stream("10.244.2.7", OWN, 8443, Server::Source)
                },
                count(4, 0),
            )
        };
        for dialled in ["192.168.88.11:30443", "10.96.7.7:443"] {
            let (findings, _) = found(vec![Row {
                dialled: Some(dialled),
                ..reply()
            }]);
            assert_eq!(findings[0].service.as_deref(), Some(dialled));
            assert_eq!(
                (findings[0].kind, findings[0].certain),
                (Kind::Bypass(Fault::UntrackedReply), true)
            );
            let named = format!("the Service at {dialled} is unreachable");
            assert!(findings[0].what.starts_with(&named), "{}", findings[0].what);
        }
    }
}
