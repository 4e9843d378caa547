//! What `probe watch` costs a storm of connections, and bpftrace beside it.

use anyhow::Result;
use probe_lab::{Close, PACKAGES, Storm};

use super::{
    KERNEL_ROUNDS, cost_of_measuring,
    kind::Kind,
    median, ratios,
    statistics::Enabled,
    tracer::{Finished, Tracer},
};
use crate::{apt, root, run};

/// The storm's port, and one that nobody uses.
pub const PORT: u16 = 29_379;
pub const OTHER_PORT: u16 = 29_380;

#[derive(clap::Args)]
pub struct Args {
    /// Number of rounds of each tracer
    #[arg(long, value_name = "N", default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// Number of connections in a round
    #[arg(long, value_name = "N", default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(100..=1_000_000))]
    connections: u32,
    /// Close connections with RST in place of FIN: half the state changes
    #[arg(long)]
    reset: bool,
}

/// What a run came to.
struct Outcome {
    finished: Finished,
    records: u64,
    lost: u64,
}

impl Outcome {
    fn of(kind: Kind, tracer: Tracer) -> Result<Self> {
        let finished = tracer.finish()?;
        let (records, lost) = kind.records(&finished)?;
        Ok(Self {
            finished,
            records,
            lost,
        })
    }
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
                .map(|kind| anyhow::Ok((kind, kind.start(&probe)?)))
                .transpose()?;
            let took = storm.run(connections, close)?;
            measured.rates.push(connections as f64 / took.as_secs_f64());
            if let Some((kind, tracer)) = tracer {
                measured.outcomes.push(Outcome::of(kind, tracer)?);
            }
        }
    }
    all.sort_by_key(|measured| measured.kind.map(|kind| kind as u32));
    println!("time in the kernel, with the run-time statistics on");
    let enabled = Enabled::new()?;
    let per_connection = |value: f64| value / connections as f64;
    let mut bare = Vec::new();
    for _ in 0..KERNEL_ROUNDS {
        bare.push(cost_of_measuring(&enabled, || {
            storm.run(connections, close).map(|_| ())
        })?);
        for measured in &mut all {
            if let Some(kind) = measured.kind {
                let tracer = kind.start(&probe)?;
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
    let ratios = |measured: &Measured| -> Option<Vec<f64>> {
        measured.kind?;
        Some(ratios(&measured.rates, &without))
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
        let user = sum(measured, &|outcome| outcome.finished.user.as_secs_f64())?;
        Some(format!("{:.2}", user * 1e6 / records(measured)?))
    });
    row("user and system CPU us a record", &|measured| {
        let cpu = sum(measured, &|outcome| {
            (outcome.finished.user + outcome.finished.system).as_secs_f64()
        })?;
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
            most(measured, &|outcome| outcome.finished.peak_bytes as f64)? / 1e6
        ))
    });
    row("ms until it watches, slowest", &|measured| {
        Some(format!(
            "{:.0}",
            most(measured, &|outcome| outcome.finished.ready.as_secs_f64())? * 1e3
        ))
    });
}
