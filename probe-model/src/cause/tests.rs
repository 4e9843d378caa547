use std::time::Duration;

use super::*;
use crate::{
    bypass::service::{Mode, Service},
    connection::Unacknowledged,
    rule::{
        Action, Tool,
        samples::{iptables, notrack},
    },
};

fn at(millis: i64) -> Timestamp {
    Timestamp::from_millisecond(1_700_000_000_000 + millis).unwrap()
}

/// A pod's connection to the Service from 0 to 150 ms, unanswered.
fn failed() -> Connection {
    let (source, destination) = ("10.244.1.5:40000", "10.96.7.7:443");
    Connection {
        duration: Duration::from_millis(150),
        netns: 2,
        ..Connection::new(
            at(150),
            Role::Client,
            Outcome::Unanswered,
            source.parse().unwrap(),
            destination.parse().unwrap(),
        )
    }
}

/// The same, translated to its endpoint.
fn translated() -> Connection {
    Connection {
        destination: "10.244.2.7:8443".parse().unwrap(),
        dialled: Some("10.96.7.7:443".parse().unwrap()),
        ..failed()
    }
}

fn stream(source: &str, destination: &str, port: u16, server: Server) -> UntrackedPackets {
    UntrackedPackets {
        stream: UntrackedStream {
            source: source.parse().unwrap(),
            destination: destination.parse().unwrap(),
            protocol: TCP,
            port,
            server,
            direction: Direction::Forwarded,
            input: Some(3),
            output: Some(2),
        },
        first: at(0),
        last: at(100),
        outside: true,
    }
}

fn drop(source: &str, destination: &str, reason: &str) -> DroppedPackets {
    DroppedPackets {
        source: source.parse().unwrap(),
        destination: destination.parse().unwrap(),
        netns: 1,
        reason: Some(reason.to_owned()),
        at: None,
        input: Some(3),
        packets: 1,
        syn: true,
        first: at(1),
        last: at(1),
    }
}

#[derive(Default)]
struct Rules {
    unread: Vec<String>,
}

impl RuleSource for Rules {
    fn untracked(&self, _: &UntrackedPackets) -> Option<CandidateRule> {
        Some(notrack("a"))
    }

    fn dropped(&self, dropped: &DroppedPackets) -> Option<CandidateRule> {
        (dropped.destination.port() == 443).then(|| CandidateRule {
            certain: false,
            ..iptables(Tool::IptablesNft, "filter", Action::Drop, &["FORWARD", "b"])
        })
    }

    fn unread(&self) -> Vec<String> {
        self.unread.clone()
    }
}

#[derive(Default)]
struct Seen {
    untracked: Vec<UntrackedPackets>,
    drops: Vec<DroppedPackets>,
    tunnels: Vec<FaultyTunnel>,
    rules: Rules,
}

fn told(connection: &Connection, seen: &Seen) -> Option<Cause> {
    let service = |name: &str, address: &str, endpoints: &[&str]| Service {
        name: Some(name.to_owned()),
        address: address.parse().unwrap(),
        is_cluster_ip: true,
        protocol: TCP,
        endpoints: endpoints.iter().map(|end| end.parse().unwrap()).collect(),
        refused: endpoints.is_empty(),
        mode: Mode::Iptables,
    };
    let services = Services::new(vec![
        service("shop/web:https", "10.96.7.7:443", &["10.244.2.7:8443"]),
        service("shop/empty:http", "10.96.5.5:80", &[]),
        service("shop/$(reboot):http", "10.96.5.6:80", &[]),
    ]);
    explain(
        connection,
        &Evidence {
            services: &services,
            untracked: &seen.untracked,
            drops: &seen.drops,
            tunnels: &seen.tunnels,
            own: &HashSet::from(["192.168.88.11".parse().unwrap()]),
            netns: 1,
            rules: &seen.rules,
        },
    )
}

