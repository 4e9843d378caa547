use std::sync::Arc;

use jiff::Timestamp;

use super::*;
use crate::{Container, Outcome, Owner, Process, ProcessSource, Role};

/// The last cadence of occurrences at these seconds.
fn cadence(seconds: impl IntoIterator<Item = f64>) -> Cadence {
    let mut tracker = Tracker::default();
    for second in seconds {
        tracker.seen(at(second));
    }
    tracker.cadence()
}

fn at(second: f64) -> Timestamp {
    Timestamp::from_microsecond(1_795_000_000_000_000 + (second * 1e6) as i64).unwrap()
}

/// Deviations that look random, and are the same each time: -1 to 1.
fn noise(index: usize) -> f64 {
    // Mixed twice: multiples of one number come again after 5, 8 and 13 of them, as several sources do.
    let mixed = (index as u32).wrapping_mul(2_654_435_761);
    let mixed = (mixed ^ mixed >> 15).wrapping_mul(0x2c1b_3c6d);
    let mixed = (mixed ^ mixed >> 13).wrapping_mul(0x297a_2d39);
    f64::from((mixed ^ mixed >> 16) >> 8) / f64::from(1 << 23) - 1.0
}

/// Occurrences at `start`, and each time after one of `intervals`.
fn after(intervals: impl IntoIterator<Item = f64>) -> Vec<f64> {
    intervals.into_iter().fold(vec![0.0], |mut times, interval| {
        times.push(times[times.len() - 1] + interval);
        times
    })
}

/// In seconds: the period, how far off it may be, and the most that the spread may be.
type Expected = Option<(f64, f64, f64)>;

