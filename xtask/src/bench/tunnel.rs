//! What `probe vxlan`, `probe bypass` and `probe path` cost traffic through a tunnel: two nodes in network namespaces, a pod on
//! each, probe on one node.

use std::{process::Command, time::Duration};

use anyhow::{Result, ensure};
use probe_lab::{Bulk, Cluster, Datagrams, PACKAGES, Pod};

use super::{
    KERNEL_ROUNDS, cost_of_measuring,
    sample::{MedianInterval, median, ratios},
    statistics::{Enabled, Runs},
    tracer::{Finished, Tracer},
};
use crate::{apt, progress::Progress, root, run};

/// An inner packet of 64 bytes: Ethernet, IPv4 and UDP headers take 42.
const SMALL: usize = 64 - 14 - 20 - 8;
/// One that nearly fills the tunnel's MTU.
const LARGE: usize = 1400;

#[derive(clap::Args)]
pub struct Args {
    /// Number of rounds, each with and without probe
    #[arg(long, value_name = "N", default_value_t = 15, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// Number of datagrams in a round
    #[arg(long, value_name = "N", default_value_t = 300_000, value_parser = clap::value_parser!(u64).range(1_000..=100_000_000))]
    datagrams: u64,
    /// Megabytes over TCP in a round
    #[arg(long, value_name = "MB", default_value_t = 2_000, value_parser = clap::value_parser!(u64).range(10..=1_000_000))]
    megabytes: u64,
}

/// What is sent through the tunnel.
enum Load {
    Bulk(Bulk, u64),
    Datagrams(Datagrams, u64),
}

impl Load {
    /// How much of it, in `unit`s.
    fn amount(&self) -> f64 {
        match self {
            Self::Bulk(_, bytes) => *bytes as f64 * 8.0 / 1e9,
            Self::Datagrams(_, count) => *count as f64 / 1e6,
        }
    }

    const fn unit(&self) -> &'static str {
        match self {
            Self::Bulk(..) => "Gbit/s",
            Self::Datagrams(..) => "Mpackets/s",
        }
    }

    fn run(&mut self) -> Result<Duration> {
        match self {
            Self::Bulk(bulk, bytes) => bulk.run(*bytes),
            Self::Datagrams(datagrams, count) => datagrams.run(*count),
        }
    }
}

/// What is measured.
#[derive(Clone, Copy)]
pub enum Watcher {
    Vxlan,
    Bypass,
    Path,
}

/// `path` without a filter, of which it is told how much was lost.
const EVERYTHING: &str = "path of everything";

/// One way to run it.
struct Way {
    name: &'static str,
    arguments: &'static [&'static str],
}

impl Watcher {
    const fn ways(self) -> &'static [Way] {
        match self {
            Self::Vxlan => &[
                Way {
                    name: "vxlan",
                    arguments: &["vxlan"],
                },
                Way {
                    name: "vxlan --flows",
                    arguments: &["vxlan", "--flows", "--cri", "none"],
                },
            ],
            Self::Bypass => &[Way {
                name: "bypass",
                arguments: &["bypass", "--cri", "none"],
            }],
            Self::Path => &[
                Way {
                    name: "path of nothing",
                    // An address for documentation: nobody sends to it.
                    arguments: &["path", "--to", "203.0.113.9", "--port", "9", "--cri", "none"],
                },
                Way {
                    name: EVERYTHING,
                    arguments: &["path", "--cri", "none"],
                },
            ],
        }
    }

    /// Whether it looks at one network namespace: then it is the node's.
    const fn is_of_node(self) -> bool {
        matches!(self, Self::Vxlan | Self::Bypass)
    }
}

/// What was measured of one load.
struct Measured {
    name: &'static str,
    load: Load,
    without: Vec<f64>,
    /// For each way: rates, and of one run of its programs nanoseconds, what measuring costs left out.
    with: Vec<(Vec<f64>, Vec<f64>)>,
}

