//! The JSON objects of `probe etcd-log` and `probe who`.

use std::time::Duration;

use jiff::tz::TimeZone;
use serde::Serialize;
use serde_json::value::RawValue;

use super::{Lacks, QUOTED};
#[cfg(test)]
use crate::model::{Container, Pod, Process};
use crate::{
    model::{
        Outcome,
        address::AddressPort,
        etcd_log::{
            Endpoint, Rejected, ServerKind,
            advice::advice,
            earlier::{EarlierEvidence, Likely},
            matching::Inferred,
            summary::{Group, Total, UnmatchedCounts},
        },
        flow::{Client as FlowClient, Identity, Near, Unmatched},
        names::Named,
    },
    report::{clock::Clock, escape},
};

/// A line that can't be read.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "UnreadableLine"))]
pub struct Unread {
    /// The log's name.
    pub log: String,
    /// The line's number, from 1.
    pub line: u64,
    /// Why it can't be read.
    pub why: &'static str,
    /// The line, cut.
    #[serde(serialize_with = "cut")]
    pub text: String,
}

fn cut<S: serde::Serializer>(text: &str, serializer: S) -> Result<S::Ok, S::Error> {
    let mut out = Vec::new();
    escape::push(&mut out, text, QUOTED);
    serializer.serialize_str(&String::from_utf8_lossy(&out))
}

fn raw(object: Option<&str>) -> Option<&RawValue> {
    // It was JSON when it was read.
    serde_json::from_str(object?).ok()
}

/// A client that was found.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct FoundClient<'a> {
    /// The pod, as of a connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(with = "Option<Pod>"))]
    pod: Option<&'a RawValue>,
    /// The container, as of a connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(with = "Option<Container>"))]
    container: Option<&'a RawValue>,
    /// The process, as of a connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(with = "Option<Process>"))]
    process: Option<&'a RawValue>,
    /// The node that recorded it.
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<&'a str>,
    /// The client's own address and port; absent for one that is only likely.
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<AddressPort>,
    /// From the time asked for to the connection: 0 if it is within the connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    distance_ms: Option<u64>,
}

impl<'a> FoundClient<'a> {
    pub fn new(near: &Near<'a>) -> Self {
        Self {
            pod: raw(near.client.objects.pod.as_deref()),
            container: raw(near.client.objects.container.as_deref()),
            process: raw(near.client.objects.process.as_deref()),
            node: near.client.node.as_deref(),
            source: Some(AddressPort::as_written(near.flow.source)),
            distance_ms: near.distance.map(milliseconds),
        }
    }

    fn likely(client: &'a FlowClient) -> Self {
        Self {
            pod: raw(client.objects.pod.as_deref()),
            container: raw(client.objects.container.as_deref()),
            process: raw(client.objects.process.as_deref()),
            node: client.node.as_deref(),
            source: None,
            distance_ms: None,
        }
    }
}

/// One rejected connection in the log, from `probe etcd-log`.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "EtcdLog"))]
pub(in crate::report) struct RejectedEvent<'a> {
    /// `etcd-log`; of another server `server-log`.
    event: &'static str,
    /// The kind of server that logged it, other than etcd.
    #[serde(skip_serializing_if = "Option::is_none")]
    logged_by: Option<ServerKind>,
    /// The time of the log line; absent if the line has none.
    #[cfg_attr(test, schemars(extend("format" = "date-time")))]
    #[serde(skip_serializing_if = "Option::is_none")]
    time: Option<String>,
    /// The client as etcd saw it.
    peer: AddressPort,
    /// The error in the line.
    error: &'a str,
    /// The server name in the line; absent if the client sent none.
    #[serde(skip_serializing_if = "str::is_empty")]
    server_name: &'a str,
    /// `client` or `peer`, from etcd 3.5.15 on.
    #[serde(skip_serializing_if = "Option::is_none")]
    endpoint: Option<Endpoint>,
    #[serde(flatten)]
    found: Option<FoundClient<'a>>,
    /// How sure the client is: `matched` (recorded at the line's time), `time-unknown` (recorded; the line has no time), `likely`
    /// (the line is older than the recordings, see `evidence`). Absent without a client.
    #[serde(skip_serializing_if = "Option::is_none")]
    certainty: Option<Certainty>,
    /// What a client rests on that is only likely.
    #[serde(skip_serializing_if = "Option::is_none")]
    evidence: Option<LikelyEvidence>,
    /// Instead of the client: why no connection matches, in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    unmatched: Option<String>,
}

