use std::net::IpAddr;

use super::*;

fn at(seconds: f64) -> Timestamp {
    Timestamp::from_microsecond((seconds * 1e6) as i64).unwrap()
}

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn identity(pod: &str) -> Identity {
    Identity {
        namespace: Some("monitoring".to_owned()),
        pod: Some(pod.to_owned()),
        ..Identity::default()
    }
}

fn client(pod: &str, source: &str, seen_as: Option<&str>, began: f64, ended: f64) -> Recorded {
    Recorded {
        began: at(began),
        ended: at(ended),
        destination: address("192.168.88.11:2379"),
        source: address(source),
        seen_as: seen_as.map(address),
        dialled: None,
        translated: true,
        outcome: Outcome::HalfOpen,
        client: Some(Client {
            identity: identity(pod),
            ..Client::default()
        }),
        node: None,
    }
}

const NODE: &str = "192.168.88.12:62134";

#[test]
fn who_had_it() {
    let mut flows = Flows::default();
    for recorded in [
        client("a", "10.244.2.2:1", Some(NODE), 10.0, 10.01),
        client("b", "10.244.2.3:1", Some(NODE), 200.0, 200.01),
        // So soon after the other that the log can't tell them apart.
        client("c", "10.244.2.4:1", Some(NODE), 200.5, 200.51),
        // The same again: no question who it was.
        client("a", "10.244.2.2:1", Some(NODE), 10.3, 10.31),
        client("d", "10.244.2.5:1", None, 300.0, 300.01),
        Recorded {
            client: None,
            ..client("", "192.168.88.13:5", None, 10.0, 10.1)
        },
    ] {
        flows.add(recorded);
    }
    let within = Duration::from_secs(10);
    for (asked, time, expected) in [
        (NODE, Some(10.012), Ok(("a", 2_000))),
        (NODE, Some(10.005), Ok(("a", 0))),
        (NODE, Some(9.0), Ok(("a", 1_000_000))),
        (NODE, Some(30.31), Err(Unmatched::TooFar(Duration::from_secs(20)))),
        (
            NODE,
            Some(200.012),
            Err(Unmatched::Reused(vec![
                "monitoring/b".to_owned(),
                "monitoring/c".to_owned(),
            ])),
        ),
        // The server saw the node's address, never the pod's own.
        ("10.244.2.4:1", Some(200.512), Err(Unmatched::NotRecorded)),
        ("10.244.2.5:1", Some(300.012), Ok(("d", 2_000))),
        ("10.244.2.5:1", None, Ok(("d", u64::MAX))),
        ("192.168.88.12:1", Some(10.0), Err(Unmatched::NotRecorded)),
        ("192.168.88.13:5", Some(10.0), Err(Unmatched::ServerOnly)),
    ] {
        let found = flows.find(&LineKey::of_client(address(asked)), time.map(at), within);
        let found = found.map(|near| {
            let distance = near
                .distance
                .map_or(u64::MAX, |distance| distance.as_micros() as u64);
            (near.client.identity.pod.clone().unwrap(), distance)
        });
        let expected = expected.map(|(pod, distance): (&str, u64)| (pod.to_owned(), distance));
        assert_eq!(found, expected, "{asked} {time:?}");
    }
    // Without a time, nobody can say which of three it was.
    assert!(
        matches!(flows.find(&LineKey::of_client(address(NODE)), None, within), Err(Unmatched::Reused(names)) if names.len() == 3)
    );
}

/// Two probes on one kernel: the record of the node that the pod is on counts, and counts once.
#[test]
fn records_of_one_connection() {
    let mine = client("a", "10.244.2.2:1", Some(NODE), 10.0, 10.01);
    let mut other = Recorded {
        seen_as: None,
        translated: false,
        began: at(10.001),
        ended: at(10.02),
        ..mine.clone()
    };
    // The same node's are two.
    let mut flows = Flows::default();
    for recorded in [mine.clone(), other.clone()] {
        flows.add(recorded);
    }
    assert_eq!(flows.all().count(), 2);

    other.client.as_mut().unwrap().node = Some("alpha".to_owned());
    // A pod on the node's own network: both know all but its name, which its own node knows.
    let mut unnamed = other.clone();
    unnamed.translated = true;
    unnamed.client.as_mut().unwrap().identity.namespace = None;
    for both in [[mine.clone(), unnamed.clone()], [unnamed, mine.clone()]] {
        let mut flows = Flows::default();
        both.into_iter().for_each(|recorded| flows.add(recorded));
        let near = flows.near(address("10.244.2.2:1"), None);
        assert_eq!((near.len(), near[0].client.identity.clone()), (1, identity("a")));
    }
    for both in [[mine.clone(), other.clone()], [other, mine]] {
        let mut flows = Flows::default();
        both.into_iter().for_each(|recorded| flows.add(recorded));
        assert_eq!(flows.all().count(), 1);
        for asked in [NODE, "10.244.2.2:1"] {
            let near = flows.near(address(asked), None);
            assert_eq!((near.len(), near[0].flow.translated), (1, true));
        }
    }
}

