//! What `probe watch` costs a storm of connections, and bpftrace beside it.

use std::path::{Path, PathBuf};

use anyhow::Result;
use probe_lab::{Close, PACKAGES, Storm};

use super::{
    KERNEL_ROUNDS, cost_of_measuring, cpu_time,
    kind::{Kind, Output},
    note::Note,
    sample::{MedianInterval, median, ratios},
    statistics::Enabled,
    tracer::{Finished, Tracer},
};
use crate::{apt, progress::Progress, root, run};

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
    /// Measure this binary of probe too, in the same rounds: a change's cost is a ratio, as machines drift
    #[arg(long, value_name = "FILE")]
    against: Option<PathBuf>,
    /// Count the instructions of probe's user space for a record too, with valgrind: they do not drift
    #[arg(long)]
    instructions: bool,
}

/// Connections of the two runs whose instructions are compared: what start and end take is in both.
const FEW: u64 = 200;
const MANY: u64 = 2200;

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
    /// CPU time of clients and servers for a connection, the kernel's included, microseconds, a round each.
    ends_us: Vec<f64>,
    outcomes: Vec<Outcome>,
    /// Time in the kernel for a connection, both ends, nanoseconds, a round each.
    kernel_ns: Vec<f64>,
    /// Programs run for a connection.
    programs: Vec<f64>,
    /// Instructions of user space for a record.
    instructions: Option<f64>,
    /// Why it is not measured any more.
    note: Option<Note>,
}

impl Measured {
    fn of(kind: Option<Kind>) -> Self {
        Self {
            kind,
            ..Self::default()
        }
    }

