//! `probe etcd-log`: names the pod behind every rejected connection of an etcd log.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read, Write},
    path::Path,
};

use anyhow::{Context, Result, bail};
use jiff::{Timestamp, tz::TimeZone};
use memchr::memmem::Finder;

use super::{
    cluster::{Cluster, remembered},
    progress::Progress,
    quiet_if_closed, recordings,
};
use crate::{
    cli::EtcdLog as Settings,
    model::{
        Exit,
        etcd_log::{
            Line, REJECTED, Reader,
            matching::{MatchOptions, Matcher},
            summary::Total,
        },
        flow::Flows,
    },
    report::{
        etcd_log::{InferredOffset, Report},
        say,
    },
};

/// A line longer than this is cut: etcd's about rejected connections are shorter.
const LONGEST: u64 = 1 << 20;

/// Written out when it holds so many bytes.
const FULL: usize = 64 << 10;

/// Prints a line for each rejected connection, then their owners.
///
/// # Errors
/// When the log or a recording can't be read, no agent answers, or the answer can't be written.
pub async fn run(settings: Settings) -> Result<Exit> {
    let settings = &settings;
    let mut flows = recordings::flows(&settings.flows)?;
    let remembered = match settings.agents.clone() {
        None => {
            recordings::any(&flows)?;
            None
        }
        Some(agents) => {
            let cluster = Cluster::open(agents).await?;
            let remembered = remembered::of_ports(&cluster, &settings.agent_ports(), &mut flows).await?;
            if flows.is_empty() && remembered.memories.is_empty() {
                bail!("no agent answered: there is nothing to name anybody by");
            }
            Some(remembered)
        }
    };
    let found = if settings.log == Path::new("-") {
        answer(settings, &flows, "standard input", io::stdin().lock(), None)
    } else {
        let name = settings.log.display().to_string();
        let file = File::open(&settings.log).with_context(|| format!("can't read the log {name}"))?;
        let size = file.metadata().ok().map(|metadata| metadata.len());
        answer(settings, &flows, &name, file, size)
    };
    let (found, began) = found.or_else(|error| quiet_if_closed(error).map(|()| (true, None)))?;
    if let (Some(remembered), Some(began)) = (remembered, began) {
        remembered.tell_younger_than(began);
    }
    Ok(Exit::of_search(found, true))
}

/// Whether there was any, and when the first was.
fn answer(
    settings: &Settings,
    flows: &Flows,
    name: &str,
    log: impl Read,
    size: Option<u64>,
) -> Result<(bool, Option<Timestamp>)> {
    let mut log = BufReader::with_capacity(1 << 18, log);
    let mut stdout = io::stdout().lock();
    let reader = Reader::new(TimeZone::system(), Timestamp::now());
    let rejected = Finder::new(REJECTED);
    let mut report = Report::new(settings.json, TimeZone::system()).scopes(flows.scopes());
    let mut progress = ReadSoFar::new(size);
    let mut total = Total::default();
    let mut matcher = Matcher::new(
        flows,
        MatchOptions {
            within: settings.within,
            ports: settings.ports.clone(),
            node: settings.node.clone(),
            infers_offset: true,
        },
    );
    let mut rejected_lines = 0;
    let (mut line, mut out) = (Vec::new(), Vec::new());
    loop {
        line.clear();
        let read = log
            .by_ref()
            .take(LONGEST)
            .read_until(b'\n', &mut line)
            .with_context(|| format!("can't read the log {name}"))?;
        if read == 0 {
            break;
        }
        total.lines += 1;
        progress.step(read, rejected_lines);
        if rejected.find(&line).is_none() {
            continue;
        }
        match reader.read(&String::from_utf8_lossy(&line)) {
            Line::Other => {}
            Line::Unreadable(why) => {
                total.unreadable += 1;
                if total.unreadable <= UNREADABLE_TOLD {
                    progress.clear();
                    say(format_args!(
                        "probe: line {} of {name} can't be read: {why}",
                        total.lines
                    ));
                }
            }
            Line::Rejected(rejected) => {
                rejected_lines += 1;
                if matcher.push(rejected) {
                    for (rejected, found) in matcher.settle(false) {
                        total.seen(&rejected, &found);
                        report.rejected(&mut out, &rejected, &found)?;
                        write_if_full(&mut stdout, &mut out)?;
                    }
                }
            }
        }
    }
    for (rejected, found) in matcher.settle(true) {
        total.seen(&rejected, &found);
        report.rejected(&mut out, &rejected, &found)?;
        write_if_full(&mut stdout, &mut out)?;
    }
    progress.clear();
    let groups = total.groups(flows, settings.within);
    let inferred = matcher.inferred();
    let inferred = inferred.map(|inferred| InferredOffset::new(&inferred, &TimeZone::system()));
    report.summary(&mut out, &total, &groups, inferred.as_ref())?;
    stdout
        .write_all(&out)
        .and_then(|()| stdout.flush())
        .context("can't write")?;
    if let Some(InferredOffset { utc_offset, lines }) = inferred {
        say(format_args!(
            "probe: the times of {name} have no zone: they are {utc_offset}, as {lines} recorded connections show \
             (--utc-offset sets it)"
        ));
    }
    Ok((total.rejected > 0, total.began()))
}

fn write_if_full(stdout: &mut impl Write, out: &mut Vec<u8>) -> Result<()> {
    if out.len() >= FULL {
        stdout.write_all(out).context("can't write")?;
        out.clear();
    }
    Ok(())
}

/// Unreadable lines told one by one; all are counted.
const UNREADABLE_TOLD: u64 = 10;

/// How much of the log is read.
struct ReadSoFar {
    progress: Progress,
    size: Option<u64>,
    read: u64,
}

impl ReadSoFar {
    fn new(size: Option<u64>) -> Self {
        Self {
            progress: Progress::new(),
            size,
            read: 0,
        }
    }

    fn step(&mut self, bytes: usize, rejected: u64) {
        let before = self.read >> 24;
        self.read += bytes as u64;
        // The clock is looked at every 16 MB.
        if self.read >> 24 == before {
            return;
        }
        let of = self.size.map(|size| format!(" of {}", bytesize::ByteSize(size)));
        self.progress.show(format_args!(
            "{}{} read, {rejected} rejected connections",
            bytesize::ByteSize(self.read),
            of.unwrap_or_default()
        ));
    }

    fn clear(&mut self) {
        self.progress.clear();
    }
}
