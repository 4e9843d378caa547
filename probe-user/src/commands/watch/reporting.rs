//! The last stage: each connection is counted, gets its interval, and goes to the sink.

use std::io;

use anyhow::Result;

use super::sink::Sink;
use crate::{
    commands::until::Remaining,
    model::{
        Cadences, Connection, Summary,
        cause::causes::{Causes, Counted},
        summary::{Row, Tally},
        unlisted_time::UnlistedTime,
    },
};

/// Connections in, as many as `remaining` says; lines out.
pub struct Reporting<S> {
    sink: S,
    remaining: Remaining,
    cadences: Cadences,
    causes: Causes,
    reported: u64,
    /// The sink's error: the run ends with it.
    failed: Option<io::Error>,
}

impl<S: Sink> Reporting<S> {
    pub fn new(sink: S, remaining: Remaining) -> Self {
        Self {
            sink,
            remaining,
            cadences: Cadences::default(),
            causes: Causes::default(),
            reported: 0,
            failed: None,
        }
    }

    pub fn report(&mut self, mut connection: Connection) {
        if self.is_closed() {
            return;
        }
        if let Some(cause) = &connection.cause {
            self.causes.add(cause);
        }
        connection.cadence = Some(self.cadences.seen(&connection));
        self.reported += 1;
        self.remaining.report();
        self.failed = self.sink.connection(&connection).err();
    }

    /// Hands over one that is stored and not shown.
    pub fn store(&mut self, connection: &Connection) {
        if self.failed.is_none() {
            self.cadences.note(connection);
            self.failed = self.sink.unshown(connection).err();
        }
    }

    /// Hands over when connections were not reported one by one.
    pub fn unlisted(&mut self, time: &UnlistedTime) {
        if self.failed.is_none() {
            self.failed = self.sink.unlisted(time).err();
        }
    }

    /// Whether the limit is reached.
    pub fn is_full(&self) -> bool {
        self.remaining.is_over()
    }

    /// Whether nothing more is taken.
    pub fn is_closed(&self) -> bool {
        self.failed.is_some() || self.is_full()
    }

    /// After a batch.
    ///
    /// # Errors
    /// The sink's, also an earlier one.
    pub fn flush(&mut self) -> Result<()> {
        let flushed = self.sink.flush();
        match self.failed.take() {
            Some(error) => Err(error.into()),
            None => flushed,
        }
    }

    pub fn summary(&mut self, summary: &Summary) -> Result<()> {
        self.sink.summary(summary)
    }

    pub fn reported(&self) -> u64 {
        self.reported
    }

    /// A row for each source that was reported.
    pub fn rows(&self) -> Vec<Row> {
        self.cadences.rows().cloned().collect()
    }

    pub fn causes(&self) -> Vec<Counted> {
        self.causes.sorted()
    }

    pub fn losses(&self) -> [Tally; 1] {
        [Tally {
            name: "cadences",
            what: "sources evicted (table full): their counts and intervals restarted",
            count: self.cadences.fell_out(),
        }]
    }

    /// Where causes are looked for.
    pub fn unlisted_causes(&self) -> Tally {
        Tally {
            name: "causes",
            what: "connections whose cause is not listed (table full)",
            count: self.causes.others(),
        }
    }
}
