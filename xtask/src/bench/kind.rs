//! What is measured with a storm of connections: probe, and bpftrace with a script that does the same.

use std::{path::Path, process::Command};

use anyhow::{Context, Result};
use serde_json::Value;

use super::{
    tracer::{Finished, Tracer},
    watch::{OTHER_PORT, PORT},
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Probe,
    /// Watching a port that the storm does not use.
    ProbeElsewhere,
    Bpftrace,
}

impl Kind {
    pub fn installed(self) -> bool {
        self != Self::Bpftrace || Path::new("/usr/bin/bpftrace").exists()
    }

    /// Starts it and waits until it watches.
    pub fn start(self, probe: &Path) -> Result<Tracer> {
        Tracer::start(&mut self.command(probe), self.says())
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

    /// Records printed and records lost, as it says itself.
    pub fn records(self, finished: &Finished) -> Result<(u64, u64)> {
        if self == Self::Bpftrace {
            let all = || finished.out.lines().chain(finished.err.lines());
            let records = all().filter(|line| line.starts_with(|c: char| c.is_ascii_digit()));
            let lost =
                all().filter_map(|line| line.strip_prefix("Lost ")?.split(' ').next()?.parse::<u64>().ok());
            return Ok((records.count() as u64, lost.sum()));
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
