use super::*;
use crate::{
    etcd_log::{
        ServerKind,
        matching::{MatchOptions, Matcher},
    },
    flow::Recorded,
    random::Numbers,
};

const NODE: &str = "192.168.88.12";
const SERVER: &str = "192.168.88.11:2379";

fn at(second: f64) -> Timestamp {
    Timestamp::from_microsecond(1_795_000_000_000_000 + (second * 1e6) as i64).unwrap()
}

/// A recorded source: a pod that its node translates, or that has an address of its own.
#[derive(Clone)]
struct Source {
    pod: &'static str,
    /// Its own address where that is what the server sees.
    own: Option<&'static str>,
    pid: Option<u32>,
    started: Option<f64>,
    since: Option<f64>,
}

fn source(pod: &'static str) -> Source {
    Source {
        pod,
        own: None,
        pid: Some(7),
        started: Some(-1e6),
        since: None,
    }
}

impl Source {
    /// A connection that ended at this second; `number` makes its port and, without a fixed one, its process.
    fn record(&self, second: f64, number: usize) -> Recorded {
        // No two sources have the same port.
        let of_pod: usize = self.pod.bytes().map(usize::from).sum();
        let port = 30_000 + (number * 16 + of_pod % 16) % 30_000;
        let address = |ip: &str| format!("{ip}:{port}").parse().unwrap();
        let pid = self.pid.map_or(number as u32, |pid| pid);
        let mut client = Client {
            identity: Identity {
                namespace: Some("monitoring".to_owned()),
                pod: Some(self.pod.to_owned()),
                process: Some("python3".to_owned()),
                ..Identity::default()
            },
            node: Some("beta".to_owned()),
            process_started: self.started.map(at),
            address_since: self.since.map(at),
            ..Client::default()
        };
        client.objects.process = Some(format!("{{\"pid\":{pid}}}").into());
        client.objects.pod = Some("{}".into());
        Recorded {
            began: at(second - 0.001),
            ended: at(second),
            source: address(self.own.unwrap_or("10.244.2.2")),
            destination: SERVER.parse().unwrap(),
            dialled: None,
            seen_as: Some(address(self.own.unwrap_or(NODE))),
            translated: true,
            outcome: Outcome::HalfOpen,
            client: Some(client),
            node: Some("beta".to_owned()),
        }
    }
}

fn line(address: &str, second: f64, number: usize) -> Rejected {
    Rejected {
        time: Some(at(second)),
        peer: format!("{address}:{}", 1024 + number % 28_000).parse().unwrap(),
        error: "EOF".to_owned(),
        server_name: String::new(),
        endpoint: None,
        has_offset: true,
        zone: None,
        logged_by: ServerKind::Etcd,
        server: None,
    }
}

/// Recorded sources with their times, the lines of the log, and what is said of each line that is older.
struct Case {
    flows: Flows,
    lines: Vec<Rejected>,
}

impl Case {
    fn new() -> Self {
        Self {
            flows: Flows::default(),
            lines: Vec::new(),
        }
    }

    /// Recorded from second 0 on; logged before, and also then.
    fn source(mut self, source: &Source, times: &[f64]) -> Self {
        let address = source.own.unwrap_or(NODE);
        for (number, time) in times.iter().enumerate() {
            if *time < 0.0 {
                self.lines.push(line(address, time + 0.002, number));
                continue;
            }
            let record = source.record(*time, number);
            let mut line = line(address, time + 0.002, 0);
            line.peer = record.seen_as.unwrap();
            self.lines.push(line);
            self.flows.add(record);
        }
        self
    }

    fn lines(mut self, address: &str, times: &[f64]) -> Self {
        for (number, time) in times.iter().enumerate() {
            self.lines.push(line(address, *time, number));
        }
        self
    }

    /// Without those from `begin` to `end`.
    fn without(mut self, begin: f64, end: f64) -> Self {
        self.lines
            .retain(|line| line.time.is_some_and(|time| time < at(begin) || time > at(end)));
        self
    }

