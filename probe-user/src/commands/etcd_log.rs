//! `probe etcd-log`: names the pod behind every rejected connection of a log of etcd, or of another server.

use std::{
    collections::BTreeMap,
    io::{self, Write},
    path::PathBuf,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use jiff::{SignedDuration, Timestamp, tz::TimeZone};

use super::{
    cluster::{Cluster, remembered},
    progress::Progress,
    quiet_if_closed, recordings,
};
use crate::{
    cli::EtcdLog as Settings,
    logs::{self, Hit, LogSource, Scanner},
    model::{
        Exit,
        etcd_log::{
            Excerpt, Extent, Line, Reader, Rejected, ServerKind,
            matching::{MatchOptions, Matcher},
            summary::Total,
        },
        flow::Flows,
    },
    report::{
        etcd_log::{InferredOffset, Report, Unread},
        say,
    },
};

/// Written out when it holds so many bytes.
const FULL: usize = 64 << 10;
/// How much earlier than a log's first line agents are asked for connections: clocks differ. Where the log's times have no zone, it
/// may be any, from UTC-12 to UTC+14.
const KNOWN: Duration = Duration::from_secs(3600);
const ANY_ZONE: Duration = Duration::from_secs(27 * 3600);
/// Unreadable lines reported one by one; all are counted.
const UNREADABLE_TOLD: u64 = 10;

/// Prints a line for each rejected connection, then their owners.
///
/// # Errors
/// When a log or a recording can't be opened, no agent answers, or the answer can't be written.
pub async fn run(mut settings: Settings) -> Result<Exit> {
    take_recordings(&mut settings);
    let settings = &settings;
    let mut flows = recordings::flows(&settings.flows)?;
    let reader = Reader::new(TimeZone::system(), Timestamp::now()).with_kinds(&settings.kinds);
    let reader = match settings.utc_offset {
        Some(offset) => reader.in_offset(offset),
        None => reader,
    };
    let sources = logs::sources(&settings.logs, |line| reader.time(line))?;
    let scanner = Scanner::new(&reader.patterns())?;
    let remembered = match settings.agents.clone() {
        None => {
            recordings::any(&flows)?;
            None
        }
        Some(agents) => {
            let cluster = Cluster::open(agents).await?;
            let since =
                earliest(&reader, &scanner, &sources)?.and_then(|earliest| earliest.since(settings.within));
            let ports = settings.agent_ports();
            let remembered = remembered::of_ports(&cluster, &ports, since, &mut flows).await?;
            if flows.is_empty() && remembered.memories.is_empty() {
                bail!("no agent answered: no client can be named");
            }
            Some(remembered)
        }
    };
    let mut reading = Reading {
        settings,
        flows: &flows,
        reader,
        report: Report::new(settings.json, TimeZone::system()).of(&flows),
        servers: BTreeMap::new(),
        unread: None,
        is_whole: true,
        rejected: 0,
        lines: Vec::new(),
        out: Vec::with_capacity(FULL),
    };
    reading.read(&scanner, &sources).or_else(quiet_if_closed)?;
    if let (Some(remembered), Some(began)) = (remembered, reading.began()) {
        remembered.tell_younger_than(began);
    }
    Ok(reading.exit())
}

/// The earliest time of a rejected connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Earliest {
    time: Timestamp,
    /// Whether the offset from UTC of all times is known.
    has_offset: bool,
}

impl Earliest {
    /// From when on connections are of interest. The zone of a time without one may be any.
    fn since(self, within: Duration) -> Option<Timestamp> {
        let zone = if self.has_offset { KNOWN } else { ANY_ZONE };
        let before = zone.saturating_add(within);
        self.time.checked_sub(SignedDuration::try_from(before).ok()?).ok()
    }
}

/// Reads logs for the earliest time, so that agents need not send all of a history of days. [`None`] where a log can't be read twice,
/// or has no time.
fn earliest(reader: &Reader, scanner: &Scanner, sources: &[LogSource]) -> Result<Option<Earliest>> {
    let mut earliest: Option<Earliest> = None;
    for source in sources {
        if !source.is_file() {
            return Ok(None);
        }
        // What can't be read is reported when the log is read.
        let Ok((input, _)) = logs::decoded(source.open()?.0) else {
            continue;
        };
        let mut lines = Vec::new();
        let hit = |hit: &Hit<'_>| {
            let extent = extent(reader, hit, &mut lines);
            for line in lines.drain(..).filter(|_| !extent.wants_more) {
                if let Line::Rejected(Rejected {
                    time: Some(time),
                    has_offset,
                    ..
                }) = line
                {
                    let so_far = earliest.get_or_insert(Earliest { time, has_offset });
                    so_far.time = so_far.time.min(time);
                    so_far.has_offset &= has_offset;
                }
            }
            anyhow::Ok(extent)
        };
        scanner.scan(input, hit, |_| {})?;
    }
    Ok(earliest)
}

