//! Connections: counted, remembered, logged.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Result;
use bytes::Bytes;

use super::{log::Log, rate::Rate, shared::Shared};
use crate::{
    cli,
    commands::watch::{pipeline::Pipeline, sink::Sink},
    model::{Connection, Summary, part::Part, unlisted_time::UnlistedTime},
    recording::history::Kept,
    report::{
        events::Lines,
        metrics::{Fill, Run},
    },
};

/// So much of the log's rate may come at once.
const BURST: Duration = Duration::from_secs(10);

/// Takes the connections of a run.
pub struct Collector {
    shared: Arc<Shared>,
    lines: Lines,
    log: Option<(Log, Rate)>,
}

impl Collector {
    pub fn new(shared: Arc<Shared>, log: Log, settings: cli::Log) -> Self {
        Self {
            lines: Lines::new(shared.node.clone()),
            log: settings
                .connections
                .then(|| (log, Rate::new(settings.rate.into(), BURST, Instant::now()))),
            shared,
        }
    }
}

impl Sink for Collector {
    fn connection(&mut self, connection: &Connection) -> io::Result<()> {
        let metrics = &self.shared.metrics;
        metrics.connection(connection);
        let line = Bytes::copy_from_slice(self.lines.connection(connection)?);
        if let Some((log, rate)) = &mut self.log
            && !(rate.takes(Instant::now()) && log.line(line.clone()))
        {
            metrics.unlogged();
        }
        self.shared.keep(Kept::new(connection, line), source(connection));
        Ok(())
    }

    fn unshown(&mut self, connection: &Connection) -> io::Result<()> {
        self.shared.metrics.connection(connection);
        let line = Bytes::copy_from_slice(self.lines.connection(connection)?);
        self.shared.keep(Kept::new(connection, line), source(connection));
        Ok(())
    }

    fn unlisted(&mut self, time: &UnlistedTime) -> io::Result<()> {
        self.shared.unlisted(*time);
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        self.shared.watched();
        Ok(())
    }

    fn summary(&mut self, _: &Summary) -> Result<()> {
        Ok(())
    }
}

/// Whose it is: a pod's, or else a network namespace's.
fn source(connection: &Connection) -> u64 {
    let mut hasher = DefaultHasher::new();
    match connection.owner.pod.as_ref() {
        Some(pod) => pod.uid.hash(&mut hasher),
        None => connection.netns.hash(&mut hasher),
    }
    hasher.finish()
}

/// Writes down what the kernel side has to say besides.
///
/// # Errors
/// When its tables can't be read.
pub fn count(pipeline: &mut Pipeline<Collector>, shared: &Shared) -> Result<()> {
    let metrics = &shared.metrics;
    pipeline.count(|role, outcome, port, owner, count| metrics.counted(role, outcome, port, owner, count))?;
    let losses = pipeline.losses();
    metrics.lost(Part::Watch, losses.iter().map(|loss| (loss.name, loss.count)));
    shared.lost(losses.iter().map(|loss| loss.count).sum());
    metrics.misses(&pipeline.misses());
    metrics.foreign(pipeline.foreign());
    metrics.aggregated(pipeline.aggregated());
    let probe = pipeline.probe();
    let fills = probe.tables.fill()?.map(|(map, entries, capacity)| Fill {
        map,
        entries,
        capacity,
    });
    metrics.fill(&fills);
    let runs = probe.runs().into_iter().map(|run| Run {
        program: run.program,
        seconds: run.time.as_secs_f64(),
        runs: run.runs,
    });
    metrics.runs(&runs.collect::<Vec<_>>());
    shared.count_held();
    Ok(())
}
