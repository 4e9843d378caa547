//! `-o json`: one object a line, the schema of docs/json.md. What is not known is an absent field.

use std::io;

use serde::{Serialize, Serializer, ser::SerializeMap};

use super::{clock::Clock, lines, owner_json::OwnersJson, text};
use crate::model::{
    self, Cadence, Container, Outcome, Owner, Pod, Process, Role, Summary,
    address::{Address, AddressPort},
    cause::causes::Counted,
    connection::ConnectionEvent,
    names::Named,
    recording_scope::RecordingScope,
    summary::Tally,
    unlisted_time::UnlistedTime,
};

/// The first line of a recording: what it was filtered by.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct RecordingHeader<'a> {
    /// Always `recording`.
    pub event: &'static str,
    /// The name of the node.
    pub node: &'a str,
    #[serde(flatten)]
    pub scope: &'a RecordingScope,
}

/// A time in which connections were not reported one by one.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct UnlistedEvent<'a> {
    /// Always `unlisted`.
    event: &'static str,
    #[serde(flatten)]
    time: &'a UnlistedTime,
    /// The name of the node.
    node: Option<&'a str>,
}

/// Appends one line: connections that were not reported one by one.
pub fn unlisted(out: &mut Vec<u8>, node: Option<&str>, time: &UnlistedTime) -> io::Result<()> {
    let event = "unlisted";
    line(out, &UnlistedEvent { event, time, node })
}

/// How many connections a cause explains.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct CountedCause<'a> {
    /// The number of connections with this cause.
    count: u64,
    #[serde(flatten)]
    cause: &'a model::Cause,
}

/// Appends one line: the object of [`ConnectionEvent`]. `owners` keeps what many lines have in common.
pub fn connection(
    out: &mut Vec<u8>,
    clock: &mut Clock,
    owners: Option<&mut OwnersJson>,
    node: Option<&str>,
    connection: &model::Connection,
) -> io::Result<()> {
    if let Some(owners) = owners
        && common(out, clock, owners, node, connection)?
    {
        return Ok(());
    }
    let time = clock.utc_text(connection.time);
    line(out, &ConnectionEvent::new(connection, &time, node))
}

/// The same for nearly all of them, without serde; `false`: this one is not, and nothing was written.
fn common(
    out: &mut Vec<u8>,
    clock: &mut Clock,
    owners: &mut OwnersJson,
    node: Option<&str>,
    connection: &model::Connection,
) -> io::Result<bool> {
    let model::Connection {
        time,
        duration,
        role,
        outcome,
        source,
        destination,
        dialled,
        seen_as,
        untranslated,
        payload,
        unacknowledged: None,
        netns,
        owner,
        peer,
        cause: None,
        tls: None,
        cadence,
    } = connection
    else {
        return Ok(false);
    };
    let Some((owner, peer)) = owners.both(owner, peer.as_ref())? else {
        return Ok(false);
    };
    out.extend_from_slice(b"{\"event\":\"connection\",\"time\":\"");
    clock.utc(out, *time);
    out.extend_from_slice(b"\",\"role\":\"");
    text::ascii(out, role.name());
    out.extend_from_slice(b"\",\"outcome\":\"");
    text::ascii(out, outcome.name());
    out.push(b'"');
    if let Some(source) = AddressPort::new(*source).known() {
        endpoint(out, ",\"source\":{", source);
    }
    endpoint(out, ",\"destination\":{", AddressPort::new(*destination));
    if let Some(model::connection::Payload { sent, received }) = payload {
        number(out, ",\"bytes_sent\":", *sent);
        number(out, ",\"bytes_received\":", *received);
    }
    let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
    number(out, ",\"duration_us\":", micros);
    out.extend_from_slice(&owner.side);
    let every = cadence.as_ref().and_then(Cadence::milliseconds);
    if let Some((every_ms, _)) = every {
        number(out, ",\"every_ms\":", every_ms);
    }
    if *netns != 0 {
        number(out, ",\"netns\":", (*netns).into());
    }
    if let Some(peer) = peer {
        out.extend_from_slice(&peer.peer);
    }
    if let Some((_, spread_ms)) = every {
        number(out, ",\"every_spread_ms\":", spread_ms);
    }
    if let Some(cadence) = cadence {
        if let Some(each) = cadence.per_interval {
            number(out, ",\"per_interval\":", each.into());
        }
        if let Some(also_ms) = cadence.also_milliseconds() {
            number(out, ",\"also_every_ms\":", also_ms);
        }
        number(out, ",\"count\":", cadence.count);
    }
    if let Some(seen_as) = seen_as {
        endpoint(out, ",\"seen_as\":{", AddressPort::new(*seen_as));
    }
    if let Some(dialled) = dialled {
        endpoint(out, ",\"dialled\":{", AddressPort::new(*dialled));
    }
    if let Some(untranslated) = untranslated {
        out.extend_from_slice(b",\"untranslated\":\"");
        text::ascii(out, untranslated.name());
        out.push(b'"');
    }
    if let Some(node) = node {
        out.extend_from_slice(b",\"node\":");
        lines::string(out, node)?;
    }
    out.extend_from_slice(b"}\n");
    Ok(true)
}

/// `name` with its comma, quotes and colon.
fn number(out: &mut Vec<u8>, name: &str, number: u64) {
    text::ascii(out, name);
    text::decimal(out, number);
}

/// `name` as in [`number`], with the object's brace.
fn endpoint(out: &mut Vec<u8>, name: &str, AddressPort { address, port }: AddressPort) {
    text::ascii(out, name);
    if let Some(address) = address {
        text::ascii(out, "\"address\":\"");
        text::ip(out, address);
        out.push(b'"');
    }
    if let Some(port) = port {
        number(
            out,
            if address.is_some() {
                ",\"port\":"
            } else {
                "\"port\":"
            },
            port.into(),
        );
    }
    out.push(b'}');
}

