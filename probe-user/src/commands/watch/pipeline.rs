//! The stages of a record, in order: decode → storage → owner → pairing → TLS → translation → scope → selection → explain → report. No
//! stage knows another; all connections between them are here.

use std::{
    net::{Ipv6Addr, SocketAddr},
    ops::ControlFlow,
    path::PathBuf,
    sync::Arc,
    time::Instant,
};

use anyhow::Result;
use jiff::Timestamp;
use probe_ebpf::contract::connection::{Counter, CounterKey, Loss};

use super::{
    counter_delta::CounterDelta,
    decode::Decoder,
    explain::Explainer,
    handshakes::Handshakes,
    open::{self, OpenConnections},
    owner::Owners,
    pairing::{Paired, Pairing},
    reporting::Reporting,
    scope::Scope,
    selection::Filter,
    shedding::{Missing, Shedding, Storms},
    sink::Sink,
    status::Status,
    storage::Storage,
    tls::TlsCapture,
    translation::Translator,
};
use crate::{
    attribution::{Attribution, Paths, cri::Runtime, kube::Cluster, node_scope::NodeScope},
    capture::{clock::Clock, connection::Side},
    cli::{Stored, Watch},
    commands::{clock, until::Remaining},
    kernel::connection::{ConnectionProbe, Records, Tables},
    model::{
        Connection, Outcome, Owner, Role, Summary,
        summary::{Row, Tally, Unlisted, add_counted},
    },
};

/// Where the names of owners come from.
pub struct OwnerSources {
    pub runtime: Option<Runtime>,
    pub cluster: Option<Cluster>,
    /// Separates this node's connections from those of other nodes on the same kernel; `None`: all are reported.
    pub scope: Option<NodeScope>,
}

/// A run without the waiting.
pub struct Pipeline<S: Sink> {
    probe: ConnectionProbe,
    stages: Stages<S>,
}

/// A run without the waiting and the kernel side.
struct Stages<S> {
    settings: Watch,
    clock: Clock,
    started: Timestamp,
    // Sources besides the ring.
    handshakes: Handshakes,
    open: OpenConnections,
    counters: CounterDelta,
    shedding: Option<Shedding>,
    storms: Storms,
    // In the order in which a record passes them.
    decoder: Decoder,
    storage: Storage,
    owners: Owners,
    pairing: Pairing,
    tls: Option<TlsCapture>,
    translator: Translator,
    scope: Scope,
    filter: Filter,
    explainer: Option<Explainer>,
    reporting: Reporting<S>,
    status: Status,
}

impl<S: Sink> Pipeline<S> {
    pub fn new(
        settings: Watch,
        (probe, tls): (ConnectionProbe, Option<TlsCapture>),
        sink: S,
        sources: OwnerSources,
        explainer: Option<Explainer>,
    ) -> Self {
        let paths = Paths {
            proc: PathBuf::from("/proc"),
            pod_logs: settings.pod_logs.clone(),
        };
        let attribution = Attribution::new(paths, sources.runtime, sources.cluster).secrets(settings.secrets);
        let mut stages = Stages {
            clock: clock::now(),
            started: Timestamp::now(),
            handshakes: Handshakes::new(),
            open: OpenConnections::default(),
            counters: CounterDelta::default(),
            shedding: settings
                .max_cpu
                .map(|percent| Shedding::new(percent, settings.kernel.storm_limit)),
            storms: Storms::new(),
            decoder: Decoder::default(),
            storage: Storage::default(),
            owners: Owners::new(attribution),
            pairing: Pairing::new(),
            tls,
            translator: Translator::new(settings.netns.clone()),
            scope: Scope::new(sources.scope),
            filter: Filter::default(),
            explainer,
            reporting: Reporting::new(sink, Remaining::of(settings.count)),
            status: Status::default(),
            settings,
        };
        stages.report_status();
        Self { probe, stages }
    }

    /// Reads what the kernel has and reports it. Breaks once `--count` is reached.
    pub fn pump(&mut self) -> Result<ControlFlow<()>> {
        let Self { probe, stages } = self;
        stages.report_status();
        stages.shed(&mut probe.tables)?;
        stages.next_round();
        if let Some(tls) = &mut stages.tls {
            tls.read();
        }
        stages.read(&mut probe.records, &probe.tables);
        stages.release_translated(false);
        stages.release_overdue(&mut probe.records, &probe.tables, false)?;
        if stages.handshakes.is_due() {
            stages.read_handshakes(&mut probe.tables, false)?;
        }
        stages.release_explained(false);
        stages.reporting.flush()?;
        Ok(if stages.reporting.is_full() {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        })
    }

    /// Hands over how many connections ended since the last time that have no record.
    ///
    /// # Errors
    /// When the kernel's map can't be read.
    pub fn count(&mut self, mut each: impl FnMut(Role, Outcome, u16, &Owner, u64)) -> Result<()> {
        let Self { probe, stages } = self;
        let unstored = stages.storage.take();
        let counted = stages.counters.more(&mut probe.tables)?;
        for (key, count) in counted.into_iter().chain(unstored) {
            let (Some(role), Some(outcome)) = (Role::from_u8(key.role), Outcome::from_u8(key.outcome)) else {
                continue;
            };
            let owner = stages.owners.of_group(&key, &probe.tables);
            let runtime = stages.owners.attribution.runtime();
            if stages.scope.has(key.netns, &owner, runtime, count) {
                each(role, outcome, key.port, &owner, count);
            }
        }
        Ok(())
    }