/// What a hit is about, appended to `lines`.
fn extent(reader: &Reader, hit: &Hit<'_>, lines: &mut Vec<Line>) -> Extent {
    let excerpt = Excerpt {
        before: hit.before,
        line: &String::from_utf8_lossy(hit.line),
        after: hit.after,
        more: hit.more,
    };
    reader.read_excerpt(&excerpt, lines)
}

/// `--flows` took several files once: what else is a recording is one of them.
fn take_recordings(settings: &mut Settings) {
    let is_recording = |path: &PathBuf| logs::is_recording(path);
    let (mut further, logs): (Vec<_>, Vec<_>) = settings.logs.drain(..).partition(is_recording);
    settings.logs = logs;
    if settings.flows.is_empty() || settings.logs.is_empty() {
        settings.logs.append(&mut further);
    }
    if !further.is_empty() {
        say(format_args!(
            "warning: --flows takes one recording; repeat it for each of several"
        ));
        settings.flows.append(&mut further);
    }
}

/// What the logs say of one kind of server.
struct OfServer<'a> {
    total: Total,
    matcher: Matcher<'a>,
}

impl<'a> OfServer<'a> {
    fn new(kind: ServerKind, settings: &Settings, flows: &'a Flows) -> Self {
        // Other servers than etcd have no ports that are known beforehand.
        let any = || (kind != ServerKind::Etcd).then(Vec::new);
        let options = MatchOptions {
            within: settings.within,
            ports: settings.ports.clone().or_else(any),
            node: settings.node.clone(),
            infers_offset: settings.utc_offset.is_none(),
        };
        Self {
            total: Total::default(),
            matcher: Matcher::new(flows, options),
        }
    }
}

/// Logs being read.
struct Reading<'a> {
    settings: &'a Settings,
    flows: &'a Flows,
    reader: Reader,
    report: Report,
    /// Of each kind of server; of etcd always.
    servers: BTreeMap<ServerKind, OfServer<'a>>,
    /// The first line that can't be read.
    unread: Option<Unread>,
    /// Whether every log was read to its end.
    is_whole: bool,
    /// Rejected connections so far.
    rejected: u64,
    /// Of the line that is being read.
    lines: Vec<Line>,
    out: Vec<u8>,
}

impl<'a> Reading<'a> {
    fn read(&mut self, scanner: &Scanner, sources: &[LogSource]) -> Result<()> {
        let mut lines = 0;
        for source in sources {
            lines += self.source(scanner, source)?;
        }
        let kinds: Vec<_> = self.servers.keys().copied().collect();
        for kind in &kinds {
            self.settle(*kind, true)?;
        }
        for kind in kinds {
            self.settle_earlier(kind)?;
        }
        self.of(ServerKind::Etcd).total.lines = lines;
        self.tell_others(sources);
        for (kind, OfServer { total, matcher }) in &mut self.servers {
            total.lines = lines;
            let groups = total.groups(self.flows, self.settings.within);
            // Of which server an unreadable line is, is not known: they are all in the first summary.
            let unread = self.unread.as_ref().filter(|_| *kind == ServerKind::Etcd);
            let inferred = matcher.inferred();
            let inferred = inferred.map(|inferred| InferredOffset::new(&inferred, &TimeZone::system()));
            self.report
                .summary(&mut self.out, *kind, total, &groups, (unread, inferred.as_ref()))?;
            if let Some(InferredOffset { utc_offset, lines }) = inferred {
                say(format_args!(
                    "probe: the log's times have no zone: they are {utc_offset}, as {lines} recorded connections show \
                     (--utc-offset sets it)"
                ));
            }
        }
        let mut stdout = io::stdout().lock();
        stdout
            .write_all(&self.out)
            .and_then(|()| stdout.flush())
            .context("can't write")
    }

