//! The last stage: each connection is counted, gets its interval on its node, and is written.

use std::{collections::BTreeMap, io::Write, sync::Arc};

use anyhow::{Context as _, Result};

use crate::{
    commands::until::Remaining,
    model::{
        Cadences, Connection, Summary,
        cause::causes::{Causes, Counted},
        summary::{Row, Tally},
    },
    recording::write::Recording,
    report::Reporter,
};

/// Connections of nodes in, as many as `remaining` says; lines out.
pub struct Reporting<W: Write> {
    reporter: Reporter<W>,
    recorder: Option<Reporter<Recording>>,
    remaining: Remaining,
    /// Of each node: processes of two nodes are two.
    cadences: BTreeMap<Arc<str>, Cadences>,
    causes: Causes,
    reported: u64,
}

impl<W: Write> Reporting<W> {
    pub fn new(reporter: Reporter<W>, recorder: Option<Reporter<Recording>>, remaining: Remaining) -> Self {
        Self {
            reporter,
            recorder,
            remaining,
            cadences: BTreeMap::new(),
            causes: Causes::default(),
            reported: 0,
        }
    }

    /// # Errors
    /// When it can't be written.
    pub fn report(&mut self, node: &Arc<str>, mut connection: Connection) -> Result<()> {
        if let Some(cause) = &connection.cause {
            self.causes.add(cause);
        }
        if !self.cadences.contains_key(node) {
            self.cadences.insert(Arc::clone(node), Cadences::default());
        }
        if let Some(cadences) = self.cadences.get_mut(node) {
            // The agent has watched for longer, and knows better how often this comes.
            let here = cadences.seen(&connection);
            connection.cadence.get_or_insert(here);
        }
        self.reported += 1;
        self.remaining.report();
        self.record(node, &connection)?;
        Ok(self.reporter.of_node(node, &connection)?)
    }

    /// Records one, shown or not.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn record(&mut self, node: &Arc<str>, connection: &Connection) -> Result<()> {
        let Some(recorder) = &mut self.recorder else {
            return Ok(());
        };
        let recorded = recorder.of_node(node, connection);
        recorded.context("can't write the recording")
    }

    /// Whether the limit is reached.
    pub fn is_full(&self) -> bool {
        self.remaining.is_over()
    }

    /// After a batch.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn flush(&mut self) -> Result<()> {
        if let Some(recorder) = &mut self.recorder {
            recorder.flush().context("can't write the recording")?;
        }
        Ok(self.reporter.flush()?)
    }

    /// # Errors
    /// When it can't be written.
    pub fn summary(&mut self, summary: &Summary) -> Result<()> {
        self.reporter.summary(summary)?;
        if let Some(recorder) = &mut self.recorder {
            recorder.summary(summary).context("can't write the recording")?;
        }
        Ok(())
    }

    pub fn reported(&self) -> u64 {
        self.reported
    }

    /// A row for each source of each node.
    pub fn rows(&self) -> Vec<Row> {
        let rows = self.cadences.iter().flat_map(|(node, cadences)| {
            cadences.rows().map(|row| Row {
                node: Some(Arc::clone(node)),
                ..row.clone()
            })
        });
        rows.collect()
    }

    pub fn causes(&self) -> Vec<Counted> {
        self.causes.sorted()
    }

    pub fn losses(&self) -> [Tally; 2] {
        [
            Tally {
                name: "cadences",
                what: "sources evicted (table full): their counts and intervals restarted",
                count: self.cadences.values().map(Cadences::fell_out).sum(),
            },
            Tally {
                name: "causes",
                what: "connections whose cause is not listed (table full)",
                count: self.causes.others(),
            },
        ]
    }
}
