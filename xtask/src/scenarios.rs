//! The programs of scenarios: built, and run on this machine.

use std::{
    collections::BTreeSet,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::{cargo, root, run};

/// A program of scenarios.
pub struct Program {
    pub name: String,
    pub path: PathBuf,
}

/// All of them, sorted by name.
pub fn build() -> Result<Vec<Program>> {
    let mut cargo = run::cargo();
    cargo
        .args([
            "test",
            "--no-run",
            "--package",
            "probe-lab",
            "--tests",
            "--locked",
        ])
        .arg("--message-format=json-render-diagnostics");
    let messages = cargo::output("building the scenarios", "", &mut cargo)?;
    let mut found: Vec<Program> = messages.lines().filter_map(program).collect();
    found.sort_by(|one, other| one.name.cmp(&other.name));
    found.dedup_by(|one, other| one.name == other.name);
    if found.is_empty() {
        bail!("cargo built no program of scenarios");
    }
    Ok(found)
}

/// Out of one of cargo's messages.
fn program(message: &str) -> Option<Program> {
    let message: Value = serde_json::from_str(message).ok()?;
    let target = &message["target"];
    let kinds = target["kind"].as_array()?;
    kinds.iter().any(|kind| kind == "test").then_some(())?;
    Some(Program {
        name: target["name"].as_str()?.to_owned(),
        path: message["executable"].as_str()?.into(),
    })
}

/// What the test runner's line says of one scenario: its name, and whether it passed.
pub fn verdict(line: &str) -> Option<(&str, bool)> {
    let (name, verdict) = line.strip_prefix("test ")?.split_once(" ... ")?;
    Some((name, verdict == "ok"))
}

/// The names of a program's scenarios, by its test runner.
pub fn list(program: &Path) -> Result<BTreeSet<String>> {
    let text = run::output(Command::new(program).args(["--list", "--format", "terse"]))?;
    Ok(text
        .lines()
        .filter_map(|line| line.strip_suffix(": test"))
        .map(str::to_owned)
        .collect())
}

/// Runs all of `programs`, each once.
///
/// # Errors
/// Names the scenarios that failed.
pub fn run(programs: &[Program], probe: &Path) -> Result<()> {
    let start = Instant::now();
    let mut failed = Vec::new();
    for (number, program) in programs.iter().enumerate() {
        println!(
            "\nscenarios {} ({} of {}, {:.0} s so far)",
            program.name,
            number + 1,
            programs.len(),
            start.elapsed().as_secs_f64()
        );
        let names = run_one(program, probe)?;
        failed.extend(names.into_iter().map(|name| format!("{} {name}", program.name)));
    }
    if !failed.is_empty() {
        bail!("{} scenarios failed: {}", failed.len(), failed.join(", "));
    }
    Ok(())
}

/// Runs a program, its output on ours; the scenarios that failed.
fn run_one(program: &Program, probe: &Path) -> Result<Vec<String>> {
    let mut command = if root::is() {
        Command::new(&program.path)
    } else {
        let mut sudo = Command::new("sudo");
        sudo.args(["-n", "-E"]).arg(&program.path);
        sudo
    };
    let mut child = command
        .env("PROBE_BIN", probe)
        // As cargo has them: in their package.
        .current_dir(run::root().join("tests"))
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("can't run {}", program.path.display()))?;
    let mut failed = Vec::new();
    let out = child.stdout.take().context("no output")?;
    let mut out = BufReader::new(out);
    let mut line = Vec::new();
    while out.read_until(b'\n', &mut line)? > 0 {
        let text = String::from_utf8_lossy(&line);
        print!("{text}");
        if let Some((name, false)) = verdict(text.trim_end()) {
            failed.push(name.to_owned());
        }
        line.clear();
    }
    let status = child.wait()?;
    if status.success() != failed.is_empty() {
        bail!(
            "scenarios {} ended with {status}, and {} said that they failed",
            program.name,
            failed.len()
        );
    }
    Ok(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_test_runner() {
        for (line, expected) in [
            ("test no_reply ... ok", Some(("no_reply", true))),
            ("test no_reply ... FAILED", Some(("no_reply", false))),
            ("test result: ok. 5 passed; 0 failed", None),
            ("no_reply ... ok", None),
        ] {
            assert_eq!(verdict(line), expected, "{line}");
        }
    }

    #[test]
    fn programs_in_cargos_messages() {
        let message = r#"{"target":{"name":"vxlan","kind":["test"]},"executable":"/target/vxlan-1"}"#;
        assert_eq!(
            program(message).map(|program| program.name),
            Some("vxlan".to_owned())
        );
        for other in [
            r#"{"target":{"name":"probe_lab","kind":["lib"]},"executable":"/target/probe_lab-1"}"#,
            r#"{"target":{"name":"vxlan","kind":["test"]},"executable":null}"#,
            "",
        ] {
            assert!(program(other).is_none(), "{other}");
        }
    }
}
