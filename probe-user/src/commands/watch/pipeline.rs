//! Records → owners → report.

use std::{
    collections::HashSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    ops::ControlFlow,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Result;
use jiff::Timestamp;
use probe_ebpf::contract::{
    connection::{Connection as Raw, CounterKey, Handshake, HandshakeKey, Loss, Record, Task},
    outcome::state,
};

use super::{
    counter_delta::CounterDelta,
    explain::Explainer,
    pairing::{Pair, Pairing},
    sink::Sink,
    tls::TlsCapture,
    translation::Translator,
};
use crate::{
    attribution::{
        Attribution, Paths,
        cri::Runtime,
        health::{Health, News},
        kube::Cluster,
        node_scope::NodeScope,
    },
    capture::{clock::Clock, connection as capture},
    cli::Watch,
    commands::clock,
    kernel::connection::{ConnectionProbe, Records, Tables},
    model::{
        Cadence, Cadences, Connection, Outcome, Owner, Role, Summary,
        cause::causes::Causes,
        selector::Selection,
        summary::{Row, Tally},
        tls::Tls,
    },
    report::say,
};

/// How often the handshakes that never finished are looked at.
const HANDSHAKES_EVERY: Duration = Duration::from_secs(1);
/// How often at the most, and how far, the table of open connections is searched for a server's client.
const OPEN_EVERY: Duration = Duration::from_secs(1);
const OPEN_AT_MOST: usize = 4096;

/// Who is asked for names.
pub struct Who {
    pub runtime: Option<Runtime>,
    pub cluster: Option<Cluster>,
    /// Tells this node's connections from those of others on the same kernel; `None`: all are asked for.
    pub home: Option<NodeScope>,
}

/// All of a run but the waiting.
pub struct Pipeline<S: Sink> {
    probe: ConnectionProbe,
    watch: Watching<S>,
}

/// All of a run but the kernel side.
struct Watching<S> {
    settings: Watch,
    attribution: Attribution,
    home: Option<NodeScope>,
    /// Connections of other nodes.
    foreign: u64,
    /// Connections left out because their pod's labels are unknown.
    unlabelled: u64,
    counted: CounterDelta,
    ends: Pairing<(Record, Arc<Owner>)>,
    join: Translator,
    explainer: Option<Explainer>,
    tls: Option<TlsCapture>,
    cadences: Cadences,
    causes: Causes,
    sink: S,
    clock: Clock,
    started: Timestamp,
    /// Asked for and shown.
    reported: u64,
    malformed: u64,
    handshakes_at: Instant,
    open_at: Option<Instant>,
    /// The output's error: the run ends with it.
    failed: Option<std::io::Error>,
    /// Those who did not answer when asked for names, which was told.
    failing: HashSet<String>,
}

impl<S: Sink> Pipeline<S> {
    pub fn new(
        settings: Watch,
        (probe, tls): (ConnectionProbe, Option<TlsCapture>),
        sink: S,
        who: Who,
        explainer: Option<Explainer>,
    ) -> Self {
        let paths = Paths {
            proc: PathBuf::from("/proc"),
            pod_logs: settings.pod_logs.clone(),
        };
        let join = Translator::new(settings.netns.clone());
        let mut watch = Watching {
            join,
            explainer,
            tls,
            settings,
            attribution: Attribution::new(paths, who.runtime, who.cluster),
            home: who.home,
            foreign: 0,
            unlabelled: 0,
            counted: CounterDelta::default(),
            ends: Pairing::new(),
            cadences: Cadences::default(),
            causes: Causes::default(),
            sink,
            clock: clock::now(),
            started: Timestamp::now(),
            reported: 0,
            malformed: 0,
            handshakes_at: Instant::now(),
            open_at: None,
            failed: None,
            failing: HashSet::new(),
        };
        watch.tell_news();
        Self { probe, watch }
    }

    /// Reads what there is and writes it out. Breaks once `--count` is reached.
    pub fn pump(&mut self) -> Result<ControlFlow<()>> {
        let Self { probe, watch } = self;
        watch.clock = clock::now();
        watch.tell_news();
        watch.next_round();
        if let Some(tls) = &mut watch.tls {
            tls.read();
        }
        watch.read(&mut probe.records, &probe.tables);
        watch.joined(false);
        watch.settle(&mut probe.records, &probe.tables, false)?;
        if watch.handshakes_at.elapsed() >= HANDSHAKES_EVERY {
            watch.handshakes_at = Instant::now();
            watch.handshakes(&mut probe.tables, false)?;
        }
        watch.explained(false);
        watch.flush()?;
        Ok(if watch.done() {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        })
    }

    /// Hands over how many connections ended since the last time that no record tells of.
    ///
    /// # Errors
    /// When the kernel's map can't be read.
    pub fn count(&mut self, mut each: impl FnMut(Role, Outcome, u16, &Owner, u64)) -> Result<()> {
        let Self { probe, watch } = self;
        for (key, count) in watch.counted.more(&mut probe.tables)? {
            let (Some(role), Some(outcome)) = (Role::from_u8(key.role), Outcome::from_u8(key.outcome)) else {
                continue;
            };
            let owner = watch.owner_of_group(&key, &probe.tables);
            if watch.is_home(key.netns, &owner) {
                each(role, outcome, key.port, &owner, count);
            } else {
                watch.foreign += count;
            }
        }
        Ok(())
    }

    /// What the kernel side could not keep, and what was left out here.
    pub fn losses(&self) -> Vec<Tally> {
        self.watch.losses(&self.probe)
    }

    /// What could not be named.
    pub fn misses(&self) -> Vec<Tally> {
        self.watch.misses()
    }

    /// Connections of other nodes on this kernel, which were left out.
    pub fn foreign(&self) -> u64 {
        self.watch.foreign
    }

    /// The kernel side, to be asked how it is doing.
    pub fn probe(&self) -> &ConnectionProbe {
        &self.probe
    }

    /// The last round: what waits, what is still open, the summary.
    pub fn finish(mut self) -> Result<()> {
        // What ended after the ring was read and before the table is would be neither a record nor open.
        self.probe.detach();
        if let Some(tls) = &mut self.watch.tls {
            tls.detach();
        }
        // Whether --count is reached no longer matters.
        let _ = self.pump()?;
        let Self { mut probe, mut watch } = self;
        watch.clock = clock::now();
        watch.next_round();
        watch.joined(true);
        watch.settle(&mut probe.records, &probe.tables, true)?;
        watch.handshakes(&mut probe.tables, true)?;
        watch.still_open(&probe.tables)?;
        watch.explained(true);
        watch.flush()?;
        let summary = watch.summary(&probe)?;
        watch.sink.summary(&summary)
    }
}

impl<S: Sink> Watching<S> {
    /// Says when somebody can't be asked, for names or for translated addresses, and when they can again.
    fn tell_news(&mut self) {
        match self.join.news() {
            None => {}
            Some(Ok(())) => say(format_args!(
                "probe: conntrack answers: the addresses that servers see are known from now on"
            )),
            Some(Err(error)) => say(format_args!(
                "probe: watch runs without the addresses that servers see: {error}"
            )),
        }
        while let Some(News { who, lost, health }) = self.attribution.news() {
            match health {
                Health::Starting => {}
                Health::Well(name) => {
                    if self.failing.remove(&who) {
                        let name = name.map(|name| format!(": {name}")).unwrap_or_default();
                        say(format_args!("probe: {who} answers again{name}"));
                    }
                }
                Health::Failing(reason) => {
                    say(format_args!(
                        "probe: {who} can't be asked, {lost} until it can: {}",
                        reason
                    ));
                    self.failing.insert(who);
                }
            }
        }
    }

    /// What waits now has waited once.
    fn next_round(&mut self) {
        self.ends.next_round();
        self.join.next_round();
    }

    fn read(&mut self, records: &mut Records, tables: &Tables) {
        records.drain(|bytes| match capture::record(bytes) {
            Ok(record) => self.finished(&record, tables),
            Err(_) => self.malformed += 1,
        });
    }

    fn finished(&mut self, record: &Record, tables: &Tables) {
        let raw = &record.connection;
        let pair = Pair::of(raw);
        match capture::role(raw) {
            Ok(Role::Client) => {
                let owner = self.attribution.owner(&raw.task, raw.netns, tables);
                self.ends.learn(pair, &owner);
                match capture::finished(record, &self.clock, owner, None) {
                    Ok(mut connection) => {
                        connection.tls = self.tls_of(record);
                        self.join(pair, raw.start_ns, connection);
                    }
                    Err(_) => self.malformed += 1,
                }
            }
            Ok(Role::Server) => {
                let owner = self.server(raw, tables);
                match self.ends.client(&pair) {
                    Some(peer) => self.report_record(record, owner, Some(peer)),
                    None => {
                        if let Some((_, (record, owner))) = self.ends.wait(pair, (*record, owner)) {
                            self.report_record(&record, owner, None);
                        }
                    }
                }
            }
            Err(_) => self.malformed += 1,
        }
    }

    /// Finds out what the node made of a client's addresses.
    fn join(&mut self, pair: Pair, start_ns: u64, connection: Connection) {
        if let Some(connection) = self.join.ask(pair, start_ns, connection) {
            self.report(connection);
        }
    }

    /// Reports the clients' ends whose addresses are known by now, at the end of the run all.
    fn joined(&mut self, end: bool) {
        let attribution = &self.attribution;
        let waits =
            |connection: &Connection, since| !end && attribution.is_worth_waiting(&connection.owner, since);
        let ready: Vec<_> = std::iter::from_fn(|| self.join.pop(end, waits)).collect();
        for connection in ready {
            if connection.seen_as.is_some() || connection.dialled.is_some() {
                let seen_as = connection.seen_as.unwrap_or(connection.source);
                let pair = Pair::of_addresses(seen_as, connection.destination);
                self.ends.learn(pair, &connection.owner);
            }
            self.report(connection);
        }
    }

    /// The owner of a server's end: the process that closed it, or else the one that listens there.
    fn server(&mut self, raw: &Raw, tables: &Tables) -> Arc<Owner> {
        let address = capture::socket_address(raw.server, raw.server_port);
        if raw.task.pid == 0 {
            return self.attribution.listener(raw.netns, address).unwrap_or_default();
        }
        let owner = self.attribution.owner(&raw.task, raw.netns, tables);
        self.attribution.learned(raw.netns, address, &owner);
        owner
    }

    /// Reports the server ends whose client did not show up within a round, or at the end of the run all.
    fn settle(&mut self, records: &mut Records, tables: &Tables, end: bool) -> Result<()> {
        // Where the server closed first, the client may hold its end open for long.
        let closed_first = |record: &Record| matches!(record.last_state, state::FIN_WAIT1 | state::FIN_WAIT2);
        if self.ends.overdue().any(|(_, (record, _))| closed_first(record)) {
            if !end && self.open_at.is_some_and(|at| at.elapsed() < OPEN_EVERY) {
                return Ok(());
            }
            self.open_at = Some(Instant::now());
            let mut left = OPEN_AT_MOST;
            tables.connections(|raw| {
                if raw.established == 1 && capture::role(raw) == Ok(Role::Client) {
                    let owner = self.attribution.owner(&raw.task, raw.netns, tables);
                    self.ends.learn(Pair::of(raw), &owner);
                }
                left -= 1;
                if left == 0 {
                    ControlFlow::Break(())
                } else {
                    ControlFlow::Continue(())
                }
            })?;
            // Those that ended meanwhile.
            self.read(records, tables);
        }
        while let Some((pair, (record, owner))) = self.ends.pop_overdue() {
            let peer = self.ends.client(&pair);
            self.report_record(&record, owner, peer);
        }
        Ok(())
    }

    /// Reports the handshakes that the kernel gave up, and, at the end, those it has not given up yet.
    fn handshakes(&mut self, tables: &mut Tables, end: bool) -> Result<()> {
        let mut over = Vec::new();
        tables.handshakes(|key, handshake| {
            if end || given_up(&handshake, self.clock.now_ns()) {
                over.push((key, handshake));
            }
        })?;
        for (key, handshake) in over {
            tables.forget_handshake(&key);
            self.syn_only(&key, &handshake);
        }
        Ok(())
    }

    fn syn_only(&mut self, key: &HandshakeKey, handshake: &Handshake) {
        let address = capture::socket_address(key.server, key.server_port);
        let owner = self.attribution.listener(key.netns, address).unwrap_or_default();
        let peer = self.ends.client(&Pair::of_handshake(key));
        let times = (handshake.first_ns, handshake.last_ns);
        let connection = capture::syn_only(key, times, &self.clock, owner, peer);
        self.report(connection);
    }

    fn still_open(&mut self, tables: &Tables) -> Result<()> {
        if !self.settings.outcomes.contains(&Outcome::Open) {
            return Ok(());
        }
        let mut open = Vec::new();
        tables.connections(|raw| {
            if raw.established == 1 {
                open.push(*raw);
            }
            ControlFlow::Continue(())
        })?;
        open.sort_unstable_by_key(|raw| raw.start_ns);
        // Clients first: they name the servers' peers.
        for role in Role::ALL {
            for raw in open.iter().filter(|raw| capture::role(raw) == Ok(role)) {
                let pair = Pair::of(raw);
                let (owner, peer) = match role {
                    Role::Client => {
                        let owner = self.attribution.owner(&raw.task, raw.netns, tables);
                        self.ends.learn(pair, &owner);
                        (owner, None)
                    }
                    Role::Server => (self.server(raw, tables), self.ends.client(&pair)),
                };
                if let Ok(mut connection) = capture::open(raw, &self.clock, owner, peer) {
                    connection.tls = self.tls.as_mut().and_then(|tls| tls.of_open(raw));
                    match role {
                        Role::Client => self.join(pair, raw.start_ns, connection),
                        Role::Server => self.report(connection),
                    }
                }
            }
            self.joined(true);
        }
        Ok(())
    }

    fn report_record(&mut self, record: &Record, owner: Arc<Owner>, peer: Option<Arc<Owner>>) {
        match capture::finished(record, &self.clock, owner, peer) {
            Ok(mut connection) => {
                connection.tls = self.tls_of(record);
                self.report(connection);
            }
            Err(_) => self.malformed += 1,
        }
    }

    /// What a connection that ended began with.
    fn tls_of(&mut self, record: &Record) -> Option<Box<Tls>> {
        self.tls.as_mut()?.of_record(record)
    }

    fn report(&mut self, mut connection: Connection) {
        if !self.is_home(connection.netns, &connection.owner) {
            self.foreign += 1;
            return;
        }
        self.attribution
            .last_look(&mut connection.owner, connection.netns);
        // A client that no end here belongs to: another node's, or one behind it.
        if connection.role == Role::Server && connection.actor().is_none() {
            connection.peer = self.attribution.node(connection.source.ip());
        }
        if self.failed.is_some() || self.done() {
            return;
        }
        match self.settings.select(&connection) {
            Selection::Selected => {}
            Selection::NotSelected => return,
            Selection::LabelsUnknown => {
                self.unlabelled += 1;
                return;
            }
        }
        let connection = match &mut self.explainer {
            Some(explainer) => explainer.ask(connection, self.clock),
            None => Some(connection),
        };
        if let Some(connection) = connection {
            self.tell(connection);
        }
    }

    fn is_home(&mut self, netns: u32, owner: &Owner) -> bool {
        let runtime = self.attribution.runtime();
        self.home
            .as_mut()
            .is_none_or(|home| home.has(netns, owner, runtime))
    }

    /// Tells of those whose cause was looked for, at the end of the run of all.
    fn explained(&mut self, end: bool) {
        let ready = self.explainer.as_mut().map(|explainer| explainer.ready(end));
        for connection in ready.into_iter().flatten() {
            self.tell(connection);
        }
    }

    fn tell(&mut self, mut connection: Connection) {
        if self.failed.is_some() || self.done() {
            return;
        }
        if let Some(cause) = &connection.cause {
            self.causes.add(cause);
        }
        connection.cadence = Some(self.cadences.seen(&connection));
        self.reported += 1;
        self.failed = self.sink.connection(&connection).err();
    }

    /// Whether `--count` is reached.
    fn done(&self) -> bool {
        self.settings.count.is_some_and(|count| self.reported >= count)
    }

    fn flush(&mut self) -> Result<()> {
        let flushed = self.sink.flush();
        match self.failed.take() {
            Some(error) => Err(error.into()),
            None => flushed,
        }
    }

    fn summary(&mut self, probe: &ConnectionProbe) -> Result<Summary> {
        let mut rows: Vec<Row> = self.cadences.rows().cloned().collect();
        let mut counted = self.reported;
        if !self.done() {
            probe.tables.counters(|key, count| {
                if let Some(row) = self.unreported(&key, count, &probe.tables) {
                    counted += count;
                    rows.push(row);
                }
            })?;
        }
        Ok(Summary {
            started: self.started,
            ended: Timestamp::now(),
            watched: self.settings.description(),
            counted,
            reported: self.reported,
            rows,
            causes: self.causes.sorted(),
            losses: self.losses(probe),
            misses: self.misses(),
        })
    }

    /// What the kernel side could not keep, and what was left out here.
    fn losses(&self, probe: &ConnectionProbe) -> Vec<Tally> {
        let mut losses: Vec<Tally> = Loss::ALL
            .into_iter()
            .map(|loss| Tally {
                name: loss.name(),
                what: loss.what(),
                count: probe.tables.lost(loss),
            })
            .collect();
        losses.push(Tally {
            name: "skipped",
            what: "state changes not seen: an interrupt came while probe's program ran on that CPU",
            count: probe.skipped(),
        });
        losses.push(Tally {
            name: "malformed",
            what: "records that could not be read",
            count: self.malformed,
        });
        losses.push(Tally {
            name: "cadences",
            what: "sources forgotten for others: their counts and cadences started over",
            count: self.cadences.fell_out(),
        });
        if let Some(tls) = &self.tls {
            losses.extend(tls.losses());
        }
        if let Some(explainer) = &self.explainer {
            losses.push(Tally {
                name: "unexplained",
                what: "failed connections that nobody looked into: too many at once, or rules that took too long to read",
                count: explainer.missed(),
            });
            losses.push(Tally {
                name: "evidence",
                what: "dropped or untracked packets that found no room: a cause may be missing",
                count: explainer.unkept(),
            });
            losses.push(Tally {
                name: "causes",
                what: "connections with a cause that is not listed here for lack of room",
                count: self.causes.others(),
            });
        }
        losses
    }

    /// What could not be named.
    fn misses(&self) -> Vec<Tally> {
        let labels = self.settings.pods.selector.as_ref().map(|_| Tally {
            name: "labels",
            what: "connections left out by --selector: their pod's labels are unknown",
            count: self.unlabelled,
        });
        let mut misses = [self.attribution.misses().tallies(), self.join.tallies()].concat();
        misses.extend(labels);
        misses
    }

    /// Who has the control group of connections that are only counted.
    fn owner_of_group(&mut self, key: &CounterKey, tables: &Tables) -> Arc<Owner> {
        let task = Task {
            cgroup: key.cgroup,
            ..bytemuck::Zeroable::zeroed()
        };
        self.attribution.owner(&task, key.netns, tables)
    }

    /// A row for connections that no record told of, if they are what was asked for.
    fn unreported(&mut self, key: &CounterKey, count: u64, tables: &Tables) -> Option<Row> {
        let role = Role::from_u8(key.role)?;
        let outcome = Outcome::from_u8(key.outcome)?;
        let other = Ipv6Addr::from(key.peer).to_canonical();
        let owner = self.owner_of_group(key, tables);
        if !self.settings.wants_kind(role, outcome, other) {
            return None;
        }
        match self.settings.pods.select(&owner) {
            Selection::Selected => {}
            Selection::NotSelected => return None,
            Selection::LabelsUnknown => {
                self.unlabelled += count;
                return None;
            }
        }
        let unknown = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        let (client, server) = match role {
            Role::Client => (unknown, other),
            Role::Server => (other, unknown),
        };
        Some(Row {
            node: None,
            role,
            outcome,
            destination: SocketAddr::new(server, key.port),
            client,
            owner,
            peer: None,
            cadence: Cadence {
                count,
                every: None,
                spread: Duration::ZERO,
            },
            first: self.started,
            last: Timestamp::now(),
        })
    }
}

/// Whether the kernel no longer waits for the client: it doubles its wait with each SYN-ACK it sends again, so when
/// twice the last wait and a second are over, there will be no other.
fn given_up(handshake: &Handshake, now_ns: u64) -> bool {
    const FIRST_WAIT_NS: u64 = 1_000_000_000;
    let last_wait = FIRST_WAIT_NS << handshake.retransmits.saturating_sub(1).min(10);
    now_ns.saturating_sub(handshake.last_ns) > 2 * last_wait + FIRST_WAIT_NS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handshake_is_given_up_when_no_other_syn_ack_can_follow() {
        const SECOND: u64 = 1_000_000_000;
        for (retransmits, after, expected) in [
            (1, 2 * SECOND, false),
            (1, 4 * SECOND, true),
            (2, 4 * SECOND, false),
            (2, 6 * SECOND, true),
            (5, 32 * SECOND, false),
            (5, 34 * SECOND, true),
            (u64::MAX, SECOND, false),
        ] {
            let handshake = Handshake {
                first_ns: 0,
                last_ns: 0,
                retransmits,
            };
            assert_eq!(
                given_up(&handshake, after),
                expected,
                "{retransmits} after {after}"
            );
        }
    }
}