/// The last line of `probe watch`.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "WatchSummary"))]
pub(super) struct Total<'a> {
    /// Always `summary`.
    event: &'static str,
    /// When the watch began.
    #[cfg_attr(test, schemars(extend("format" = "date-time")))]
    started: String,
    /// When it ended.
    #[cfg_attr(test, schemars(extend("format" = "date-time")))]
    ended: String,
    /// What was watched, in words.
    watched: &'a str,
    /// The number of connections, exact: the reported ones, and those that the kernel counted because the ring was full.
    counted: u64,
    /// The number of connections reported.
    reported: u64,
    /// The number of connections counted by source and not reported one by one: beyond `--max-rate`. Those of other pods than asked for
    /// are among them.
    aggregated: u64,
    /// Each owner, destination and outcome, most frequent first.
    sources: Vec<Source<'a>>,
    /// The causes as last seen, most connections first; at most 64.
    causes: Vec<CountedCause<'a>>,
    /// What was lost, by name (below).
    lost: CountsByName,
    /// What has no name, by name (below).
    misses: CountsByName,
}

/// The fields of a connection that are the same for all of a source's. Process ids, and whatever else may change from one
/// connection to the next, are as last seen.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "WatchSource"))]
struct Source<'a> {
    /// The number of connections.
    count: u64,
    /// As of a connection.
    role: Named<Role>,
    /// As of a connection.
    outcome: Named<Outcome>,
    /// The client's address, if nothing is known of its owner.
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<Address>,
    /// As of a connection, or the Service that the client dialled.
    destination: AddressPort,
    /// As of a connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    process: Option<&'a Process>,
    /// As of a connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    container: Option<&'a Container>,
    /// As of a connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pod: Option<&'a Pod>,
    /// As of a connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    every_ms: Option<u64>,
    /// As of a connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    peer: Option<&'a Owner>,
    /// As of a connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    every_spread_ms: Option<u64>,
    /// As of a connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    per_interval: Option<u8>,
    /// As of a connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    also_every_ms: Option<u64>,
    /// The time of the first.
    #[cfg_attr(test, schemars(extend("format" = "date-time")))]
    first: String,
    /// The time of the last.
    #[cfg_attr(test, schemars(extend("format" = "date-time")))]
    last: String,
    /// The node whose agent reported it, with `--cluster`.
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<&'a str>,
    /// Those that were counted and not reported one by one.
    #[serde(skip_serializing_if = "Option::is_none")]
    unlisted: Option<UnlistedTotal>,
}

/// Connections that were counted and not reported one by one.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "WatchUnlisted"))]
struct UnlistedTotal {
    /// Their number.
    count: u64,
    /// Payload from clients to servers, in bytes.
    client_bytes: u64,
    /// Payload from servers to clients, in bytes.
    server_bytes: u64,
}

/// An object of counts, in their order.
#[cfg_attr(
    test,
    derive(schemars::JsonSchema),
    schemars(inline, with = "std::collections::BTreeMap<String, u64>")
)]
pub(super) struct CountsByName(Vec<(&'static str, u64)>);

impl CountsByName {
    pub fn of(counts: impl IntoIterator<Item = (&'static str, u64)>) -> Self {
        Self(counts.into_iter().collect())
    }

    fn tallies(tallies: &[Tally]) -> Self {
        Self::of(tallies.iter().map(|tally| (tally.name, tally.count)))
    }
}

impl Serialize for CountsByName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, count) in &self.0 {
            map.serialize_entry(name, count)?;
        }
        map.end()
    }
}

/// Appends the last line. Every source is in it, most frequent first.
pub fn summary(out: &mut Vec<u8>, clock: &mut Clock, summary: &Summary) -> io::Result<()> {
    let mut time = |time| clock.utc_text(time);
    let sources = super::summary::sorted(summary).into_iter().map(|row| {
        let Owner {
            process,
            container,
            pod,
            node: _,
        } = &*row.owner;
        let (every_ms, every_spread_ms) = row.cadence.milliseconds().unzip();
        Source {
            count: row.count(),
            role: Named(row.role),
            outcome: Named(row.outcome),
            source: row.actor().is_none().then_some(Address { address: row.client }),
            destination: AddressPort::new(row.destination),
            process: process.as_ref(),
            container: container.as_ref(),
            pod: pod.as_ref(),
            every_ms,
            peer: row.peer.as_deref().filter(|peer| peer.is_known()),
            every_spread_ms,
            per_interval: row.cadence.per_interval,
            also_every_ms: row.cadence.also_milliseconds(),
            first: time(row.first),
            last: time(row.last),
            node: row.node.as_deref(),
            unlisted: (row.unlisted.connections > 0).then_some(UnlistedTotal {
                count: row.unlisted.connections,
                client_bytes: row.unlisted.client_bytes,
                server_bytes: row.unlisted.server_bytes,
            }),
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
            aggregated: summary.aggregated,
            sources,
            causes: summary
                .causes
                .iter()
                .map(|Counted { cause, connections }| CountedCause {
                    count: *connections,
                    cause,
                })
                .collect(),
            lost: CountsByName::tallies(&summary.losses),
            misses: CountsByName::tallies(&summary.misses),
        },
    )
}

pub(super) fn line(out: &mut Vec<u8>, value: &impl Serialize) -> io::Result<()> {
    lines::to_writer(&mut *out, value)?;
    out.push(b'\n');
    Ok(())
}

#[cfg(test)]
#[path = "json_tests.rs"]
mod tests;
