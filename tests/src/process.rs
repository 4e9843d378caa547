//! Processes that end with their guard, and commands that must succeed.

use std::{
    os::unix::process::CommandExt as _,
    process::{Command, ExitStatus, Stdio},
    sync::{PoisonError, RwLock},
};

use anyhow::{Context, Result, bail};
use nix::{
    sys::prctl::set_pdeathsig,
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// Held by who forks. A child has copies of all sockets until it executes its program; on a slow machine it may be
/// the last to close one, and is then, rightly, seen as the process that did.
static FORKING: RwLock<()> = RwLock::new(());

/// Runs `talk` while nobody forks: sockets opened and closed in it are closed by this process.
pub fn without_forks<T>(talk: impl FnOnce() -> T) -> T {
    let _quiet = FORKING.read().unwrap_or_else(PoisonError::into_inner);
    talk()
}

fn fork(command: &mut Command) -> std::io::Result<std::process::Child> {
    let _alone = FORKING.write().unwrap_or_else(PoisonError::into_inner);
    // Returns once the child executes.
    command.spawn()
}

/// A running process; dropping it kills it.
#[derive(Debug)]
pub struct Child(std::process::Child);

impl Child {
    /// Starts it in a process group of its own: Ctrl-C is for the lab, which ends what it started. It ends with the
    /// thread that started it, also when the lab is killed.
    pub fn spawn(command: &mut Command) -> Result<Self> {
        command.process_group(0);
        // SAFETY: prctl is async-signal-safe.
        unsafe {
            command.pre_exec(|| set_pdeathsig(Signal::SIGKILL).map_err(std::io::Error::from));
        }
        let program = command.get_program().to_string_lossy().into_owned();
        Ok(Self(
            fork(command).with_context(|| format!("can't start {program}"))?,
        ))
    }

    pub fn pid(&self) -> u32 {
        self.0.id()
    }

    pub fn inner(&mut self) -> &mut std::process::Child {
        &mut self.0
    }

    pub fn signal(&self, signal: Signal) -> Result<()> {
        kill(Pid::from_raw(self.0.id().cast_signed()), signal).context("can't signal a process of the lab")
    }

    pub fn wait(&mut self) -> Result<ExitStatus> {
        self.0.wait().context("can't wait for a process of the lab")
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs a command line, split at spaces, to its end; what it printed is in the error when it fails.
pub fn run(line: &str) -> Result<String> {
    let mut words = line.split_whitespace();
    let mut command = Command::new(words.next().unwrap_or_default());
    output(command.args(words))
}

/// Runs a command to its end and gives back what it printed.
pub fn output(command: &mut Command) -> Result<String> {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let output = fork(command).and_then(std::process::Child::wait_with_output);
    let output = output.with_context(|| format!("can't run {command:?}"))?;
    if !output.status.success() {
        let error = String::from_utf8_lossy(&output.stderr);
        bail!("{command:?} failed: {}: {}", output.status, error.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
