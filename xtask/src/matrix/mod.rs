//! `cargo xtask matrix`: the scenarios on real kernels, booted in QEMU.

mod guest;
mod image;
mod kernels;
mod record;
mod report;
mod smoke;
mod sources;

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::Mutex,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use self::{
    guest::{Boot, PROCESSORS, Results},
    image::{Image, Step},
    kernels::{Archive, Kernel},
    record::{Record, Wanted},
    sources::{ProgramSource, Sources},
};
use crate::{apt, bytecode, run, scenarios};

/// What boots them and packs their root, and what their own kernels' modules are configured with, beside what the lab needs.
const PACKAGES: [&str; 8] = [
    "cpio",
    "debian-archive-keyring",
    "ipset",
    "ipvsadm",
    "kmod",
    "qemu-system-x86",
    "util-linux",
    "wireguard-tools",
];
/// Kernels by default, and one with control groups of version 1: all others have version 2 only.
const GUESTS: [&str; 6] = ["5.10", "5.10-cgroup1", "6.1", "6.12", "6.18", "newest"];
const CGROUP_1: &str = "-cgroup1";
/// What differs with control groups of version 1: whose a socket, a process, a packet is. The rest is the same kernel's with
/// version 2.
const CGROUP_1_SCENARIOS: [&str; 6] = ["connection", "attribution", "check", "command", "bypass", "agent"];
/// Programs of scenarios that need no container runtime.
const SCENARIOS: [&str; 16] = [
    "connection",
    "attribution",
    "check",
    "command",
    "etcd",
    "translation",
    "etcd_log",
    "vxlan",
    "bypass",
    "cause",
    "tls",
    "agent",
    "storm",
    "path",
    "kube_proxy",
    "doctor",
];
/// Of these only what is asked for. The scenarios of `doctor` watch for some seconds, in which an emulated machine does too
/// little, and need programs that a guest has not; its kernel programs are those of `watch`, `vxlan` and `bypass`, which have
/// scenarios of their own.
const ASKED_FOR: [&str; 1] = ["doctor"];

#[derive(clap::Args)]
pub struct Args {
    /// Series of kernels such as 6.1, `newest`, each with `-cgroup1` after it for control groups of version 1.
    /// Default: 5.10 5.10-cgroup1 6.1 6.12 6.18 newest
    #[arg(value_name = "KERNEL")]
    kernels: Vec<String>,
    /// Run only these programs of scenarios: connection, etcd and so on; repeat or separate by commas
    #[arg(long = "scenarios", value_name = "PROGRAM", value_delimiter = ',', value_parser = SCENARIOS)]
    programs: Vec<String>,
    /// Run only scenarios whose name contains this
    #[arg(long, value_name = "TEXT")]
    filter: Option<String>,
    /// Run what the record of kernels (probe-ebpf/bytecode/kernels.toml) does not prove yet, and record it
    #[arg(long, conflicts_with_all = ["filter", "smoke"])]
    record: bool,
    /// With --record: run everything again, on the newest kernels of each series
    #[arg(long, requires = "record")]
    all: bool,
    /// Run what CI runs on every kernel: load and attach every program, and one scenario for each object and fallback
    #[arg(long, conflicts_with_all = ["programs", "filter"])]
    smoke: bool,
}

/// One guest: its name as asked for, and what came of it.
struct Guest {
    name: String,
    /// Version of its control groups.
    cgroup: u8,
    /// Or why it can't be had.
    kernel: Result<Kernel>,
    plan: Vec<Step>,
    /// Whether `probe check` must succeed in it.
    check: bool,
    outcome: Option<Result<(Results, Duration)>>,
}

/// The record while guests run.
struct Recording {
    wanted: Wanted,
    record: Mutex<Record>,
    /// Programs that are no proof, and why.
    faults: Mutex<Vec<String>>,
}

pub fn run(args: &Args) -> Result<()> {
    let packages: Vec<&str> = probe_lab::PACKAGES.into_iter().chain(PACKAGES).collect();
    apt::install("the kernel matrix", &packages)?;
    let recording = args.record.then(|| Recording::open(args)).transpose()?;
    let names: Vec<String> = if args.kernels.is_empty() {
        GUESTS.map(str::to_owned).to_vec()
    } else {
        args.kernels.clone()
    };
    let sources = sources::programs(&SCENARIOS)?;

    let archive = Archive::open()?;
    let mut guests = Vec::new();
    for name in names {
        let recorded = recording.as_ref().and_then(|recording| recording.release(&name));
        let plan = match &recording {
            Some(recording) => recording.plan(&name, args),
            None => plan(&name, args),
        };
        if plan.is_empty() {
            println!("{name}: proven already, nothing to run");
            continue;
        }
        guests.push(Guest {
            cgroup: if name.ends_with(CGROUP_1) { 1 } else { 2 },
            kernel: kernel(&archive, &name, recorded),
            plan,
            check: args.smoke,
            name,
            outcome: None,
        });
    }

    let directory = run::target().join("matrix");
    if !guests.is_empty() {
        let start = Instant::now();
        // A record is of the objects that the built one carries.
        let other = std::env::var_os("PROBE_BIN").filter(|_| recording.is_none());
        let probe = other.map_or_else(run::build_probe, |path| Ok(path.into()))?;
        let programs = build(&sources)?;
        println!(
            "packing the guests' root ({:.0} s so far)",
            start.elapsed().as_secs_f64()
        );
        let image = Image::new(directory, &probe, &programs)?;
        println!("ready in {:.0} s", start.elapsed().as_secs_f64());
        boot_all(&mut guests, |guest| {
            guest.run(&image, &sources, recording.as_ref())
        });
    }
    let result = report::print(&guests, &sources);
    match recording {
        Some(recording) => recording.close(result),
        None => result,
    }
}

