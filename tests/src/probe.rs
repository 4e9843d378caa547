//! `probe` as its user runs it.

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

use crate::{
    netns::Netns,
    process::Child,
    wait::{patience, wait_until},
};

/// For what happens at once; generous, since machines are busy.
const SOON: Duration = Duration::from_secs(20);

/// After so long without another record there is none to come.
const QUIET: Duration = Duration::from_secs(5);

/// A running `probe watch -o json`, `probe vxlan -o json` or another that tells until it is ended.
pub struct Probe {
    child: Child,
    records: Arc<Mutex<Vec<Value>>>,
    stderr: Arc<Mutex<String>>,
    readers: Vec<JoinHandle<()>>,
}

/// All of a run that has ended.
#[derive(Debug)]
pub struct Run {
    pub records: Vec<Value>,
    pub summary: Value,
    pub stderr: String,
    pub status: ExitStatus,
}

impl Run {
    /// Ends of connections that the kernel hid from probe and probe counted: from 6.1 on the kernel does not run a tracing
    /// program that an interrupt finds running on that processor, so what packets in that interrupt do may be unseen.
    pub fn hidden(&self) -> u64 {
        let lost = |name: &str| self.summary["lost"][name].as_u64().unwrap_or(0);
        lost("unended") + lost("unfollowed") + lost("skipped")
    }
}

impl Probe {
    /// The binary under test: `PROBE_BIN`, or what cargo built.
    pub fn binary() -> Result<PathBuf> {
        if let Some(path) = std::env::var_os("PROBE_BIN") {
            return Ok(path.into());
        }
        let target = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../target"));
        for build in ["release/probe", "debug/probe"] {
            let path = target.join(build);
            if path.exists() {
                return Ok(path);
            }
        }
        bail!("no probe to test: build it with `cargo build --release`, or name it in PROBE_BIN")
    }

    /// `probe` with any arguments.
    pub fn command(arguments: &[&str]) -> Result<Command> {
        let mut command = Command::new(Self::binary()?);
        command.args(arguments).stdin(Stdio::null());
        Ok(command)
    }

    /// Starts `probe watch -o json` and waits until it watches.
    pub fn watch(arguments: &[&str]) -> Result<Self> {
        Self::start(&mut Self::command(&[])?, arguments)
    }

    /// Starts `probe vxlan -o json` in a network namespace and waits until it watches: a record a look, twice a second.
    pub fn vxlan(netns: &Netns, arguments: &[&str]) -> Result<Self> {
        let file = format!("/run/netns/{}", netns.name());
        let fixed = ["vxlan", "-o", "json", "--interval", "500ms", "--netns", &file];
        Self::run(Self::command(&fixed)?.args(arguments))
    }

    /// Starts `probe bypass -o json` in a network namespace and waits until it watches: a record a look, twice a second.
    pub fn bypass(netns: &Netns, arguments: &[&str]) -> Result<Self> {
        Self::bypass_by(&mut Self::command(&[])?, netns, arguments)
    }

    /// The same with `probe` started in another way: `command` is it without arguments.
    pub fn bypass_by(command: &mut Command, netns: &Netns, arguments: &[&str]) -> Result<Self> {
        let file = format!("/run/netns/{}", netns.name());
        let fixed = [
            "bypass",
            "-o",
            "json",
            "--interval",
            "500ms",
            "--cri",
            "none",
            "--netns",
            &file,
        ];
        Self::run(command.args(fixed).args(arguments))
    }

    /// Starts `probe path -o json` and waits until it follows packets.
    pub fn path(arguments: &[&str]) -> Result<Self> {
        Self::run(Self::command(&["path", "-o", "json", "--cri", "none"])?.args(arguments))
    }

    /// `probe watch` with `probe` started in another way: `command` is it without arguments.
    pub fn start(command: &mut Command, arguments: &[&str]) -> Result<Self> {
        Self::run(command.args(["watch", "-o", "json"]).args(arguments))
    }