    /// What the kernel side could not keep, and what was left out here.
    pub fn losses(&self) -> Vec<Tally> {
        self.stages.losses(&self.probe)
    }

    /// What could not be named.
    pub fn misses(&self) -> Vec<Tally> {
        self.stages.misses()
    }

    /// Connections of other nodes on this kernel, which were left out.
    pub fn foreign(&self) -> u64 {
        self.stages.scope.foreign()
    }

    /// Connections counted by source and not handed over one by one.
    pub fn aggregated(&self) -> u64 {
        self.probe.tables.lost(Loss::Aggregated)
    }

    /// The kernel side, for its fill and cost.
    pub fn probe(&self) -> &ConnectionProbe {
        &self.probe
    }

    /// The last round: what waits, what is still open, the summary.
    pub fn finish(mut self) -> Result<()> {
        // What ended after the ring was read and before the table is would be neither a record nor open.
        self.probe.detach();
        if let Some(tls) = &mut self.stages.tls {
            tls.detach();
        }
        // Whether --count is reached no longer matters.
        let _ = self.pump()?;
        let Self {
            mut probe,
            mut stages,
        } = self;
        stages.next_round();
        stages.release_translated(true);
        stages.release_overdue(&mut probe.records, &probe.tables, true)?;
        stages.read_handshakes(&mut probe.tables, true)?;
        stages.read_open(&probe.tables)?;
        stages.release_explained(true);
        stages.note_unlisted(&probe.tables, true);
        stages.reporting.flush()?;
        let summary = stages.summary(&probe)?;
        stages.reporting.summary(&summary)
    }
}

/// The way of a record. Each function is one stage, or those that never keep a record; what a stage keeps goes on from the
/// function that releases it.
impl<S: Sink> Stages<S> {
    fn read(&mut self, records: &mut Records, tables: &Tables) {
        records.drain(|bytes| {
            if let Some(side) = self.decoder.decode(bytes) {
                self.decoded(side, tables);
            }
        });
    }

    fn decoded(&mut self, side: Side, tables: &Tables) {
        if !self.storage.has(&self.settings, &side) {
            return;
        }
        let owner = self.owners.find(&side, tables);
        if let Some(paired) = self.pairing.push(side, owner) {
            self.paired(paired);
        }
    }

    fn paired(&mut self, Paired { side, owner, peer }: Paired) {
        let mut connection = side.connection(&self.clock, owner, peer);
        connection.tls = self.tls.as_mut().and_then(|tls| tls.find(&side));
        let attribution = &self.owners.attribution;
        let waits = |connection: &Connection, since| attribution.is_worth_waiting(&connection.owner, since);
        if let Some(connection) = self.translator.push(&side, connection, waits) {
            self.translated(connection);
        }
    }

    fn translated(&mut self, mut connection: Connection) {
        let runtime = self.owners.attribution.runtime();
        if !self.scope.has(connection.netns, &connection.owner, runtime, 1) {
            return;
        }
        self.owners.complete(&mut connection);
        if self.reporting.is_closed() {
            return;
        }
        if !self.filter.has(&self.settings, &connection) {
            if self.settings.stored.has(connection.asked().port()) {
                self.reporting.store(&connection);
            }
            return;
        }
        let connection = match &mut self.explainer {
            Some(explainer) => explainer.ask(connection, self.clock),
            None => Some(connection),
        };
        if let Some(connection) = connection {
            self.reporting.report(connection);
        }
    }

    /// Clients whose addresses have been looked up for long enough; at the end of the run all.
    fn release_translated(&mut self, end: bool) {
        let attribution = &self.owners.attribution;
        let waits =
            |connection: &Connection, since| !end && attribution.is_worth_waiting(&connection.owner, since);
        let ready: Vec<_> = std::iter::from_fn(|| self.translator.pop(end, waits)).collect();
        for connection in ready {
            self.pairing.learn_translated(&connection);
            self.translated(connection);
        }
    }

    /// Servers' records whose client's did not come within a round; at the end of the run all.
    fn release_overdue(&mut self, records: &mut Records, tables: &Tables, end: bool) -> Result<()> {
        if self.pairing.needs_open_clients() {
            if !end && !self.open.is_due() {
                return Ok(());
            }
            let Self {
                open,
                owners,
                pairing,
                ..
            } = self;
            open.clients(tables, |side| {
                let owner = owners.find(side, tables);
                pairing.learn(side, &owner);
            })?;
            // Those that ended meanwhile.
            self.read(records, tables);
        }
        while let Some(paired) = self.pairing.pop_overdue() {
            self.paired(paired);
        }
        Ok(())
    }