pub(super) fn object<'a>(
    clock: &mut Clock,
    rejected: &'a Rejected,
    found: &Result<Near<'a>, Unmatched>,
    lacks: &Lacks,
) -> RejectedEvent<'a> {
    RejectedEvent {
        event: match other_server(rejected.logged_by) {
            None => "etcd-log",
            Some(_) => "server-log",
        },
        logged_by: other_server(rejected.logged_by),
        time: rejected.time.map(|time| clock.utc_text(time)),
        peer: AddressPort::as_written(rejected.peer),
        error: &rejected.error,
        server_name: &rejected.server_name,
        endpoint: rejected.endpoint,
        found: found.as_ref().ok().map(FoundClient::new),
        certainty: found.is_ok().then_some(match rejected.time {
            Some(_) => Certainty::Matched,
            None => Certainty::TimeUnknown,
        }),
        evidence: None,
        unmatched: found
            .as_ref()
            .err()
            .map(|unmatched| lacks.why(unmatched, rejected)),
    }
}

pub(super) fn likely_object<'a>(
    clock: &mut Clock,
    rejected: &'a Rejected,
    likely: &'a Likely,
) -> RejectedEvent<'a> {
    let evidence = match likely.evidence {
        EarlierEvidence::Interval {
            every,
            beats,
            spread,
            since,
            is_process,
        } => {
            let since = clock.utc_text(since);
            LikelyEvidence {
                by: "interval",
                every_ms: Some(milliseconds(every)),
                every_spread_ms: Some(milliseconds(spread)),
                lines: u64::try_from(beats).ok(),
                process_started: is_process.then(|| since.clone()),
                address_since: (!is_process).then_some(since),
            }
        }
        EarlierEvidence::PodAddress { since } => LikelyEvidence {
            by: "pod-address",
            every_ms: None,
            every_spread_ms: None,
            lines: None,
            process_started: None,
            address_since: Some(clock.utc_text(since)),
        },
    };
    RejectedEvent {
        found: Some(FoundClient::likely(&likely.client)),
        certainty: Some(Certainty::Likely),
        evidence: Some(evidence),
        unmatched: None,
        ..object(clock, rejected, &Err(Unmatched::NotRecorded), &Lacks::default())
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// How sure a client is.
#[derive(Clone, Copy, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(inline))]
#[serde(rename_all = "kebab-case")]
enum Certainty {
    Matched,
    TimeUnknown,
    Likely,
}

/// What a client rests on that is only likely.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct LikelyEvidence {
    /// `interval`: the line stands in the interval of a source that is recorded since. `pod-address`: the pod has had the
    /// address since before.
    by: &'static str,
    /// The source's interval, as recorded.
    #[serde(skip_serializing_if = "Option::is_none")]
    every_ms: Option<u64>,
    /// The largest distance of such a line from where it was expected.
    #[serde(skip_serializing_if = "Option::is_none")]
    every_spread_ms: Option<u64>,
    /// Lines of the log that stand in the interval.
    #[serde(skip_serializing_if = "Option::is_none")]
    lines: Option<u64>,
    /// When the source's process started.
    #[cfg_attr(test, schemars(extend("format" = "date-time")))]
    #[serde(skip_serializing_if = "Option::is_none")]
    process_started: Option<String>,
    /// Since when the source's pod has had its address.
    #[cfg_attr(test, schemars(extend("format" = "date-time")))]
    #[serde(skip_serializing_if = "Option::is_none")]
    address_since: Option<String>,
}

/// A connection that an address had, the nearest in time first, from `probe who`.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(in crate::report) struct Who<'a> {
    /// Always `who`.
    pub(super) event: &'static str,
    /// The address on the command line.
    pub(super) address: AddressPort,
    /// When the connection began.
    #[cfg_attr(test, schemars(extend("format" = "date-time")))]
    pub(super) began: String,
    /// When it ended.
    #[cfg_attr(test, schemars(extend("format" = "date-time")))]
    pub(super) ended: String,
    /// As of a connection.
    pub(super) outcome: Named<Outcome>,
    /// The server's address and port.
    pub(super) destination: AddressPort,
    #[serde(flatten)]
    pub(super) found: FoundClient<'a>,
}

/// etcd is what the command is about: only other servers are named.
fn other_server(kind: ServerKind) -> Option<ServerKind> {
    (kind != ServerKind::Etcd).then_some(kind)
}

/// An address that no recorded connection explains.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "WhoUnmatched"))]
pub(in crate::report) struct Nobody {
    /// Always `who`.
    pub(super) event: &'static str,
    /// The address that was asked for.
    pub(super) address: AddressPort,
    /// Why nobody is named, in words.
    pub(super) unmatched: String,
}

