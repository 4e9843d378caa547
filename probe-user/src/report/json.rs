//! `-o json`: one object a line, the schema of docs/json.md. What is not known is an absent field.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use serde::{Serialize, Serializer, ser::SerializeMap};

use super::{clock::Clock, lines, tls};
use crate::model::{
    self, Cadence, Summary, cause::causes::Counted, summary::Tally, translation::Untranslated,
};

#[derive(Serialize)]
struct Connection<'a> {
    event: &'static str,
    time: &'a str,
    role: &'static str,
    outcome: &'static str,
    #[serde(skip_serializing_if = "End::is_unknown")]
    source: End,
    destination: End,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes_sent: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes_received: Option<u64>,
    duration_us: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    process: Option<Process<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    container: Option<Container<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pod: Option<Pod<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    every_ms: Option<u64>,
    // Not in the first schema, so after it.
    #[serde(skip_serializing_if = "is_zero")]
    netns: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    peer: Option<Owner<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    every_spread_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    count: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    seen_as: Option<End>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dialled: Option<End>,
    #[serde(skip_serializing_if = "Option::is_none")]
    untranslated: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cause: Option<Cause<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tls: Option<tls::Object<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<&'a str>,
}

#[derive(Serialize)]
struct Cause<'a> {
    kind: &'static str,
    what: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    rule: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    service: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    remedy: Option<&'a str>,
    /// The rule, or the fault, is the one; else it is what fits.
    certain: bool,
}

impl<'a> Cause<'a> {
    fn new(cause: &'a model::Cause) -> Self {
        Self {
            kind: cause.kind.name(),
            what: &cause.what,
            rule: cause.rule.as_deref(),
            service: cause.service.as_deref(),
            reason: cause.reason.as_deref(),
            remedy: cause.remedy.as_deref(),
            certain: cause.certain,
        }
    }
}

/// How many connections a cause hit.
#[derive(Serialize)]
struct CountedCause<'a> {
    count: u64,
    #[serde(flatten)]
    cause: Cause<'a>,
}

#[derive(Serialize)]
pub(super) struct End {
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<IpAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    port: Option<u16>,
}

impl End {
    /// A client's port of 0, and with it an address of zeros, is one that was never chosen.
    pub(super) fn new(end: SocketAddr) -> Self {
        let port = Some(end.port()).filter(|port| *port != 0);
        Self {
            address: Some(end.ip()).filter(|ip| port.is_some() || !ip.is_unspecified()),
            port,
        }
    }

    fn is_unknown(&self) -> bool {
        self.address.is_none()
    }
}

#[derive(Serialize)]
struct Owner<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    process: Option<Process<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    container: Option<Container<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pod: Option<Pod<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<Node<'a>>,
}

#[derive(Serialize)]
struct Node<'a> {
    name: &'a str,
    source: &'static str,
}

impl<'a> Owner<'a> {
    fn new(owner: &'a model::Owner) -> Self {
        Self {
            process: owner.process.as_ref().map(Process::new),
            container: owner.container.as_ref().map(Container::new),
            pod: owner.pod.as_ref().map(Pod::new),
            node: owner.node.as_ref().map(|node| Node {
                name: &node.name,
                source: "kube-api",
            }),
        }
    }

    fn known(owner: Option<&'a model::Owner>) -> Option<Self> {
        owner.filter(|owner| owner.is_known()).map(Self::new)
    }
}

#[derive(Serialize)]
struct Process<'a> {
    pid: u32,
    #[serde(skip_serializing_if = "str::is_empty")]
    name: &'a str,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    command: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    uid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    executable: Option<&'a str>,
    source: &'static str,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    command_cut: bool,
}

impl<'a> Process<'a> {
    fn new(process: &'a model::Process) -> Self {
        Self {
            pid: process.pid,
            name: &process.name,
            command: &process.command,
            uid: process.uid,
            executable: process.executable.as_deref(),
            source: process.source.name(),
            command_cut: process.command_cut,
        }
    }
}

#[derive(Serialize)]
pub(super) struct Container<'a> {
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    runtime: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
}

impl<'a> Container<'a> {
    pub(super) fn new(container: &'a model::Container) -> Self {
        Self {
            id: &container.id,
            runtime: container.runtime.map(model::Runtime::name),
            name: container.name.as_deref(),
        }
    }
}

#[derive(Serialize)]
pub(super) struct Pod<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    namespace: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    uid: &'a str,
    source: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    qos: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    workload: Option<Workload<'a>>,
}

#[derive(Serialize)]
struct Workload<'a> {
    kind: &'a str,
    name: &'a str,
    source: &'static str,
}

impl<'a> Pod<'a> {
    pub(super) fn new(pod: &'a model::Pod) -> Self {
        Self {
            namespace: pod.namespace.as_deref(),
            name: pod.name.as_deref(),
            uid: &pod.uid,
            source: pod.source.name(),
            qos: pod.qos.map(model::Qos::name),
            workload: pod.workload.as_ref().map(|workload| Workload {
                kind: &workload.kind,
                name: &workload.name,
                source: workload.source.name(),
            }),
        }
    }
}