fn untracked_of(connection: &Connection, seen: UntrackedPackets) -> Option<String> {
    let untracked = vec![seen];
    let seen = Seen {
        untracked,
        ..Seen::default()
    };
    told(connection, &seen).map(|cause| cause.what)
}

fn dropped_of(connection: &Connection, dropped: DroppedPackets) -> Option<String> {
    let drops = vec![dropped];
    let seen = Seen {
        drops,
        ..Seen::default()
    };
    told(connection, &seen).map(|cause| cause.what)
}

#[test]
fn nothing_seen_is_nothing_said() {
    assert_eq!(told(&failed(), &Seen::default()), None);
    assert_eq!(told(&translated(), &Seen::default()), None);
}

#[test]
fn a_service_without_endpoints() {
    let mut connection = failed();
    connection.destination = "10.96.5.5:80".parse().unwrap();
    for (role, outcome, expected) in [
        (Role::Client, Outcome::Unreachable, true),
        (Role::Client, Outcome::Refused, true),
        (Role::Server, Outcome::Refused, false),
        // A connection that sent data had a peer.
        (Role::Client, Outcome::HalfOpen, false),
    ] {
        (connection.role, connection.outcome) = (role, outcome);
        let cause = told(&connection, &Seen::default());
        assert_eq!(cause.is_some(), expected, "{role:?} {outcome:?}");
        if let Some(cause) = cause {
            assert_eq!(
                cause.what,
                "Service shop/empty:http (10.96.5.5:80) has no endpoints"
            );
        }
    }
}

#[test]
fn no_command_of_what_is_no_name() {
    let mut connection = failed();
    for (address, command) in [("10.96.5.5:80", true), ("10.96.5.6:80", false)] {
        connection.destination = address.parse().unwrap();
        let fixes = told(&connection, &Seen::default()).unwrap().fixes;
        assert_eq!(matches!(fixes[0], Fix::Command { .. }), command, "{address}");
    }
}

#[test]
fn requests_that_were_not_translated() {
    let request = || stream("10.244.1.5", "10.96.7.7", 443, Server::Destination);
    let words = "packets to Service shop/web:https (10.96.7.7:443) left untranslated: exempted from conntrack by \
                 iptables-nft: raw PREROUTING rule 3: -A PREROUTING a";
    assert_eq!(untracked_of(&failed(), request()).as_deref(), Some(words));
    // Somebody else's, or at another time.
    for other in [
        stream("10.244.1.6", "10.96.7.7", 443, Server::Destination),
        stream("10.244.1.5", "10.96.7.8", 443, Server::Destination),
        stream("10.244.1.5", "10.96.7.7", 80, Server::Destination),
        stream("10.96.7.7", "10.244.1.5", 443, Server::Destination),
        UntrackedPackets {
            last: at(-20),
            first: at(-30),
            ..request()
        },
        UntrackedPackets {
            first: at(200),
            last: at(300),
            ..request()
        },
    ] {
        assert_eq!(untracked_of(&failed(), other.clone()), None, "{other:?}");
    }
}

/// A pod's own address is no good outside, a node's is, and so is a pod's to a pod.
#[test]
fn packets_that_were_not_masqueraded() {
    let mut connection = failed();
    connection.destination = "1.2.3.4:443".parse().unwrap();
    let request = || stream("10.244.1.5", "1.2.3.4", 443, Server::Destination);
    assert_eq!(
        untracked_of(&connection, request()).as_deref(),
        Some(
            "packets left the node as from 10.244.1.5, not masqueraded: exempted from conntrack by iptables-nft: raw PREROUTING rule 3: -A PREROUTING a"
        )
    );
    let inside = UntrackedPackets {
        outside: false,
        ..request()
    };
    assert_eq!(untracked_of(&connection, inside), None);
    connection.source = "192.168.88.11:40000".parse().unwrap();
    let mut own = stream("192.168.88.11", "1.2.3.4", 443, Server::Destination);
    own.stream.direction = Direction::Outgoing;
    assert_eq!(untracked_of(&connection, own), None);
}

