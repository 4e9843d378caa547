use std::net::SocketAddr;

use super::*;
use crate::{
    Outcome,
    etcd_log::{ServerKind, summary::Total},
    flow::{Client, Identity, Recorded},
    recording_scope::RecordingScope,
};

fn at(second: f64) -> Timestamp {
    Timestamp::from_microsecond(1_795_000_000_000_000 + (second * 1e6) as i64).unwrap()
}

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// A connection of `pod` on `node`, seen as `peer` by `server`, that ended at this second.
fn record(pod: &str, node: &str, peer: &str, server: &str, second: f64) -> Recorded {
    Recorded {
        began: at(second - 0.001),
        ended: at(second),
        source: address(peer),
        destination: address(server),
        dialled: None,
        seen_as: None,
        translated: true,
        outcome: Outcome::HalfOpen,
        client: Some(Client {
            identity: Identity {
                pod: Some(pod.to_owned()),
                ..Identity::default()
            },
            node: Some(node.to_owned()),
            ..Client::default()
        }),
        node: Some(node.to_owned()),
    }
}

/// A line about `peer`, with its offset where there is a time.
fn line(peer: &str, second: Option<f64>) -> Rejected {
    Rejected {
        time: second.map(at),
        peer: address(peer),
        error: "EOF".to_owned(),
        server_name: String::new(),
        endpoint: None,
        has_offset: true,
        zone: None,
        logged_by: ServerKind::Etcd,
        server: None,
    }
}

fn options() -> MatchOptions {
    MatchOptions {
        within: Duration::from_secs(10),
        infers_offset: true,
        ..MatchOptions::default()
    }
}

type Found = Result<String, Unmatched>;

fn settle(flows: &Flows, options: MatchOptions, lines: Vec<Rejected>) -> (Vec<Found>, Option<Inferred>) {
    let mut matcher = Matcher::new(flows, options);
    for line in lines {
        assert!(!matcher.push(line));
    }
    let found = matcher.settle(true);
    let found = found
        .into_iter()
        .map(|(_, found)| found.map(|near| near.client.identity.pod.clone().unwrap()));
    (found.collect(), matcher.inferred())
}

fn flows(all: impl IntoIterator<Item = Recorded>) -> Flows {
    let mut flows = Flows::default();
    all.into_iter().for_each(|recorded| flows.add(recorded));
    flows
}

fn named(pod: &str) -> Found {
    Ok(pod.to_owned())
}

const ALPHA: &str = "192.168.88.11:2379";
const GAMMA: &str = "192.168.88.13:2379";

fn peer(number: usize) -> String {
    format!("192.168.88.12:{}", 50_000 + number)
}

/// One connection each minute, of a port of its own.
fn minutes(count: usize) -> impl Iterator<Item = Recorded> {
    (0..count).map(|i| record("monitor", "beta", &peer(i), ALPHA, i as f64 * 60.0))
}

/// Its lines in a log whose times are `hours` ahead, and say nothing of a zone.
fn zoneless(count: usize, hours: f64) -> Vec<Rejected> {
    let lines = (0..count).map(|i| Rejected {
        has_offset: false,
        ..line(&peer(i), Some(i as f64 * 60.0 + 0.2 + hours * 3600.0))
    });
    lines.collect()
}