    fn answers(mut self) -> Vec<EarlierLine> {
        self.lines.sort_by_key(|line| line.time);
        let options = MatchOptions {
            within: Duration::from_secs(10),
            infers_offset: true,
            ..MatchOptions::default()
        };
        let mut matcher = Matcher::new(&self.flows, options);
        let mut answers = Vec::new();
        for line in self.lines {
            if matcher.push(line) {
                answers.append(&mut matcher.settle(false));
            }
        }
        answers.append(&mut matcher.settle(true));
        drop(answers);
        matcher.settle_earlier()
    }

    /// How many older lines are answered with each pod, and why the latest other one is not.
    fn named(self) -> (Vec<(String, usize)>, Option<Unmatched>) {
        let mut named: BTreeMap<String, usize> = BTreeMap::new();
        let mut why = None;
        for (_, answer) in self.answers() {
            match answer {
                Ok(likely) => *named.entry(likely.client.identity.pod.unwrap()).or_default() += 1,
                Err(unmatched) => why = Some(unmatched),
            }
        }
        (named.into_iter().collect(), why)
    }
}

/// `count` times before second 0, and 30 from there on.
fn times(count: usize, every: f64, phase: f64) -> Vec<f64> {
    (0..count + 30)
        .map(|number| phase + (number as f64 - count as f64) * every)
        .collect()
}

fn all(pod: &str, count: usize) -> Vec<(String, usize)> {
    vec![(pod.to_owned(), count)]
}

#[test]
fn who_is_likely_and_who_is_not() {
    let monitor = source("monitor");
    let shifted = |by: f64| times(100, 60.013, by);
    let none = Vec::new;
    type Named = Vec<(String, usize)>;
    let cases: Vec<(&str, Case, Named)> = vec![
        (
            "a steady source",
            Case::new().source(&monitor, &shifted(13.0)),
            all("monitor", 100),
        ),
        (
            "19 lines",
            Case::new().source(&monitor, &times(19, 60.013, 13.0)),
            none(),
        ),
        (
            "20 lines",
            Case::new().source(&monitor, &times(20, 60.013, 13.0)),
            all("monitor", 20),
        ),
        (
            "the log ends half an hour before the recording",
            Case::new().source(&monitor, &shifted(13.0)).without(-1800.0, 1e6),
            all("monitor", 70),
        ),
        (
            "the log ends two hours before it",
            Case::new()
                .source(&monitor, &times(400, 60.013, 13.0))
                .without(-7300.0, 1e6),
            none(),
        ),
        (
            "the process started fifty intervals before",
            Case::new().source(
                &Source {
                    started: Some(-50.0 * 60.013),
                    ..monitor.clone()
                },
                &shifted(13.0),
            ),
            all("monitor", 50),
        ),
        (
            "it started ten intervals before",
            Case::new().source(
                &Source {
                    started: Some(-10.0 * 60.013),
                    ..monitor.clone()
                },
                &shifted(13.0),
            ),
            none(),
        ),
        (
            "nobody knows when it started",
            Case::new().source(
                &Source {
                    started: None,
                    ..monitor.clone()
                },
                &shifted(13.0),
            ),
            none(),
        ),
        (
            "a process of its own for each connection, in a pod that was there",
            Case::new().source(
                &Source {
                    pid: None,
                    started: Some(0.0),
                    since: Some(-1e6),
                    ..monitor.clone()
                },
                &shifted(13.0),
            ),
            all("monitor", 100),
        ),
        (
            "the same, and nobody knows since when there was the pod",
            Case::new().source(
                &Source {
                    pid: None,
                    started: Some(-1e6),
                    ..monitor.clone()
                },
                &shifted(13.0),
            ),
            none(),
        ),
        (
            "three pods behind the node's address, 20 s apart each",
            Case::new()
                .source(&source("a"), &shifted(10.0))
                .source(&source("b"), &shifted(30.0))
                .source(&source("c"), &shifted(50.0))
                .lines(NODE, &[-5000.0, -4000.0, -3000.0]),
            vec![
                ("a".to_owned(), 100),
                ("b".to_owned(), 100),
                ("c".to_owned(), 100),
            ],
        ),
        (
            "two sources with different intervals, which meet once",
            Case::new()
                .source(&source("often"), &times(400, 15.003, 10.0))
                .source(&source("rarely"), &times(100, 61.0, 29.394)),
            vec![("often".to_owned(), 399), ("rarely".to_owned(), 99)],
        ),
        (
            "a source that is no more, at another phase",
            Case::new()
                .source(&monitor, &shifted(13.0))
                .lines(NODE, &shifted(40.0)[..60]),
            all("monitor", 100),
        ),
        (
            "another interval",
            Case::new()
                .source(&monitor, &shifted(13.0)[100..])
                .lines(NODE, &times(100, 50.0, 13.0)[..100]),
            none(),
        ),
        (
            "another address",
            Case::new()
                .source(&monitor, &shifted(13.0)[100..])
                .lines("192.168.88.13", &shifted(13.0)[..100]),
            none(),
        ),
        (
            "another server",
            {
                let mut case = Case::new().source(&monitor, &shifted(13.0)[100..]);
                case = case.lines(NODE, &shifted(13.0)[..100]);
                for line in &mut case.lines {
                    line.server = Some("192.168.88.11:2380".parse().unwrap());
                }
                case
            },
            none(),
        ),
        (
            "a log without a zone",
            {
                let mut case = Case::new().source(&monitor, &shifted(13.0));
                for line in &mut case.lines {
                    line.has_offset = false;
                }
                case
            },
            none(),
        ),
        (
            "started by the clock, as others may have been",
            Case::new().source(&monitor, &times(100, 60.0, 20.0)),
            none(),
        ),
    ];
    for (what, case, expected) in cases {
        assert_eq!(case.named().0, expected, "{what}");
    }
}

