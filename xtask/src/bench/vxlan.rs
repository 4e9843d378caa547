//! What `probe vxlan` costs traffic through a tunnel: two nodes in network namespaces, a pod on each, probe on one node.

use std::{process::Command, time::Duration};

use anyhow::{Context, Result};
use probe_lab::{Bulk, Cluster, Datagrams, PACKAGES, Pod};
use serde_json::Value;

use super::{
    KERNEL_ROUNDS, cost_of_measuring, median, ratios,
    statistics::{Enabled, Runs},
    tracer::Tracer,
};
use crate::{apt, root, run};

/// An inner packet of 64 bytes: Ethernet, IPv4 and UDP headers take 42.
const SMALL: usize = 64 - 14 - 20 - 8;
/// One that nearly fills the tunnel's MTU.
const LARGE: usize = 1400;

#[derive(clap::Args)]
pub struct Args {
    /// Rounds of each, with and without
    #[arg(long, value_name = "N", default_value_t = 15, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// Datagrams in a round
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

/// What was measured of one load.
struct Measured {
    name: &'static str,
    load: Load,
    without: Vec<f64>,
    with: Vec<f64>,
    with_flows: Vec<f64>,
    /// Of one packet in the program, nanoseconds, what measuring costs left out.
    kernel_ns: Vec<f64>,
    kernel_ns_with_flows: Vec<f64>,
}

pub fn run(args: &Args) -> Result<()> {
    let probe = run::build_probe()?;
    if !root::is() {
        return root::become_it("the benchmark lays network namespaces and loads BPF programs");
    }
    apt::install("the benchmark", &PACKAGES)?;
    let cluster = Cluster::new()?;
    let [from, to] = [cluster.alpha.pod(5)?, cluster.beta.pod(5)?];
    let netns = format!("/run/netns/{}", cluster.alpha.netns.name());
    let start = |flows: bool| {
        let mut command = Command::new(&probe);
        command.args(["vxlan", "-o", "json", "--netns", &netns]);
        if flows {
            command.args(["--flows", "--cri", "none"]);
        }
        Tracer::start(&mut command, "watching VXLAN")
    };
    let mut all = loads(args, &from, &to)?;
    for measured in &mut all {
        // What the first packets find out for all, and the CPU's speed.
        measured.load.run()?;
    }
    for round in 1..=args.rounds {
        println!("round {round} of {}", args.rounds);
        for measured in &mut all {
            let amount = measured.load.amount();
            // Turned round each time: what drifts within a round drifts for all.
            let mut ways = [None, Some(false), Some(true)];
            ways.rotate_left(round as usize % 3);
            for way in ways {
                let tracer = way.map(&start).transpose()?;
                let rate = amount / measured.load.run()?.as_secs_f64();
                match way {
                    None => measured.without.push(rate),
                    Some(false) => measured.with.push(rate),
                    Some(true) => measured.with_flows.push(rate),
                }
                if let Some(tracer) = tracer {
                    tracer.finish()?;
                }
            }
        }
    }
    println!("time in the kernel, with the run-time statistics on");
    let enabled = Enabled::new()?;
    let bare = cost_of_measuring(&enabled, || connect_often(&to))?;
    for _ in 0..KERNEL_ROUNDS {
        for measured in &mut all {
            for flows in [false, true] {
                let tracer = start(flows)?;
                let before = tracer.runs()?;
                measured.load.run()?;
                let Runs { count, time } = tracer.runs()? - before;
                let seen = packets(&tracer.finish()?.out)?;
                anyhow::ensure!(seen > 0, "probe saw none of the packets");
                let each = time.as_nanos() as f64 / count.max(1) as f64 - bare;
                if flows {
                    measured.kernel_ns_with_flows.push(each);
                } else {
                    measured.kernel_ns.push(each);
                }
            }
        }
    }
    report(&all, bare);
    Ok(())
}

fn loads(args: &Args, from: &Pod, to: &Pod) -> Result<Vec<Measured>> {
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
    let measured = |(name, load)| Measured {
        name,
        load,
        without: Vec::new(),
        with: Vec::new(),
        with_flows: Vec::new(),
        kernel_ns: Vec::new(),
        kernel_ns_with_flows: Vec::new(),
    };
    Ok(loads.into_iter().map(measured).collect())
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

/// Frames of all streams, by probe's last line.
fn packets(out: &str) -> Result<u64> {
    let last = out.lines().next_back().unwrap_or_default();
    let summary: Value = serde_json::from_str(last).context("no summary of probe's")?;
    let streams = summary["streams"].as_array().context("no streams")?;
    Ok(streams
        .iter()
        .filter_map(|stream| stream["frames"].as_u64())
        .sum())
}

fn report(all: &[Measured], bare: f64) {
    println!(
        "\n{:<26}{:>22}{:>12}{:>12}{:>14}{:>12}{:>14}",
        "", "without", "ratio", "lowest", "with --flows", "ns a run", "with --flows"
    );
    for measured in all {
        let ratio = ratios(&measured.with, &measured.without);
        let with_flows = ratios(&measured.with_flows, &measured.without);
        println!(
            "{:<26}{:>22}{:>12.3}{:>12.3}{:>14.3}{:>12.0}{:>14.0}",
            measured.name,
            format!("{:.2} {}", median(&measured.without), measured.load.unit()),
            median(&ratio),
            ratio.iter().copied().fold(f64::INFINITY, f64::min),
            median(&with_flows),
            median(&measured.kernel_ns),
            median(&measured.kernel_ns_with_flows),
        );
    }
    println!(
        "ratio: rate with probe on one node to rate without, median of rounds; ns a run: of the tc programs, without the \
         {bare:.0} ns that measuring a run costs"
    );
}
