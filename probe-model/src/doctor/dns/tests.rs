use std::{net::SocketAddr, time::Duration};

use super::{
    queries::{Queries, QueryCounts},
    *,
};
use crate::{
    doctor::{CheckVerdict, shown::text},
    path::{Event, Packet, Tracking, What, event::Direction},
};

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// A pod that had the node's resolvers of before.
fn pod(name: &str, servers: &[&str]) -> DnsPod {
    DnsPod {
        name: format!("shop/{name}"),
        policy: None,
        servers: servers.iter().map(|server| ip(server)).collect(),
        search: Vec::new(),
        older: true,
        host_network: false,
        serves_cluster: name.starts_with("coredns"),
    }
}

fn node() -> DnsFacts {
    DnsFacts {
        node: Some(("/etc/resolv.conf".to_owned(), Ok(vec![ip("192.0.2.2")]))),
        cluster: vec![ip("10.96.0.10")],
        domain: Some("cluster.local".to_owned()),
        ..DnsFacts::default()
    }
}

#[test]
fn whose_resolvers_are_former() {
    use CheckVerdict::{Failed, Ok};
    let with = |policy, pod: DnsPod| DnsPod {
        policy: Some(policy),
        ..pod
    };
    let cluster = |server: &str| DnsPod {
        search: vec!["shop.svc.cluster.local".to_owned()],
        ..pod("a", &[server])
    };
    let rows = [
        ("the node's", pod("a", &["192.0.2.2"]), Ok),
        ("the cluster's", pod("a", &["10.96.0.10"]), Ok),
        ("a former one", pod("a", &["192.0.2.1"]), Failed),
        (
            "one of two is former",
            pod("a", &["192.0.2.2", "192.0.2.1"]),
            Failed,
        ),
        (
            "made after the node's: chosen",
            DnsPod {
                older: false,
                ..pod("a", &["192.0.2.1"])
            },
            Ok,
        ),
        (
            "chosen, as the API says",
            with(Policy::None, pod("a", &["192.0.2.1"])),
            Ok,
        ),
        (
            "the node's, as the API says",
            DnsPod {
                older: false,
                ..with(Policy::Default, pod("a", &["192.0.2.1"]))
            },
            Failed,
        ),
        ("a former cluster DNS", cluster("10.7.0.10"), Failed),
        ("a Service beside clusterDNS", cluster("10.96.0.11"), Ok),
        ("none", pod("a", &[]), Ok),
        ("its own", pod("a", &["127.0.0.1"]), Failed),
        (
            "its own, by choice",
            with(Policy::None, pod("a", &["127.0.0.1"])),
            Ok,
        ),
    ];
    for (name, pod, verdict) in rows {
        let seen = DnsFacts {
            pods: vec![pod],
            services: vec![ip("10.96.0.11")],
            ..node()
        };
        let answer = judge(&seen);
        assert_eq!(answer.verdict, verdict, "{name}: {}", text(&answer));
    }
}

#[test]
fn who_is_told_first_and_what_to_do() {
    let seen = DnsFacts {
        pods: vec![pod("a", &["192.0.2.1"]), pod("coredns-x", &["192.0.2.1"])],
        ..node()
    };
    let told = text(&judge(&seen));
    for line in [
        "2 pods still query resolvers that this node no longer uses; the cluster's DNS is among them",
        "seen: the node has 192.0.2.2 (/etc/resolv.conf)\n    seen: shop/coredns-x has 192.0.2.1\n    seen: shop/a has 192.0.2.1",
        "do:   kubectl -n kube-system rollout restart deployment coredns",
        "do:   kubectl -n shop delete pod a ",
        "not checked: the pods' dnsPolicy",
    ] {
        assert!(told.contains(line), "{line} in\n{told}");
    }
}

#[test]
fn the_nodes_stub_and_no_file() {
    let mut seen = DnsFacts {
        pods: vec![pod("a", &["127.0.0.53"])],
        ..node()
    };
    seen.node = Some(("/etc/resolv.conf".to_owned(), Ok(vec![ip("127.0.0.53")])));
    let told = text(&judge(&seen));
    assert!(
        told.contains("Set resolvConf to /run/systemd/resolve/resolv.conf"),
        "{told}"
    );
    seen.pods[0].host_network = true;
    assert_eq!(judge(&seen).verdict, CheckVerdict::Ok);
    seen.node = Some(("/nowhere".to_owned(), Err("No such file".to_owned())));
    assert!(text(&judge(&seen)).contains("dnsPolicy Default can start"));
    // The kubelet was told to copy nothing.
    seen.node = None;
    assert_eq!(judge(&seen).verdict, CheckVerdict::Ok);
}

