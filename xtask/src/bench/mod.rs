//! `cargo xtask bench`: what probe costs a storm of connections, and bpftrace beside it.
//!
//! Rates are measured with the kernel's run-time statistics off, rounds of all tracers interleaved: machines drift.
//! Kernel time is measured after, with the statistics on, which cost time themselves: a program that returns at once
//! tells how much.

mod bare;
mod statistics;
mod tracer;

use anyhow::{Result, ensure};
use probe_lab::{Close, PACKAGES, Storm};

use self::{
    bare::Bare,
    statistics::Enabled,
    tracer::{Kind, Outcome, Tracer},
};
use crate::{apt, root, run};

/// The storm's port, and one that nobody uses.
const PORT: u16 = 29_379;
const OTHER_PORT: u16 = 29_380;
/// Rounds with the run-time statistics on.
const KERNEL_ROUNDS: u32 = 3;

#[derive(clap::Args)]
pub struct Args {
    /// Rounds of each tracer
    #[arg(long, value_name = "N", default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// Connections in a round
    #[arg(long, value_name = "N", default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(100..=1_000_000))]
    connections: u32,
    /// Clients end their connections with RST: half the state changes of a FIN
    #[arg(long)]
    reset: bool,
}

/// What was measured of one tracer.
#[derive(Default)]
struct Measured {
    kind: Option<Kind>,
    /// Connections a second, a round each.
    rates: Vec<f64>,
    outcomes: Vec<Outcome>,
    /// Time in the kernel for a connection, both ends, nanoseconds, a round each.
    kernel_ns: Vec<f64>,
    /// Programs run for a connection.
    programs: Vec<f64>,
}

pub fn run(args: &Args) -> Result<()> {
    let probe = run::build_probe()?;
    if !root::is() {
        return root::become_it("the benchmark lays a network namespace and loads BPF programs");
    }
    apt::install("the benchmark", &PACKAGES)?;
    let close = if args.reset { Close::Reset } else { Close::Fin };
    let connections = u64::from(args.connections);
    let storm = Storm::new(PORT, 1)?;
    let mut kinds = vec![None, Some(Kind::Probe), Some(Kind::ProbeElsewhere)];
    if Kind::Bpftrace.installed() {
        kinds.push(Some(Kind::Bpftrace));
    } else {
        println!("bpftrace is not installed: without it (`apt-get install bpftrace`)");
    }
    let mut all: Vec<Measured> = kinds
        .into_iter()
        .map(|kind| Measured {
            kind,
            ..Measured::default()
        })
        .collect();

    println!(
        "storm: {connections} connections a round, connect and {}, both ends on this machine",
        if args.reset { "RST" } else { "close" }
    );
    storm.run(connections, close)?;
    for round in 1..=args.rounds {
        println!("round {round} of {}", args.rounds);
        for measured in &mut all {
            let tracer = measured
                .kind
                .map(|kind| Tracer::start(kind, &probe))
                .transpose()?;
            let took = storm.run(connections, close)?;
            measured.rates.push(connections as f64 / took.as_secs_f64());
            if let Some(tracer) = tracer {
                measured.outcomes.push(tracer.finish()?);
            }
        }
    }
    all.sort_by_key(|measured| measured.kind.map(|kind| kind as u32));
    println!("time in the kernel, with the run-time statistics on");
    let _enabled = Enabled::new()?;
    let per_connection = |value: f64| value / connections as f64;
    let mut bare = Vec::new();
    for _ in 0..KERNEL_ROUNDS {
        let program = Bare::attach(c"inet_sock_set_state")?;
        storm.run(connections, close)?;
        let runs = program.runs()?;
        ensure!(runs.count > 0, "a program on inet_sock_set_state never ran");
        bare.push(runs.time.as_nanos() as f64 / runs.count as f64);
        drop(program);
        for measured in &mut all {
            if let Some(kind) = measured.kind {
                let tracer = Tracer::start(kind, &probe)?;
                let before = tracer.runs()?;
                storm.run(connections, close)?;
                let runs = tracer.runs()? - before;
                tracer.finish()?;
                measured
                    .kernel_ns
                    .push(per_connection(runs.time.as_nanos() as f64));
                measured.programs.push(per_connection(runs.count as f64));
            }
        }
    }
    report(&all, median(&bare));
    Ok(())
}

