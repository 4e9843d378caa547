//! What is measured: probe, and bpftrace with a script that does the same.

use std::{
    fs::{self, File},
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use nix::{
    sys::signal::Signal,
    unistd::{SysconfVar, sysconf},
};
use probe_lab::{Child, wait_until};
use serde_json::Value;
use tempfile::TempDir;

use super::{OTHER_PORT, PORT, statistics::Runs};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Probe,
    /// Watching a port that the storm does not use.
    ProbeElsewhere,
    Bpftrace,
}

/// A tracer that watches.
pub struct Tracer {
    kind: Kind,
    child: Child,
    /// What it prints.
    files: TempDir,
    ready: Duration,
    /// CPU time at that moment, user and system.
    cpu: (Duration, Duration),
}

/// What a run came to.
#[derive(Clone, Copy, Debug)]
pub struct Outcome {
    pub ready: Duration,
    pub user: Duration,
    pub system: Duration,
    pub peak_bytes: u64,
    pub records: u64,
    pub lost: u64,
}

impl Kind {
    pub fn installed(self) -> bool {
        self != Self::Bpftrace || Path::new("/usr/bin/bpftrace").exists()
    }

    fn command(self, probe: &Path) -> Command {
        let watch = |port: u16| {
            let mut command = Command::new(probe);
            command.args(["watch", "--all", "-o", "json", "--port", &port.to_string()]);
            command
        };
        match self {
            Self::Probe => watch(PORT),
            Self::ProbeElsewhere => watch(OTHER_PORT),
            Self::Bpftrace => {
                let mut command = Command::new("bpftrace");
                command.args(["-e", &script()]);
                command
            }
        }
    }

    /// What it says once it watches.
    const fn says(self) -> &'static str {
        match self {
            Self::Probe | Self::ProbeElsewhere => "watching ",
            Self::Bpftrace => "ready",
        }
    }
}

/// Connections of a port as they end: who, both ends, how long, the last state. As probe does, without names of
/// pods, outcomes and bytes, which bpftrace can't tell.
fn script() -> String {
    format!(
        r#"
BEGIN {{ printf("ready\n"); }}
tracepoint:sock:inet_sock_set_state /args->protocol == 6 && (args->dport == {PORT} || args->sport == {PORT})/ {{
    if (args->newstate == 2) {{
        @start[args->skaddr] = nsecs; @pid[args->skaddr] = pid; @comm[args->skaddr] = comm;
    }} else if (args->newstate == 1 && @start[args->skaddr] == 0) {{
        @start[args->skaddr] = nsecs;
    }} else if (args->newstate == 9 || args->newstate == 4) {{
        @pid[args->skaddr] = pid; @comm[args->skaddr] = comm;
    }} else if (args->newstate == 7 && @start[args->skaddr] != 0) {{
        printf("%llu %d %s %d %s %d %s %d %llu\n", nsecs, @pid[args->skaddr], @comm[args->skaddr], args->oldstate,
            ntop(args->family, args->saddr), args->sport, ntop(args->family, args->daddr), args->dport,
            (nsecs - @start[args->skaddr]) / 1000);
        delete(@start[args->skaddr]); delete(@pid[args->skaddr]); delete(@comm[args->skaddr]);
    }}
}}
"#
    )
}

impl Tracer {
    /// Starts it and waits until it watches.
    pub fn start(kind: Kind, probe: &Path) -> Result<Self> {
        let files = tempfile::tempdir()?;
        let (out, err) = (files.path().join("out"), files.path().join("err"));
        let start = Instant::now();
        let mut command = kind.command(probe);
        command
            .stdin(Stdio::null())
            .stdout(File::create(&out)?)
            .stderr(File::create(&err)?);
        let mut child = Child::spawn(&mut command)?;
        let text = || -> String {
            let of = |path| fs::read_to_string(path).unwrap_or_default();
            of(&err) + &of(&out)
        };
        let watching = wait_until("the tracer watches", Duration::from_secs(30), || {
            let ended = child.inner().try_wait().ok().flatten().is_some();
            let watching = text().contains(kind.says());
            (watching || ended).then_some(watching)
        })?;
        if !watching {
            bail!("{kind:?} ended before it watched: {}", text());
        }
        let mut tracer = Self {
            kind,
            child,
            files,
            ready: start.elapsed(),
            cpu: Default::default(),
        };
        tracer.cpu = tracer.cpu()?;
        Ok(tracer)
    }

    pub fn runs(&self) -> Result<Runs> {
        Runs::of_process(self.child.pid())
    }

    /// Ends it as Ctrl-C does.
    pub fn finish(mut self) -> Result<Outcome> {
        self.settle()?;
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.pid()))?;
        let peak = status
            .lines()
            .find_map(|line| line.strip_prefix("VmHWM:"))
            .context("no VmHWM")?;
        let peak: u64 = peak.trim().trim_end_matches("kB").trim().parse()?;
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
        let (records, lost) = self.records()?;
        Ok(Outcome {
            ready: self.ready,
            user: user.saturating_sub(self.cpu.0),
            system: system.saturating_sub(self.cpu.1),
            peak_bytes: peak * 1024,
            records,
            lost,
        })
    }

    /// CPU time so far, user and system, of all threads.
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
        let out = self.files.path().join("out");
        let size = || fs::metadata(&out).map_or(0, |metadata| metadata.len());
        let (mut last, mut since) = (size(), Instant::now());
        wait_until("the tracer has printed all", Duration::from_secs(60), || {
            if size() != last {
                (last, since) = (size(), Instant::now());
            }
            (since.elapsed() > STILL).then_some(())
        })
    }

    /// Records printed and records lost, as it says itself.
    fn records(&self) -> Result<(u64, u64)> {
        let text = |name| -> Result<String> {
            let bytes = fs::read(self.files.path().join(name))?;
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        };
        let out = text("out")?;
        if self.kind == Kind::Bpftrace {
            let all = out + &text("err")?;
            let records = all
                .lines()
                .filter(|line| line.starts_with(|c: char| c.is_ascii_digit()));
            let lost = all
                .lines()
                .filter_map(|line| line.strip_prefix("Lost ")?.split(' ').next()?.parse::<u64>().ok());
            return Ok((records.count() as u64, lost.sum()));
        }
        let last = out.lines().next_back();
        let summary: Value =
            serde_json::from_str(last.unwrap_or_default()).context("no summary of probe's")?;
        let number = |value: &Value| value.as_u64().context("no number in probe's summary");
        Ok((
            number(&summary["reported"])?,
            number(&summary["lost"]["records"])?,
        ))
    }
}