/// What the line tells of its connection, against records that differ in one part of the 5-tuple.
#[test]
fn the_whole_tuple() {
    let mut flows = Flows::default();
    let with = |pod: &str, second: f64, change: fn(&mut Recorded)| {
        let mut recorded = client(pod, "10.244.2.2:1", Some(NODE), second, second + 0.01);
        recorded.node = Some("beta".to_owned());
        recorded.client.as_mut().unwrap().node = Some("beta".to_owned());
        change(&mut recorded);
        recorded
    };
    for recorded in [
        with("etcd", 10.0, |_| {}),
        with("https", 13.0, |r| r.destination.set_port(443)),
        with("gamma", 13.0, |r| r.destination.set_ip([192, 168, 88, 13].into())),
        // None of these ever was a connection at the server.
        with("check", 13.0, |r| r.outcome = Outcome::HandshakeReset),
        with("refused", 13.0, |r| r.outcome = Outcome::Refused),
        with("lost", 13.0, |r| r.outcome = Outcome::Unanswered),
        // To a Service, as conntrack was not asked: which server it was is not known.
        with("service", 40.0, |r| {
            r.destination.set_ip([10, 96, 0, 7].into());
            r.translated = false;
        }),
        with("loopback", 10.0, |r| {
            (r.source, r.seen_as) = (address("127.0.0.1:1"), None);
            r.destination = address("127.0.0.1:2379");
        }),
        with("neighbour", 10.0, |r| {
            (r.source, r.seen_as) = (address("[fe80::1]:1"), None);
            r.destination = address("[fe80::2]:2379");
        }),
        with("docker", 10.0, |r| {
            (r.source, r.seen_as) = (address("172.17.0.2:1"), Some(address("192.168.88.12:7")));
        }),
    ] {
        flows.add(recorded);
    }
    let within = Duration::from_secs(10);
    let key = LineKey::of_client(address(NODE));
    let alpha = [IpAddr::from([192, 168, 88, 11])];
    let server = |text: &str| Some(address(text));
    let of = |text: &str| LineKey {
        client: address(text),
        ..key
    };
    let several = |names: &[&str]| {
        let names = names.iter().map(|name| format!("monitoring/{name}"));
        Err(Unmatched::Reused(names.collect()))
    };
    for (what, key, second, expected) in [
        ("any", key, 13.0, several(&["https", "gamma"])),
        (
            "a port",
            LineKey {
                ports: &[2379, 2380],
                ..key
            },
            13.0,
            Ok("gamma"),
        ),
        (
            "a port and an address",
            LineKey {
                ports: &[2379],
                servers: &alpha,
                ..key
            },
            13.0,
            Ok("etcd"),
        ),
        (
            "the server",
            LineKey {
                server: server("192.168.88.11:2379"),
                ..key
            },
            13.0,
            Ok("etcd"),
        ),
        (
            "another port of the server",
            LineKey {
                server: server("192.168.88.11:2380"),
                ..key
            },
            10.0,
            Err(Unmatched::OtherServer(address("192.168.88.11:2379"))),
        ),
        (
            "another address",
            LineKey {
                server: server("192.168.88.14:2379"),
                ..key
            },
            10.0,
            Ok("service"),
        ),
        (
            "by the Service",
            LineKey {
                server: server("192.168.88.14:2379"),
                ..key
            },
            40.0,
            Ok("service"),
        ),
        ("loopback, one node", of("127.0.0.1:1"), 10.0, Ok("loopback")),
        (
            "loopback, this node",
            LineKey {
                node: Some("beta"),
                ..of("127.0.0.1:1")
            },
            10.0,
            Ok("loopback"),
        ),
        (
            "loopback, another node",
            LineKey {
                node: Some("alpha"),
                ..of("127.0.0.1:1")
            },
            10.0,
            Err(Unmatched::NotRecorded),
        ),
        ("link-local", of("[fe80::1]:1"), 10.0, Ok("neighbour")),
        (
            "link-local, another node",
            LineKey {
                node: Some("alpha"),
                ..of("[fe80::1]:1")
            },
            10.0,
            Err(Unmatched::NotRecorded),
        ),
        (
            "behind a masquerade",
            of("172.17.0.2:1"),
            10.0,
            Err(Unmatched::NotRecorded),
        ),
    ] {
        // Of the Service nothing is near enough at the one time, where another server was named.
        let within = if second == 10.0 && what == "another address" {
            Duration::from_secs(30)
        } else {
            within
        };
        let found = flows.find(&key, Some(at(second)), within);
        let found = found.map(|near| near.client.identity.pod.clone().unwrap());
        assert_eq!(found, expected.map(str::to_owned), "{what}");
    }

    // Two nodes' records: a loopback client is of the one that logged, and which that is has to be known.
    let mut other = with("loopback of alpha", 10.5, |r| {
        (r.source, r.seen_as) = (address("127.0.0.1:1"), None);
        r.destination = address("127.0.0.1:2379");
    });
    other.node = Some("alpha".to_owned());
    other.client.as_mut().unwrap().node = Some("alpha".to_owned());
    flows.add(other);
    for (node, expected) in [
        (None, Err(Unmatched::NodeUnknown)),
        (Some("alpha"), Ok("loopback of alpha")),
        (Some("beta"), Ok("loopback")),
    ] {
        let key = LineKey {
            node,
            ..of("127.0.0.1:1")
        };
        let found = flows.find(&key, Some(at(10.5)), within);
        let found = found.map(|near| near.client.identity.pod.clone().unwrap());
        assert_eq!(found, expected.map(str::to_owned), "{node:?}");
    }
}

/// Another's connection rules a name out where it is not clearly farther away.
#[test]
fn clearly_nearer() {
    for (other, named) in [
        (10.5, false),
        (13.2, false),
        (14.9, false),
        (15.2, true),
        (30.0, true),
    ] {
        let mut flows = Flows::default();
        flows.add(client("a", "10.244.2.2:1", Some(NODE), 8.0, 8.0));
        flows.add(client("b", "10.244.2.3:1", Some(NODE), other, other));
        // The one is 2 s away.
        let found = flows.find(
            &LineKey::of_client(address(NODE)),
            Some(at(10.0)),
            Duration::from_secs(10),
        );
        let name = found.ok().and_then(|near| near.client.identity.pod.clone());
        assert_eq!(name.is_some(), named, "{other}");
        assert!(name.is_none_or(|name| name == "a"), "{other}");
    }
}
