//! A program that watches while something is measured: how long until it does, what it costs, what it says.

use std::{
    fs::{self, File},
    path::PathBuf,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use nix::{
    sys::signal::Signal,
    unistd::{SysconfVar, sysconf},
};
use probe_lab::{Child, wait_until};
use tempfile::TempDir;

use super::{agent::status, statistics::Runs};

/// A tracer that watches.
pub struct Tracer {
    /// Its program.
    name: String,
    child: Child,
    /// What it prints.
    files: TempDir,
    ready: Duration,
    /// Peak memory and CPU time at that moment, user and system.
    peak_bytes: u64,
    cpu: (Duration, Duration),
}

/// What a run came to.
pub struct Finished {
    pub ready: Duration,
    /// Peak memory until then.
    pub ready_peak_bytes: u64,
    pub user: Duration,
    pub system: Duration,
    pub peak_bytes: u64,
    /// What it printed.
    pub out: String,
    pub err: String,
}

impl Finished {
    /// Instructions of user space from start to end, as callgrind prints them: `Collected : 147314793`.
    ///
    /// # Errors
    /// When it did not run under callgrind.
    pub fn instructions(&self) -> Result<u64> {
        let counted = self.err.lines().find_map(|line| line.split_once("Collected :"));
        let (_, count) = counted.context("callgrind printed no count of instructions")?;
        Ok(count.trim().parse()?)
    }
}

impl Tracer {
    /// Starts `name` and waits until it prints `says`.
    pub fn start(name: &str, command: &mut Command, says: &str) -> Result<Self> {
        let files = tempfile::tempdir()?;
        let (out, err) = (files.path().join("out"), files.path().join("err"));
        let start = Instant::now();
        command
            .stdin(Stdio::null())
            .stdout(File::create(&out)?)
            .stderr(File::create(&err)?);
        let mut child = Child::spawn(command)?;
        let text = || -> String {
            let of = |path| fs::read_to_string(path).unwrap_or_default();
            of(&err) + &of(&out)
        };
        let watching = wait_until(&format!("{name} traces"), Duration::from_secs(30), || {
            let ended = child.inner().try_wait().ok().flatten().is_some();
            let watching = text().contains(says);
            (watching || ended).then_some(watching)
        })?;
        if !watching {
            bail!("{name} ended before it traced:\n{}", text());
        }
        let mut tracer = Self {
            name: name.to_owned(),
            child,
            files,
            ready: start.elapsed(),
            peak_bytes: 0,
            cpu: Default::default(),
        };
        tracer.peak_bytes = tracer.peak_bytes()?;
        tracer.cpu = tracer.cpu()?;
        Ok(tracer)
    }

    pub fn runs(&self) -> Result<Runs> {
        Runs::of_process(self.child.pid())
    }

    /// Ends it as Ctrl-C does, once it has printed what it has.
    pub fn finish(mut self) -> Result<Finished> {
        self.settle()?;
        if let Some(status) = self.child.inner().try_wait()? {
            bail!(
                "{} ended while it was measured, {status}:\n{}",
                self.name,
                self.text("err")?
            );
        }
        let peak_bytes = self.peak_bytes()?;
        let (user, system) = self.cpu()?;
        // bpftrace 0.17 now and then misses one.
        for attempt in 1.. {
            self.child.signal(Signal::SIGINT)?;
            let ended = wait_until("the tracer ends after Ctrl-C", Duration::from_secs(5), || {
                self.child.inner().try_wait().ok().flatten()
            });
            match ended {
                Ok(_) => break,
                Err(error) if attempt == 3 => return Err(error),
                Err(_) => {}
            }
        }
        Ok(Finished {
            ready: self.ready,
            ready_peak_bytes: self.peak_bytes,
            user: user.saturating_sub(self.cpu.0),
            system: system.saturating_sub(self.cpu.1),
            peak_bytes,
            out: self.text("out")?,
            err: self.text("err")?,
        })
    }

    /// What it printed to `out` or `err`.
    fn text(&self, name: &str) -> Result<String> {
        let bytes = fs::read(self.file(name))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    fn file(&self, name: &str) -> PathBuf {
        self.files.path().join(name)
    }

    /// The most that it had in memory so far.
    fn peak_bytes(&self) -> Result<u64> {
        status(self.child.pid(), "VmHWM:")
    }

    /// CPU time so far, of all threads.
    pub fn cpu_time(&self) -> Result<Duration> {
        let (user, system) = self.cpu()?;
        Ok(user + system)
    }

    /// The same, user and system.
    fn cpu(&self) -> Result<(Duration, Duration)> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.pid()))?;
        let (_, fields) = stat.rsplit_once(')').context("a malformed /proc/PID/stat")?;
        let per_second = sysconf(SysconfVar::CLK_TCK)?.unwrap_or(100) as f64;
        let mut times = fields.split_whitespace().skip(11).take(2).map(|ticks| {
            let ticks: f64 = ticks.parse()?;
            anyhow::Ok(Duration::from_secs_f64(ticks / per_second))
        });
        let mut time = || times.next().context("a malformed /proc/PID/stat")?;
        Ok((time()?, time()?))
    }

    /// Waits until it has printed what it has.
    fn settle(&self) -> Result<()> {
        const STILL: Duration = Duration::from_millis(200);
        let out = self.file("out");
        let size = || fs::metadata(&out).map_or(0, |metadata| metadata.len());
        let (mut last, mut since) = (size(), Instant::now());
        wait_until("the tracer has printed all", Duration::from_secs(60), || {
            if size() != last {
                (last, since) = (size(), Instant::now());
            }
            (since.elapsed() > STILL).then_some(())
        })
    }
}