    /// A line of its column's heading.
    fn heading(&self, line: usize) -> &'static str {
        let heading = self.kind.map_or(["no tracer", ""], Kind::heading);
        heading.get(line).copied().unwrap_or_default()
    }

    fn name(&self) -> String {
        self.kind
            .map_or_else(|| "no tracer".to_owned(), |kind| kind.to_string())
    }

    /// Does a part of the benchmark. A peer that fails in it is left out from then on, with a note; anything else that
    /// fails ends the benchmark.
    fn attempt(&mut self, when: &str, part: impl FnOnce(&mut Self) -> Result<()>) -> Result<()> {
        if self.note.is_some() {
            return Ok(());
        }
        let result = part(self);
        match (result, self.kind) {
            (Err(error), Some(kind)) if kind.is_peer() => {
                let note = Note::new(kind, when, &error);
                for line in note.lines() {
                    println!("{line}");
                }
                self.note = Some(note);
                Ok(())
            }
            (result, _) => result,
        }
    }

    /// One storm while it traces.
    fn round(&mut self, storm: &Storm, connections: u64, close: Close, probe: &Path) -> Result<()> {
        let tracer = self
            .kind
            .map(|kind| anyhow::Ok((kind, kind.start(probe)?)))
            .transpose()?;
        // The storm runs in this process.
        let before = cpu_time()?;
        let took = storm.run(connections, close)?;
        let spent = cpu_time()?.saturating_sub(before);
        if let Some((kind, tracer)) = tracer {
            self.outcomes.push(Outcome::of(kind, tracer)?);
        }
        // After what can fail: a rate and an outcome of each round.
        self.rates.push(connections as f64 / took.as_secs_f64());
        self.ends_us.push(spent.as_secs_f64() * 1e6 / connections as f64);
        Ok(())
    }

    /// Instructions for each record that a storm of many connections has more than one of a few.
    fn count_instructions(&mut self, storm: &Storm, close: Close, probe: &Path) -> Result<()> {
        let Some(kind) = self.kind.filter(|kind| !kind.is_peer()) else {
            return Ok(());
        };
        let count = |connections: u64| {
            let tracer = kind.start_counted(probe)?;
            storm.run(connections, close)?;
            let finished = tracer.finish()?;
            let (records, _) = kind.records(&finished)?;
            anyhow::Ok((finished.instructions()?, records))
        };
        let ((few, few_records), (many, many_records)) = (count(FEW)?, count(MANY)?);
        if let Some(records) = many_records.checked_sub(few_records).filter(|more| *more > 0) {
            self.instructions = Some(many.saturating_sub(few) as f64 / records as f64);
        }
        Ok(())
    }

    /// The same with the run-time statistics on.
    fn kernel_round(&mut self, storm: &Storm, connections: u64, close: Close, probe: &Path) -> Result<()> {
        let Some(kind) = self.kind else { return Ok(()) };
        let tracer = kind.start(probe)?;
        let before = tracer.runs()?;
        storm.run(connections, close)?;
        let runs = tracer.runs()? - before;
        tracer.finish()?;
        self.kernel_ns
            .push(runs.time.as_nanos() as f64 / connections as f64);
        self.programs.push(runs.count as f64 / connections as f64);
        Ok(())
    }
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
    let outputs = [Output::Json, Output::Table];
    let mut kinds = outputs.map(Kind::Probe).to_vec();
    if args.against.is_some() {
        kinds.extend(outputs.map(Kind::ProbeBefore));
    }
    kinds.extend([Kind::ProbeElsewhere, Kind::Bpftrace]);
    let mut all = vec![Measured::of(None)];
    all.extend(kinds.into_iter().map(|kind| Measured::of(Some(kind))));
    let binary = |kind: Option<Kind>| match (&args.against, kind) {
        (Some(against), Some(Kind::ProbeBefore(_))) => against.as_path(),
        _ => probe.as_path(),
    };
    println!(
        "storm: {connections} connections a round, connect and {}, both ends on this machine",
        if args.reset { "RST" } else { "close" }
    );
    let progress = Progress::start(
        format!("measuring rates, rounds: {}", args.rounds),
        "a few seconds for each tracer in each round",
    );
    storm.run(connections, close)?;
    for round in 1..=args.rounds {
        let names: Vec<_> = all
            .iter()
            .filter(|measured| measured.note.is_none())
            .map(Measured::name)
            .collect();
        progress.step("round", round, args.rounds, &names.join(", "));
        let when = format!("round {round} of {}", args.rounds);
        // Turned round each time: what drifts within a round drifts for all.
        let count = all.len();
        for turn in 0..count {
            let Some(measured) = all.get_mut((turn + round as usize) % count) else {
                continue;
            };
            progress.set(format!("{when}: {}", measured.name()));
            measured.attempt(&when, |measured| {
                let probe = binary(measured.kind);
                measured.round(&storm, connections, close, probe)
            })?;
        }
    }
    progress.done();
    let progress = Progress::start(
        "measuring time in the kernel, with the run-time statistics on",
        "",
    );
    let enabled = Enabled::new()?;
    let mut bare = Vec::new();
    for round in 1..=KERNEL_ROUNDS {
        progress.step("round", round, KERNEL_ROUNDS, "");
        bare.push(cost_of_measuring(&enabled, || {
            storm.run(connections, close).map(|_| ())
        })?);
        let when = format!("round {round} of {KERNEL_ROUNDS} of kernel time");
        for measured in &mut all {
            progress.set(format!("{when}: {}", measured.name()));
            measured.attempt(&when, |measured| {
                let probe = binary(measured.kind);
                measured.kernel_round(&storm, connections, close, probe)
            })?;
        }
    }
    progress.done();
    if args.instructions {
        let progress = Progress::start(
            "counting instructions with valgrind",
            "half a minute for each of probe",
        );
        for measured in &mut all {
            progress.set(measured.name());
            let probe = binary(measured.kind);
            measured.count_instructions(&storm, close, probe)?;
        }
        progress.done();
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
    let row = |name: &str, value: &dyn Fn(&Measured) -> Option<String>| {
        let cells: String = all
            .iter()
            .map(|measured| format!("{:>12}", cell(measured, value(measured))))
            .collect();
        println!("{name:<50}{}", cells.trim_end());
    };
    for line in 0..2 {
        let cells: String = all
            .iter()
            .map(|measured| format!("{:>12}", measured.heading(line)))
            .collect();
        println!("{:<50}{}", "", cells.trim_end());
    }
    let some = |values: &[f64]| (!values.is_empty()).then(|| median(values));
    row("connections a second, median", &|measured| {
        Some(format!("{:.0}", some(&measured.rates)?))
    });
    let ratios = |measured: &Measured| -> Option<Vec<f64>> {
        measured.kind.filter(|_| !measured.rates.is_empty())?;
        Some(ratios(&measured.rates, &without))
    };
    row("of the rate without a tracer, median of rounds", &|measured| {
        Some(format!("{:.3}", median(&ratios(measured)?)))
    });
    row("  with 95 % confidence within", &|measured| {
        Some(MedianInterval::of(&ratios(measured)?)?.to_string())
    });
    row("  lowest round", &|measured| {
        Some(format!("{:.3}", ratios(measured)?.into_iter().reduce(f64::min)?))
    });
    row("  highest round", &|measured| {
        Some(format!("{:.3}", ratios(measured)?.into_iter().reduce(f64::max)?))
    });
    row("CPU us of both ends a connection, median", &|measured| {
        Some(format!("{:.2}", some(&measured.ends_us)?))
    });
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
    row("  instructions of it", &|measured| {
        Some(format!("{:.0}", measured.instructions?))
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
    row("peak memory MB until it watches", &|measured| {
        let peak = most(measured, &|outcome| outcome.finished.ready_peak_bytes as f64)?;
        Some(format!("{:.1}", peak / 1e6))
    });
    row("ms until it watches, median", &|measured| {
        let ready: Vec<_> = measured
            .outcomes
            .iter()
            .map(|outcome| outcome.finished.ready.as_secs_f64() * 1e3)
            .collect();
        Some(format!("{:.0}", some(&ready)?))
    });
    row("ms until it watches, slowest", &|measured| {
        Some(format!(
            "{:.0}",
            most(measured, &|outcome| outcome.finished.ready.as_secs_f64())? * 1e3
        ))
    });
    for measured in all {
        for line in measured.note.iter().flat_map(Note::lines) {
            println!("{line}");
        }
    }
}

/// A tracer with a note shows where it has no value; else there is nothing to say of it.
fn cell(measured: &Measured, value: Option<String>) -> String {
    let missing = if measured.note.is_some() { "-" } else { "" };
    value.unwrap_or_else(|| missing.to_owned())
}
