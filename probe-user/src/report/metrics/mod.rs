//! `/metrics`: what is counted, under which names.

mod definitions;
mod label;
mod store;

use std::{
    collections::{HashMap, HashSet, hash_map::Entry},
    net::SocketAddr,
    sync::{Mutex, PoisonError},
};

use self::{
    definitions::{
        AGGREGATED, BUILD, CADENCE, CAUSES, CONNECTIONS, CPU, FINDINGS, FOREIGN, FORGOTTEN, HELD, LACKS,
        LOST, MAP_CAPACITY, MAP_ENTRIES, MEMORY, MISSES, PART_UP, PROGRAM_RUNS, PROGRAM_SECONDS, QUESTIONS,
        REFUSED, RESETS, START, STORED, UNLOGGED, UNSTORED, UNTRACKED, VXLAN_DROPS, VXLAN_PACKETS,
        VXLAN_PEER_UP,
    },
    label::Value,
    store::Store,
};
use crate::model::{
    Connection, Outcome, Owner, Role,
    bypass::{self, finding::Fault as BypassFault},
    finding::Severity,
    outcome::{is_silent_client, reset_by},
    part::{Part, State},
    summary::Tally,
    vxlan::{self, finding::Fault as VxlanFault, traffic::Direction},
};

/// Ports of one workload with series of their own; a client that tries all ports must not fill the table.
const PORTS: usize = 64;
/// Workloads whose ports have series of their own.
const WORKLOADS: usize = 4096;
/// Of an exemplar's text OpenMetrics allows 128 characters, names of labels included.
const EXEMPLAR_POD: usize = 64;
const EXEMPLAR_CLIENT: usize = 47;

/// Everything that `/metrics` shows.
#[derive(Debug)]
pub struct Metrics {
    store: Store,
    ports: Mutex<HashMap<[Value; 2], HashSet<u16>>>,
}

/// One of the tables that the kernel side keeps.
#[derive(Clone, Copy, Debug)]
pub struct Fill {
    pub map: &'static str,
    pub entries: u64,
    pub capacity: u64,
}

/// What the kernel says of a program of probe's.
#[derive(Clone, Debug)]
pub struct Run {
    pub program: String,
    pub seconds: f64,
    pub runs: u64,
}

impl Metrics {
    /// With at most so many series.
    pub fn new(most: usize, kernel: &str) -> Self {
        let metrics = Self {
            store: Store::new(most),
            ports: Mutex::default(),
        };
        let build = [env!("CARGO_PKG_VERSION"), kernel].map(Value::from);
        metrics.store.set(&BUILD, &build, 1.0);
        metrics
    }

    /// Changes the bound.
    pub fn bound(&self, most: usize) {
        self.store.bound(most);
    }

    /// As OpenMetrics.
    pub fn encode(&self) -> String {
        self.store.encode()
    }

    /// A connection that was reported.
    pub fn connection(&self, connection: &Connection) {
        let port = connection.asked().port();
        let whose = self.whose(&connection.owner, port);
        let labels = ended(connection.role, connection.outcome, &whose);
        self.store
            .add_with(&CONNECTIONS, &labels, 1, exemplar(connection));
        self.reset(connection.outcome, &whose, 1);
        if let Some(cause) = &connection.cause {
            self.store.add(&CAUSES, &with(cause.kind.name(), &whose), 1);
        }
        if is_silent_client(connection.outcome)
            && connection.role == Role::Client
            && let Some(every) = connection.cadence.and_then(|cadence| cadence.every)
        {
            self.store.set(&CADENCE, &whose, every.as_secs_f64());
        }
    }

    /// Connections that the kernel side counted and did not report.
    pub fn counted(&self, role: Role, outcome: Outcome, port: u16, owner: &Owner, count: u64) {
        let whose = self.whose(owner, port);
        self.store.add(&CONNECTIONS, &ended(role, outcome, &whose), count);
        self.reset(outcome, &whose, count);
    }

    fn reset(&self, outcome: Outcome, whose: &[Value; 3], count: u64) {
        if let Some(by) = reset_by(outcome) {
            self.store.add(&RESETS, &with(by.name(), whose), count);
        }
    }