/// Conntrack has to have translated the request: who talks to an endpoint itself misses nothing.
#[test]
fn replies_that_were_not_translated_back() {
    let reply = || stream("10.244.2.7", "10.244.1.5", 8443, Server::Source);
    assert_eq!(
        untracked_of(&translated(), reply()).as_deref(),
        Some(
            "replies of 10.244.2.7:8443, an endpoint of Service shop/web:https (10.96.7.7:443), came back untranslated: \
             exempted from conntrack by iptables-nft: raw PREROUTING rule 3: -A PREROUTING a"
        )
    );
    let mut direct = failed();
    direct.destination = "10.244.2.7:8443".parse().unwrap();
    assert_eq!(untracked_of(&direct, reply()), None);
    direct.seen_as = Some("192.168.88.11:50000".parse().unwrap());
    assert_eq!(
        untracked_of(&direct, reply()).as_deref(),
        Some(
            "replies of 10.244.2.7:8443 came back untranslated: exempted from conntrack by iptables-nft: raw PREROUTING rule 3: -A PREROUTING a"
        )
    );
    assert_eq!(untracked_of(&failed(), reply()), None);
}

#[test]
fn packets_that_were_dropped() {
    let client = "10.244.1.5:40000";
    let filtered = |source: &str, destination: &str| drop(source, destination, "NETFILTER_DROP");
    assert_eq!(
        dropped_of(&failed(), filtered(client, "10.96.7.7:443")).as_deref(),
        Some(
            "a packet from 10.244.1.5:40000 to 10.96.7.7:443 (NETFILTER_DROP): dropped perhaps by iptables-nft: filter FORWARD rule 3: -A FORWARD b"
        )
    );
    // Behind the translation: to the Service's endpoint, though conntrack forgot it. Nobody knows the rule.
    assert_eq!(
        dropped_of(&failed(), filtered(client, "10.244.2.7:8443")).as_deref(),
        Some("a packet from 10.244.1.5:40000 to 10.244.2.7:8443 (NETFILTER_DROP): dropped, no rule found")
    );
    // What was not read may be the reason.
    let unread = |destination: &str| {
        let seen = Seen {
            drops: vec![filtered(client, destination)],
            rules: Rules {
                unread: vec!["rules changed and are not read again yet".to_owned()],
            },
            ..Seen::default()
        };
        told(&failed(), &seen).unwrap().what
    };
    assert_eq!(
        unread("10.244.2.7:8443"),
        "a packet from 10.244.1.5:40000 to 10.244.2.7:8443 (NETFILTER_DROP): dropped, no rule found \
         (rules changed and are not read again yet)"
    );
    assert!(unread("10.96.7.7:443").ends_with("-A FORWARD b (rules changed and are not read again yet)"));
    // Before 5.17 the function is all there is.
    let old = DroppedPackets {
        reason: None,
        at: Some("nf_hook_slow".to_owned()),
        ..filtered("10.96.7.7:443", client)
    };
    let words = dropped_of(&failed(), old).unwrap();
    assert!(words.contains("(nf_hook_slow): dropped, no rule"), "{words}");
    // In a pod's namespace the node's rules are not asked.
    let elsewhere = DroppedPackets {
        netns: 7,
        ..filtered(client, "10.96.7.7:443")
    };
    let words = dropped_of(&failed(), elsewhere).unwrap();
    assert!(
        words.ends_with("dropped in the network namespace 7 (NETFILTER_DROP)"),
        "{words}"
    );
    for (other, why) in [
        (
            filtered("10.244.1.5:40001", "10.96.7.7:443"),
            "another connection's",
        ),
        (filtered(client, "10.96.7.8:443"), "to another server"),
        (
            drop(client, "10.96.7.7:443", "TCP_OLD_DATA"),
            "happens in good health",
        ),
        (drop(client, "10.96.7.7:443", "NOT_SPECIFIED"), "says nothing"),
        (
            DroppedPackets {
                first: at(200),
                last: at(200),
                ..filtered(client, "10.96.7.7:443")
            },
            "after its end",
        ),
    ] {
        assert_eq!(dropped_of(&failed(), other), None, "{why}");
    }
}