pub fn run(args: &Args, watcher: Watcher) -> Result<()> {
    let probe = run::build_probe()?;
    if !root::is() {
        return root::become_it("the benchmark lays network namespaces and loads BPF programs");
    }
    apt::install("the benchmark", &PACKAGES)?;
    let cluster = Cluster::new()?;
    let [from, to] = [cluster.alpha.pod(5)?, cluster.beta.pod(5)?];
    let netns = format!("/run/netns/{}", cluster.alpha.netns.name());
    let start = |way: &Way| {
        let mut command = Command::new(&probe);
        command.args(way.arguments).args(["-o", "json"]);
        if watcher.is_of_node() {
            command.args(["--netns", &netns]);
        }
        Tracer::start("probe", &mut command, "watching ")
    };
    let ways = watcher.ways();
    let mut all = loads(args, &from, &to, ways.len())?;
    if matches!(watcher, Watcher::Path) {
        all.push(Measured::of(
            "TCP, loopback",
            Load::Bulk(Bulk::between(&to, &to)?, args.megabytes * 1_000_000),
            ways.len(),
        ));
    }
    let progress = Progress::start(
        format!("measuring rates, rounds: {}", args.rounds),
        "half a minute each by default",
    );
    for measured in &mut all {
        // What the first packets find out for all, and the CPU's speed.
        measured.load.run()?;
    }
    for round in 1..=args.rounds {
        progress.step("round", round, args.rounds, "");
        for measured in &mut all {
            let amount = measured.load.amount();
            // Turned round each time: what drifts within a round drifts for all.
            let mut turns: Vec<Option<usize>> = (0..ways.len()).map(Some).chain([None]).collect();
            let first = round as usize % turns.len();
            turns.rotate_left(first);
            for turn in turns {
                let way = turn.and_then(|way| ways.get(way));
                progress.set(format!(
                    "round {round} of {}: {}, {}",
                    args.rounds,
                    measured.name,
                    way.map_or("without probe", |way| way.name)
                ));
                let tracer = way.map(&start).transpose()?;
                let rate = amount / measured.load.run()?.as_secs_f64();
                match turn.and_then(|way| measured.with.get_mut(way)) {
                    Some((rates, _)) => rates.push(rate),
                    None => measured.without.push(rate),
                }
                if let Some(tracer) = tracer {
                    told(way.map_or("", |way| way.name), &tracer.finish()?);
                }
            }
        }
    }
    progress.done();
    let progress = Progress::start(
        "measuring time in the kernel, with the run-time statistics on",
        "",
    );
    let enabled = Enabled::new()?;
    let bare = cost_of_measuring(&enabled, || connect_often(&to))?;
    for round in 1..=KERNEL_ROUNDS {
        progress.step("round", round, KERNEL_ROUNDS, "");
        for Measured { load, with, .. } in &mut all {
            for (way, (_, kernel_ns)) in ways.iter().zip(with) {
                let tracer = start(way)?;
                let before = tracer.runs()?;
                load.run()?;
                let Runs { count, time } = tracer.runs()? - before;
                tracer.finish()?;
                ensure!(count > 0, "its programs never ran");
                kernel_ns.push(time.as_nanos() as f64 / count as f64 - bare);
            }
        }
    }
    progress.done();
    report(&all, ways, bare);
    Ok(())
}

fn loads(args: &Args, from: &Pod, to: &Pod, ways: usize) -> Result<Vec<Measured>> {
    let datagrams = |payload| -> Result<Load> {
        let datagrams = Datagrams::between(from, to, payload)?;
        Ok(Load::Datagrams(datagrams, args.datagrams))
    };
    let loads = [
        (
            "TCP, one connection",
            Load::Bulk(Bulk::between(from, to)?, args.megabytes * 1_000_000),
        ),
        ("UDP, 1442-byte packets", datagrams(LARGE)?),
        ("UDP, 64-byte packets", datagrams(SMALL)?),
    ];
    Ok(loads
        .into_iter()
        .map(|(name, load)| Measured::of(name, load, ways))
        .collect())
}

impl Measured {
    fn of(name: &'static str, load: Load, ways: usize) -> Self {
        Self {
            name,
            load,
            without: Vec::new(),
            with: vec![Default::default(); ways],
        }
    }
}

/// What it says that it lost, and what it took itself, where that is to be expected.
fn told(name: &str, finished: &Finished) {
    if name == EVERYTHING {
        let summary = finished.out.lines().next_back().unwrap_or_default();
        let summary: serde_json::Value = serde_json::from_str(summary).unwrap_or_default();
        println!(
            "  {name}: {} exchanges told, {} MB at most, {:.1} s of CPU, lost {}",
            summary["exchanges"],
            finished.peak_bytes / 1_000_000,
            (finished.user + finished.system).as_secs_f64(),
            summary["lost"],
        );
    }
}

/// Makes state changes of sockets, which the program that costs nothing runs on.
fn connect_often(pod: &Pod) -> Result<()> {
    let connect = || -> Result<()> {
        let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
        for _ in 0..2_000 {
            drop(std::net::TcpStream::connect(listener.local_addr()?)?);
            drop(listener.accept()?);
        }
        Ok(())
    };
    pod.netns.enter(connect)?
}

fn report(all: &[Measured], ways: &[Way], bare: f64) {
    println!(
        "\n{:<26}{:<20}{:>20}{:>10}{:>15}{:>10}{:>10}",
        "", "", "without", "ratio", "95 %", "lowest", "ns a run"
    );
    for measured in all {
        for (way, (rates, kernel_ns)) in ways.iter().zip(&measured.with) {
            let ratio = ratios(rates, &measured.without);
            println!(
                "{:<26}{:<20}{:>20}{:>10.3}{:>15}{:>10.3}{:>10.0}",
                measured.name,
                way.name,
                format!("{:.2} {}", median(&measured.without), measured.load.unit()),
                median(&ratio),
                MedianInterval::of(&ratio).map_or_else(String::new, |interval| interval.to_string()),
                ratio.iter().copied().fold(f64::INFINITY, f64::min),
                median(kernel_ns),
            );
        }
    }
    println!(
        "ratio: rate with probe on one node to rate without, median of rounds, and where it is with 95 % confidence (6 rounds \
         or more); ns a run: of its programs, without the \
         {bare:.0} ns that measuring a run costs"
    );
}