    fn run(command: &mut Command) -> Result<Self> {
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = Child::spawn(command)?;
        let stdout = child.inner().stdout.take().context("no stdout")?;
        let stderr = child.inner().stderr.take().context("no stderr")?;
        let (records, text) = (
            Arc::<Mutex<Vec<Value>>>::default(),
            Arc::<Mutex<String>>::default(),
        );
        // One thread only reads: in a storm, one that also understands would hold probe up.
        let (lines, unread) = mpsc::channel();
        let readers = vec![
            thread::spawn(move || {
                for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                    if lines.send(line).is_err() {
                        return;
                    }
                }
            }),
            thread::spawn({
                let records = Arc::clone(&records);
                move || {
                    for line in unread {
                        let value = serde_json::from_str(&line).unwrap_or(Value::String(line));
                        lock(&records).push(value);
                    }
                }
            }),
            thread::spawn({
                let text = Arc::clone(&text);
                move || {
                    let (mut stderr, mut buffer) = (stderr, [0; 4096]);
                    while let Ok(read @ 1..) = stderr.read(&mut buffer) {
                        lock(&text)
                            .push_str(&String::from_utf8_lossy(buffer.get(..read).unwrap_or_default()));
                    }
                }
            }),
        ];
        let mut probe = Self {
            child,
            records,
            stderr: text,
            readers,
        };
        let ready = wait_until("probe says that it watches", SOON, || {
            let watching = lock(&probe.stderr)
                .lines()
                .any(|line| line.starts_with("watching "));
            let ended = probe.child.inner().try_wait().ok().flatten().is_some();
            (watching || ended).then_some(watching)
        })?;
        if !ready {
            bail!("probe ended before it watched: {}", lock(&probe.stderr));
        }
        Ok(probe)
    }

    pub fn pid(&self) -> u32 {
        self.child.pid()
    }

    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.child.signal(signal)
    }

    /// Waits until `wanted` records came that `select` takes, and gives them back.
    pub fn wait_for(&self, wanted: usize, select: impl Fn(&Value) -> bool) -> Result<Vec<Value>> {
        self.wait_for_within(SOON, wanted, select)
    }

    pub fn wait_for_within(
        &self,
        timeout: Duration,
        wanted: usize,
        select: impl Fn(&Value) -> bool,
    ) -> Result<Vec<Value>> {
        // Counted under the lock and copied once: there may be tens of thousands.
        wait_until(&format!("{wanted} records of probe"), timeout, || {
            let records = lock(&self.records);
            let found = || records.iter().filter(|record| select(record));
            (found().count() >= wanted).then(|| found().cloned().collect())
        })
        .with_context(|| {
            let state = state(self.pid());
            let lost = self.lost();
            let records = lock(&self.records);
            format!(
                "{} records so far, the last: {:#?}; it said {:?}, is {state} and lost {lost:#}",
                records.len(),
                records.iter().rev().take(5).collect::<Vec<_>>(),
                lock(&self.stderr),
            )
        })
    }

    /// Waits until as many records came that `select` takes, or none comes any more: where the kernel may hide one from
    /// probe, which [`Run::hidden`] counts.
    pub fn wait_for_most(&self, wanted: usize, select: impl Fn(&Value) -> bool) -> Result<Vec<Value>> {
        let (mut count, mut since) = (0, Instant::now());
        let found = || -> Vec<Value> {
            let records = lock(&self.records);
            records.iter().filter(|record| select(record)).cloned().collect()
        };
        wait_until("no more records of probe", 5 * SOON, || {
            let found = found();
            if found.len() > count {
                (count, since) = (found.len(), Instant::now());
            }
            (count >= wanted || since.elapsed() > QUIET * patience()).then_some(found)
        })
    }

    /// How many records there are so far.
    pub fn seen(&self) -> usize {
        lock(&self.records).len()
    }

    /// The records after so many.
    pub fn since(&self, seen: usize) -> Vec<Value> {
        lock(&self.records).iter().skip(seen).cloned().collect()
    }

    /// Waits until it has said so on stderr.
    pub fn says(&self, words: &str) -> Result<()> {
        wait_until(&format!("probe says {words:?}"), SOON, || {
            lock(&self.stderr).contains(words).then_some(())
        })
        .with_context(|| format!("it said {:?}", lock(&self.stderr)))
    }

    /// Ends it for what its summary says was lost.
    fn lost(&self) -> Value {
        let _ = self.signal(Signal::SIGINT);
        let summary = wait_until("the summary", SOON, || {
            let records = lock(&self.records);
            records.last().filter(|last| last["event"] == "summary").cloned()
        });
        summary.map(|summary| summary["lost"].clone()).unwrap_or_default()
    }

    /// Ends it as Ctrl-C does.
    pub fn finish(self) -> Result<Run> {
        self.child.signal(Signal::SIGINT)?;
        self.ended()
    }

    /// `probe` in a pid namespace and mounts of its own, for what is started with a command: the first process is a shell
    /// that runs `script`, in which `"$0" "$@"` is probe with its arguments.
    ///
    /// # Errors
    /// When there is no probe to test.
    pub fn in_container(script: &str) -> Result<Command> {
        let mut command = Command::new("unshare");
        command
            .args(["--pid", "--fork", "--kill-child", "--mount", "--mount-proc"])
            .args(["sh", "-c", script])
            .arg(Self::binary()?);
        Ok(command)
    }

    /// Ends one that a container's processes began, and they end when it does. `word` is in its command line only. Not the
    /// container first: kernels before 6.9 hang for good when its first process ends while one in it takes programs away
    /// from functions, or waits for a lock of another that does.
    ///
    /// # Errors
    /// When there is none, or it can't be ended.
    pub fn end_in_container(mut self, word: &str) -> Result<ExitStatus> {
        let binary = Self::binary()?;
        let is_it = |process: &Path| {
            let line = fs::read(process.join("cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line).into_owned();
            let mut words = line.split('\0');
            words.next().is_some_and(|name| *name == *binary.as_os_str())
                && words.any(|has| has.contains(word))
        };
        let process = fs::read_dir("/proc")?
            .flatten()
            .map(|entry| entry.path())
            .find(|process| is_it(process));
        let process = process.with_context(|| format!("no probe has {word} in its command line"))?;
        let pid = process.file_name().and_then(|name| name.to_str()?.parse().ok());
        kill(Pid::from_raw(pid.context("no process")?), Signal::SIGINT)?;
        self.child.wait()
    }

    /// Waits until it ends by itself.
    pub fn ended(mut self) -> Result<Run> {
        let status = self.child.wait()?;
        for reader in self.readers.drain(..) {
            let _ = reader.join();
        }
        let mut records = std::mem::take(&mut *lock(&self.records));
        let stderr = lock(&self.stderr).clone();
        let summary = records.pop().filter(|last| last["event"] == "summary");
        let summary = summary.with_context(|| format!("no summary at the end; stderr: {stderr}"))?;
        Ok(Run {
            records,
            summary,
            stderr,
            status,
        })
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the kernel says a process is doing.
fn state(pid: u32) -> String {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let state = status.lines().find_map(|line| line.strip_prefix("State:"));
    state.map_or_else(|| "gone".to_owned(), |state| state.trim().to_owned())
}