#[test]
fn cadence_table() {
    let beats = |n: usize, every: f64, spread: f64| (0..n).map(move |i| i as f64 * every + noise(i) * spread);
    let table: &[(&str, Vec<f64>, Expected)] = &[
        ("nothing", vec![], None),
        ("one", vec![0.0], None),
        ("two", vec![0.0, 5.0], None),
        ("three", vec![0.0, 5.0, 10.0], Some((5.0, 0.0, 0.0))),
        (
            "three, and one missed: too early to tell",
            vec![0.0, 5.0, 15.0],
            None,
        ),
        (
            "three, an eighth off: too early to tell",
            vec![0.0, 5.0, 11.4],
            None,
        ),
        (
            "seventeen, an eighth off",
            after([5.0, 6.4].repeat(8)),
            Some((5.7, 0.0, 0.7)),
        ),
        (
            "four, and one missed: too early to tell",
            vec![0.0, 5.0, 10.0, 20.0],
            None,
        ),
        (
            "one of three missed: three in each 20 s",
            after([5.0, 5.0, 10.0].repeat(5)),
            Some((20.0, 0.0, 0.0)),
        ),
        (
            "60 s ±0.1",
            beats(30, 60.0, 0.05).collect(),
            Some((60.0, 0.1, 0.1)),
        ),
        (
            "5 s, jitter of a tenth",
            beats(30, 5.0, 0.25).collect(),
            Some((5.0, 0.3, 0.5)),
        ),
        (
            "5 s, jitter of its half: irregular",
            beats(30, 5.0, 1.5).collect(),
            None,
        ),
        (
            "five beats, one missed",
            after([5.0, 5.0, 10.0, 5.0]),
            Some((5.0, 0.0, 0.0)),
        ),
        (
            "one missing beat of 12, wherever it is",
            beats(36, 5.0, 0.01)
                .enumerate()
                .filter(|(i, _)| i % 12 != 6)
                .map(|(_, t)| t)
                .collect(),
            Some((5.0, 0.05, 0.05)),
        ),
        (
            "every second beat missing: no beat of 5 s to speak of, one of 10 s",
            beats(30, 5.0, 0.01).step_by(2).collect(),
            Some((10.0, 0.05, 0.05)),
        ),
        (
            "one pause of an hour",
            after([[5.0; 8].as_slice(), &[3600.0], &[5.0; 5]].concat()),
            Some((5.0, 0.0, 0.0)),
        ),
        (
            "two pauses of an hour",
            after([3600.0, 5.0, 5.0, 5.0, 3600.0, 5.0, 5.0, 5.0, 5.0, 5.0]),
            None,
        ),
        (
            "200 in the same millisecond",
            (0..200).map(|i| f64::from(i) * 5e-6).collect(),
            None,
        ),
        ("200 at the same instant", vec![1.0; 200], None),
        (
            "a storm, 10 ms apart: a stream",
            beats(50, 0.01, 0.0).collect(),
            None,
        ),
        (
            "pairs, 60 s apart",
            (0..30)
                .map(|i| f64::from(i / 2) * 60.0 + f64::from(i % 2) * 0.001)
                .collect(),
            Some((60.0, 0.0, 0.0)),
        ),
        (
            "two of 60 s interleaved, 20 s apart",
            after([20.0, 40.0].repeat(8)),
            Some((60.0, 0.0, 0.0)),
        ),
        (
            "two of 60 s interleaved, half-way",
            after([30.0; 16]),
            Some((30.0, 0.0, 0.0)),
        ),
        (
            "an interval and its double in turn",
            after([10.0, 20.0].repeat(8)),
            Some((30.0, 0.0, 0.0)),
        ),
        (
            "drift of 1 % a beat",
            after((0..16).map(|i| 60.0 * 1.01_f64.powi(i))),
            Some((64.7, 0.3, 5.0)),
        ),
        (
            "it changed from 5 s to 60 s",
            after([[5.0; 16], [60.0; 16]].concat()),
            Some((60.0, 0.0, 0.0)),
        ),
        (
            "it is changing from 5 s to 60 s",
            after([[5.0; 16].as_slice(), &[60.0; 8]].concat()),
            None,
        ),
        ("100 ms", after([0.1; 16]), Some((0.1, 0.0, 0.0))),
        (
            "doubling each time (a back-off)",
            after((0..10).map(|i| 2_f64.powi(i))),
            None,
        ),
    ];
    for (what, times, expected) in table {
        let cadence = cadence(times.iter().copied());
        assert_eq!(cadence.count, times.len() as u64, "{what}");
        match (cadence.every, expected) {
            (None, None) => assert_eq!(cadence.spread, Duration::ZERO, "{what}"),
            (Some(every), Some((expected, off, spread))) => {
                let every = every.as_secs_f64();
                assert!(
                    (every - expected).abs() <= off + 1e-5,
                    "{what}: every {every}, not {expected}"
                );
                let found = cadence.spread.as_secs_f64();
                assert!(found <= spread + 1e-5, "{what}: spread {found}, not {spread}");
            }
            (found, expected) => panic!("{what}: {found:?}, not {expected:?}"),
        }
    }
}

/// Random arrivals have no cadence, apart from a few that look like one while little is known.
#[test]
fn random_arrivals() {
    let mut tracker = Tracker::default();
    let (mut time, mut called_regular) = (0.0, 0);
    for i in 0..10_000 {
        // Exponential intervals, as those of independent clients are.
        time += -5.0 * ((noise(i) + 1.0001) / 2.0002).ln();
        called_regular += u32::from(tracker.seen(at(time)).every.is_some());
    }
    assert!(called_regular < 20, "{called_regular} of 10000");
}

#[test]
fn order_of_arrival_does_not_matter() {
    let expected = cadence((0..17).map(|i| f64::from(i) * 5.0));
    assert_eq!(expected.every, Some(Duration::from_secs(5)));
    for distance in [2, 3, 8, 17] {
        let mut times: Vec<_> = (0..17).map(|i| f64::from(i) * 5.0).collect();
        for chunk in times.chunks_mut(distance) {
            chunk.reverse();
        }
        assert_eq!(cadence(times), expected, "{distance} in reverse");
    }
    // Older than all that is kept: counted, nothing else.
    let late = cadence((0..40).map(|i| f64::from(i) * 5.0).chain([1.0]));
    assert_eq!(
        late,
        Cadence {
            count: 41,
            ..expected
        }
    );
    // And one that is in the middle of a full window.
    let times = |last: &[f64]| {
        cadence(
            (0..40)
                .filter(|i| *i != 35)
                .map(|i| f64::from(i) * 5.0)
                .chain(last.iter().copied()),
        )
    };
    assert_eq!(times(&[175.0]).spread, Duration::ZERO);
    assert_eq!(times(&[175.0]).every, Some(Duration::from_secs(5)));
}

