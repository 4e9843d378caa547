//! `probe path`: packets and where they passed, for people and as JSON; and as a capture.

mod json;
mod pcap;
mod rows;
mod side_by_side;
mod text;
mod totals;

use std::io::{self, Write};

use jiff::{Timestamp, tz::TimeZone};
use serde::Serialize;

#[cfg(test)]
pub(super) use self::json::{PathEvent, PathSummary};
pub use self::pcap::PcapWriter;
use super::{Format, clock::Clock, table::DEFAULT_WIDTH};
use crate::model::path::{Exchange, Outcome, Places};

/// An exchange, as it is reported.
pub struct Told<'a> {
    /// Of its first event.
    pub time: Timestamp,
    pub exchange: &'a Exchange,
    pub places: Places<'a>,
}

/// The report so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Totals {
    pub exchanges: u64,
    pub packets: u64,
    /// How many exchanges of each.
    pub outcomes: Vec<(Outcome, u64)>,
    pub lost: Lost,
    pub started: Timestamp,
    pub ended: Timestamp,
    /// In words.
    pub watched: String,
}

/// What was not seen, or not reported.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "PathLost"))]
pub struct Lost {
    /// Points of packets that found the ring full.
    pub ring: u64,
    /// Points beyond the limit per second.
    pub budget: u64,
    /// Flows and packets that found no room.
    pub flows: u64,
    /// Runs of programs that the kernel skipped.
    pub skipped: u64,
    /// Points that could not be read.
    pub malformed: u64,
}

/// Writes exchange by exchange.
pub struct Reporter<W> {
    format: Format,
    colour: bool,
    width: usize,
    /// On a terminal request and reply may stand side by side; lines of a file are to be searched.
    beside: bool,
    node: Option<String>,
    clock: Clock,
    /// Something was printed: a blank line comes before the next.
    begun: bool,
    out: W,
}

impl<W: Write> Reporter<W> {
    /// What was written.
    #[cfg(test)]
    pub(in crate::report) fn into_inner(self) -> W {
        self.out
    }

    /// `width` in columns, `None` where `out` is not a terminal. Times are shown in the system's time zone.
    pub fn new(format: Format, width: Option<usize>, colour: bool, out: W) -> Self {
        Self {
            format,
            colour,
            width: width.unwrap_or(DEFAULT_WIDTH),
            beside: width.is_some(),
            node: None,
            clock: Clock::new(TimeZone::system()),
            begun: false,
            out,
        }
    }

    /// Names the node in JSON.
    #[must_use]
    pub fn node(mut self, node: String) -> Self {
        self.node = Some(node);
        self
    }

    /// Shows times in another time zone.
    #[must_use]
    pub fn time_zone(mut self, zone: TimeZone) -> Self {
        self.clock = Clock::new(zone);
        self
    }

    /// One exchange.
    ///
    /// # Errors
    /// The output's.
    pub fn exchange(&mut self, told: &Told<'_>) -> io::Result<()> {
        let mut out = Vec::new();
        match self.format {
            Format::Table | Format::Wide => {
                self.apart(&mut out);
                let style = self.style();
                text::push(&mut out, style, &mut self.clock, told);
            }
            Format::Json => json::exchange(&mut out, &mut self.clock, self.node.as_deref(), told)?,
        }
        self.write(&out)
    }

    /// The end.
    ///
    /// # Errors
    /// The output's.
    pub fn last(&mut self, totals: &Totals) -> io::Result<()> {
        let mut out = Vec::new();
        match self.format {
            Format::Table | Format::Wide => {
                self.apart(&mut out);
                totals::push(&mut out, &mut self.clock, totals);
            }
            Format::Json => json::last(&mut out, &mut self.clock, self.node.as_deref(), totals)?,
        }
        self.write(&out)
    }

    fn style(&self) -> text::Style {
        let wide = self.format == Format::Wide;
        text::Style {
            colour: self.colour,
            wide,
            beside: self.beside && !wide,
            width: if wide { usize::MAX } else { self.width },
        }
    }

    fn apart(&mut self, out: &mut Vec<u8>) {
        if self.begun {
            out.push(b'\n');
        }
        self.begun = true;
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.write_all(bytes)?;
        self.out.flush()
    }
}

#[cfg(test)]
pub(super) mod samples;
#[cfg(test)]
mod tests;