    /// Reads one log, and counts its lines.
    fn source(&mut self, scanner: &Scanner, source: &LogSource) -> Result<u64> {
        let (input, size) = source.open()?;
        let (input, packed) = match logs::decoded(input) {
            Ok(decoded) => decoded,
            Err(error) => {
                self.is_whole = false;
                say(format_args!(
                    "probe: the log {} can't be read: {error}",
                    source.name
                ));
                return Ok(0);
            }
        };
        // The size of a compressed log is unknown.
        let progress = std::cell::RefCell::new(ReadSoFar::new(size.filter(|_| packed.is_none())));
        let scanned = scanner.scan(
            input,
            |hit| {
                self.hit(source, hit, || progress.borrow_mut().clear())
                    .inspect(|_| progress.borrow_mut().rejected = self.rejected)
            },
            |bytes| progress.borrow_mut().step(bytes),
        )?;
        progress.borrow_mut().clear();
        if let Some(error) = scanned.error {
            self.is_whole = false;
            say(format_args!(
                "probe: the log {} can't be read after line {}: {error}",
                source.name, scanned.lines
            ));
        }
        Ok(scanned.lines)
    }

    fn hit(&mut self, source: &LogSource, hit: &Hit<'_>, clear: impl Fn()) -> Result<Extent> {
        let line = String::from_utf8_lossy(hit.line);
        let mut lines = std::mem::take(&mut self.lines);
        let extent = extent(&self.reader, hit, &mut lines);
        if !extent.wants_more {
            for one in lines.drain(..) {
                match one {
                    Line::Other => {}
                    Line::Unreadable(why) => {
                        clear();
                        self.unreadable(source, hit.number, &line, why);
                    }
                    Line::Rejected(rejected) => {
                        self.rejected += 1;
                        let kind = rejected.logged_by;
                        if self.of(kind).matcher.push(rejected) {
                            self.settle(kind, false)?;
                        }
                    }
                }
            }
        }
        lines.clear();
        self.lines = lines;
        Ok(extent)
    }

    fn unreadable(&mut self, source: &LogSource, number: u64, line: &str, why: &'static str) {
        let total = &mut self.of(ServerKind::Etcd).total;
        total.unreadable += 1;
        if total.unreadable <= UNREADABLE_TOLD {
            say(format_args!(
                "probe: line {number} of {} can't be read: {why}",
                source.name
            ));
        }
        self.unread.get_or_insert_with(|| Unread {
            log: source.name.clone(),
            line: number,
            why,
            text: line.trim().to_owned(),
        });
    }

    fn of(&mut self, kind: ServerKind) -> &mut OfServer<'a> {
        let (settings, flows) = (self.settings, self.flows);
        self.servers
            .entry(kind)
            .or_insert_with(|| OfServer::new(kind, settings, flows))
    }

    /// Reports the lines that have found their connection, at the end all.
    fn settle(&mut self, kind: ServerKind, end: bool) -> Result<()> {
        for (rejected, found) in self.of(kind).matcher.settle(end) {
            self.of(kind).total.seen(&rejected, &found);
            self.report.rejected(&mut self.out, &rejected, &found)?;
            self.write_full()?;
        }
        Ok(())
    }

    /// Reports the lines that are older than the recordings.
    fn settle_earlier(&mut self, kind: ServerKind) -> Result<()> {
        let earlier = self.of(kind).matcher.settle_earlier();
        if !earlier.is_empty() {
            self.report.earlier_heading(&mut self.out);
        }
        for (rejected, found) in earlier {
            match &found {
                Ok(likely) => self.of(kind).total.seen_earlier(&rejected, likely),
                Err(unmatched) => self.of(kind).total.seen(&rejected, &Err(unmatched.clone())),
            }
            self.report.earlier(&mut self.out, &rejected, &found)?;
            self.write_full()?;
        }
        Ok(())
    }

    fn write_full(&mut self) -> Result<()> {
        if self.out.len() >= FULL {
            io::stdout().lock().write_all(&self.out).context("can't write")?;
            self.out.clear();
        }
        Ok(())
    }

    /// Says whose lines there are, if none is of etcd.
    fn tell_others(&mut self, sources: &[LogSource]) {
        if !self.settings.kinds.contains(&ServerKind::Etcd) || self.of(ServerKind::Etcd).total.rejected > 0 {
            return;
        }
        let name = match sources {
            [one] => one.name.clone(),
            all => format!("{} logs", all.len()),
        };
        let others: Vec<_> = self
            .servers
            .iter()
            .filter(|(_, server)| server.total.rejected > 0)
            .map(|(kind, server)| format!("; {} of {}", server.total.rejected, kind.title()))
            .collect();
        say(format_args!(
            "probe: {name}: no line about a connection that etcd rejected{}",
            others.concat()
        ));
    }

    /// When the first was.
    fn began(&self) -> Option<Timestamp> {
        self.servers
            .values()
            .filter_map(|server| server.total.began())
            .min()
    }

    fn exit(&self) -> Exit {
        let found = self.servers.values().any(|server| server.total.rejected > 0);
        let unreadable = self.servers.values().any(|server| server.total.unreadable > 0);
        Exit::of_lines(found, self.is_whole && !unreadable)
    }
}