/// Whether the objects are of these sources, and the committed record of these objects and complete. Boots nothing.
///
/// # Errors
/// Says in a sentence what differs, and which command makes it right.
pub fn check_record() -> Result<()> {
    bytecode::check_sources()?;
    let wanted = wanted()?;
    match Record::read()?.fault(&wanted) {
        Some(fault) => bail!(fault),
        None => {
            let scenarios: usize = wanted
                .programs
                .values()
                .map(|source| source.scenarios.len())
                .sum();
            println!(
                "proven on {} kernels: {} objects, the contract, {scenarios} scenarios",
                wanted.guests.len(),
                wanted.sources.objects.len()
            );
            Ok(())
        }
    }
}

/// What a complete record proves.
fn wanted() -> Result<Wanted> {
    let programs: Vec<&str> = SCENARIOS
        .into_iter()
        .filter(|program| !ASKED_FOR.contains(program))
        .collect();
    Ok(Wanted {
        sources: Sources::read()?,
        guests: GUESTS.map(str::to_owned).to_vec(),
        programs: sources::programs(&programs)?,
        partial: GUESTS
            .into_iter()
            .filter(|guest| guest.ends_with(CGROUP_1))
            .map(|guest| (guest.to_owned(), CGROUP_1_SCENARIOS.map(str::to_owned).into()))
            .collect(),
    })
}

impl Recording {
    fn open(args: &Args) -> Result<Self> {
        bytecode::check_sources()?;
        let wanted = wanted()?;
        if let Some(unknown) = args.kernels.iter().find(|name| !wanted.guests.contains(name)) {
            bail!(
                "the record is of kernels {}: {unknown} can run without --record only",
                GUESTS.join(", ")
            );
        }
        if let Some(unknown) = args
            .programs
            .iter()
            .find(|name| !wanted.programs.contains_key(*name))
        {
            bail!("scenarios {unknown} are not part of the record: they can run without --record only");
        }
        let mut record = if args.all {
            Record::default()
        } else {
            Record::read()?
        };
        record.prune(&wanted);
        Ok(Self {
            wanted,
            record: Mutex::new(record),
            faults: Mutex::new(Vec::new()),
        })
    }

    /// The kernel that a guest was recorded with.
    fn release(&self, guest: &str) -> Option<String> {
        lock(&self.record).release(guest).map(str::to_owned)
    }

    /// The programs that a guest has no proof of.
    fn plan(&self, guest: &str, args: &Args) -> Vec<Step> {
        let record = lock(&self.record);
        plan(guest, args)
            .into_iter()
            .filter(|step| self.wanted.has(guest, &step.program) && !record.has(guest, &step.program))
            .collect()
    }

    /// Records a program that ended in a guest.
    fn add(&self, guest: &Guest, kernel: &Kernel, program: &str, results: &Results) {
        let (Some(source), Some(verdicts)) =
            (self.wanted.programs.get(program), results.programs.get(program))
        else {
            return;
        };
        let mut record = lock(&self.record);
        let added = if results.crashed.iter().any(|crashed| crashed == program) {
            Err("its exit code does not fit its verdicts".to_owned())
        } else {
            record.add(&guest.name, kernel, program, source, verdicts)
        };
        let written = added.and_then(|()| record.write().map_err(|error| format!("{error:#}")));
        if let Err(fault) = written {
            println!("{}: {program} is not recorded: {fault}", guest.name);
            lock(&self.faults).push(format!("{}: {program}: {fault}", guest.name));
        }
    }

    /// Writes what is left of the record, and says whether it is complete.
    fn close(self, result: Result<()>) -> Result<()> {
        let record = self
            .record
            .into_inner()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        record.write()?;
        result?;
        let faults = self
            .faults
            .into_inner()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        if !faults.is_empty() {
            bail!("not recorded: {}", faults.join("; "));
        }
        match record.fault(&self.wanted) {
            Some(fault) => println!("not complete yet: {fault}"),
            None => println!("the record is complete: commit probe-ebpf/bytecode/kernels.toml"),
        }
        Ok(())
    }
}

