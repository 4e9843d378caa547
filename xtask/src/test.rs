//! `cargo xtask test`: all that CI checks, with one table at the end.

use std::time::Instant;

use anyhow::{Result, bail};

use crate::{
    apt, architecture, bytecode, cargo, deny, image::binary::Target, matrix, monitoring, msrv, root, run,
    scenarios,
};

#[derive(clap::Args)]
pub struct Args {
    /// Only these steps: format, architecture, kernels, lint, deny, advisories, msrv, static, unit, bytecode, alerts, lab; repeat or separate by commas
    #[arg(long, value_name = "STEP", value_delimiter = ',', value_parser = STEPS.map(|(name, ..)| name))]
    only: Vec<String>,
    /// Leave the lab out: it needs root, for network namespaces and BPF
    #[arg(long)]
    no_lab: bool,
}

/// What the image is built for.
const STATIC: Target = Target::here();

type Step = (&'static str, &'static str, fn() -> Result<()>);

const STEPS: [Step; 12] = [
    ("format", "formatting", format),
    (
        "architecture",
        "crates and rooms use what they may",
        architecture::check,
    ),
    (
        "kernels",
        "the record of kernels is of these sources",
        matrix::check_record,
    ),
    ("lint", "clippy, warnings denied", lint),
    ("deny", "dependencies: licences, duplicates, sources", deny::check),
    (
        "advisories",
        "dependencies: known vulnerabilities",
        deny::advisories,
    ),
    (
        "msrv",
        "compiles with the oldest Rust, without glibc",
        declared_rust,
    ),
    (
        "static",
        "the image's binary compiles, without glibc",
        without_glibc,
    ),
    ("unit", "unit tests", unit),
    ("bytecode", "objects are what the sources give", objects),
    ("alerts", "alert rules, checked and tested by promtool", alerts),
    ("lab", "scenarios in network namespaces, real etcd", lab),
];

pub fn run(args: &Args) -> Result<()> {
    let mut rows = Vec::new();
    for (name, what, step) in STEPS {
        if !includes(args, name) {
            continue;
        }
        println!("\n=== {name}: {what}");
        let start = Instant::now();
        if let Some(why) = missing(name, args) {
            rows.push((name, what, Err(why), 0.0));
            continue;
        }
        let result = step();
        if let Err(error) = &result {
            println!("{name} failed: {error:#}");
        }
        rows.push((name, what, Ok(result.is_ok()), start.elapsed().as_secs_f64()));
    }
    println!();
    let (mut passed, mut failed, mut skipped) = (0, 0, 0);
    for (name, what, result, seconds) in rows {
        let told = match result {
            Ok(true) => {
                passed += 1;
                format!("passed in {seconds:.0} s")
            }
            Ok(false) => {
                failed += 1;
                format!("FAILED in {seconds:.0} s")
            }
            Err(why) => {
                skipped += 1;
                format!("skipped: {why}")
            }
        };
        println!("{name:<13}{what:<46}{told}");
    }
    println!("{passed} passed, {failed} failed, {skipped} skipped");
    if failed > 0 {
        bail!("{failed} of {} steps failed", passed + failed);
    }
    Ok(())
}

/// Whether a step was asked for.
fn includes(args: &Args, name: &str) -> bool {
    args.only.is_empty() || args.only.iter().any(|only| only == name)
}

/// What a step can't do without; it is skipped, then.
fn missing(name: &str, args: &Args) -> Option<String> {
    match name {
        "lab" => args.no_lab.then(|| "--no-lab".to_owned()),
        // `msrv` compiles the same, unless it can't be had.
        "static" if includes(args, "msrv") && msrv::install(STATIC).is_ok() => {
            Some("part of msrv".to_owned())
        }
        // Where only Debian's packages can be had, this can't.
        "static" => STATIC.install().err().map(|error| format!("{error:#}")),
        "deny" => unchecked(deny::install()),
        "advisories" => unchecked(deny::fetch()),
        "msrv" => unchecked(msrv::install(STATIC)),
        _ => None,
    }
}

/// The reason in one line for the table, and the whole of it where the step would have run.
fn unchecked<T>(tool: Result<T>) -> Option<String> {
    let error = tool.err()?;
    println!("unchecked: {error:#}");
    Some(format!("unchecked, {error}"))
}

fn format() -> Result<()> {
    run::run(run::cargo().args(["fmt", "--all", "--check"]))
}

fn lint() -> Result<()> {
    // The kernel sources are compiled with warnings denied where the objects are built.
    cargo::run(
        "running clippy",
        "",
        run::cargo().args([
            "clippy",
            "--workspace",
            "--all-targets",
            "--locked",
            "--",
            "-Dwarnings",
        ]),
    )
}

fn declared_rust() -> Result<()> {
    msrv::check(STATIC)
}

fn without_glibc() -> Result<()> {
    STATIC.compiles()
}

fn unit() -> Result<()> {
    cargo::run(
        "running unit tests",
        "",
        run::cargo().args([
            "test",
            "--workspace",
            "--lib",
            "--bins",
            "--locked",
            "--",
            "--quiet",
        ]),
    )
}

fn objects() -> Result<()> {
    bytecode::run(&bytecode::Args { check: true })
}

fn alerts() -> Result<()> {
    monitoring::run(&monitoring::Args { write: false })
}

fn lab() -> Result<()> {
    apt::install("the lab", &probe_lab::PACKAGES)?;
    apt::install("the lab's rule sets of network plugins", &["ipset"])?;
    // A client of etcd that it rejects.
    apt::install("the lab's etcdctl", &["etcd-client"])?;
    apt::install("the lab's container runtime", &probe_lab::RUNTIME_PACKAGES)?;
    let probe = run::build_probe()?;
    let scenarios = scenarios::build()?;
    if !root::is() && !root::sudo_works() {
        bail!(
            "the lab needs root for network namespaces and BPF, and sudo wants a password: run `sudo true` before, \
             or leave the lab out with --no-lab"
        );
    }
    scenarios::run(&scenarios, &probe)
}
