//! `cargo xtask matrix`: the scenarios on real kernels, booted in QEMU.

mod guest;
mod image;
mod kernels;

use std::{collections::BTreeSet, path::PathBuf, sync::Mutex, thread, time::Instant};

use anyhow::{Result, bail};

use self::{
    guest::{PROCESSORS, Said, Verdict, failures},
    image::Root,
    kernels::{Archive, Kernel, numbers},
};
use crate::{
    apt, run,
    scenarios::{self, AGAIN},
};

/// What boots them and packs their root, beside what the lab needs.
const PACKAGES: [&str; 5] = [
    "cpio",
    "debian-archive-keyring",
    "kmod",
    "qemu-system-x86",
    "util-linux",
];
/// Kernels by default, and one with control groups of version 1: all others have version 2 only.
const GUESTS: [&str; 6] = ["5.10", "5.10-cgroup1", "6.1", "6.12", "6.18", "newest"];
const CGROUP_1: &str = "-cgroup1";
/// Programs of scenarios that need no container runtime.
const SCENARIOS: [&str; 15] = [
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
    "doctor",
];
/// Of these only what is asked for. Each scenario of `path` puts programs at a score of functions and takes them away, while others
/// run: with two processors the emulator dies of that, or spins. Those of `doctor` watch for some seconds, in which an emulated
/// machine does too little, and want programs that a guest has not; what the doctor has of the kernel, the others show.
const ASKED_FOR: [&str; 2] = ["path", "doctor"];

#[derive(clap::Args)]
pub struct Args {
    /// Series of kernels such as 6.1, `newest`, each with `-cgroup1` after it for control groups of version 1.
    /// Default: 5.10 5.10-cgroup1 6.1 6.12 6.18 newest
    #[arg(value_name = "KERNEL")]
    kernels: Vec<String>,
    /// Only these programs of scenarios: connection, etcd and so on; repeat or separate by commas
    #[arg(long = "scenarios", value_name = "PROGRAM", value_delimiter = ',', value_parser = SCENARIOS)]
    programs: Vec<String>,
    /// Only scenarios whose name contains this
    #[arg(long, value_name = "TEXT", default_value = "")]
    filter: String,
}

/// One guest: its name as asked for, its kernel, and what came of it.
struct Guest {
    name: String,
    kernel: Kernel,
    cgroup: u8,
    said: Mutex<Option<Result<Said>>>,
}

pub fn run(args: &Args) -> Result<()> {
    let packages: Vec<&str> = probe_lab::PACKAGES.into_iter().chain(PACKAGES).collect();
    apt::install("the kernel matrix", &packages)?;
    let start = Instant::now();
    let probe = run::build_probe()?;
    let scenarios = scenarios()?;
    let archive = Archive::open()?;
    let names: Vec<String> = if args.kernels.is_empty() {
        GUESTS.map(str::to_owned).to_vec()
    } else {
        args.kernels.clone()
    };
    let guests: Vec<Guest> = names
        .into_iter()
        .map(|name| {
            let series = name.strip_suffix(CGROUP_1);
            Ok(Guest {
                kernel: archive.kernel(series.unwrap_or(&name))?,
                cgroup: if series.is_some() { 1 } else { 2 },
                name,
                said: Mutex::new(None),
            })
        })
        .collect::<Result<_>>()?;
    let directory = run::target().join("matrix");
    let root = Mutex::new(Root::new(directory.join("root"), &probe, &scenarios)?);
    println!("ready in {:.0} s", start.elapsed().as_secs_f64());

    let queue = Mutex::new(guests.iter());
    thread::scope(|scope| {
        for _ in 0..at_once() {
            scope.spawn(|| {
                loop {
                    let next = lock(&queue).next();
                    let Some(guest) = next else { return };
                    let result = guest.run(&root, args);
                    *lock(&guest.said) = Some(result);
                }
            });
        }
    });
    report(&guests)
}

impl Guest {
    /// Where all that it says is kept.
    fn log(&self) -> PathBuf {
        run::target().join("matrix").join(format!("{}.log", self.name))
    }

    fn run(&self, root: &Mutex<Root>, args: &Args) -> Result<Said> {
        let archive = tempfile::Builder::new()
            .suffix(".cpio")
            .tempfile_in(run::target().join("matrix"))?;
        lock(root).pack(&self.kernel, archive.path())?;
        let start = Instant::now();
        let boot = |filter: &str, programs: &[String]| {
            let settings = format!("lab.cgroup={} lab.filter={filter}", self.cgroup);
            guest::run(&self.kernel, archive.path(), &settings, programs, &self.log())
        };
        let mut said = boot(&args.filter, &programs(args))?;
        println!(
            "{}: {} ran {} scenarios in {:.0} s",
            self.name,
            self.kernel.release,
            said.verdicts.len(),
            start.elapsed().as_secs_f64()
        );
        let failed = said.failed();
        if (1..=AGAIN).contains(&failed.len()) {
            let (programs, mut names): (BTreeSet<String>, Vec<String>) = failed.into_iter().unzip();
            println!("{}: {} failed, and runs again", self.name, names.join(" and "));
            names.insert(0, "--exact".to_owned());
            let programs: Vec<_> = programs.into_iter().collect();
            said.settle(&boot(&names.join(","), &programs)?);
        }
        Ok(said)
    }
}