#[test]
fn sources_without_a_steady_interval() {
    for (what, change) in [
        (
            "late by a twentieth of it",
            (|n: f64| 3.0 * (n * 7.7).sin()) as fn(f64) -> f64,
        ),
        ("it gets slower each time", |n: f64| 0.004 * n * n),
    ] {
        let late: Vec<f64> = times(100, 60.013, 13.0)
            .into_iter()
            .enumerate()
            .map(|(number, time)| time + change(number as f64 - 100.0))
            .collect();
        let (named, _) = Case::new().source(&source("monitor"), &late).named();
        assert_eq!(named, [], "{what}");
    }
}

#[test]
fn two_that_fit() {
    let (one, two) = (source("one"), source("two"));
    // Both connect at the same moments, and the lines are of one of them, or of both.
    let together = times(100, 60.013, 13.0);
    let near: Vec<f64> = together.iter().map(|time| time + 0.005).collect();
    for case in [
        Case::new().source(&one, &together).source(&two, &near[100..]),
        Case::new().source(&one, &together).source(&two, &near),
    ] {
        let (named, why) = case.named();
        assert_eq!(named, []);
        let Some(Unmatched::SharedPhase(names)) = why else {
            panic!("{why:?}");
        };
        assert_eq!(names, ["monitoring/one (python3)", "monitoring/two (python3)"]);
    }
    // One of them was not there yet.
    let younger = Source {
        started: Some(-30.0),
        ..two.clone()
    };
    let case = Case::new().source(&one, &together).source(&younger, &near[100..]);
    assert_eq!(case.named().0, all("one", 100));
    // Without the log's own matches the clocks may differ by a second.
    let far: Vec<f64> = together.iter().map(|time| time + 0.8).collect();
    let apart = || Case::new().source(&one, &together).source(&two, &far);
    assert_eq!(apart().named().0.len(), 2);
    assert_eq!(apart().without(-100.0, 1e6).named().0, []);
    // They cross: what is before is nobody's.
    let slower: Vec<f64> = (0..330)
        .map(|n| 13.0 + 0.05 * 150.0 + (f64::from(n) - 300.0) * 60.063)
        .collect();
    let crossing = Case::new()
        .source(&one, &times(300, 60.013, 13.0))
        .source(&two, &slower);
    let truth = |time: f64| (time - 0.002 - 13.0).rem_euclid(60.013);
    let answers = crossing.answers();
    let mut counts = [0, 0];
    for (rejected, answer) in &answers {
        let time = seconds(rejected.time.unwrap(), at(0.0));
        let Ok(likely) = answer else { continue };
        assert!(time > -160.0 * 60.0, "{time}");
        let is_one = truth(time).min(60.013 - truth(time)) < 0.001;
        assert_eq!(likely.client.identity.pod.as_deref() == Some("one"), is_one);
        counts[usize::from(is_one)] += 1;
    }
    assert!(counts.iter().all(|count| *count > 100), "{counts:?}");
}