    /// Namespace, workload and port; a pod without an owner is its own workload.
    fn whose(&self, owner: &Owner, port: u16) -> [Value; 3] {
        let pod = owner.pod.as_ref();
        let namespace = pod.and_then(|pod| pod.namespace.as_deref()).unwrap_or_default();
        let workload = pod
            .and_then(|pod| match &pod.workload {
                Some(workload) => Some(workload.name.as_str()),
                None => pod.name.as_deref(),
            })
            .unwrap_or_default();
        let [namespace, workload] = [namespace, workload].map(Value::from);
        let mut ports = self.ports.lock().unwrap_or_else(PoisonError::into_inner);
        let workloads = ports.len();
        let told = match ports.entry([namespace.clone(), workload.clone()]) {
            Entry::Vacant(_) if workloads >= WORKLOADS => false,
            entry => {
                let known = entry.or_default();
                known.contains(&port) || (known.len() < PORTS && known.insert(port))
            }
        };
        let port = if told {
            Value::new(&port.to_string())
        } else {
            Value::new("other")
        };
        [namespace, workload, port]
    }

    /// How VXLAN devices are doing.
    pub fn vxlan(&self, view: &vxlan::view::View) {
        let mut packets = HashMap::<[Value; 3], f64>::new();
        let mut peers = HashMap::<[Value; 2], f64>::new();
        for peer in view.peers() {
            let Some(vtep) = peer.vtep else { continue };
            let (device, address) = (
                Value::new(&peer.overlay.device.name),
                Value::new(&vtep.to_string()),
            );
            for (direction, count) in [(Direction::In, &peer.received), (Direction::Out, &peer.sent)] {
                let labels = [Value::new(direction.name()), device.clone(), address.clone()];
                *packets.entry(labels).or_default() += count.packets as f64;
            }
            if peer.peer.is_some() {
                let up = peers.entry([device, address]).or_insert(1.0);
                if peer
                    .findings
                    .iter()
                    .any(|found| found.severity == Severity::Failed)
                {
                    *up = 0.0;
                }
            }
        }
        let mut drops = HashMap::<[Value; 2], f64>::new();
        for (drop, count) in &view.traffic.drops {
            let device = view.devices.get(&drop.device).map_or("", String::as_str);
            let reason = drop.reason.as_deref().unwrap_or("unknown");
            *drops.entry([device, reason].map(Value::from)).or_default() += count.packets as f64;
        }
        self.store.replace(&VXLAN_PACKETS, owned(packets));
        self.store.replace(&VXLAN_PEER_UP, owned(peers));
        self.store.replace(&VXLAN_DROPS, owned(drops));
        let losses = view.traffic.losses.iter().copied();
        self.lost(Part::Vxlan, losses);
        self.findings(
            Part::Vxlan,
            VxlanFault::ALL.map(VxlanFault::name),
            view.findings.iter().map(|finding| finding.kind.name()),
        );
    }

    /// Untracked packets.
    pub fn bypass(&self, view: &bypass::View) {
        for rule in view.rules.iter().filter(|rule| rule.since.is_some()) {
            let intended = if rule.intended.is_some() { "yes" } else { "no" };
            let labels = [intended, &rule.name()].map(Value::from);
            self.store
                .set(&UNTRACKED, &labels, rule.since.unwrap_or(0) as f64);
        }
        self.lost(Part::Bypass, [("streams", view.rest)]);
        self.findings(
            Part::Bypass,
            BypassFault::ALL.map(BypassFault::name),
            view.findings.iter().map(|finding| finding.kind.name()),
        );
    }

    /// Every kind is there, so that a fault that begins is a change and no new series.
    fn findings<'a, const N: usize>(
        &self,
        part: Part,
        kinds: [&'static str; N],
        found: impl Iterator<Item = &'a str>,
    ) {
        let mut counts: HashMap<&str, f64> = kinds.into_iter().map(|kind| (kind, 0.0)).collect();
        for kind in found {
            *counts.entry(kind).or_default() += 1.0;
        }
        for (kind, count) in counts {
            self.store
                .set(&FINDINGS, &[part.name(), kind].map(Value::from), count);
        }
    }

    /// How a part is doing.
    pub fn part(&self, part: Part, state: &State) {
        let labels = [Value::new(part.name())];
        let (up, lacks) = match state {
            State::Off => return,
            State::Starts | State::Failed(_) => (0.0, 0),
            State::Runs { lacks } => (1.0, lacks.len()),
        };
        self.store.set(&PART_UP, &labels, up);
        self.store.set(&LACKS, &labels, lacks as f64);
    }