impl Guest {
    /// Where all that it prints is kept.
    fn log(&self) -> PathBuf {
        run::target().join("matrix").join(format!("{}.log", self.name))
    }

    /// Whether a scenario is among those that it runs.
    fn runs(&self, program: &str, name: &str, sources: &BTreeMap<String, ProgramSource>) -> bool {
        let steps = self.plan.iter().filter(|step| step.program == program);
        steps
            .flat_map(|step| step.names(sources))
            .any(|planned| planned == name)
    }

    fn run(
        &self,
        image: &Image,
        sources: &BTreeMap<String, ProgramSource>,
        recording: Option<&Recording>,
    ) -> Result<(Results, Duration)> {
        // The report says why.
        let Ok(kernel) = &self.kernel else {
            bail!("no kernel");
        };
        let start = Instant::now();
        let archive = image.pack(kernel, &self.plan)?;
        let steps: Vec<(Step, usize)> = self
            .plan
            .iter()
            .map(|step| (step.clone(), step.names(sources).count()))
            .collect();
        let boot = Boot {
            name: &self.name,
            kernel,
            archive: archive.path(),
            cgroup: self.cgroup,
            check: self.check,
            steps: &steps,
            log: self.log(),
        };
        let results = boot.run(|program, results| {
            if let Some(recording) = recording {
                recording.add(self, kernel, program, results);
            }
        })?;
        Ok((results, start.elapsed()))
    }
}

/// The kernel of a guest: the recorded one as long as it can be had, or the newest.
fn kernel(archive: &Archive, guest: &str, recorded: Option<String>) -> Result<Kernel> {
    let newest = archive.kernel(guest.strip_suffix(CGROUP_1).unwrap_or(guest));
    let Some(recorded) = recorded else { return newest };
    if newest.as_ref().is_ok_and(|newest| newest.release == recorded) {
        return newest;
    }
    match archive.release(&recorded) {
        Ok(kernel) => {
            println!("{guest}: the record is of {recorded}; `--record --all` takes the newest instead");
            Ok(kernel)
        }
        Err(error) => {
            println!("{guest}: {recorded}, of which the record is, can't be had any more: {error:#}");
            newest
        }
    }
}

/// Boots guests, as many at once as there are processors for, those with most to do first.
fn boot_all(guests: &mut [Guest], run: impl Fn(&Guest) -> Result<(Results, Duration)> + Sync) {
    let mut order: Vec<&mut Guest> = guests.iter_mut().collect();
    order.sort_by_key(|guest| guest.plan.len());
    let queue = Mutex::new(order);
    thread::scope(|scope| {
        for _ in 0..at_once() {
            scope.spawn(|| {
                loop {
                    let next = lock(&queue).pop();
                    let Some(guest) = next else { return };
                    if guest.kernel.is_ok() {
                        let outcome = run(guest);
                        if let Err(error) = &outcome {
                            println!("{}: {error:#}", guest.name);
                        }
                        guest.outcome = Some(outcome);
                    }
                }
            });
        }
    });
}

fn at_once() -> usize {
    thread::available_parallelism().map_or(1, |processors| (processors.get() / PROCESSORS).max(1))
}

/// What a guest runs by these arguments.
fn plan(guest: &str, args: &Args) -> Vec<Step> {
    if args.smoke {
        return smoke::plan();
    }
    let programs = SCENARIOS.into_iter().filter(|program| {
        if args.programs.is_empty() {
            !ASKED_FOR.contains(program)
                && (!guest.ends_with(CGROUP_1) || CGROUP_1_SCENARIOS.contains(program))
        } else {
            args.programs.iter().any(|asked| asked == program)
        }
    });
    programs
        .map(|program| Step {
            program: program.to_owned(),
            arguments: args.filter.iter().cloned().collect(),
        })
        .collect()
}

/// The programs of scenarios that run in guests, built; each with the scenarios that its source shows.
fn build(sources: &BTreeMap<String, ProgramSource>) -> Result<Vec<(String, PathBuf)>> {
    let mut found = scenarios::build()?;
    found.retain(|program| sources.contains_key(&program.name));
    for (name, source) in sources {
        let program = found
            .iter()
            .find(|program| program.name == *name)
            .with_context(|| format!("cargo built no program of scenarios {name}"))?;
        let listed = scenarios::list(&program.path)?;
        if listed != source.scenarios {
            let differ: Vec<&String> = listed.symmetric_difference(&source.scenarios).collect();
            bail!(
                "{}: its program and its source differ in the scenarios {differ:?}: a test is `#[test]` and, after other \
                 attributes, `fn NAME()`",
                source.path
            );
        }
    }
    Ok(found
        .into_iter()
        .map(|program| (program.name, program.path))
        .collect())
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