#[test]
fn a_pods_own_address() {
    let own = Source {
        own: Some("10.244.1.5"),
        since: Some(-5000.0),
        ..source("web")
    };
    let irregular = [0.0, 3.0, 100.0, 104.0];
    let lines = [-6000.0, -5000.0, -4991.0, -4989.0, -100.0, -9.0];
    let case = |sources: &[Source], begin: f64| {
        let mut case = Case::new().lines("10.244.1.5", &lines);
        for source in sources {
            let times: Vec<f64> = irregular.iter().map(|time| time + begin).collect();
            case = case.source(source, &times);
        }
        case
    };
    // Ten seconds after the address began, clocks may differ so much, and before the recording.
    let answers = case(std::slice::from_ref(&own), 0.0).answers();
    let named: Vec<_> = answers
        .iter()
        .map(|(rejected, answer)| (rejected.time.unwrap(), answer.is_ok()))
        .collect();
    let expected = lines.map(|time| (at(time), time > -4990.0));
    assert_eq!(named, expected);
    let likely = answers[5].1.as_ref().unwrap();
    assert_eq!(
        likely.evidence,
        EarlierEvidence::PodAddress { since: at(-5000.0) }
    );
    // Which process it was, nobody knows.
    assert_eq!(likely.client.identity.to_string(), "monitoring/web");
    assert_eq!(likely.client.objects.process, None);
    // Another pod had it too; it is unknown since when; it is the node's address, that others have.
    let other = Source {
        pod: "other",
        ..own.clone()
    };
    let unknown = Source {
        since: None,
        ..own.clone()
    };
    for sources in [vec![own.clone(), other], vec![unknown]] {
        assert_eq!(case(&sources, 0.0).named().0, []);
    }
    let translated = Source {
        since: Some(-5000.0),
        ..source("web")
    };
    let case = Case::new().source(&translated, &irregular).lines(NODE, &lines);
    assert_eq!(case.named().0, []);
}

const PODS: [&str; 8] = ["p0", "p1", "p2", "p3", "p4", "p5", "p6", "p7"];

/// Times from `begin` to `end` of what connects as monitors do: a loop that sleeps, or a ticker; some of them hang now and then.
fn monitor(numbers: &mut Numbers, begin: f64, end: f64, every: f64) -> Vec<f64> {
    let sleeps = numbers.unit() < 0.6;
    let jitter = numbers.of(&[0.0005, 0.002, 0.01, 0.05]);
    let work = if sleeps {
        numbers.of(&[0.0, 0.003, 0.015, 0.04])
    } else {
        0.0
    };
    let hangs = numbers.of(&[0.0, 0.0, 0.002]);
    let slew = (numbers.unit() - 0.5) * 1e-4;
    let (mut time, mut times) = (begin, Vec::new());
    while time < end {
        let late = jitter * numbers.normal().abs()
            + if numbers.unit() < hangs {
                numbers.unit()
            } else {
                0.0
            };
        times.push(time + late);
        time += (every + work) * (1.0 + slew) + if sleeps { late } else { 0.0 };
    }
    times
}

