//! Snapshots, for people or machines: a table that is overwritten, findings as they begin and end, or JSON.

use std::{
    borrow::Cow,
    io::{self, Write},
    time::Duration,
};

use jiff::{Timestamp, tz::TimeZone};

use super::{clock::Clock, escape};
use crate::model::Verdict;

/// The longest sentence shown; JSON has all of it.
const LONGEST: usize = 600;

/// One snapshot of a command.
pub trait Snapshot {
    /// The name of the event in JSON.
    const EVENT: &'static str;

    fn verdict(&self) -> Verdict;

    /// All of it, for people.
    fn text(&self, clock: &mut Clock) -> String;

    /// When it was.
    fn time(&self) -> Timestamp;

    /// The sentence of each finding, which identifies it, and its full text.
    fn findings(&self) -> Vec<(&str, String)>;

    /// One object.
    ///
    /// # Errors
    /// When it can't be written as JSON.
    fn json(&self, event: &'static str, node: &str, clock: &mut Clock) -> io::Result<Vec<u8>>;
}

/// Words from outside, fit for a terminal.
pub fn safe(text: &str) -> String {
    escape::text(text, LONGEST)
}

/// The same, however long: what is to be pasted is never cut.
pub fn uncut(text: &str) -> String {
    let mut out = Vec::new();
    escape::push(&mut out, text, usize::MAX);
    String::from_utf8_lossy(&out).into_owned()
}

/// A time for people, to the second.
pub fn local(time: Timestamp, clock: &mut Clock) -> String {
    let mut out = Vec::new();
    clock.local(&mut out, time, false);
    String::from_utf8_lossy(&out).into_owned()
}

/// How long ago that was, both `CLOCK_MONOTONIC` nanoseconds; 0: never.
pub fn ago(now_ns: u64, at_ns: u64) -> String {
    if at_ns == 0 {
        return "never".to_owned();
    }
    let ago = Duration::from_nanos(now_ns.saturating_sub(at_ns)).as_secs_f64();
    if ago < 60.0 {
        format!("{ago:.1} s ago")
    } else {
        format!("{:.0} min ago", ago / 60.0)
    }
}

/// The output format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// A table that is overwritten by each snapshot.
    Live,
    /// A table at the end, and findings as they come and go.
    Text,
    /// One object a snapshot.
    Json,
}

/// Writes snapshots.
pub struct Reporter<W> {
    output: Output,
    /// Columns and lines of the terminal.
    size: Option<(usize, usize)>,
    node: String,
    clock: Clock,
    /// Lines to go back over.
    written: usize,
    /// The findings that were reported.
    told: Vec<String>,
    out: W,
}

impl<W: Write> Reporter<W> {
    /// `size`: columns and lines, where `out` is a terminal.
    pub fn new(output: Output, size: Option<(usize, usize)>, node: String, out: W) -> Self {
        Self {
            output,
            size,
            node,
            clock: Clock::new(TimeZone::system()),
            written: 0,
            told: Vec::new(),
            out,
        }
    }

    /// A snapshot that is not the last.
    ///
    /// # Errors
    /// The output's.
    pub fn view(&mut self, view: &impl Snapshot) -> io::Result<()> {
        match self.output {
            Output::Live => self.live(view),
            Output::Text => self.changes(view),
            Output::Json => self.json(view, false),
        }
    }

    /// The last snapshot.
    ///
    /// # Errors
    /// The output's.
    pub fn last(&mut self, view: &impl Snapshot) -> io::Result<()> {
        match self.output {
            Output::Live => self.live(view),
            Output::Text => {
                let text = view.text(&mut self.clock);
                self.out.write_all(text.as_bytes())?;
                self.out.flush()
            }
            Output::Json => self.json(view, true),
        }
    }

    fn json<L: Snapshot>(&mut self, view: &L, last: bool) -> io::Result<()> {
        let event = if last { "summary" } else { L::EVENT };
        let mut line = view.json(event, &self.node, &mut self.clock)?;
        line.push(b'\n');
        self.out.write_all(&line)?;
        self.out.flush()
    }

    /// Writes over what was written last.
    fn live(&mut self, view: &impl Snapshot) -> io::Result<()> {
        let text = view.text(&mut self.clock);
        let (columns, height) = self.size.unwrap_or((usize::MAX, usize::MAX));
        let mut lines = fitted(&text, columns);
        // What scrolled away can't be written over.
        let most = height.saturating_sub(1).max(4);
        if lines.len() > most {
            lines.truncate(most - 1);
            let more = "… (the terminal is too small for all of it: see -o json, or --once)";
            lines.extend(fitted(more, columns).into_iter().take(1));
        }
        let mut frame = String::new();
        if self.written > 0 {
            // Up, and clear to the end.
            frame.push_str(&format!("\x1b[{}A\x1b[J", self.written));
        }
        for line in &lines {
            frame.push_str(line);
            frame.push('\n');
        }
        self.written = lines.len();
        self.out.write_all(frame.as_bytes())?;
        self.out.flush()
    }

    /// Only what came and what went.
    fn changes(&mut self, view: &impl Snapshot) -> io::Result<()> {
        let findings = view.findings();
        let time = local(view.time(), &mut self.clock);
        let mut text = String::new();
        for (_, finding) in findings
            .iter()
            .filter(|(what, _)| !self.told.iter().any(|told| told == what))
        {
            text.push_str(&format!("{time}  {finding}"));
        }
        let now: Vec<String> = findings.iter().map(|(what, _)| (*what).to_owned()).collect();
        for gone in self.told.iter().filter(|what| !now.contains(what)) {
            text.push_str(&format!("{time}  no longer: {}\n", safe(gone)));
        }
        self.told = now;
        self.out.write_all(text.as_bytes())?;
        self.out.flush()
    }
}

/// The lines of a text, those broken that are longer than the terminal is wide: it would break them itself, and nobody
/// would know how many there are.
fn fitted(text: &str, columns: usize) -> Vec<Cow<'_, str>> {
    let options = textwrap::Options::new(columns.max(20)).subsequent_indent("          ");
    text.lines()
        .flat_map(|line| {
            if line.is_empty() {
                vec![Cow::Borrowed(line)]
            } else {
                textwrap::wrap(line, &options)
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::fitted;

    #[test]
    fn lines_fit_the_terminal() {
        let text = "    do:   Remove that rule, or accept it.\n\nshort";
        assert_eq!(fitted(text, 80), text.lines().collect::<Vec<_>>());
        let lines = fitted(text, 30);
        assert_eq!(
            lines,
            [
                "    do:   Remove that rule, or",
                "          accept it.",
                "",
                "short"
            ]
        );
        assert!(fitted(&"x".repeat(100), 30).iter().all(|line| line.len() <= 30));
    }
}