#[test]
fn a_port_that_nobody_listens_at() {
    let client = "10.244.1.5:40000";
    let syn = || drop(client, "10.96.7.7:443", "NO_SOCKET");
    let words = "a packet from 10.244.1.5:40000 to 10.96.7.7:443 found no socket on this node (NO_SOCKET)";
    assert_eq!(dropped_of(&failed(), syn()).as_deref(), Some(words));
    let data = DroppedPackets { syn: false, ..syn() };
    assert_eq!(dropped_of(&failed(), data), None);
    // What comes after the client went away is no reason for it.
    let reset = Connection {
        outcome: Outcome::ResetByClient,
        ..failed()
    };
    assert_eq!(dropped_of(&reset, syn()), None);
}

#[test]
fn a_vxlan_peer_on_the_way() {
    let tunnel = |fault, network: &str| Seen {
        tunnels: vec![FaultyTunnel {
            fault,
            networks: vec![network.parse().unwrap()],
            what: "nothing comes back".to_owned(),
            fixes: vec![Fix::text("look")],
            certain: false,
        }],
        ..Seen::default()
    };
    for (fault, network, outcome, expected) in [
        (Fault::NoAnswer, "10.244.2.0/24", Outcome::Unanswered, true),
        (Fault::NoAnswer, "10.244.3.0/24", Outcome::Unanswered, false),
        (Fault::NoAnswer, "10.244.2.0/24", Outcome::TimedOut, true),
        // Somebody answered.
        (Fault::NoAnswer, "10.244.2.0/24", Outcome::Refused, false),
        (Fault::Mtu, "10.244.2.0/24", Outcome::Unanswered, false),
        (Fault::Mtu, "10.244.2.0/24", Outcome::TimedOut, true),
        (
            Fault::MalformedHeader,
            "10.244.2.0/24",
            Outcome::Unanswered,
            false,
        ),
    ] {
        let connection = Connection {
            outcome,
            ..translated()
        };
        let cause = told(&connection, &tunnel(fault, network));
        assert_eq!(cause.is_some(), expected, "{fault:?} {network} {outcome:?}");
    }
    // What a packet of its own met comes first.
    let mut seen = tunnel(Fault::NoAnswer, "10.244.2.0/24");
    seen.drops = vec![drop("10.244.1.5:40000", "10.244.2.7:8443", "NETFILTER_DROP")];
    assert_eq!(
        told(&translated(), &seen).map(|cause| cause.kind),
        Some(CauseKind::Dropped)
    );
    seen.drops = vec![drop("10.244.1.5:40000", "10.244.2.7:8443", "NO_TX_TARGET")];
    assert_eq!(
        told(&translated(), &seen).map(|cause| cause.kind),
        Some(CauseKind::Vxlan)
    );
}

/// The rule that drops replies is not the cause if the request bypassed conntrack.
#[test]
fn packets_that_conntrack_knows_one_way_only() {
    let connection = translated();
    let mut seen = Seen {
        drops: vec![drop("10.244.2.7:8443", "10.244.1.5:40000", "NETFILTER_DROP")],
        ..Seen::default()
    };
    assert_eq!(
        told(&connection, &seen).map(|cause| cause.kind),
        Some(CauseKind::Dropped)
    );
    seen.untracked = vec![stream("10.244.1.5", "10.244.2.7", 8443, Server::Destination)];
    let cause = told(&connection, &seen).unwrap();
    assert_eq!(
        (cause.kind, cause.rule.as_deref()),
        (
            CauseKind::Untracked,
            Some("iptables-nft: raw PREROUTING rule 3: -A PREROUTING a")
        )
    );
    assert_eq!(
        cause.what,
        "packets from 10.244.1.5 to 10.244.2.7:8443 are exempted from conntrack by iptables-nft: raw PREROUTING rule 3: -A PREROUTING a; the replies match no conntrack entry and are dropped"
    );
    // Untracked the same way as dropped: that explains nothing.
    seen.drops = vec![drop("10.244.1.5:40000", "10.244.2.7:8443", "NETFILTER_DROP")];
    assert_eq!(
        told(&connection, &seen).map(|cause| cause.kind),
        Some(CauseKind::Dropped)
    );
}

