//! cargo as a child, with its progress. On a terminal that is cargo's own bar. In a log it is a line every 30 s with what
//! cargo's bar shows, in place of hundreds of lines "Compiling x".

use std::{
    io::{self, BufReader, IsTerminal, Read},
    process::{Command, Stdio},
    thread,
};

use anyhow::{Context, Result};

use crate::{progress::Progress, run};

/// Runs cargo, its output on ours.
///
/// # Errors
/// When it can't be run or fails.
pub fn run(what: impl Into<String>, note: &str, command: &mut Command) -> Result<()> {
    child(what.into(), note, command.stdout(Stdio::inherit())).map(|_| ())
}

/// Runs cargo and gives back its standard output, such as its messages in JSON.
///
/// # Errors
/// When it can't be run or fails.
pub fn output(what: impl Into<String>, note: &str, command: &mut Command) -> Result<String> {
    child(what.into(), note, command.stdout(Stdio::piped()))
}

fn child(what: String, note: &str, command: &mut Command) -> Result<String> {
    let has_bar = io::stderr().is_terminal();
    let progress = if has_bar {
        Progress::without_heartbeat(what, note)
    } else {
        // cargo's bar ends with a carriage return wherever it goes. The width is room for names.
        command
            .env("CARGO_TERM_PROGRESS_WHEN", "always")
            .env("CARGO_TERM_PROGRESS_WIDTH", "120")
            .stderr(Stdio::piped());
        Progress::start(what, note)
    };
    let mut child = command
        .spawn()
        .with_context(|| format!("can't run {}", run::words(command)))?;
    let stderr = child.stderr.take();
    let output = thread::scope(|scope| {
        if let Some(stderr) = stderr {
            let progress = &progress;
            scope.spawn(move || follow(stderr, progress));
        }
        child.wait_with_output()
    })
    .with_context(|| format!("can't wait for {}", run::words(command)))?;
    run::succeeded(command, output.status)?;
    progress.done();
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Reads cargo's standard error to its end: passes messages on, and sets how far it is.
fn follow(stderr: impl Read, progress: &Progress) {
    let mut bytes = Vec::new();
    for byte in BufReader::new(stderr).bytes().map_while(Result::ok) {
        bytes.push(byte);
        if matches!(byte, b'\r' | b'\n') {
            show(&bytes, progress);
            bytes.clear();
        }
    }
    show(&bytes, progress);
}

fn show(bytes: &[u8], progress: &Progress) {
    match Part::of(&String::from_utf8_lossy(bytes)) {
        Part::HowFar(how_far) => progress.set(how_far),
        Part::Unit => {}
        Part::Binary(text) => {
            eprintln!("{text}");
            progress.set(text.trim());
        }
        Part::Message(text) => eprint!("{text}"),
    }
}

/// A part of cargo's standard error, up to a carriage return or a new line.
#[derive(Debug, PartialEq, Eq)]
enum Part {
    /// cargo's bar, such as `12 of 373: serde, syn`.
    HowFar(String),
    /// What the bar shows too.
    Unit,
    /// `Running` and a program of tests.
    Binary(String),
    /// All else: warnings, errors, what tests print.
    Message(String),
}

impl Part {
    fn of(text: &str) -> Self {
        if let Some(bar) = text.strip_suffix('\r') {
            return Self::HowFar(how_far(bar));
        }
        // cargo aligns the word of its status lines to the right of 12 columns.
        let status = text
            .split_at_checked(12)
            .filter(|(_, rest)| rest.starts_with(' '))
            .map_or("", |(status, _)| status.trim_start());
        match status {
            "Adding" | "Checking" | "Compiling" | "Dirty" | "Downloaded" | "Downloading" | "Finished"
            | "Fresh" | "Locking" | "Updating" => Self::Unit,
            "Running" => Self::Binary(text.trim_end().to_owned()),
            _ => Self::Message(text.to_owned()),
        }
    }
}

/// From `Building [===>    ] 12/373: serde, syn`, or the bar of a download as it is.
fn how_far(bar: &str) -> String {
    let bar = bar.trim();
    let far = bar
        .strip_prefix("Building [")
        .and_then(|rest| rest.split_once("] "))
        .and_then(|(_, rest)| rest.split_once('/'));
    far.map_or_else(|| bar.to_owned(), |(done, rest)| format!("{done} of {rest}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_cargos_output() {
        let message = |text: &str| Part::Message(text.to_owned());
        for (text, expected) in [
            (
                "    Building [===>        ] 12/373: serde, syn(build.rs)       \r",
                Part::HowFar("12 of 373: serde, syn(build.rs)".to_owned()),
            ),
            (
                "    Building [============] 373/373: probe(bin)\r",
                Part::HowFar("373 of 373: probe(bin)".to_owned()),
            ),
            (
                " Downloading 3 crates, remaining bytes: 1.2MiB   \r",
                Part::HowFar("Downloading 3 crates, remaining bytes: 1.2MiB".to_owned()),
            ),
            ("   Compiling serde v1.0.228\n", Part::Unit),
            ("    Checking probe-user v0.1.0 (/probe)\n", Part::Unit),
            (
                "    Finished `release` profile [optimized] target(s) in 3.1s\n",
                Part::Unit,
            ),
            (
                "     Running unittests src/main.rs (target/debug/deps/xtask-1)\n",
                Part::Binary("     Running unittests src/main.rs (target/debug/deps/xtask-1)".to_owned()),
            ),
            (
                "    Blocking waiting for file lock on build directory\n",
                message("    Blocking waiting for file lock on build directory\n"),
            ),
            (
                "warning: unused variable: `x`\n",
                message("warning: unused variable: `x`\n"),
            ),
            ("Compiling a filter\n", message("Compiling a filter\n")),
            ("\n", message("\n")),
            ("", message("")),
            ("äöüäöüäöü x\n", message("äöüäöüäöü x\n")),
        ] {
            assert_eq!(Part::of(text), expected, "{text:?}");
        }
    }
}
