//! `probe watch --cluster`: connections of all nodes as they end, in the order of time. Followers → merge → selection → report.

mod followers;
mod nodes;
mod reporting;
#[cfg(test)]
mod tests;

use std::{
    io::Write,
    mem,
    ops::ControlFlow,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Result;
use jiff::Timestamp;
use tokio::{
    select,
    sync::{mpsc, watch},
    time::{MissedTickBehavior, interval},
};

use self::{
    followers::{Followers, discover},
    nodes::Nodes,
    reporting::Reporting,
};
use super::{Cluster, files};
use crate::{
    cli::{Agents, Watch},
    cluster::{
        Agent,
        follow::{Heard, News},
        merge::{MOST, Merge},
    },
    commands::{
        quiet_if_closed,
        until::{Remaining, Until},
        watch::{recorder, reporter},
    },
    model::{Connection, Summary, recording_scope::RecordingScope, selector::Selection},
    recording::write::Recording,
    report::{Reporter, say},
};

/// How often connections are reported that have waited long enough.
const TICK: Duration = Duration::from_millis(100);
/// Messages of nodes that wait.
const WAITING: usize = 64;
/// Messages handled before the time is looked at.
const AT_ONCE: usize = 1024;
/// Nodes named at the beginning; of more, how many there are.
const NAMED: usize = 8;

/// Runs until Ctrl-C, SIGTERM, `--duration` or `--count`, then prints the summary.
///
/// # Errors
/// When there is no agent to ask, none of them ever answered, or the output can't be written.
pub async fn run(settings: Watch, whom: Agents) -> Result<()> {
    let until = Until::signals()?;
    let cluster = Arc::new(Cluster::open(whom).await?);
    let agents = cluster.agents().await?;
    // One is held to each.
    files::allow(agents.len())?;
    cluster.tell_nodes_without(&agents).await;
    say(format_args!(
        "watching {} on {} (Ctrl-C ends with a summary)",
        settings.description(),
        named(&agents)
    ));
    let names = agents.iter().map(|agent| agent.node.as_str());
    let reporter = reporter(&settings).nodes(names);
    // Which outcomes an agent keeps is in its configuration.
    let scope = RecordingScope {
        ports: settings.kernel.ports.clone(),
        ..RecordingScope::unnamed(false)
    };
    let recorder = recorder(&settings, &scope)?;
    let duration = settings.duration;
    let (list, known) = watch::channel(agents);
    tokio::spawn(discover(Arc::clone(&cluster), list));
    let (sender, mut news) = mpsc::channel(WAITING);
    let mut followers = Followers::new(&cluster, &settings, known.clone(), sender);
    let mut watching = Watching::new(settings, reporter, recorder);
    followers.begin(|node| watching.begins(node));

    let mut known = known;
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut until = until.or_after(duration);
    let mut is_short = false;
    loop {
        select! {
            () = until.over() => break,
            _ = tick.tick() => {}
            Ok(()) = known.changed() => {
                let allowed = files::allow(known.borrow_and_update().len());
                if let Err(error) = allowed && !mem::replace(&mut is_short, true) {
                    say(format_args!("probe: new nodes may be missing: {error}"));
                }
                followers.begin(|node| watching.begins(node));
            }
            Some(first) = news.recv() => {
                watching.heard(first);
                let more = std::iter::from_fn(|| news.try_recv().ok());
                more.take(AT_ONCE).for_each(|news| watching.heard(news));
            }
        }
        match watching.pump() {
            Ok(ControlFlow::Continue(())) => {}
            Ok(ControlFlow::Break(())) => break,
            Err(error) => return quiet_if_closed(error),
        }
    }
    // Nothing more is taken.
    drop(news);
    watching.finish().or_else(quiet_if_closed)
}

/// `3 nodes: alpha, beta, gamma`.
fn named(agents: &[Agent]) -> String {
    let names: Vec<_> = agents.iter().map(|agent| agent.node.as_str()).collect();
    match names.as_slice() {
        [node] => format!("node {node}"),
        names if names.len() <= NAMED => format!("{} nodes: {}", names.len(), names.join(", ")),
        names => format!("{} nodes", names.len()),
    }
}

/// A run without the waiting.
struct Watching<W: Write> {
    settings: Watch,
    started: Timestamp,
    nodes: Nodes,
    // In the order in which a connection passes them.
    merge: Merge<Connection>,
    reporting: Reporting<W>,
}

impl<W: Write> Watching<W> {
    fn new(settings: Watch, reporter: Reporter<W>, recorder: Option<Reporter<Recording>>) -> Self {
        Self {
            started: Timestamp::now(),
            nodes: Nodes::default(),
            merge: Merge::new(MOST),
            reporting: Reporting::new(reporter, recorder, Remaining::of(settings.count)),
            settings,
        }
    }

    /// Whether the node is new.
    fn begins(&mut self, node: &Arc<str>) -> bool {
        let is_new = self.nodes.add(Arc::clone(node));
        if is_new {
            self.merge.begins(node);
        }
        is_new
    }

    fn heard(&mut self, News { node, heard }: News) {
        if !self.nodes.has(&node) {
            return;
        }
        match heard {
            Heard::Connection(connection, bytes) => {
                self.merge
                    .push(&node, connection.time, bytes, *connection, Instant::now());
            }
            Heard::Alive(time) => self.merge.alive(&node, time),
            Heard::Gap(lost) => self.nodes.gap(&node, lost),
            Heard::Malformed(reason) => self.nodes.malformed(&node, reason.as_ref()),
            Heard::Answers { again } => {
                self.merge.begins(&node);
                self.nodes.answers(&node, again);
            }
            Heard::Silent { since, reason } => {
                self.merge.ends(&node);
                self.nodes.silent(&node, since, reason);
            }
        }
    }

    /// Reports what has waited long enough. Breaks once `--count` is reached.
    fn pump(&mut self) -> Result<ControlFlow<()>> {
        let now = Instant::now();
        while !self.reporting.is_full()
            && let Some((node, connection)) = self.merge.pop(now)
        {
            self.merged(&node, connection)?;
        }
        self.reporting.flush()?;
        Ok(if self.reporting.is_full() {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        })
    }

    fn merged(&mut self, node: &Arc<str>, connection: Connection) -> Result<()> {
        if !self.is_watched(&connection) {
            return Ok(());
        }
        if self.settings.select(&connection) != Selection::Selected {
            return self.reporting.record(node, &connection);
        }
        self.reporting.report(node, connection)
    }

    /// Agents filter what they send; it is not relied on.
    fn is_watched(&self, connection: &Connection) -> bool {
        let ports = &self.settings.kernel.ports;
        let asked = [connection.destination.port(), connection.asked().port()];
        ports.is_empty() || asked.iter().any(|port| ports.contains(port))
    }

    /// The last round: what waits, the summary, and which nodes did not answer.
    fn finish(mut self) -> Result<()> {
        while !self.reporting.is_full()
            && let Some((node, connection)) = self.merge.take()
        {
            self.merged(&node, connection)?;
        }
        self.reporting.flush()?;
        let summary = self.summary();
        self.reporting.summary(&summary)?;
        self.nodes.finish()
    }

    fn summary(&self) -> Summary {
        Summary {
            started: self.started,
            ended: Timestamp::now(),
            watched: self.settings.description(),
            counted: self.reporting.reported(),
            reported: self.reporting.reported(),
            // By each agent, whose metrics have it.
            aggregated: 0,
            rows: self.reporting.rows(),
            causes: self.reporting.causes(),
            losses: self
                .nodes
                .losses()
                .into_iter()
                .chain(self.reporting.losses())
                .collect(),
            misses: Vec::new(),
        }
    }
}