/// What was still sent again at the end, in segments of 1,430 bytes.
fn lost(bytes: u32, timeouts: u8, sacked_segments: u8) -> Unacknowledged {
    Unacknowledged {
        bytes,
        segment_bytes: 1430,
        timeouts,
        sacked_segments,
    }
}

/// Only what can't be ordinary loss, a dead peer or a small MTU is a black hole.
#[test]
fn large_packets_that_vanish() {
    for (name, outcome, unacknowledged, expected) in [
        ("a request", Outcome::TimedOut, Some(lost(4000, 4, 1)), true),
        ("given up", Outcome::ResetByClient, Some(lost(4001, 3, 3)), true),
        ("it ended well", Outcome::Closed, Some(lost(4000, 4, 1)), false),
        ("all was acknowledged", Outcome::TimedOut, None, false),
        (
            "sent again too few times",
            Outcome::TimedOut,
            Some(lost(4000, 2, 1)),
            false,
        ),
        (
            "nothing arrives: the peer is gone",
            Outcome::TimedOut,
            Some(lost(4000, 6, 0)),
            false,
        ),
        (
            "most arrives: one packet is lost",
            Outcome::TimedOut,
            Some(lost(14_000, 6, 9)),
            false,
        ),
        (
            "a small segment is lost",
            Outcome::TimedOut,
            Some(lost(900, 6, 1)),
            false,
        ),
        (
            "small enough for every path",
            Outcome::TimedOut,
            Some(Unacknowledged {
                segment_bytes: 536,
                ..lost(4000, 6, 1)
            }),
            false,
        ),
    ] {
        let connection = Connection {
            outcome,
            unacknowledged,
            ..translated()
        };
        let cause = told(&connection, &Seen::default());
        assert_eq!(
            cause.as_ref().map(|cause| cause.kind),
            expected.then_some(CauseKind::BlackHole),
            "{name}"
        );
        // It needs nothing that is known of the node.
        assert_eq!(explain_alone(&connection), cause, "{name}");
    }
}

#[test]
fn the_size_that_vanishes_and_its_remedy() {
    for (role, source, destination, what, fix) in [
        (
            Role::Client,
            "10.244.1.5:40000",
            "10.244.2.7:8443",
            "full-size packets (1450 bytes) from 10.244.1.5:40000 to 10.244.2.7:8443 were sent again",
            "ping -c1 -M do -s 1422 10.244.2.7 ",
        ),
        (
            Role::Server,
            "[fd00::5]:40000",
            "[fd00::7]:8443",
            "full-size packets (1470 bytes) from [fd00::7]:8443 to [fd00::5]:40000 were sent again",
            "ping -c1 -M do -s 1422 fd00::5 ",
        ),
    ] {
        let connection = Connection {
            role,
            outcome: Outcome::TimedOut,
            source: source.parse().unwrap(),
            destination: destination.parse().unwrap(),
            unacknowledged: Some(lost(4000, 4, 1)),
            ..failed()
        };
        let cause = told(&connection, &Seen::default()).unwrap();
        assert!(cause.what.starts_with(what), "{}", cause.what);
        assert!(cause.fixes[0].to_string().starts_with(fix), "{}", cause.fixes[0]);
        assert!(!cause.certain);
    }
}