/// Appends one line. `scratch` is for the time's text.
pub fn connection(
    out: &mut Vec<u8>,
    clock: &mut Clock,
    scratch: &mut Vec<u8>,
    node: Option<&str>,
    connection: &model::Connection,
) -> io::Result<()> {
    scratch.clear();
    clock.utc(scratch, connection.time);
    let owner = Owner::new(&connection.owner);
    let (every_ms, every_spread_ms) = every(connection.cadence.as_ref());
    line(
        out,
        &Connection {
            event: "connection",
            time: str::from_utf8(scratch).unwrap_or_default(),
            role: connection.role.name(),
            outcome: connection.outcome.name(),
            source: End::new(connection.source),
            destination: End::new(connection.destination),
            bytes_sent: connection.payload.map(|payload| payload.sent),
            bytes_received: connection.payload.map(|payload| payload.received),
            duration_us: micros(connection.duration),
            process: owner.process,
            container: owner.container,
            pod: owner.pod,
            every_ms,
            netns: connection.netns,
            peer: Owner::known(connection.peer.as_deref()),
            every_spread_ms,
            count: connection.cadence.map(|cadence| cadence.count),
            seen_as: connection.seen_as.map(End::new),
            dialled: connection.dialled.map(End::new),
            untranslated: connection.untranslated.map(Untranslated::name),
            cause: connection.cause.as_deref().map(Cause::new),
            tls: connection.tls.as_deref().map(tls::Object::new),
            node,
        },
    )
}

#[derive(Serialize)]
struct Total<'a> {
    event: &'static str,
    started: String,
    ended: String,
    watched: &'a str,
    counted: u64,
    reported: u64,
    sources: Vec<Source<'a>>,
    causes: Vec<CountedCause<'a>>,
    lost: Tallies<'a>,
    misses: Tallies<'a>,
}

/// The fields of a connection, as far as they are the same for all of a source's. Process ids, and what else
/// may change from one connection to the next, are as last seen.
#[derive(Serialize)]
struct Source<'a> {
    count: u64,
    role: &'static str,
    outcome: &'static str,
    /// The client's address, where nothing is known of who it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<Address>,
    destination: End,
    #[serde(skip_serializing_if = "Option::is_none")]
    process: Option<Process<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    container: Option<Container<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pod: Option<Pod<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    every_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    peer: Option<Owner<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    every_spread_ms: Option<u64>,
    first: String,
    last: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<&'a str>,
}

#[derive(Serialize)]
struct Address {
    address: IpAddr,
}

/// An object of counts.
struct Tallies<'a>(&'a [Tally]);

impl Serialize for Tallies<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for tally in self.0 {
            map.serialize_entry(tally.name, &tally.count)?;
        }
        map.end()
    }
}

/// Appends the last line. Every source is in it, most frequent first.
pub fn summary(out: &mut Vec<u8>, clock: &mut Clock, summary: &Summary) -> io::Result<()> {
    let mut time = |time| {
        let mut out = Vec::new();
        clock.utc(&mut out, time);
        String::from_utf8(out).unwrap_or_default()
    };
    let sources = super::summary::sorted(summary).into_iter().map(|row| {
        let owner = Owner::new(&row.owner);
        let (every_ms, every_spread_ms) = every(Some(&row.cadence));
        Source {
            count: row.cadence.count,
            role: row.role.name(),
            outcome: row.outcome.name(),
            source: row.actor().is_none().then_some(Address { address: row.client }),
            destination: End::new(row.destination),
            process: owner.process,
            container: owner.container,
            pod: owner.pod,
            every_ms,
            peer: Owner::known(row.peer.as_deref()),
            every_spread_ms,
            first: time(row.first),
            last: time(row.last),
            node: row.node.as_deref(),
        }
    });
    let sources = sources.collect();
    line(
        out,
        &Total {
            event: "summary",
            started: time(summary.started),
            ended: time(summary.ended),
            watched: &summary.watched,
            counted: summary.counted,
            reported: summary.reported,
            sources,
            causes: summary
                .causes
                .iter()
                .map(|Counted { cause, connections }| CountedCause {
                    count: *connections,
                    cause: Cause::new(cause),
                })
                .collect(),
            lost: Tallies(&summary.losses),
            misses: Tallies(&summary.misses),
        },
    )
}

pub(super) fn line(out: &mut Vec<u8>, value: &impl Serialize) -> io::Result<()> {
    lines::to_writer(&mut *out, value)?;
    out.push(b'\n');
    Ok(())
}

/// Period and spread in milliseconds, where there is a cadence.
pub(super) fn every(cadence: Option<&Cadence>) -> (Option<u64>, Option<u64>) {
    let milliseconds = |duration| micros(duration).saturating_add(500) / 1000;
    cadence
        .and_then(|cadence| {
            cadence
                .every
                .map(|every| (milliseconds(every), milliseconds(cadence.spread)))
        })
        .unzip()
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

#[cfg(test)]
#[path = "json_tests.rs"]
mod tests;
