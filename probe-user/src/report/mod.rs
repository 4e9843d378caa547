//! What probe prints: a live table, wide lines, JSON, and the summary at the end. It sees model types only.

pub mod bypass;
pub mod check;
mod clock;
pub mod doctor;
mod escape;
pub mod etcd_log;
pub mod events;
mod finding;
mod json;
pub mod lines;
pub mod metrics;
pub mod node;
mod owner_json;
pub mod path;
pub mod schema;
pub mod snapshot;
mod style;
mod summary;
mod table;
mod text;
pub mod tls;
pub mod vxlan;
mod who;
mod wide;

#[cfg(test)]
pub(crate) mod samples;

use std::{
    fmt,
    io::{self, Write},
};

use jiff::tz::TimeZone;

pub use self::style::colour;
use self::{clock::Clock, owner_json::OwnersJson, table::Columns};
use crate::model::{Connection, Summary, recording_scope::RecordingScope, unlisted_time::UnlistedTime};

probe_model::names! {
    /// `-o`.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum Format {
        /// Columns that fit the terminal.
        Table = "table",
        /// One long line a record, with everything known.
        Wide = "wide",
        /// One object a line.
        Json = "json",
    }
}

/// Writes to standard error, made safe for a terminal. A closed standard error is ignored.
pub fn say(what: fmt::Arguments<'_>) {
    const LONGEST: usize = 1000;
    let mut out = Vec::new();
    for line in what.to_string().lines() {
        escape::push(&mut out, line, LONGEST);
        out.push(b'\n');
    }
    let _ = io::stderr().write_all(&out);
}

/// Appends the line of `-o json` for a connection that `node` recorded.
///
/// # Errors
/// None in practice: writing to memory does not fail.
pub fn json_line(out: &mut Vec<u8>, node: &str, connection: &Connection) -> io::Result<()> {
    let mut clock = Clock::new(TimeZone::UTC);
    json::connection(out, &mut clock, None, Some(node), connection)
}

/// The first line of a recording.
///
/// # Errors
/// None in practice: writing to memory does not fail.
pub fn scope_line(scope: &RecordingScope, node: &str) -> io::Result<Vec<u8>> {
    let mut out = Vec::new();
    let header = json::RecordingHeader {
        event: "recording",
        node,
        scope,
    };
    json::line(&mut out, &header)?;
    Ok(out)
}

/// The buffer is written out when it holds so many bytes, and at each [`Reporter::flush`].
const FULL: usize = 64 << 10;

/// Writes records as they come. Nothing reaches `out` before [`flush`](Self::flush), called once a batch, or
/// before 64 KiB are waiting. An error, such as a closed pipe, is the caller's to judge.
pub struct Reporter<W> {
    format: Format,
    colour: bool,
    width: usize,
    columns: Columns,
    clock: Clock,
    /// The table's header is out.
    begun: bool,
    buffer: Vec<u8>,
    owners: OwnersJson,
    node: Option<String>,
    /// Records are of several nodes: each line says of which.
    nodes: bool,
    out: W,
}

/// The most columns for a node's name in the table.
const MOST_NODE: usize = 24;

impl<W: Write> Reporter<W> {
    /// What was written.
    #[cfg(test)]
    pub(crate) fn into_inner(self) -> W {
        self.out
    }

    /// `width` in columns, `None` where `out` is not a terminal: then it is 140. Times are shown in the
    /// system's time zone.
    pub fn new(format: Format, width: Option<usize>, colour: bool, out: W) -> Self {
        let width = width.unwrap_or(table::DEFAULT_WIDTH);
        Self {
            format,
            colour,
            width,
            columns: Columns::new(width),
            clock: Clock::new(TimeZone::system()),
            begun: false,
            buffer: Vec::with_capacity(FULL + (8 << 10)),
            owners: OwnersJson::default(),
            node: None,
            nodes: false,
            out,
        }
    }

    /// Names the node in JSON.
    #[must_use]
    pub fn node(mut self, node: String) -> Self {
        self.node = Some(node);
        self
    }

    /// For records of several nodes: each line names its node, the table in a column wide enough for these.
    #[must_use]
    pub fn nodes<'a>(mut self, names: impl IntoIterator<Item = &'a str>) -> Self {
        const LEAST_NODE: usize = "NODE".len();
        let widest = names.into_iter().map(str::len).max().unwrap_or_default();
        self.columns = Columns::with_node(self.width, widest.clamp(LEAST_NODE, MOST_NODE));
        self.nodes = true;
        self
    }

    /// A record of this node.
    ///
    /// # Errors
    /// The output's.
    pub fn of_node(&mut self, node: &str, connection: &Connection) -> io::Result<()> {
        let name = self.node.get_or_insert_default();
        if name != node {
            node.clone_into(name);
        }
        self.connection(connection)
    }

    /// Shows times in another time zone.
    #[must_use]
    pub fn time_zone(mut self, zone: TimeZone) -> Self {
        self.clock = Clock::new(zone);
        self
    }

    /// One connection.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn connection(&mut self, connection: &Connection) -> io::Result<()> {
        let Self {
            colour,
            clock,
            buffer,
            node,
            ..
        } = self;
        let shown = node.as_deref().filter(|_| self.nodes);
        match self.format {
            Format::Table => {
                if !self.begun {
                    self.begun = true;
                    self.columns.header(buffer, *colour);
                }
                self.columns.line(buffer, clock, *colour, shown, connection);
            }
            Format::Wide => wide::line(buffer, clock, *colour, shown, connection),
            Format::Json => {
                json::connection(buffer, clock, Some(&mut self.owners), node.as_deref(), connection)?;
            }
        }
        if self.buffer.len() >= FULL {
            self.write()
        } else {
            Ok(())
        }
    }

    /// A time in which connections were not reported one by one, in a recording.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn unlisted(&mut self, time: &UnlistedTime) -> io::Result<()> {
        match self.format {
            Format::Table | Format::Wide => Ok(()),
            Format::Json => json::unlisted(&mut self.buffer, self.node.as_deref(), time),
        }
    }

    /// The end: for `table` and `wide` what a person reads, for `json` one last line.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn summary(&mut self, summary: &Summary) -> io::Result<()> {
        match self.format {
            Format::Table | Format::Wide => {
                summary::push(&mut self.buffer, &mut self.clock, self.width, summary);
            }
            Format::Json => json::summary(&mut self.buffer, &mut self.clock, summary)?,
        }
        self.flush()
    }

    /// Writes what is buffered.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn flush(&mut self) -> io::Result<()> {
        self.write()?;
        self.out.flush()
    }

    fn write(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let result = self.out.write_all(&self.buffer);
        self.buffer.clear();
        result
    }
}

#[cfg(test)]
mod tests;