fn connection(pid: u32, name: &str, container: Option<&str>, second: f64) -> Connection {
    Connection {
        netns: 1,
        owner: Arc::new(Owner {
            process: Some(Process {
                pid,
                name: name.to_owned(),
                command: crate::CommandLine::default(),
                command_cut: false,
                started: None,
                executable: None,
                uid: Some(0),
                source: ProcessSource::Kernel,
            }),
            container: container.map(|id| Container {
                id: id.to_owned(),
                runtime: None,
                name: None,
            }),
            pod: None,
            node: None,
        }),
        ..Connection::new(
            at(second),
            Role::Client,
            Outcome::HalfOpen,
            ([10, 244, 2, 2], 40_000 + pid as u16).into(),
            ([192, 168, 88, 11], 2379).into(),
        )
    }
}

type Change = fn(&mut Connection);

#[test]
fn sources_are_told_apart_by_what_lasts() {
    let base = connection(1, "nc", None, 0.0);
    // What differs, and whether it is the same source all the same.
    let table: [(&str, bool, Change); 10] = [
        ("nothing", true, |_| {}),
        ("pid and port: it forks each time", true, |c| {
            *c = connection(2, "nc", None, 1.0);
        }),
        ("name", false, |c| *c = connection(1, "curl", None, 1.0)),
        ("network namespace", false, |c| c.netns = 2),
        ("destination's port", false, |c| c.destination.set_port(2380)),
        ("outcome", false, |c| c.outcome = Outcome::Refused),
        ("role", false, |c| c.role = Role::Server),
        ("a container", false, |c| {
            *c = connection(1, "nc", Some("abc"), 1.0);
        }),
        ("owner unknown", false, |c| c.owner = Arc::default()),
        ("duration", true, |c| c.duration = Duration::from_secs(1)),
    ];
    for (what, same, change) in table {
        let mut cadences = Cadences::default();
        let mut other = base.clone();
        change(&mut other);
        assert_eq!(cadences.seen(&base).count, 1);
        assert_eq!(cadences.seen(&other).count, 1 + u64::from(same), "{what}");
        assert_eq!(cadences.rows().count(), 2 - usize::from(same), "{what}");
    }
}

#[test]
fn in_a_container_the_process_does_not_matter_and_remote_clients_are_their_address() {
    let mut cadences = Cadences::default();
    cadences.seen(&connection(1, "sh", Some("abc"), 0.0));
    assert_eq!(cadences.seen(&connection(2, "nc", Some("abc"), 1.0)).count, 2);

    let mut remote = connection(3, "etcd", None, 0.0);
    remote.role = Role::Server;
    assert_eq!(cadences.seen(&remote).count, 1);
    remote.source.set_port(1);
    assert_eq!(cadences.seen(&remote).count, 2);
    remote.source.set_ip([10, 244, 2, 3].into());
    assert_eq!(cadences.seen(&remote).count, 1);
}

#[test]
fn what_falls_out_is_counted() {
    let mut cadences = Cadences::new(NonZeroUsize::new(2).unwrap());
    for (name, count) in [("a", 1), ("b", 1), ("a", 2), ("c", 1), ("a", 3), ("b", 1)] {
        assert_eq!(
            cadences.seen(&connection(1, name, None, 0.0)).count,
            count,
            "{name}"
        );
    }
    assert_eq!(cadences.fell_out(), 2);
    assert_eq!(cadences.rows().count(), 2);
}

#[test]
fn a_row_keeps_the_latest_owner_and_both_times() {
    let mut cadences = Cadences::default();
    cadences.seen(&connection(1, "nc", None, 5.0));
    cadences.seen(&connection(2, "nc", None, 10.0));
    cadences.seen(&connection(3, "nc", None, 0.0));
    let row = cadences.rows().next().unwrap();
    assert_eq!((row.first, row.last, row.cadence.count), (at(0.0), at(10.0), 3));
    assert_eq!(row.owner.process.as_ref().unwrap().pid, 3);
}