/// A DNS message between a pod (namespace 7) and a server, at one point.
fn event(time_ms: u64, netns: u32, id: u16, answer: Option<u8>, what: What) -> Event {
    let (client, server): (SocketAddr, SocketAddr) = (
        "10.244.1.5:40000".parse().unwrap(),
        "10.96.0.10:53".parse().unwrap(),
    );
    let request = answer.is_none();
    let mut bytes = vec![0x45; 28];
    bytes.extend(id.to_be_bytes());
    bytes.extend([if request { 0x01 } else { 0x81 }, answer.unwrap_or(0), 0, 1]);
    Event {
        time_ns: time_ms * 1_000_000,
        flow: 1,
        direction: if request {
            Direction::Request
        } else {
            Direction::Reply
        },
        what,
        netns,
        device: None,
        input: None,
        mark: 0,
        tracking: Tracking::None,
        packet: Packet {
            source: if request { client } else { server },
            destination: if request { server } else { client },
            protocol: 17,
            id: None,
            dont_fragment: false,
            fragment: false,
            ttl: 64,
            length: 60,
            payload: 32,
            tcp: None,
            icmp: None,
            sequence: None,
            about: false,
            tunnel: None,
        },
        segments: 1,
        skb: 0,
        cpu: 0,
        function: "",
        bytes,
    }
}

fn row(events: &[Event]) -> Option<QueryCounts> {
    let mut queries = Queries::default();
    events.iter().for_each(|event| queries.push(event));
    let end = 5_000_000_000;
    let asked = queries.end(end, Duration::from_secs(5), 0, |netns| {
        (netns == 7).then(|| "shop/a".to_owned())
    });
    asked.rows.first().cloned()
}

#[test]
fn queries_and_answers() {
    use What::{Received, Sent};
    let query = |id| event(1000, 7, id, None, Sent);
    let reached = event(1010, 7, 1, Some(0), Received);
    // Two of one socket, as for A and AAAA: one is answered.
    let both = row(&[
        query(1),
        query(2),
        event(1001, 1, 2, None, Received),
        reached.clone(),
    ])
    .unwrap();
    assert_eq!((both.asked, both.unanswered, both.lost_on_the_way), (2, 1, 0));
    // It was asked again, with the same number.
    let again = row(&[
        query(1),
        event(2000, 7, 1, None, Sent),
        event(2010, 7, 1, Some(0), Received),
    ])
    .unwrap();
    assert_eq!((again.asked, again.unanswered), (1, 0));
    let late = row(&[event(4500, 7, 1, None, Sent)]);
    assert_eq!(late, None, "it may still be answered");
    let lost = row(&[query(1), event(1010, 1, 1, Some(0), Received)]).unwrap();
    assert_eq!((lost.unanswered, lost.lost_on_the_way), (1, 1));
    let dropped = What::Dropped {
        reason: Some("NETFILTER_DROP".to_owned()),
        at: None,
    };
    let dropped = row(&[query(1), event(1001, 1, 1, None, dropped)]).unwrap();
    assert_eq!(dropped.dropped.as_deref(), Some("NETFILTER_DROP"));
    assert_eq!(
        row(&[query(1), event(1010, 7, 1, Some(2), Received)])
            .unwrap()
            .failed,
        1
    );
    // Another node's, on the same kernel.
    assert_eq!(row(&[event(1000, 8, 1, None, Sent)]), None);
    let mut short = query(1);
    short.bytes.truncate(29);
    assert_eq!(row(&[short]), None);
}

#[test]
fn what_unanswered_queries_come_to() {
    let asked = |asked, unanswered, lost| Asked {
        window: Duration::from_secs(5),
        rows: vec![QueryCounts {
            who: "shop/a".to_owned(),
            server: Some("192.0.2.1:53".parse().unwrap()),
            asked,
            unanswered,
            ..QueryCounts::default()
        }],
        lost,
        malformed: 0,
    };
    for (seen, verdict, word) in [
        (
            asked(9, 0, 0),
            CheckVerdict::Ok,
            "9 DNS queries in 5 s, all answered",
        ),
        (
            asked(9, 9, 0),
            CheckVerdict::Failed,
            "shop/a: 9 of 9 to 192.0.2.1:53 without an answer",
        ),
        (asked(9, 1, 0), CheckVerdict::Warning, "1 of 9"),
        (
            asked(99, 1, 0),
            CheckVerdict::Ok,
            "99 DNS queries in 5 s, 1 without an answer",
        ),
        (asked(990, 10, 0), CheckVerdict::Warning, "10 of 990"),
        (
            asked(1, 1, 0),
            CheckVerdict::Warning,
            "probe path --to 192.0.2.1 --port 53",
        ),
        // An answer may be what was missed.
        (asked(9, 9, 3), CheckVerdict::Warning, "3 DNS packets lost"),
    ] {
        let answer = judge(&DnsFacts {
            asked: Some(seen),
            ..node()
        });
        let told = text(&answer);
        assert!(answer.verdict == verdict && told.contains(word), "{told}");
    }
}
