//! What `probe watch --max-cpu` keeps to in a storm, and whether everything is counted all the same.

use std::{
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use probe_lab::{Close, PACKAGES, Storm};
use serde_json::Value;

use super::{tracer::Tracer, watch::PORT};
use crate::{apt, progress::Progress, root, run};

/// Connections between two readings of the CPU time, less than a second's.
const STEP: u64 = 5_000;

#[derive(clap::Args)]
pub struct Args {
    /// Share of a core that probe may use, in percent
    #[arg(long, value_name = "PERCENT", default_value_t = 5.0)]
    max_cpu: f64,
    /// Length of the storm in seconds; the first 6 are not counted, in which probe finds its rate
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(12..=3600))]
    seconds: u64,
}

const FINDS_ITS_RATE: Duration = Duration::from_secs(6);
/// Shares are told of so long.
const EVERY: Duration = Duration::from_secs(5);

pub fn run(args: &Args) -> Result<()> {
    let probe = run::build_probe()?;
    if !root::is() {
        return root::become_it("the benchmark lays a network namespace and loads BPF programs");
    }
    apt::install("the benchmark", &PACKAGES)?;
    let storm = Storm::new(PORT, 2)?;
    let progress = Progress::start(
        format!("a storm of {} s, as fast as this machine makes it", args.seconds),
        "",
    );
    let measured = measure(args, &storm, &probe)?;
    progress.done();
    measured.report(args)
}

/// A part of the storm.
struct Share {
    connections: u64,
    elapsed: Duration,
    cpu: Duration,
}

impl Share {
    fn percent(&self) -> f64 {
        100.0 * self.cpu.as_secs_f64() / self.elapsed.as_secs_f64()
    }
}

struct Measured {
    shares: Vec<Share>,
    /// Both ends of each are on this machine.
    connections: u64,
    summary: Value,
}

fn measure(args: &Args, storm: &Storm, probe: &Path) -> Result<Measured> {
    let (port, share) = (PORT.to_string(), format!("{}%", args.max_cpu));
    let mut command = Command::new(probe);
    command
        .args(["watch", "--all", "-o", "json", "--max-rate", "none"])
        .args(["--port", &port, "--max-cpu", &share]);
    let tracer = Tracer::start("probe", &mut command, "watching ")?;
    let (begun, end) = (Instant::now(), Duration::from_secs(args.seconds));
    let (mut shares, mut connections) = (Vec::new(), 0);
    let (mut since, mut cpu, mut before) = (Instant::now(), tracer.cpu_time()?, 0);
    while begun.elapsed() < end {
        storm.run(STEP, Close::Fin)?;
        connections += STEP;
        let elapsed = since.elapsed();
        if begun.elapsed() < FINDS_ITS_RATE {
            (since, cpu, before) = (Instant::now(), tracer.cpu_time()?, connections);
        } else if elapsed >= EVERY {
            let now = tracer.cpu_time()?;
            shares.push(Share {
                connections: connections - before,
                elapsed,
                cpu: now.saturating_sub(cpu),
            });
            (since, cpu, before) = (Instant::now(), now, connections);
        }
    }
    let finished = tracer.finish()?;
    let last = finished.out.lines().next_back().unwrap_or_default();
    let summary = serde_json::from_str(last).context("no summary of probe's")?;
    Ok(Measured {
        shares,
        connections,
        summary,
    })
}

impl Measured {
    fn report(&self, args: &Args) -> Result<()> {
        println!();
        for share in &self.shares {
            let rate = share.connections as f64 / share.elapsed.as_secs_f64();
            println!(
                "{rate:>8.0} connections a second: {:>5.2} % of a core",
                share.percent()
            );
        }
        let shares = || self.shares.iter().map(Share::percent);
        let (least, most) = (
            shares().fold(f64::INFINITY, f64::min),
            shares().fold(0.0, f64::max),
        );
        println!(
            "{least:.2} to {most:.2} % of a core; at most {:.0} is asked for, {:.0} with the point that it may be off",
            args.max_cpu,
            args.max_cpu + 1.0
        );
        let number = |name: &str| {
            self.summary[name]
                .as_u64()
                .with_context(|| format!("no {name} in the summary"))
        };
        println!(
            "{} sides of {} connections counted, {} of them without a line; lost: {}",
            number("counted")?,
            self.connections,
            number("aggregated")?,
            self.summary["lost"]
        );
        ensure!(!self.shares.is_empty(), "the storm was too short");
        Ok(())
    }
}