#[test]
fn the_offset_of_a_log_without_a_zone() {
    let eight = Duration::from_secs(8 * 3600);
    let unknown =
        |far: &Found| matches!(far, Err(Unmatched::ZoneUnknown(far)) if far.abs_diff(eight).as_secs() < 2);
    // Hours ahead, lines, and whether an offset is inferred.
    for (hours, lines, inferred) in [
        (8.0, 3, true),
        (8.0, 24, true),
        (-5.0, 24, true),
        (5.75, 24, true),
        (13.0, 24, true),
        // No zone is so far away, or so odd.
        (15.0, 24, false),
        (8.1, 24, false),
        (8.0, 2, false),
        (8.0, 1, false),
        (0.0, 24, false),
    ] {
        let flows = flows(minutes(24));
        let (found, how) = settle(&flows, options(), zoneless(lines, hours));
        let all_named = found.iter().all(|found| *found == named("monitor"));
        assert_eq!(
            all_named,
            inferred || hours == 0.0,
            "{hours} h, {lines} lines: {found:?}"
        );
        assert_eq!(how.is_some(), inferred, "{hours} h, {lines} lines");
        if let Some(how) = how {
            let shift = SignedDuration::from_secs((-hours * 3600.0) as i64);
            assert_eq!((how.shift, how.lines), (shift, lines as u64));
        } else if hours == 8.0 {
            assert!(found.iter().all(unknown), "{found:?}");
        } else if hours != 0.0 {
            assert!(
                found
                    .iter()
                    .all(|found| matches!(found, Err(Unmatched::TooFar(_)))),
                "{found:?}"
            );
        }
    }

    let recorded = flows(minutes(24));
    // Times that have their zone are right, whatever others would fit.
    let exact = zoneless(24, 8.0).into_iter().map(|line| Rejected {
        has_offset: true,
        ..line
    });
    let (found, inferred) = settle(&recorded, options(), exact.collect());
    assert!(
        inferred.is_none()
            && found
                .iter()
                .all(|found| matches!(found, Err(Unmatched::TooFar(_))))
    );
    // The zone was given.
    let given = MatchOptions {
        infers_offset: false,
        ..options()
    };
    let (found, inferred) = settle(&recorded, given, zoneless(24, 8.0));
    assert!(
        inferred.is_none()
            && found
                .iter()
                .all(|found| matches!(found, Err(Unmatched::TooFar(_))))
    );
    // Half of the lines fit as they are: no offset is the log's.
    let both = [zoneless(12, 8.0), zoneless(24, 0.0).split_off(12)].concat();
    let (found, inferred) = settle(&recorded, options(), both);
    assert!(inferred.is_none() && found[..12].iter().all(unknown));
    assert!(found[12..].iter().all(|found| *found == named("monitor")));
    // A client with one fixed port, once an hour: every offset fits, and none is the log's.
    let hourly = flows((0..24).map(|i| record("fixed", "beta", &peer(0), ALPHA, f64::from(i) * 3600.0)));
    let lines = (20..24).map(|i| Rejected {
        has_offset: false,
        ..line(&peer(0), Some(f64::from(i) * 3600.0 + 8.0 * 3600.0))
    });
    assert!(settle(&hourly, options(), lines.collect()).1.is_none());
}

#[test]
fn lines_without_a_time() {
    let recorded = flows([
        record("monitor", "beta", &peer(0), ALPHA, 100.0),
        // The port was another's before.
        record("monitor", "beta", &peer(1), ALPHA, 100.0),
        record("old-job", "beta", &peer(1), ALPHA, -260_000.0),
        record("old-job", "beta", &peer(2), ALPHA, -260_000.0),
    ]);
    let timeless = |number| line(&peer(number), None);
    let around = |number| line("10.0.0.9:1", Some(number));
    let unknown = || Err(Unmatched::TimeUnknown);
    let reused = || {
        Err(Unmatched::Reused(vec![
            "pod monitor".to_owned(),
            "pod old-job".to_owned(),
        ]))
    };
    // The lines, the one without a time among them, and what is found for it.
    for (lines, which, expected) in [
        (vec![timeless(0)], 0, named("monitor")),
        (vec![timeless(2)], 0, named("old-job")),
        (vec![timeless(1)], 0, reused()),
        (
            vec![around(95.0), timeless(0), around(101.0)],
            1,
            named("monitor"),
        ),
        (
            vec![around(80.0), timeless(0), timeless(0), around(101.0)],
            2,
            named("monitor"),
        ),
        (vec![around(95.0), timeless(2), around(101.0)], 1, unknown()),
        (vec![around(95.0), timeless(1), around(101.0)], 1, reused()),
        (vec![around(0.0), timeless(0), around(50.0)], 1, unknown()),
        (vec![around(150.0), timeless(0), around(160.0)], 1, unknown()),
        // Nothing says how long before, or after.
        (vec![timeless(0), around(101.0)], 0, unknown()),
        (vec![around(99.0), timeless(0)], 1, unknown()),
    ] {
        let times: Vec<_> = lines.iter().map(|line| line.time).collect();
        let (found, _) = settle(&recorded, options(), lines);
        assert_eq!(found[which], expected, "{times:?}");
    }
    // What is three days older than a line never names it.
    let (found, _) = settle(&recorded, options(), vec![line(&peer(2), Some(100.0))]);
    assert!(matches!(found[0], Err(Unmatched::TooFar(_))), "{found:?}");
}