/// How often what is said to be likely is right, as docs/attribution.md has it.
#[test]
fn logs_with_a_known_truth() {
    let (mut named, mut right, mut nameable) = (0, 0, 0);
    let mut numbers = Numbers(0x2545_f491_4f6c_dd1d);
    for run in 0..150 {
        let length = numbers.of(&[3600.0, 2.0 * 3600.0, 6.0 * 3600.0]);
        let usual = numbers.of(&[5.0, 10.0, 30.0, 60.0]);
        let clock = numbers.of(&[0.0, 0.003, -0.02, 0.4]);
        let missing = numbers.of(&[0.0, 0.0, 0.02, 0.3]);
        let gap = numbers.of(&[-1.0, -1.0, 0.0, 600.0, 3600.0]);
        let mut case = Case::new();
        // What each line is of, by its time.
        let mut truth: HashMap<i64, &str> = HashMap::new();
        let mut lines: Vec<f64> = Vec::new();
        let sources = 1 + (numbers.unit() * 4.0) as usize;
        for pod in &PODS[..sources] {
            // Some started while the log was written, some have other processes each time.
            let started = if numbers.unit() < 0.3 {
                -length * numbers.unit()
            } else {
                -2.0 * length
            };
            let every = if numbers.unit() < 0.7 {
                usual
            } else {
                numbers.of(&[7.0, 15.0, 60.0])
            };
            let recorded = 30.0 * every;
            let one = Source {
                pid: (numbers.unit() < 0.8).then_some(7),
                started: Some(started),
                since: Some(started - 1.0),
                ..source(pod)
            };
            let first = started.max(-length) + every * numbers.unit();
            for time in monitor(&mut numbers, first, recorded, every) {
                let number = truth.len();
                if time < 0.0 || gap < 0.0 {
                    lines.push(time);
                    truth.insert(at(time + clock).as_microsecond(), pod);
                }
                if time >= 0.0 {
                    case.flows.add(one.record(time, number + lines.len()));
                }
            }
        }
        // Sources that are no more, with the same interval as often as not.
        for _ in 0..numbers.of(&[0, 1, 1, 3]) {
            let every = if numbers.unit() < 0.6 {
                usual
            } else {
                numbers.of(&[5.0, 20.0, 45.0])
            };
            let (begin, end) = (-length * numbers.unit(), -length * numbers.unit() * 0.5);
            lines.extend(monitor(&mut numbers, begin, end, every));
        }
        for _ in 0..numbers.of(&[0, 10, 300]) {
            lines.push(-length * numbers.unit());
        }
        for (number, time) in lines.into_iter().enumerate() {
            let is_old = time < 0.0;
            if numbers.unit() < missing || (is_old && time > -gap) {
                continue;
            }
            let mut logged = line(NODE, time + clock, number);
            if !is_old {
                let near = case
                    .flows
                    .sides()
                    .find(|side| seconds(side.flow.ended, at(time)).abs() < 1e-5);
                logged.peer = near.unwrap().seen_as;
            } else if truth.contains_key(&at(time + clock).as_microsecond()) {
                nameable += 1;
            }
            case.lines.push(logged);
        }
        for (rejected, answer) in case.answers() {
            let Ok(likely) = answer else { continue };
            let truth = truth.get(&rejected.time.unwrap().as_microsecond());
            named += 1;
            if likely.client.identity.pod.as_deref() == truth.copied() {
                right += 1;
            } else {
                let pod = likely.client.identity.pod.as_deref();
                println!("run {run}: {truth:?}, not {pod:?} at {:?}", rejected.time);
            }
        }
    }
    let (precision, recall) = (
        f64::from(right) / f64::from(named),
        f64::from(right) / f64::from(nameable),
    );
    println!("precision {precision:.5} of {named}, recall {recall:.3} of {nameable}");
    assert!(precision >= 0.999, "{precision}");
    assert!(recall >= 0.2, "{recall}");
}
