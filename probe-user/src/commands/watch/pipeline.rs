//! Records → owners → report.

use std::{
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
    reporting::Reporting,
    scope::Scope,
    sink::Sink,
    status::Status,
    tls::TlsCapture,
    translation::Translator,
};
use crate::{
    attribution::{Attribution, Paths, cri::Runtime, kube::Cluster, node_scope::NodeScope},
    capture::{clock::Clock, connection as capture},
    cli::Watch,
    commands::clock,
    kernel::connection::{ConnectionProbe, Records, Tables},
    model::{
        Cadence, Connection, Outcome, Owner, Role, Summary,
        handshake::is_given_up,
        selector::Selection,
        summary::{Row, Tally},
        tls::Tls,
    },
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
    scope: Scope,
    /// Connections left out because their pod's labels are unknown.
    unlabelled: u64,
    counted: CounterDelta,
    ends: Pairing<(Record, Arc<Owner>)>,
    join: Translator,
    explainer: Option<Explainer>,
    tls: Option<TlsCapture>,
    reporting: Reporting<S>,
    clock: Clock,
    started: Timestamp,
    malformed: u64,
    handshakes_at: Instant,
    open_at: Option<Instant>,
    status: Status,
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
            attribution: Attribution::new(paths, who.runtime, who.cluster),
            scope: Scope::new(who.home),
            unlabelled: 0,
            counted: CounterDelta::default(),
            ends: Pairing::new(),
            reporting: Reporting::new(sink, settings.count),
            settings,
            clock: clock::now(),
            started: Timestamp::now(),
            malformed: 0,
            handshakes_at: Instant::now(),
            open_at: None,
            status: Status::default(),
        };
        watch.status.report(&mut watch.join, &mut watch.attribution);
        Self { probe, watch }
    }

    /// Reads what there is and writes it out. Breaks once `--count` is reached.
    pub fn pump(&mut self) -> Result<ControlFlow<()>> {
        let Self { probe, watch } = self;
        watch.clock = clock::now();
        watch.status.report(&mut watch.join, &mut watch.attribution);
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
        watch.reporting.flush()?;
        Ok(if watch.reporting.is_full() {
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
            if watch.scope.has(key.netns, &owner, &watch.attribution, count) {
                each(role, outcome, key.port, &owner, count);
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
        self.watch.scope.foreign()
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
        watch.reporting.flush()?;
        let summary = watch.summary(&probe)?;
        watch.reporting.summary(&summary)
    }
}

impl<S: Sink> Watching<S> {
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
            if end || is_given_up(&handshake, self.clock.now_ns()) {
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
        if !self
            .scope
            .has(connection.netns, &connection.owner, &self.attribution, 1)
        {
            return;
        }
        self.attribution
            .last_look(&mut connection.owner, connection.netns);
        // A client that no end here belongs to: another node's, or one behind it.
        if connection.role == Role::Server && connection.actor().is_none() {
            connection.peer = self.attribution.node(connection.source.ip());
        }
        if self.reporting.is_closed() {
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
            self.reporting.report(connection);
        }
    }

    /// Tells of those whose cause was looked for, at the end of the run of all.
    fn explained(&mut self, end: bool) {
        let ready = self.explainer.as_mut().map(|explainer| explainer.ready(end));
        for connection in ready.into_iter().flatten() {
            self.reporting.report(connection);
        }
    }

    fn summary(&mut self, probe: &ConnectionProbe) -> Result<Summary> {
        let mut rows = self.reporting.rows();
        let mut counted = self.reporting.reported();
        if !self.reporting.is_full() {
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
            reported: self.reporting.reported(),
            rows,
            causes: self.reporting.causes(),
            losses: self.losses(probe),
            misses: self.misses(),
        })
    }

    /// What the kernel side could not keep, and what each stage left out.
    fn losses(&self, probe: &ConnectionProbe) -> Vec<Tally> {
        let mut losses = kernel_losses(probe);
        losses.push(Tally {
            name: "malformed",
            what: "records that could not be read",
            count: self.malformed,
        });
        losses.extend(self.reporting.losses());
        losses.extend(self.tls.iter().flat_map(TlsCapture::losses));
        if let Some(explainer) = &self.explainer {
            losses.extend(explainer.losses());
            losses.push(self.reporting.unlisted_causes());
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

/// What the kernel side could not keep.
fn kernel_losses(probe: &ConnectionProbe) -> Vec<Tally> {
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
    losses
}