/// Guests at once. Two that share processors take as long as one after the other, and their scenarios wait in vain more often.
fn at_once() -> usize {
    thread::available_parallelism().map_or(1, |processors| (processors.get() / PROCESSORS as usize).max(1))
}

/// What the guests run.
fn programs(args: &Args) -> Vec<String> {
    if !args.programs.is_empty() {
        return args.programs.clone();
    }
    let all = SCENARIOS
        .into_iter()
        .filter(|program| !ASKED_FOR.contains(program));
    all.map(str::to_owned).collect()
}

/// The programs of scenarios that run in guests, built.
fn scenarios() -> Result<Vec<(String, PathBuf)>> {
    let mut found = scenarios::build()?;
    found.retain(|program| SCENARIOS.contains(&program.name.as_str()));
    if found.len() != SCENARIOS.len() {
        bail!(
            "cargo built {} programs of scenarios, {} are wanted",
            found.len(),
            SCENARIOS.len()
        );
    }
    Ok(found
        .into_iter()
        .map(|program| (program.name, program.path))
        .collect())
}

fn report(guests: &[Guest]) -> Result<()> {
    let mut faults = Vec::new();
    let mut columns = Vec::new();
    for guest in guests {
        match lock(&guest.said).take() {
            Some(Ok(said)) => {
                columns.push((guest, said));
            }
            Some(Err(error)) => faults.push(format!("{}: {error:#}", guest.name)),
            None => faults.push(format!("{}: it never ran", guest.name)),
        }
    }
    let rows: BTreeSet<_> = columns
        .iter()
        .flat_map(|(_, said)| said.verdicts.keys())
        .collect();
    let width = rows
        .iter()
        .map(|(program, name)| program.len() + 1 + name.len())
        .max()
        .unwrap_or(0);
    println!(
        "\n{:width$}{}",
        "",
        columns
            .iter()
            .map(|(guest, _)| format!("  {:>12}", guest.name))
            .collect::<String>()
    );
    let release = |guest: &Guest| {
        guest
            .kernel
            .release
            .split(['+', '-'])
            .next()
            .unwrap_or_default()
            .to_owned()
    };
    println!(
        "{:width$}{}",
        "",
        columns
            .iter()
            .map(|(guest, _)| format!("  {:>12}", release(guest)))
            .collect::<String>()
    );
    let (mut passed, mut skipped, mut unsteady) = (0, BTreeSet::new(), BTreeSet::new());
    for key @ (program, name) in &rows {
        let mut line = format!("{:width$}", format!("{program} {name}"));
        for (guest, said) in &columns {
            let text = match said.verdicts.get(key) {
                Some(Verdict::Passed) => {
                    passed += 1;
                    "passed"
                }
                Some(Verdict::Skipped { minimum, reason }) => {
                    skipped.insert(format!("{program} {name}: from {minimum} on; {reason}"));
                    if numbers(&release(guest)) >= numbers(minimum) {
                        faults.push(format!(
                            "{}: {program} {name} was skipped, though it must run from {minimum} on",
                            guest.name
                        ));
                    }
                    "skipped"
                }
                Some(Verdict::Unsteady) => {
                    passed += 1;
                    unsteady.insert(format!("{}: {program} {name}", guest.name));
                    "UNSTEADY"
                }
                Some(Verdict::Failed) => {
                    faults.push(format!("{}: {program} {name} failed", guest.name));
                    "FAILED"
                }
                None => {
                    faults.push(format!("{}: {program} {name} did not run", guest.name));
                    "MISSING"
                }
            };
            line.push_str(&format!("  {text:>12}"));
        }
        println!("{line}");
    }
    for skip in &skipped {
        println!("skipped: {skip}");
    }
    for unsteady in &unsteady {
        println!("unsteady: {unsteady}: failed, and passed when it ran again alone");
    }
    if rows.is_empty() {
        faults.push("no scenario ran".to_owned());
    }
    for (guest, said) in &columns {
        let told = failures(&said.log);
        if !told.is_empty() {
            println!(
                "\n=== {}: what failed ({} has what its last boot said)\n{told}",
                guest.name,
                guest.log().display()
            );
        }
    }
    if !faults.is_empty() {
        bail!("{} faults:\n  {}", faults.len(), faults.join("\n  "));
    }
    println!(
        "{passed} passed, {} of them only when they ran again, 0 failed, {} skipped",
        unsteady.len(),
        skipped.len()
    );
    Ok(())
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