/// The last line of `probe etcd-log`, or of one kind of server.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "EtcdLogSummary"))]
pub(in crate::report) struct EtcdLogSummary<'a> {
    /// Always `summary`.
    event: &'static str,
    /// The kind of server, other than etcd.
    #[serde(skip_serializing_if = "Option::is_none")]
    logged_by: Option<ServerKind>,
    /// Lines of the log.
    lines: u64,
    /// Rejected connections.
    rejected: u64,
    /// Rejected connections whose client was found.
    matched: u64,
    /// Rejected connections that are older than the recordings, and whose client is likely.
    likely: u64,
    /// Rejected connections whose client was not found, by reason.
    unmatched: UnmatchedCounts,
    /// Rejected connections whose line could not be read.
    unreadable: u64,
    /// The first line that could not be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    first_unreadable: Option<&'a Unread>,
    /// Lines of clients for which `sources`, 10,000 at most, has no room.
    ungrouped: u64,
    /// The offset from UTC of the log's times, inferred from its own matches.
    #[serde(skip_serializing_if = "Option::is_none")]
    inferred_offset: Option<&'a InferredOffset>,
    /// Each client and error, most frequent first.
    sources: Vec<Source<'a>>,
}

/// The offset from UTC of a log's times, as its own matches show it.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct InferredOffset {
    /// As `--utc-offset` takes it: `+08:00`.
    pub utc_offset: String,
    /// Lines that agree on it.
    pub lines: u64,
}

impl InferredOffset {
    /// What `zone`, in which the times were read, makes of what was inferred.
    pub fn new(inferred: &Inferred, zone: &TimeZone) -> Self {
        let read_as = i64::from(zone.to_offset(inferred.at).seconds());
        let offset = read_as - inferred.shift.as_secs();
        let minutes = offset.abs() / 60;
        let sign = if offset < 0 { '-' } else { '+' };
        Self {
            utc_offset: format!("{sign}{:02}:{:02}", minutes / 60, minutes % 60),
            lines: inferred.lines,
        }
    }
}

/// A client and an error.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "EtcdLogSource"))]
struct Source<'a> {
    /// How often it is in the log.
    logged: u64,
    /// How often the kernel saw the same meanwhile.
    #[serde(skip_serializing_if = "Option::is_none")]
    seen: Option<u64>,
    /// The interval.
    #[serde(skip_serializing_if = "Option::is_none")]
    every_ms: Option<u64>,
    /// Connections in each interval, where there are several: 2 of a check that connects twice, or of two sources behind one
    /// address.
    #[serde(skip_serializing_if = "Option::is_none")]
    per_interval: Option<u8>,
    /// A second interval.
    #[serde(skip_serializing_if = "Option::is_none")]
    also_every_ms: Option<u64>,
    /// The error.
    error: &'a str,
    #[serde(flatten)]
    who: Client<'a>,
    /// True if the client is only likely: the lines are older than the recordings.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    likely: bool,
    /// The time of the first line.
    #[cfg_attr(test, schemars(extend("format" = "date-time")))]
    #[serde(skip_serializing_if = "Option::is_none")]
    first: Option<String>,
    /// The time of the last line.
    #[cfg_attr(test, schemars(extend("format" = "date-time")))]
    #[serde(skip_serializing_if = "Option::is_none")]
    last: Option<String>,
    /// What to do.
    advice: &'static str,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(inline))]
#[serde(untagged)]
enum Client<'a> {
    /// A client that was found.
    Known {
        #[serde(flatten)]
        identity: &'a Identity,
        /// The node that recorded it.
        #[serde(skip_serializing_if = "Option::is_none")]
        node: Option<&'a str>,
    },
    /// A client that was not.
    Unknown {
        /// The client's address, if it was not found.
        address: std::net::IpAddr,
    },
}

pub(super) fn summary<'a>(
    clock: &mut Clock,
    kind: ServerKind,
    total: &Total,
    groups: &'a [Group],
    (unread, inferred): (Option<&'a Unread>, Option<&'a InferredOffset>),
) -> EtcdLogSummary<'a> {
    let sources = groups.iter().map(|group| Source {
        logged: group.logged,
        seen: group.seen.map(|seen| seen.count),
        every_ms: group
            .seen
            .and_then(|seen| seen.milliseconds())
            .map(|(every, _)| every),
        per_interval: group.seen.and_then(|seen| seen.per_interval),
        also_every_ms: group.seen.and_then(|seen| seen.also_milliseconds()),
        error: &group.error,
        who: match &group.who {
            Ok((identity, node)) => Client::Known {
                identity,
                node: node.as_deref(),
            },
            Err(address) => Client::Unknown { address: *address },
        },
        likely: group.is_likely,
        first: group.first.map(|time| clock.utc_text(time)),
        last: group.last.map(|time| clock.utc_text(time)),
        advice: advice(&group.error, group.sent_hello, kind),
    });
    EtcdLogSummary {
        event: "summary",
        logged_by: other_server(kind),
        first_unreadable: unread,
        inferred_offset: inferred,
        sources: sources.collect(),
        lines: total.lines,
        rejected: total.rejected,
        matched: total.matched,
        likely: total.likely,
        unmatched: total.unmatched,
        unreadable: total.unreadable,
        ungrouped: total.ungrouped,
    }
}