    /// Failed connections whose cause was looked for; at the end of the run all.
    fn release_explained(&mut self, end: bool) {
        let ready = self.explainer.as_mut().map(|explainer| explainer.ready(end));
        for connection in ready.into_iter().flatten() {
            self.reporting.report(connection);
        }
    }

    fn read_handshakes(&mut self, tables: &mut Tables, end: bool) -> Result<()> {
        for side in self.handshakes.take(tables, &self.clock, end)? {
            self.decoded(side, tables);
        }
        Ok(())
    }

    fn read_open(&mut self, tables: &Tables) -> Result<()> {
        let shown = self.settings.outcomes.contains(&Outcome::Open);
        if !shown && self.settings.stored == Stored::Shown {
            return Ok(());
        }
        for sides in open::all(tables)? {
            for side in sides {
                if !shown && !self.settings.stored.has(side.server().port()) {
                    continue;
                }
                self.decoded(side, tables);
            }
            self.release_translated(true);
        }
        Ok(())
    }

    /// What waits now has waited once.
    fn next_round(&mut self) {
        self.clock = clock::now();
        let now = Instant::now();
        self.owners.next_round(now);
        self.pairing.next_round();
        self.translator.next_round(now);
    }

    /// Keeps to the limits of the run, and says what they cost.
    fn shed(&mut self, tables: &mut Tables) -> Result<()> {
        self.storms.report(tables.lost(Loss::Aggregated));
        self.note_unlisted(tables, false);
        let decoded = self.decoder.decoded();
        let limit = self.shedding.as_mut().and_then(|shedding| shedding.next(decoded));
        limit.map_or(Ok(()), |limit| Ok(tables.limit_storms(limit)?))
    }

    /// When connections were not handed over.
    fn note_unlisted(&mut self, tables: &Tables, end: bool) {
        let missing = Missing {
            aggregated: tables.lost(Loss::Aggregated),
            lost: tables.lost(Loss::Record),
        };
        let now = Timestamp::now();
        // As precise as all other times.
        let now = Timestamp::from_microsecond(now.as_microsecond()).unwrap_or(now);
        if let Some(time) = self.storms.unlisted(missing, now, end) {
            self.reporting.unlisted(&time);
        }
    }

    fn report_status(&mut self) {
        Status::conntrack(self.translator.status());
        while let Some(news) = self.owners.attribution.news() {
            self.status.names(news);
        }
    }
}

/// What a run reports besides connections.
impl<S: Sink> Stages<S> {
    fn summary(&mut self, probe: &ConnectionProbe) -> Result<Summary> {
        let mut rows = self.reporting.rows();
        let mut counted = self.reporting.reported();
        let mut unlisted = Vec::new();
        if !self.reporting.is_full() {
            probe.tables.counters(|key, counter| {
                if let Some(row) = self.unreported(&key, &counter, &probe.tables) {
                    counted += counter.connections;
                    unlisted.push(row);
                }
            })?;
            add_counted(&mut rows, unlisted);
        }
        Ok(Summary {
            started: self.started,
            ended: Timestamp::now(),
            watched: self.settings.description(),
            counted,
            reported: self.reporting.reported(),
            aggregated: probe.tables.lost(Loss::Aggregated),
            rows,
            causes: self.reporting.causes(),
            losses: self.losses(probe),
            misses: self.misses(),
        })
    }

    /// A row for connections without a record, if they are what was asked for.
    fn unreported(&mut self, key: &CounterKey, counter: &Counter, tables: &Tables) -> Option<Row> {
        let count = counter.connections;
        let (role, outcome) = (Role::from_u8(key.role)?, Outcome::from_u8(key.outcome)?);
        let address = |address| Ipv6Addr::from(address).to_canonical();
        let ends = (
            address(key.client),
            SocketAddr::new(address(key.server), key.port),
        );
        let owner: Arc<Owner> = self.owners.of_group(key, tables);
        let kind = (role, outcome, ends);
        let has = count > 0 && self.filter.has_counted(&self.settings, kind, &owner, count);
        let time = |ns| self.clock.time(ns);
        has.then(|| {
            Row::counted(
                (role, outcome),
                ends,
                owner,
                Unlisted {
                    connections: count,
                    client_bytes: counter.client_bytes,
                    server_bytes: counter.server_bytes,
                },
                (time(counter.first_ns), time(counter.last_ns)),
            )
        })
    }

    /// What the kernel side could not keep, and what each stage left out.
    fn losses(&self, probe: &ConnectionProbe) -> Vec<Tally> {
        let mut losses = kernel_losses(probe);
        losses.extend(self.decoder.losses());
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
        let names = self.owners.attribution.misses().tallies();
        let mut misses = [names, self.translator.tallies()].concat();
        misses.extend(self.filter.misses(&self.settings));
        misses
    }
}

/// What the kernel side could not keep.
fn kernel_losses(probe: &ConnectionProbe) -> Vec<Tally> {
    let mut losses: Vec<Tally> = Loss::ALL
        .into_iter()
        // Of these nothing is lost but their lines.
        .filter(|loss| *loss != Loss::Aggregated)
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
