//! `probe watch --cluster`: connections of all nodes as they end, in the order of time.

use std::{
    collections::BTreeMap,
    io::Write,
    ops::ControlFlow,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use jiff::Timestamp;
use tokio::{
    select,
    sync::{Semaphore, mpsc, watch},
    time::{MissedTickBehavior, interval, sleep},
};

use super::{Cluster, local};
use crate::{
    cli::{Agents, Watch},
    cluster::{
        Agent, AgentError, Forward,
        all::AT_ONCE as ASKED_AT_ONCE,
        follow::{Again, Follower, Heard, News},
        merge::{MOST, Merge},
        question::Connections,
    },
    commands::{
        periodic::Signals,
        quiet_if_closed,
        watch::{recorder, reporter},
    },
    model::{
        Cadences, Connection, Summary,
        cause::causes::Causes,
        selector::Selection,
        summary::{Row, Tally},
    },
    recording::write::Recording,
    report::{Reporter, say},
};

/// How often what has waited long enough is looked for.
const TICK: Duration = Duration::from_millis(100);
/// How often agents are looked for that were not there before.
const DISCOVER: Duration = Duration::from_secs(10);
/// What nodes have said and nobody has taken yet.
const WAITING: usize = 64;
/// What is taken before it is looked whether it is time for something else.
const AT_ONCE: usize = 1024;
/// How often, at the most, it is said that a node left something out.
const GAPS_EVERY: Duration = Duration::from_secs(10);
/// Nodes named at the beginning; of more, how many there are.
const NAMED: usize = 8;

/// Runs until Ctrl-C, SIGTERM, `--duration` or `--count`, then prints the summary.
///
/// # Errors
/// When there is no agent to ask, none of them ever answered, or the output can't be written.
pub async fn run(settings: Watch, whom: Agents) -> Result<()> {
    let mut signals = Signals::new()?;
    let cluster = Arc::new(Cluster::open(whom).await?);
    let agents = cluster.agents().await?;
    cluster.tell_nodes_without(&agents).await;
    say(format_args!(
        "watching {} on {} (Ctrl-C ends with a summary)",
        settings.description(),
        named(&agents)
    ));
    let names = agents.iter().map(|agent| agent.node.as_str());
    let reporter = reporter(&settings).nodes(names);
    let recorder = recorder(&settings)?;
    let duration = settings.duration;
    let (list, known) = watch::channel(agents);
    tokio::spawn(discover(Arc::clone(&cluster), list));
    let (sender, mut news) = mpsc::channel(WAITING);
    let mut followers = Followers::new(&cluster, &settings, known.clone(), sender);
    let mut watching = Watching::new(settings, reporter, recorder);
    followers.begin(&mut watching);

    let mut known = known;
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let end = async {
        match duration {
            Some(duration) => sleep(duration).await,
            None => std::future::pending().await,
        }
    };
    tokio::pin!(end);
    loop {
        select! {
            () = signals.any() => break,
            () = &mut end => break,
            _ = tick.tick() => {}
            Ok(()) = known.changed() => followers.begin(&mut watching),
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

/// Lists the agents again and again: pods are replaced, nodes come and go.
async fn discover(cluster: Arc<Cluster>, list: watch::Sender<Vec<Agent>>) {
    let mut failing = false;
    while !list.is_closed() {
        sleep(DISCOVER).await;
        match cluster.agents_now().await {
            Ok(now) => {
                if std::mem::take(&mut failing) {
                    say(format_args!("probe: the list of agents can be read again"));
                }
                list.send_if_modified(|known| {
                    let changed = *known != now;
                    *known = now;
                    changed
                });
            }
            Err(error) => {
                if !std::mem::replace(&mut failing, true) {
                    say(format_args!(
                        "probe: agents that are new or replaced are not found until they can be listed: {error:#}"
                    ));
                }
            }
        }
    }
}

/// One for each node that ever had an agent.
struct Followers {
    ways: Arc<Forward>,
    turns: Arc<Semaphore>,
    question: Connections,
    known: watch::Receiver<Vec<Agent>>,
    news: mpsc::Sender<News>,
    began: Option<Timestamp>,
}

impl Followers {
    fn new(
        cluster: &Cluster,
        settings: &Watch,
        known: watch::Receiver<Vec<Agent>>,
        news: mpsc::Sender<News>,
    ) -> Self {
        Self {
            ways: Arc::clone(&cluster.ways),
            turns: Arc::new(Semaphore::new(ASKED_AT_ONCE)),
            question: Connections {
                ports: settings.kernel.ports.clone(),
                role: settings.role,
                outcomes: settings.outcomes.clone(),
                ..Connections::default()
            },
            known,
            news,
            began: None,
        }
    }

    /// Follows those that nobody follows yet. An agent that comes later is asked for all since the beginning.
    fn begin<W: Write>(&mut self, watching: &mut Watching<W>) {
        let since = self.began;
        for agent in self.known.borrow().iter() {
            if watching.nodes.contains_key(agent.node.as_str()) {
                continue;
            }
            let node: Arc<str> = agent.node.as_str().into();
            if since.is_some() {
                say(format_args!("probe: node {node} has an agent now"));
            }
            watching.nodes.insert(Arc::clone(&node), Node::default());
            watching.merge.begins(&node);
            let follower = Follower {
                ways: Arc::clone(&self.ways),
                turns: Arc::clone(&self.turns),
                node,
                agents: self.known.clone(),
                question: self.question.clone(),
                since,
                news: self.news.clone(),
            };
            tokio::spawn(follower.run());
        }
        self.began.get_or_insert_with(Timestamp::now);
    }
}

/// What is known of a node.
#[derive(Default)]
struct Node {
    /// Who comes back how often there: processes of two nodes are two.
    cadences: Cadences,
    /// It answered at least once.
    answered: bool,
    /// Why it does not answer.
    silent: Option<AgentError>,
    malformed: u64,
    /// Connections left out that were not told of yet, and when that was told last.
    left_out: u64,
    gap_told: Option<Instant>,
}

/// All of a run but the waiting.
struct Watching<W: Write> {
    settings: Watch,
    nodes: BTreeMap<Arc<str>, Node>,
    merge: Merge<Connection>,
    causes: Causes,
    reporter: Reporter<W>,
    recorder: Option<Reporter<Recording>>,
    started: Timestamp,
    reported: u64,
    gaps: u64,
}

impl<W: Write> Watching<W> {
    fn new(settings: Watch, reporter: Reporter<W>, recorder: Option<Reporter<Recording>>) -> Self {
        Self {
            settings,
            nodes: BTreeMap::new(),
            merge: Merge::new(MOST),
            causes: Causes::default(),
            reporter,
            recorder,
            started: Timestamp::now(),
            reported: 0,
            gaps: 0,
        }
    }

    fn heard(&mut self, News { node, heard }: News) {
        let Some(known) = self.nodes.get_mut(&node) else {
            return;
        };
        match heard {
            Heard::Connection(connection, bytes) => {
                self.merge
                    .push(&node, connection.time, bytes, *connection, Instant::now());
            }
            Heard::Alive(time) => self.merge.alive(&node, time),
            Heard::Gap(lost) => {
                self.gaps = self.gaps.saturating_add(lost);
                known.left_out = known.left_out.saturating_add(lost);
                if known.gap_told.is_none_or(|told| told.elapsed() >= GAPS_EVERY) {
                    known.gap_told = Some(Instant::now());
                    let lost = std::mem::take(&mut known.left_out);
                    say(format_args!(
                        "probe: node {node}: {lost} connections were left out: they came faster than they could be sent"
                    ));
                }
            }
            Heard::Malformed(reason) => {
                known.malformed += 1;
                if known.malformed == 1 {
                    let reason = reason.map_or_else(|| "too long".to_owned(), |reason| reason.to_string());
                    say(format_args!(
                        "probe: node {node}: what its agent says can't all be read, the rest is left out and counted: {reason}"
                    ));
                }
            }
            Heard::Answers { again } => {
                known.answered = true;
                known.silent = None;
                self.merge.begins(&node);
                match again {
                    None => {}
                    Some(Again::Same) => say(format_args!("probe: node {node} answers again")),
                    Some(Again::Another) => say(format_args!(
                        "probe: node {node} answers again, by another agent: what the one before had not told is lost"
                    )),
                }
            }
            Heard::Silent { since, reason } => {
                self.merge.ends(&node);
                let since = since.map(|since| format!(" since {}", local(since)));
                say(format_args!(
                    "probe: node {node}: no answer{} ({reason}); trying again",
                    since.unwrap_or_default()
                ));
                known.silent = Some(reason);
            }
        }
    }

    /// Tells what it is time for. Breaks once `--count` is reached.
    fn pump(&mut self) -> Result<ControlFlow<()>> {
        let now = Instant::now();
        while !self.done()
            && let Some((node, connection)) = self.merge.pop(now)
        {
            self.tell(&node, connection)?;
        }
        self.flush()?;
        Ok(if self.done() {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        })
    }

    /// Whether `--count` is reached.
    fn done(&self) -> bool {
        self.settings.count.is_some_and(|count| self.reported >= count)
    }

    /// Agents filter what they tell; nobody relies on it.
    fn wants(&self, connection: &Connection) -> bool {
        let ports = &self.settings.kernel.ports;
        let asked = [connection.destination.port(), connection.asked().port()];
        (ports.is_empty() || asked.iter().any(|port| ports.contains(port)))
            && self.settings.select(connection) == Selection::Selected
    }

    fn tell(&mut self, node: &Arc<str>, mut connection: Connection) -> Result<()> {
        if !self.wants(&connection) {
            return Ok(());
        }
        if let Some(cause) = &connection.cause {
            self.causes.add(cause);
        }
        if let Some(known) = self.nodes.get_mut(node) {
            // The agent has watched for longer, and knows better how often this comes.
            let seen = known.cadences.seen(&connection);
            connection.cadence.get_or_insert(seen);
        }
        self.reported += 1;
        if let Some(recorder) = &mut self.recorder {
            recorder
                .of_node(node, &connection)
                .context("can't write the recording")?;
        }
        Ok(self.reporter.of_node(node, &connection)?)
    }

    fn flush(&mut self) -> Result<()> {
        if let Some(recorder) = &mut self.recorder {
            recorder.flush().context("can't write the recording")?;
        }
        Ok(self.reporter.flush()?)
    }

    /// The last round: what waits, the summary, and who is silent.
    fn finish(mut self) -> Result<()> {
        while !self.done()
            && let Some((node, connection)) = self.merge.take()
        {
            self.tell(&node, connection)?;
        }
        self.flush()?;
        let summary = self.summary();
        self.reporter.summary(&summary)?;
        if let Some(recorder) = &mut self.recorder {
            recorder.summary(&summary).context("can't write the recording")?;
        }
        for (node, known) in &self.nodes {
            match &known.silent {
                Some(reason) if known.answered => say(format_args!(
                    "probe: node {node} did not answer at the end, its latest connections are missing: {reason}"
                )),
                Some(reason) => say(format_args!("probe: node {node} did not answer: {reason}")),
                None if !known.answered => say(format_args!("probe: node {node} did not answer yet")),
                None => {}
            }
        }
        if !self.nodes.values().any(|node| node.answered) {
            bail!("no agent answered");
        }
        Ok(())
    }

    fn summary(&self) -> Summary {
        let rows = self.nodes.iter().flat_map(|(node, known)| {
            known.cadences.rows().map(|row| Row {
                node: Some(Arc::clone(node)),
                ..row.clone()
            })
        });
        let tally = |name, what, count| Tally { name, what, count };
        let nodes = || self.nodes.values();
        Summary {
            started: self.started,
            ended: Timestamp::now(),
            watched: self.settings.description(),
            counted: self.reported,
            reported: self.reported,
            rows: rows.collect(),
            causes: self.causes.sorted(),
            losses: vec![
                tally(
                    "gaps",
                    "connections that agents left out: they came faster than they could be sent",
                    self.gaps,
                ),
                tally(
                    "malformed",
                    "lines of agents that could not be read",
                    nodes().map(|node| node.malformed).sum(),
                ),
                tally(
                    "cadences",
                    "sources forgotten for others: their counts and cadences started over",
                    nodes().map(|node| node.cadences.fell_out()).sum(),
                ),
                tally(
                    "causes",
                    "connections with a cause that is not listed here for lack of room",
                    self.causes.others(),
                ),
            ],
            misses: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use clap::Parser as _;
    use serde_json::Value;

    use super::*;
    use crate::{
        cli::{Cli, Command},
        report::{Format, samples},
    };

    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>);

    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    /// What `probe watch --cluster` with these options makes of what nodes say.
    fn told(options: &str, said: Vec<(&'static str, Connection)>) -> Vec<Value> {
        let words = ["probe", "watch", "--cluster"]
            .into_iter()
            .chain(options.split_whitespace());
        let Command::Watch(args) = Cli::try_parse_from(words).unwrap().command else {
            panic!("not watch")
        };
        let out = Shared::default();
        let reporter = Reporter::new(Format::Json, None, false, out.clone());
        let mut watching = Watching::new(Watch::try_from(*args).unwrap(), reporter, None);
        for (node, connection) in said {
            let node: Arc<str> = node.into();
            watching.nodes.entry(Arc::clone(&node)).or_default().answered = true;
            let heard = Heard::Connection(Box::new(connection), 100);
            watching.heard(News { node, heard });
        }
        watching.finish().unwrap();
        let out = out.0.lock().unwrap();
        let lines = out.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        lines.map(|line| serde_json::from_slice(line).unwrap()).collect()
    }

    fn at(milliseconds: u64, connection: Connection) -> Connection {
        Connection {
            time: samples::time() + Duration::from_millis(milliseconds),
            ..connection
        }
    }

    /// Processes of the same name in network namespaces of the same number, on two nodes, are two sources.
    #[test]
    fn of_all_nodes_in_the_order_of_time() {
        let kubelet = || Connection {
            owner: Arc::new(samples::host("kubelet", 7)),
            cadence: None,
            ..samples::incident()
        };
        let lines = told(
            "",
            vec![
                ("beta", at(20, kubelet())),
                ("beta", at(40, kubelet())),
                ("alpha", at(10, kubelet())),
                ("alpha", at(30, samples::both_ends())),
            ],
        );
        let nodes: Vec<_> = lines.iter().map(|line| line["node"].clone()).collect();
        assert_eq!(
            nodes,
            ["alpha", "beta", "alpha", "beta"]
                .map(Value::from)
                .into_iter()
                .chain([Value::Null])
                .collect::<Vec<_>>()
        );
        // The agent's count, or this run's where the agent has none.
        let counts: Vec<_> = lines.iter().map(|line| line["count"].as_u64()).collect();
        assert_eq!(counts, [Some(1), Some(1), Some(12), Some(2), None]);
        let summary = lines.last().unwrap();
        let mut sources: Vec<_> = summary["sources"]
            .as_array()
            .unwrap()
            .iter()
            .map(|source| {
                (
                    source["node"].as_str().unwrap(),
                    source["count"].as_u64().unwrap(),
                )
            })
            .collect();
        sources.sort_unstable();
        assert_eq!(sources, [("alpha", 1), ("alpha", 1), ("beta", 2)]);
    }

    /// Whatever an agent tells, only what was asked for is shown.
    #[test]
    fn filters_hold() {
        let said = || {
            let web = Connection {
                owner: Arc::new(samples::pod("shop", "web-0", "nginx", 1)),
                destination: "10.96.0.1:443".parse().unwrap(),
                ..samples::incident()
            };
            vec![
                ("beta", samples::incident()),
                ("beta", samples::failed()),
                ("beta", web),
            ]
        };
        for (options, shown) in [
            ("", 3),
            ("--port 443", 1),
            ("--port 2379", 2),
            ("--namespace shop", 1),
            ("--pod sdp-monitor", 2),
            ("--pod shop/web", 1),
            ("--pod shop/sdp-monitor", 0),
            ("--outcome unanswered", 1),
            ("--role server", 0),
            ("--peer 10.96.0.0/16", 1),
            ("--count 2", 2),
        ] {
            assert_eq!(told(options, said()).len(), shown + 1, "{options}");
        }
    }
}