/// Several connections in each interval, and two intervals.
#[test]
fn more_than_one_interval() {
    let every = |count: usize, every: f64, phase: f64| (0..count).map(move |i| phase + i as f64 * every);
    let merged = |streams: Vec<Vec<f64>>| {
        let mut times = streams.concat();
        times.sort_by(f64::total_cmp);
        times
    };
    let seconds = |seconds: u64| Some(Duration::from_secs(seconds));
    for (what, streams, expected) in [
        (
            "kube-apiserver's check of etcd: pairs every 10 s",
            vec![every(12, 10.0, 0.0).collect(), every(12, 10.0, 0.306).collect()],
            (seconds(10), Some(2), None),
        ),
        (
            "the first six of such a pair every 5 s",
            vec![every(3, 5.0, 0.0).collect(), every(3, 5.0, 0.3).collect()],
            (seconds(5), Some(2), None),
        ),
        (
            "the first five: too early to tell",
            vec![every(3, 5.0, 0.0).collect(), every(2, 5.0, 0.3).collect()],
            (None, None, None),
        ),
        (
            "three pods behind one address, every 60 s each",
            vec![
                every(12, 60.0, 0.0).collect(),
                every(12, 60.0, 7.0).collect(),
                every(12, 60.0, 31.0).collect(),
            ],
            (seconds(60), Some(3), None),
        ),
        (
            "a DaemonSet of one phase: four connections at once",
            (0..4)
                .map(|i| every(9, 30.0, f64::from(i) * 0.002).collect())
                .collect(),
            (seconds(30), Some(4), None),
        ),
        (
            "a check every 10 s, and another every minute",
            vec![every(60, 10.0, 0.0).collect(), every(10, 60.0, 3.7).collect()],
            (seconds(10), None, seconds(60)),
        ),
        (
            "a stream of 20 ms has no interval of five of them",
            vec![every(60, 0.02, 0.0).collect()],
            (None, None, None),
        ),
    ] {
        let cadence = cadence(merged(streams));
        let found = (cadence.every, cadence.per_interval, cadence.also);
        assert_eq!(found, expected, "{what}");
    }
}

/// A check whose outcome changes keeps its interval, whatever outcomes are shown.
#[test]
fn an_interval_across_outcomes() {
    let at_second = |second: f64, outcome| {
        let mut connection = connection(1, "check", None, second);
        connection.outcome = outcome;
        connection
    };
    // In turn; and mostly one that is not shown.
    let random = [0, 3, 4, 9, 10, 11, 17, 20, 21, 22, 30];
    let mut cadences = (Cadences::default(), Cadences::default());
    for i in 0..32 {
        let second = f64::from(i) * 10.0;
        let refused = i % 2 == 0;
        cadences.0.seen(&at_second(
            second,
            if refused {
                Outcome::Refused
            } else {
                Outcome::HalfOpen
            },
        ));
        if random.contains(&i) {
            cadences.1.seen(&at_second(second, Outcome::HalfOpen));
        } else {
            cadences.1.note(&at_second(second, Outcome::Closed));
        }
    }
    let of = |cadences: &Cadences| {
        let mut rows: Vec<_> = cadences
            .rows()
            .map(|row| (row.cadence.count, row.cadence.every))
            .collect();
        rows.sort();
        rows
    };
    let ten = Some(Duration::from_secs(10));
    assert_eq!(of(&cadences.0), [(16, ten), (16, ten)]);
    assert_eq!(of(&cadences.1), [(11, ten)]);
    // Two checks of one source, one of them refused: each has its own.
    let mut cadences = Cadences::default();
    for i in 0..60 {
        cadences.seen(&at_second(f64::from(i) * 10.0, Outcome::HalfOpen));
        if i % 6 == 0 {
            cadences.seen(&at_second(f64::from(i) * 10.0 + 3.7, Outcome::Refused));
        }
    }
    assert_eq!(of(&cadences), [(10, Some(Duration::from_secs(60))), (60, ten)]);
}