/// Which server the log is of: what its errors say, what the recordings were made of, and what most lines are about.
#[test]
fn the_server_of_the_log() {
    let same_port = || {
        [
            record("monitor", "beta", &peer(99), ALPHA, 6.0),
            record("other", "beta", &peer(99), GAMMA, 10.0),
        ]
    };
    let asked = || line(&peer(99), Some(10.0));
    let server = |number, server: &str| Rejected {
        server: Some(address(server)),
        ..line(&peer(number), Some(number as f64 * 60.0))
    };
    // Nothing else is known: both may be meant, and the one is clearly nearer.
    assert_eq!(
        settle(&flows(same_port()), options(), vec![asked()]).0,
        [named("other")]
    );
    // Another line's error names the server.
    let (found, _) = settle(&flows(same_port()), options(), vec![server(1, ALPHA), asked()]);
    assert_eq!(found[1], named("monitor"));
    let (found, _) = settle(
        &flows(same_port().into_iter().skip(1)),
        options(),
        vec![server(1, ALPHA), asked()],
    );
    assert_eq!(found[1], Err(Unmatched::OtherServer(address(GAMMA))));
    // The logs of two servers in one: three lines are about the other.
    let of_gamma = (1..=3).map(|i| record("other", "beta", &peer(i), GAMMA, i as f64 * 60.0));
    let lines = (1..=3).map(|i| line(&peer(i), Some(i as f64 * 60.0)));
    let lines: Vec<_> = [server(50, ALPHA), asked()].into_iter().chain(lines).collect();
    let (found, _) = settle(
        &flows(of_gamma.chain(same_port().into_iter().skip(1))),
        options(),
        lines,
    );
    assert_eq!(found[1..], vec![named("other"); 4]);
    // Nothing names it, and three lines are about the one.
    let of_alpha = minutes(3);
    let lines = (0..3)
        .map(|i| line(&peer(i), Some(i as f64 * 60.0)))
        .chain([asked()]);
    let (found, _) = settle(&flows(of_alpha.chain(same_port())), options(), lines.collect());
    assert_eq!(found[3], named("monitor"));

    // Ports: etcd's, of the endpoint that the line names; those that were recorded; those that were given.
    for (port, endpoint, recorded, given, is_named) in [
        (2379, None, None, None, true),
        (2380, None, None, None, true),
        (443, None, None, None, false),
        (2379, Some(Endpoint::Client), None, None, true),
        (2380, Some(Endpoint::Client), None, None, false),
        (2379, Some(Endpoint::Peer), None, None, false),
        (2380, Some(Endpoint::Peer), None, None, true),
        (12_379, None, None, None, false),
        (12_379, None, Some(12_379), None, true),
        (12_379, Some(Endpoint::Peer), Some(12_379), None, true),
        (12_379, None, None, Some(12_379), true),
        (2379, None, None, Some(12_379), false),
    ] {
        let mut flows = flows([record(
            "monitor",
            "beta",
            &peer(0),
            &format!("192.168.88.11:{port}"),
            10.0,
        )]);
        flows.add_scope(RecordingScope {
            ports: recorded.into_iter().collect(),
            ..RecordingScope::default()
        });
        let options = MatchOptions {
            ports: given.map(|port| vec![port]),
            ..options()
        };
        let line = Rejected {
            endpoint,
            ..line(&peer(0), Some(10.0))
        };
        let (found, _) = settle(&flows, options, vec![line]);
        assert_eq!(
            found[0].is_ok(),
            is_named,
            "{port} {endpoint:?} {recorded:?} {given:?}: {found:?}"
        );
    }
    // The error says that the connection was one to the peers' port.
    let line = Rejected {
        server: Some(address("192.168.88.11:2380")),
        ..line(&peer(0), Some(0.0))
    };
    let (found, _) = settle(&flows(minutes(1)), options(), vec![line]);
    assert_eq!(found, [Err(Unmatched::OtherServer(address(ALPHA)))]);
}

