//! Streams with a known truth: how often what is said is right, and how often what is there is said.

use jiff::Timestamp;

use super::{Cadence, Tracker};
use crate::random::Numbers;

/// What a stream has: its interval, how many in each, and a second interval.
#[derive(Clone, Copy, Debug)]
struct Truth {
    every: f64,
    each: usize,
    also: Option<f64>,
}

/// Occurrences from `phase` on, for `length` seconds; each late by up to `jitter`, and missing as often as `missing` says.
fn stream(numbers: &mut Numbers, every: f64, phase: f64, length: f64, jitter: f64, missing: f64) -> Vec<f64> {
    let mut times = Vec::new();
    let mut time = phase;
    while time < length {
        if numbers.unit() >= missing {
            times.push(time + jitter * numbers.unit());
        }
        time += every;
    }
    times
}

type Make = fn(&mut Numbers) -> (Vec<f64>, Option<Truth>);

const EVERY: [f64; 6] = [2.0, 5.0, 10.0, 15.0, 30.0, 60.0];

fn one(every: f64) -> Option<Truth> {
    Some(Truth {
        every,
        each: 1,
        also: None,
    })
}

/// So many sources with the same interval and phases that differ by a tenth of it.
fn together(numbers: &mut Numbers, each: usize, jitter: f64, missing: f64) -> (Vec<f64>, Option<Truth>) {
    let every = numbers.of(&EVERY);
    let mut phases: Vec<f64> = Vec::new();
    while phases.len() < each {
        let phase = every * numbers.unit();
        let is_apart = |other: &f64| {
            let apart = (phase - other).abs();
            apart.min(every - apart) > every / 12.0
        };
        if phases.iter().all(is_apart) {
            phases.push(phase);
        }
    }
    let times = phases
        .iter()
        .flat_map(|phase| stream(numbers, every, *phase, every * 24.0, every * jitter, missing))
        .collect();
    let truth = Truth {
        every,
        each,
        also: None,
    };
    (times, Some(truth))
}

const KINDS: [(&str, Make); 13] = [
    ("one interval", |n| {
        let every = n.of(&EVERY);
        (stream(n, every, 0.0, every * 20.0, every * 0.01, 0.0), one(every))
    }),
    ("one interval, a tenth of it late", |n| {
        let every = n.of(&EVERY);
        (stream(n, every, 0.0, every * 20.0, every * 0.1, 0.0), one(every))
    }),
    ("one of twelve missing", |n| {
        let every = n.of(&EVERY);
        (
            stream(n, every, 0.0, every * 40.0, every * 0.01, 1.0 / 12.0),
            one(every),
        )
    }),
    ("pairs, 0.3 s apart", |n| {
        let every = n.of(&EVERY[1..]);
        let first = stream(n, every, 0.0, every * 20.0, 0.02, 0.0);
        let second = stream(n, every, 0.3, every * 20.0, 0.02, 0.0);
        let truth = Truth {
            every,
            each: 2,
            also: None,
        };
        ([first, second].concat(), Some(truth))
    }),
    ("two sources", |n| together(n, 2, 0.005, 0.0)),
    ("three sources", |n| together(n, 3, 0.005, 0.0)),
    ("three sources, one of twenty missing", |n| {
        together(n, 3, 0.005, 0.05)
    }),
    ("five sources", |n| together(n, 5, 0.005, 0.0)),
    ("two intervals", |n| {
        let every = n.of(&EVERY);
        let also = every * n.of(&[2.5, 3.3, 4.5, 5.2]);
        let (often, rarely) = (
            stream(n, every, 0.0, every * 60.0, every * 0.005, 0.0),
            stream(n, also, every * 0.37, every * 60.0, every * 0.005, 0.0),
        );
        let truth = Truth {
            every,
            each: 1,
            also: Some(also),
        };
        ([often, rarely].concat(), Some(truth))
    }),
    ("random", |n| {
        let mut time = 0.0;
        let times = (0..60).map(|_| {
            time -= 5.0 * (n.unit() + 1e-9).ln();
            time
        });
        (times.collect(), None)
    }),
    ("random pairs", |n| {
        let mut time = 0.0;
        let times = (0..40).flat_map(|_| {
            time -= 10.0 * (n.unit() + 1e-9).ln();
            [time, time + 0.3]
        });
        (times.collect(), None)
    }),
    ("an interval, half of it late", |n| {
        (stream(n, 10.0, 0.0, 500.0, 6.0, 0.0), None)
    }),
    ("bursts", |n| {
        let mut time = 0.0;
        let times = (0..12).flat_map(|_| {
            time += 5.0 + 60.0 * n.unit();
            let first = time;
            let many = n.of(&[1, 2, 3, 4, 5, 6]);
            (0..many).map(move |i| first + f64::from(i) * 0.4)
        });
        (times.collect(), None)
    }),
];

fn is_near(found: f64, truth: f64) -> bool {
    (found - truth).abs() <= truth * 0.03
}

fn is_right(cadence: &Cadence, truth: Option<Truth>) -> bool {
    let (Some(every), Some(truth)) = (cadence.every, truth) else {
        return false;
    };
    let each = cadence.per_interval.map_or(1, usize::from);
    // Phases that divide the interval evenly are those of one source.
    is_near(every.as_secs_f64() / each as f64, truth.every / truth.each as f64)
        && (truth.also.is_some() || is_near(every.as_secs_f64(), truth.every) || each == 1)
        && cadence
            .also
            .is_none_or(|also| truth.also.is_some_and(|truth| is_near(also.as_secs_f64(), truth)))
}

/// Precision and recall, as docs/attribution.md has them.
#[test]
fn streams_with_a_known_truth() {
    const RUNS: usize = 100;
    let mut numbers = Numbers(0x2545_f491_4f6c_dd1d);
    let (mut said, mut right, mut periodic, mut second) = (0, 0, 0, 0);
    for (what, make) in KINDS {
        let (mut said_here, mut right_here) = (0, 0);
        let mut is_periodic = false;
        for _ in 0..RUNS {
            let (mut times, truth) = make(&mut numbers);
            times.sort_by(f64::total_cmp);
            let mut tracker = Tracker::default();
            for time in &times {
                tracker
                    .seen(Timestamp::from_microsecond(1_795_000_000_000_000 + (time * 1e6) as i64).unwrap());
            }
            let cadence = tracker.cadence();
            is_periodic = truth.is_some();
            said_here += usize::from(cadence.every.is_some());
            right_here += usize::from(is_right(&cadence, truth));
            second += usize::from(truth.is_some_and(|truth| truth.also.is_some()) && cadence.also.is_some());
        }
        println!("{what}: said {said_here}, right {right_here} of {RUNS}");
        said += said_here;
        right += right_here;
        periodic += RUNS * usize::from(is_periodic);
    }
    let precision = right as f64 / said as f64;
    let recall = right as f64 / periodic as f64;
    println!("precision {precision:.3}, recall {recall:.3}, second intervals {second} of {RUNS}");
    assert!(precision >= 0.95, "{precision}");
    assert!(recall >= 0.85, "{recall}");
}