fn report(all: &[Measured], bare: f64) {
    let without = all
        .first()
        .map(|measured| measured.rates.clone())
        .unwrap_or_default();
    println!();
    println!(
        "{:<50}{:>12}{:>12}{:>12}{:>12}",
        "", "no tracer", "probe", "probe,", "bpftrace"
    );
    println!("{:<50}{:>12}{:>12}{:>12}{:>12}", "", "", "", "other port", "");
    let row = |name: &str, value: &dyn Fn(&Measured) -> Option<String>| {
        let cells: String = all
            .iter()
            .map(|measured| format!("{:>12}", value(measured).unwrap_or_default()))
            .collect();
        println!("{name:<50}{cells}");
    };
    row("connections a second, median", &|measured| {
        Some(format!("{:.0}", median(&measured.rates)))
    });
    // Of the same round: what drifts, drifts in both.
    let ratios = |measured: &Measured| -> Option<Vec<f64>> {
        measured.kind?;
        Some(
            measured
                .rates
                .iter()
                .zip(&without)
                .map(|(with, without)| with / without)
                .collect(),
        )
    };
    row("of the rate without a tracer, median of rounds", &|measured| {
        Some(format!("{:.3}", median(&ratios(measured)?)))
    });
    row("  lowest round", &|measured| {
        Some(format!("{:.3}", ratios(measured)?.into_iter().reduce(f64::min)?))
    });
    row("  highest round", &|measured| {
        Some(format!("{:.3}", ratios(measured)?.into_iter().reduce(f64::max)?))
    });
    let some = |values: &[f64]| (!values.is_empty()).then(|| median(values));
    row("kernel ns a connection, both ends, median", &|measured| {
        Some(format!("{:.0}", some(&measured.kernel_ns)?))
    });
    row("  programs run for it", &|measured| {
        Some(format!("{:.1}", some(&measured.programs)?))
    });
    row(
        &format!("  without the {bare:.0} ns a run that measuring costs"),
        &|measured| {
            let net = some(&measured.kernel_ns)? - some(&measured.programs)? * bare;
            Some(format!("{net:.0}"))
        },
    );
    let sum = |measured: &Measured, of: &dyn Fn(&Outcome) -> f64| -> Option<f64> {
        (!measured.outcomes.is_empty()).then(|| measured.outcomes.iter().map(of).sum())
    };
    let most = |measured: &Measured, of: &dyn Fn(&Outcome) -> f64| -> Option<f64> {
        measured.outcomes.iter().map(of).reduce(f64::max)
    };
    let records =
        |measured: &Measured| sum(measured, &|outcome| outcome.records as f64).filter(|sum| *sum > 0.0);
    row("user CPU us a record", &|measured| {
        let user = sum(measured, &|outcome| outcome.user.as_secs_f64())?;
        Some(format!("{:.2}", user * 1e6 / records(measured)?))
    });
    row("user and system CPU us a record", &|measured| {
        let cpu = sum(measured, &|outcome| (outcome.user + outcome.system).as_secs_f64())?;
        Some(format!("{:.2}", cpu * 1e6 / records(measured)?))
    });
    row("records", &|measured| Some(format!("{:.0}", records(measured)?)));
    row("records lost", &|measured| {
        records(measured)?;
        Some(format!("{:.0}", sum(measured, &|outcome| outcome.lost as f64)?))
    });
    row("peak memory MB", &|measured| {
        Some(format!(
            "{:.1}",
            most(measured, &|outcome| outcome.peak_bytes as f64)? / 1e6
        ))
    });
    row("ms until it watches, slowest", &|measured| {
        Some(format!(
            "{:.0}",
            most(measured, &|outcome| outcome.ready.as_secs_f64())? * 1e3
        ))
    });
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.as_slice() {
        [] => 0.0,
        sorted if sorted.len() % 2 == 1 => sorted.get(middle).copied().unwrap_or_default(),
        sorted => sorted.iter().skip(middle - 1).take(2).sum::<f64>() / 2.0,
    }
}
