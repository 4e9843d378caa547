//! `probe etcd-log`: names the pod behind every rejected connection of an etcd log.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, IsTerminal, Read, Write},
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use jiff::{Timestamp, tz::TimeZone};
use memchr::memmem::Finder;

use super::{quiet_if_closed, recordings};
use crate::{
    cli::EtcdLog as Settings,
    model::{
        etcd_log::{Line, REJECTED, Reader, summary::Total},
        flow::Flows,
    },
    report::{etcd_log::Report, say},
};

/// A line longer than this is cut: etcd's about rejected connections are shorter.
const LONGEST: u64 = 1 << 20;
/// Written out when it holds so many bytes.
const FULL: usize = 64 << 10;
const PROGRESS_EVERY: Duration = Duration::from_secs(1);

/// Prints a line for each rejected connection, then who they were; whether there was any.
///
/// # Errors
/// When the log or a recording can't be read, or the answer not be written.
pub fn run(settings: &Settings) -> Result<bool> {
    let flows = recordings::flows(&settings.flows)?;
    let found = if settings.log == Path::new("-") {
        answer(settings, &flows, "standard input", io::stdin().lock(), None)
    } else {
        let name = settings.log.display().to_string();
        let file = File::open(&settings.log).with_context(|| format!("can't read the log {name}"))?;
        let size = file.metadata().ok().map(|metadata| metadata.len());
        answer(settings, &flows, &name, file, size)
    };
    found.or_else(|error| quiet_if_closed(error).map(|()| true))
}

fn answer(settings: &Settings, flows: &Flows, name: &str, log: impl Read, size: Option<u64>) -> Result<bool> {
    let mut log = BufReader::with_capacity(1 << 18, log);
    let mut stdout = io::stdout().lock();
    let reader = Reader::new(TimeZone::system(), Timestamp::now());
    let rejected = Finder::new(REJECTED);
    let mut report = Report::new(settings.json, TimeZone::system());
    let mut progress = Progress::new(size);
    let mut total = Total::default();
    let (mut line, mut out) = (Vec::new(), Vec::with_capacity(FULL));
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
        progress.step(read, total.rejected);
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
                let found = flows.find(rejected.peer, rejected.time, settings.within);
                total.seen(&rejected, &found);
                report.rejected(&mut out, &rejected, &found)?;
                if out.len() >= FULL {
                    stdout.write_all(&out).context("can't write")?;
                    out.clear();
                }
            }
        }
    }
    progress.clear();
    let groups = total.groups(flows, settings.within);
    report.summary(&mut out, &total, &groups)?;
    stdout
        .write_all(&out)
        .and_then(|()| stdout.flush())
        .context("can't write")?;
    Ok(total.rejected > 0)
}

/// Unreadable lines told one by one; all are counted.
const UNREADABLE_TOLD: u64 = 10;

/// How far it is, on a terminal that the answers don't go to.
struct Progress {
    shown: bool,
    on: bool,
    size: Option<u64>,
    read: u64,
    at: Instant,
}

impl Progress {
    fn new(size: Option<u64>) -> Self {
        Self {
            shown: false,
            on: io::stderr().is_terminal() && !io::stdout().is_terminal(),
            size,
            read: 0,
            at: Instant::now(),
        }
    }

    fn step(&mut self, bytes: usize, rejected: u64) {
        let before = self.read >> 24;
        self.read += bytes as u64;
        // The clock is looked at every 16 MB.
        if !self.on || self.read >> 24 == before || self.at.elapsed() < PROGRESS_EVERY {
            return;
        }
        self.at = Instant::now();
        self.shown = true;
        let of = self.size.map(|size| format!(" of {}", bytesize::ByteSize(size)));
        eprint!(
            "\r{}{} read, {rejected} rejected connections\x1b[K",
            bytesize::ByteSize(self.read),
            of.unwrap_or_default()
        );
    }

    fn clear(&mut self) {
        if std::mem::take(&mut self.shown) {
            eprint!("\r\x1b[K");
        }
    }
}
