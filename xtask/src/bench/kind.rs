//! What is measured with a storm of connections: probe, and bpftrace with a script that does the same.

use std::{fmt, io, path::Path, process::Command};

use anyhow::{Context, Result};
use serde_json::Value;

use super::{
    tracer::{Finished, Tracer},
    watch::{OTHER_PORT, PORT},
};

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Probe(Output::Json) => "probe",
            Self::Probe(Output::Table) => "probe with a table",
            Self::ProbeElsewhere => "probe on another port",
            Self::ProbeBefore(Output::Json) => "the other probe",
            Self::ProbeBefore(Output::Table) => "the other probe with a table",
            Self::Bpftrace => "bpftrace",
        })
    }
}

/// What probe prints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    Json,
    Table,
}

impl Output {
    /// `-o` of probe.
    const fn name(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Table => "table",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Probe(Output),
    /// Watching a port that the storm does not use.
    ProbeElsewhere,
    /// Another binary of it, that of `--against`.
    ProbeBefore(Output),
    Bpftrace,
}

impl Kind {
    /// Whether it is measured for comparison only: without it the benchmark goes on, with a note.
    pub const fn is_peer(self) -> bool {
        match self {
            Self::Probe(_) | Self::ProbeElsewhere | Self::ProbeBefore(_) => false,
            Self::Bpftrace => true,
        }
    }

    /// Starts it and waits until it watches.
    pub fn start(self, probe: &Path) -> Result<Tracer> {
        if self.is_peer() && !is_on_path(self.program()) {
            let missing = io::Error::from(io::ErrorKind::NotFound);
            return Err(missing).context(format!("no {} in PATH", self.program()));
        }
        Tracer::start(self.program(), &mut self.command(probe), self.says())
    }

    /// The same under valgrind, which counts its instructions: [`Finished::instructions`].
    pub fn start_counted(self, probe: &Path) -> Result<Tracer> {
        let watch = self.command(probe);
        let mut command = Command::new("valgrind");
        command
            .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
            .arg(watch.get_program())
            .args(watch.get_args());
        Tracer::start(self.program(), &mut command, self.says())
            .context("can't count instructions (`apt-get install valgrind`)")
    }

    /// What to do when it is missing or printed this error: a command, and why.
    pub fn fix(self, missing: bool, error: &str) -> Option<&'static str> {
        match self {
            Self::Probe(_) | Self::ProbeElsewhere | Self::ProbeBefore(_) => None,
            Self::Bpftrace => Some(fix_bpftrace(missing, error)),
        }
    }

    /// Its column's heading, in two lines.
    pub const fn heading(self) -> [&'static str; 2] {
        match self {
            Self::Probe(Output::Json) => ["probe", "json"],
            Self::Probe(Output::Table) => ["probe", "table"],
            Self::ProbeElsewhere => ["probe,", "other port"],
            Self::ProbeBefore(Output::Json) => ["--against", "json"],
            Self::ProbeBefore(Output::Table) => ["--against", "table"],
            Self::Bpftrace => ["bpftrace", ""],
        }
    }

    const fn program(self) -> &'static str {
        match self {
            Self::Probe(_) | Self::ProbeElsewhere | Self::ProbeBefore(_) => "probe",
            Self::Bpftrace => "bpftrace",
        }
    }

    fn command(self, probe: &Path) -> Command {
        let watch = |port: u16, output: Output| {
            let mut command = Command::new(probe);
            command.args(["watch", "--all", "-o", output.name(), "--port", &port.to_string()]);
            command
        };
        match self {
            Self::Probe(output) | Self::ProbeBefore(output) => watch(PORT, output),
            Self::ProbeElsewhere => watch(OTHER_PORT, Output::Json),
            Self::Bpftrace => {
                let mut command = with_tracefs(self.program());
                command.args(["-e", &script()]);
                command
            }
        }
    }

    /// What it says once it watches.
    const fn says(self) -> &'static str {
        match self {
            Self::Probe(_) | Self::ProbeElsewhere | Self::ProbeBefore(_) => "watching ",
            Self::Bpftrace => "ready",
        }
    }

    /// Records printed and records lost, as it says itself.
    pub fn records(self, finished: &Finished) -> Result<(u64, u64)> {
        if self == Self::Bpftrace {
            let all = || finished.out.lines().chain(finished.err.lines());
            let records = all().filter(|line| line.starts_with(|c: char| c.is_ascii_digit()));
            let lost =
                all().filter_map(|line| line.strip_prefix("Lost ")?.split(' ').next()?.parse::<u64>().ok());
            return Ok((records.count() as u64, lost.sum()));
        }
        if let Self::Probe(Output::Table) | Self::ProbeBefore(Output::Table) = self {
            // `…: 120000 shown, 6 sources.`, and where some are lost `  12 records lost, …`.
            let number_before = |after: &str| {
                let mut lines = finished.out.lines().rev();
                let before = lines.find_map(|line| Some(line.split_once(after)?.0))?;
                before.rsplit(' ').next()?.parse().ok()
            };
            let reported = number_before(" shown, ").context("no summary of probe's")?;
            return Ok((reported, number_before(" records lost").unwrap_or(0)));
        }
        let last = finished.out.lines().next_back();
        let summary: Value =
            serde_json::from_str(last.unwrap_or_default()).context("no summary of probe's")?;
        let number = |value: &Value| value.as_u64().context("no number in probe's summary");
        Ok((
            number(&summary["reported"])?,
            number(&summary["lost"]["records"])?,
        ))
    }
}

fn is_on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| directory.join(program).is_file())
}

/// A program that finds the kernel's tracepoints. Where nobody has mounted tracefs, as in many containers, it gets a
/// mount namespace of its own with it: the machine's mounts stay as they are.
fn with_tracefs(program: &str) -> Command {
    const TRACEFS: &str = "/sys/kernel/tracing";
    if Path::new(TRACEFS).join("events").exists() {
        return Command::new(program);
    }
    let mut command = Command::new("unshare");
    let script = format!("mount -t tracefs tracefs {TRACEFS} && exec \"$@\"");
    command.args(["--mount", "sh", "-c", &script, "sh", program]);
    command
}

fn fix_bpftrace(missing: bool, error: &str) -> &'static str {
    let error = error.to_lowercase();
    if missing {
        "apt-get install bpftrace # Debian's package"
    } else if error.contains("tracepoint not found") {
        "mount -t tracefs tracefs /sys/kernel/tracing # where bpftrace looks up tracepoints"
    } else if error.contains("rlimit") {
        "prlimit --pid $$ --memlock=unlimited # needs CAP_SYS_RESOURCE; in the shell that runs the benchmark"
    } else {
        "bpftrace -e 'BEGIN { exit(); }' # shows whether it works on this machine at all"
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