/// Whose loopback address it is.
#[test]
fn the_node_of_the_log() {
    let own = |pod: &str, node: &str, port: usize, second| {
        record(pod, node, &format!("127.0.0.1:{port}"), "127.0.0.1:2379", second)
    };
    let asked = |port: usize, second| line(&format!("127.0.0.1:{port}"), Some(second));
    let several = || {
        (0..3)
            .map(|i| own("apiserver of alpha", "alpha", i + 1, i as f64 * 10.0))
            .chain([
                own("apiserver of beta", "beta", 9, 30.0),
                own("of alpha", "alpha", 9, 33.0),
            ])
    };
    let node = |node: &str| MatchOptions {
        node: Some(node.to_owned()),
        ..options()
    };
    // One node's recording.
    let one = flows([own("apiserver", "alpha", 9, 30.0)]);
    assert_eq!(
        settle(&one, options(), vec![asked(9, 30.0)]).0,
        [named("apiserver")]
    );
    assert_eq!(
        settle(&one, node("beta"), vec![asked(9, 30.0)]).0,
        [Err(Unmatched::NotRecorded)]
    );
    // Several: by its name, or by what its other lines are about.
    let all = flows(several());
    assert_eq!(
        settle(&all, options(), vec![asked(9, 30.0)]).0,
        [Err(Unmatched::NodeUnknown)]
    );
    assert_eq!(
        settle(&all, node("alpha"), vec![asked(9, 30.0)]).0,
        [named("of alpha")]
    );
    assert_eq!(
        settle(&all, node("beta"), vec![asked(9, 30.0)]).0,
        [named("apiserver of beta")]
    );
    let lines = (0..3)
        .map(|i| asked(i + 1, i as f64 * 10.0))
        .chain([asked(9, 30.0)]);
    let (found, _) = settle(&all, options(), lines.collect());
    assert_eq!(found[3], named("of alpha"));
    // The node's own records of its server.
    let at_server = (1..=3).map(|i| Recorded {
        client: None,
        ..record("", "beta", &peer(i), ALPHA, 1.0)
    });
    let all = flows(several().chain(at_server));
    let lines = (1..=3).map(|i| line(&peer(i), Some(1.0))).chain([asked(9, 30.0)]);
    let (found, _) = settle(&all, options(), lines.collect());
    assert_eq!(
        found,
        [
            vec![Err(Unmatched::ServerOnly); 3],
            vec![named("apiserver of beta")]
        ]
        .concat()
    );
}

/// Lines that come piece by piece are found as all at once, also those whose neighbour comes later.
#[test]
fn piece_by_piece() {
    let recorded = flows(minutes(60));
    let lines: Vec<_> = (0..60)
        .map(|i| line(&peer(i), (i % 3 == 0).then_some(i as f64 * 60.0)))
        .collect();
    let (at_once, _) = settle(&recorded, options(), lines.clone());
    // The last two have no line after them.
    let expected = [vec![named("monitor"); 58], vec![Err(Unmatched::TimeUnknown); 2]].concat();
    assert_eq!(at_once, expected);
    for size in [1, 2, 5, 7] {
        let mut matcher = Matcher::new(&recorded, options());
        let mut found = Vec::new();
        for lines in lines.chunks(size) {
            for line in lines {
                matcher.push(line.clone());
            }
            found.extend(matcher.settle(false));
        }
        found.extend(matcher.settle(true));
        let found: Vec<_> = found
            .into_iter()
            .map(|(_, found)| found.map(|near| near.client.identity.pod.clone().unwrap()))
            .collect();
        assert_eq!(found, expected, "{size}");
    }
}

/// LOGGED and SEEN count the same connections, each group its own.
#[test]
fn what_a_group_has_seen() {
    let of = |number: usize, outcome, second| Recorded {
        outcome,
        ..record("backup", "beta", &peer(number), ALPHA, second)
    };
    let with = |number: usize, error: &str, second| Rejected {
        error: error.to_owned(),
        ..line(&peer(number), Some(second))
    };
    let closed = Outcome::Closed;
    let flows = flows([
        // Two errors that both end as closed.
        of(1, closed, 10.0),
        of(2, closed, 20.0),
        of(3, closed, 30.0),
        // Healthy ones between them.
        of(4, closed, 15.0),
        of(5, closed, 25.0),
        // Checks: two of them logged, one left out, one long after.
        of(6, Outcome::HalfOpen, 10.0),
        of(7, Outcome::HalfOpen, 40.0),
        of(8, Outcome::HalfOpen, 70.0),
        of(9, Outcome::HalfOpen, 500.0),
        // To another server.
        Recorded {
            destination: address(GAMMA),
            ..of(10, Outcome::HalfOpen, 41.0)
        },
    ]);
    let (bad, unknown) = (
        "remote error: tls: bad certificate",
        "tls: client didn't provide a certificate",
    );
    let lines = [
        with(1, bad, 10.0),
        with(2, bad, 20.0),
        with(3, unknown, 30.0),
        with(6, "EOF", 10.0),
        with(8, "EOF", 70.0),
    ];
    let mut matcher = Matcher::new(&flows, options());
    let mut total = Total::default();
    lines.into_iter().for_each(|line| assert!(!matcher.push(line)));
    for (rejected, found) in matcher.settle(true) {
        total.seen(&rejected, &found);
    }
    let mut groups: Vec<_> = total
        .groups(&flows, Duration::from_secs(10))
        .into_iter()
        .map(|group| (group.error, group.logged, group.seen.unwrap().count))
        .collect();
    groups.sort();
    let group = |error: &str, logged, seen| (error.to_owned(), logged, seen);
    assert_eq!(
        groups,
        [group("EOF", 2, 3), group(bad, 2, 2), group(unknown, 1, 1)]
    );
}