/// How much of the log is read.
struct ReadSoFar {
    progress: Progress,
    size: Option<u64>,
    read: u64,
    rejected: u64,
}

impl ReadSoFar {
    fn new(size: Option<u64>) -> Self {
        Self {
            progress: Progress::new(),
            size,
            read: 0,
            rejected: 0,
        }
    }

    fn step(&mut self, bytes: usize) {
        let before = self.read >> 24;
        self.read += bytes as u64;
        // The clock is looked at every 16 MB.
        if self.read >> 24 == before {
            return;
        }
        let of = self.size.map(|size| format!(" of {}", bytesize::ByteSize(size)));
        self.progress.show(format_args!(
            "{}{} read, {} rejected connections",
            bytesize::ByteSize(self.read),
            of.unwrap_or_default(),
            self.rejected
        ));
    }

    fn clear(&mut self) {
        self.progress.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn line(time: &str) -> String {
        format!("{time} rejected connection from \"192.168.88.12:62134\" (error \"EOF\", ServerName \"\")\n")
    }

    /// From when on agents are asked, for logs of these texts.
    fn since(texts: &[String]) -> Option<String> {
        let dir = tempfile::tempdir().unwrap();
        let mut paths = Vec::new();
        for (number, text) in texts.iter().enumerate() {
            paths.push(dir.path().join(number.to_string()));
            fs::write(&paths[number], text).unwrap();
        }
        let now = "2026-11-24T00:00:00Z".parse().unwrap();
        let reader = Reader::new(TimeZone::UTC, now).with_kinds(&[ServerKind::Etcd]);
        let scanner = Scanner::new(&reader.patterns()).unwrap();
        let sources = logs::sources(&paths, |line| reader.time(line)).unwrap();
        let earliest = earliest(&reader, &scanner, &sources).unwrap();
        let since = earliest?.since(Duration::from_secs(5))?;
        Some(since.to_string())
    }

    #[test]
    fn agents_are_asked_from_the_first_line_on() {
        let known = line("2026-11-23T09:10:10Z");
        let later = line("2026-11-23T09:20:10+00:00");
        let no_zone = line("2026-11-23 09:15:10.5");
        for (name, texts, expected) in [
            ("one", vec![known.clone()], Some("2026-11-23T08:10:05Z")),
            // An export begins with the latest.
            (
                "latest first",
                vec![later.clone() + &known],
                Some("2026-11-23T08:10:05Z"),
            ),
            (
                "two logs",
                vec![later.clone(), known.clone()],
                Some("2026-11-23T08:10:05Z"),
            ),
            (
                "a time without a zone",
                vec![known.clone() + &no_zone],
                Some("2026-11-22T06:10:05Z"),
            ),
            (
                "some without a time",
                vec![line("") + &known],
                Some("2026-11-23T08:10:05Z"),
            ),
            ("none with a time", vec![line("")], None),
            (
                "of something else",
                vec!["2026-11-23T09:10:10Z ready\n".to_owned()],
                None,
            ),
        ] {
            assert_eq!(since(&texts).as_deref(), expected, "{name}");
        }
    }

    /// What was read from a pipe would be missing afterwards.
    #[test]
    fn a_pipe_is_read_once() {
        let reader = Reader::new(TimeZone::UTC, Timestamp::now()).with_kinds(&[ServerKind::Etcd]);
        let scanner = Scanner::new(&reader.patterns()).unwrap();
        for path in ["-", "/dev/null"] {
            let sources = logs::sources(&[PathBuf::from(path)], |line| reader.time(line)).unwrap();
            assert_eq!(earliest(&reader, &scanner, &sources).unwrap(), None, "{path}");
        }
    }
}