    /// What was not kept or not seen, since the part began.
    pub fn lost<'a>(&self, part: Part, losses: impl IntoIterator<Item = (&'a str, u64)>) {
        for (reason, count) in losses {
            self.store
                .set(&LOST, &[part.name(), reason].map(Value::from), count as f64);
        }
    }

    /// What could not be named.
    pub fn misses(&self, misses: &[Tally]) {
        for miss in misses {
            self.store
                .set(&MISSES, &[Value::new(miss.name)], miss.count as f64);
        }
    }

    /// How full the kernel side's tables are.
    pub fn fill(&self, fills: &[Fill]) {
        for fill in fills {
            let labels = [Value::new(fill.map)];
            self.store.set(&MAP_ENTRIES, &labels, fill.entries as f64);
            self.store.set(&MAP_CAPACITY, &labels, fill.capacity as f64);
        }
    }

    /// How long the kernel runs probe's programs.
    pub fn runs(&self, runs: &[Run]) {
        for run in runs {
            let labels = [Value::new(&run.program)];
            self.store.set(&PROGRAM_SECONDS, &labels, run.seconds);
            self.store.set(&PROGRAM_RUNS, &labels, run.runs as f64);
        }
    }

    /// Connections that were only counted.
    pub fn aggregated(&self, count: u64) {
        self.store.set(&AGGREGATED, &[], count as f64);
    }

    /// Connections of other nodes on this kernel.
    pub fn foreign(&self, count: u64) {
        self.store.set(&FOREIGN, &[], count as f64);
    }

    /// What is remembered, and how much no longer is, by why.
    pub fn held(&self, held: usize, forgotten: impl IntoIterator<Item = (&'static str, u64)>) {
        self.store.set(&HELD, &[], held as f64);
        for (why, count) in forgotten {
            self.store.set(&FORGOTTEN, &[Value::new(why)], count as f64);
        }
    }

    /// Bytes of the history on disk, and how many connections are not in it.
    pub fn stored(&self, bytes: u64, unstored: impl IntoIterator<Item = (&'static str, u64)>) {
        self.store.set(&STORED, &[], bytes as f64);
        for (why, count) in unstored {
            self.store.set(&UNSTORED, &[Value::new(why)], count as f64);
        }
    }

    /// A connection that was not logged for the rate.
    pub fn unlogged(&self) {
        self.store.add(&UNLOGGED, &[], 1);
    }

    /// A request that was answered.
    pub fn question(&self, port: &str, status: u16) {
        let labels = [port, &status.to_string()].map(Value::from);
        self.store.add(&QUESTIONS, &labels, 1);
    }

    /// A connection that was not taken.
    pub fn refused(&self, port: &str) {
        self.store.add(&REFUSED, &[Value::new(port)], 1);
    }

    /// What the agent itself takes: bytes, seconds, seconds since 1970.
    pub fn process(&self, resident: u64, cpu: f64, start: f64) {
        self.store.set(&MEMORY, &[], resident as f64);
        self.store.set(&CPU, &[], cpu);
        self.store.set(&START, &[], start);
    }
}

fn ended(role: Role, outcome: Outcome, whose: &[Value; 3]) -> Vec<Value> {
    let ends = [outcome.name(), role.name()].map(Value::from);
    ends.into_iter().chain(whose.iter().cloned()).collect()
}

fn with(first: &str, whose: &[Value; 3]) -> Vec<Value> {
    [Value::new(first)]
        .into_iter()
        .chain(whose.iter().cloned())
        .collect()
}

fn owned<const N: usize>(samples: HashMap<[Value; N], f64>) -> impl Iterator<Item = (Vec<Value>, f64)> {
    samples
        .into_iter()
        .map(|(labels, value)| (labels.to_vec(), value))
}

/// Pod and address of the client.
fn exemplar(connection: &Connection) -> [Value; 2] {
    let pod = connection.actor().and_then(|owner| owner.pod.as_ref());
    let name = pod.and_then(|pod| pod.name.as_deref()).unwrap_or_default();
    let client: SocketAddr = connection.seen_as.unwrap_or(connection.source);
    [
        Value::cut(name, EXEMPLAR_POD),
        Value::cut(&client.to_string(), EXEMPLAR_CLIENT),
    ]
}

#[cfg(test)]
mod tests;
