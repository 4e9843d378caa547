//! What `probe etcd-log` and `probe who` print.

use std::{io, net::SocketAddr, time::Duration};

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use jiff::tz::TimeZone;
use serde::Serialize;
use serde_json::value::RawValue;

use super::{clock::Clock, escape, json, text};
#[cfg(test)]
use crate::model::{Container, Pod, Process};
use crate::model::{
    Outcome,
    address::AddressPort,
    etcd_log::{
        Endpoint, Rejected, ServerKind,
        advice::advice,
        matching::Inferred,
        summary::{Group, Total, UnmatchedCounts},
    },
    flow::{Identity, Near, Unmatched, matching::is_of_one_node},
    names::Named,
    recording_scope::RecordingScope,
};

/// Columns for who it was.
const WHO: usize = 100;
/// Columns for an error, which a client may have a say in.
const ERROR: usize = 80;
/// Columns for a line that can't be read.
const QUOTED: usize = 160;
/// Groups shown; JSON has them all.
const ROWS: usize = 30;

/// Why a rejected connection has no name, and what to do; `partial`: what the recordings leave out.
fn why(unmatched: &Unmatched, peer: SocketAddr, partial: Option<&str>) -> String {
    let node = || {
        if is_of_one_node(peer.ip()) {
            format!(
                "the node that wrote this log: {} is an address of its own",
                peer.ip()
            )
        } else {
            format!("the node {}", peer.ip())
        }
    };
    let partial = partial.map(|partial| format!(" ({partial})")).unwrap_or_default();
    match unmatched {
        Unmatched::NotRecorded => {
            format!("in no recording{partial}: record while it happens on {}", node())
        }
        Unmatched::ServerOnly => format!(
            "only its server's node recorded it{partial}: record on {} too",
            node()
        ),
        Unmatched::OtherServer(server) => format!(
            "its only record is of a connection to {server}, which is not the server of this log \
             (--port names ports other than 2379 and 2380)"
        ),
        Unmatched::NodeUnknown => format!(
            "{} is an address of every node: --node-name names the one that wrote this log",
            peer.ip()
        ),
        Unmatched::TooFar(distance) => format!(
            "the nearest recorded connection from there is {} away (--within allows more)",
            span(*distance)
        ),
        Unmatched::ZoneUnknown(distance) => format!(
            "the line's time has no zone, and the nearest recorded connection from there is {} away: set --utc-offset (or TZ=)",
            span(*distance)
        ),
        Unmatched::TimeUnknown => {
            "the line has no time, and its only record is not from between the lines around it".to_owned()
        }
        Unmatched::Reused(names) => {
            format!(
                "ambiguous, several had this port at that time: {}",
                names.join(", ")
            )
        }
    }
}

fn span(duration: Duration) -> String {
    let mut out = Vec::new();
    text::duration(&mut out, duration);
    String::from_utf8(out).unwrap_or_default()
}

/// Lines for people, or JSON.
pub struct Report {
    json: bool,
    clock: Clock,
    /// What the recordings leave out.
    partial: Option<String>,
}

impl Report {
    pub fn new(json: bool, zone: TimeZone) -> Self {
        Self {
            json,
            clock: Clock::new(zone),
            partial: None,
        }
    }

    /// Of answers from recordings that were filtered so.
    pub fn scopes(mut self, scopes: &[RecordingScope]) -> Self {
        let partial = scopes.iter().find(|scope| scope.is_partial());
        self.partial = partial.map(|scope| format!("recorded {scope}"));
        self
    }

    /// One rejected connection.
    ///
    /// # Errors
    /// None in practice: writing to memory does not fail.
    pub fn rejected(
        &mut self,
        out: &mut Vec<u8>,
        rejected: &Rejected,
        found: &Result<Near<'_>, Unmatched>,
    ) -> io::Result<()> {
        if self.json {
            return json::line(
                out,
                &object(&mut self.clock, rejected, found, self.partial.as_deref()),
            );
        }
        match rejected.time {
            Some(time) => self.clock.local(out, time, true),
            None => text::ascii(out, "--:--:--.---"),
        };
        text::ascii(out, " ");
        let width = text::end(out, rejected.peer);
        text::spaces(out, 21_usize.saturating_sub(width) + 1);
        match found {
            Ok(near) => {
                self.near(out, near);
                if rejected.time.is_none() {
                    text::ascii(out, ", time unknown");
                }
            }
            Err(unmatched) => {
                text::ascii(out, "? ");
                let why = why(unmatched, rejected.peer, self.partial.as_deref());
                escape::push(out, &why, 2 * WHO);
            }
        }
        text::ascii(out, "  ");
        escape::push(out, &rejected.error, ERROR);
        out.push(b'\n');
        Ok(())
    }

    /// `monitoring/sdp-monitor-z8989 (python3) on beta, from 10.244.2.2:41234, 3 ms away`
    fn near(&self, out: &mut Vec<u8>, near: &Near<'_>) {
        let identity = &near.client.identity;
        escape::push(out, &identity.to_string(), WHO);
        if let (Some(node), Some(_)) = (&near.client.node, &identity.pod) {
            text::ascii(out, " on ");
            escape::push(out, node, WHO);
        }
        text::ascii(out, ", from ");
        text::end(out, near.flow.source);
        if let Some(distance) = near.distance {
            text::ascii(out, ", ");
            text::duration(out, distance);
            text::ascii(out, " away");
        }
    }

    /// One connection that an address was of; `shown`: the address itself, where several were asked for.
    ///
    /// # Errors
    /// None in practice: writing to memory does not fail.
    pub fn who(
        &mut self,
        out: &mut Vec<u8>,
        shown: Option<SocketAddr>,
        address: SocketAddr,
        near: &Near<'_>,
    ) -> io::Result<()> {
        if self.json {
            let found = FoundClient::new(near);
            let who = Who {
                event: "who",
                address: AddressPort::as_written(address),
                began: self.clock.utc_text(near.flow.began),
                ended: self.clock.utc_text(near.flow.ended),
                outcome: Named(near.flow.outcome),
                destination: AddressPort::as_written(near.flow.destination),
                found,
            };
            return json::line(out, &who);
        }
        if let Some(shown) = shown {
            let width = text::end(out, shown);
            text::spaces(out, 21_usize.saturating_sub(width) + 1);
        }
        self.near(out, near);
        text::ascii(out, ", ");
        text::ascii(out, near.flow.outcome.name());
        text::ascii(out, " to ");
        text::end(out, near.flow.destination);
        let date = format!(", ended {}", self.clock.date(near.flow.ended));
        text::ascii(out, &date);
        out.push(b'\n');
        Ok(())
    }

    /// An address that nobody had, among several.
    ///
    /// # Errors
    /// None in practice: writing to memory does not fail.
    pub fn nobody(&mut self, out: &mut Vec<u8>, address: SocketAddr) -> io::Result<()> {
        let why = self.not_recorded(address);
        if self.json {
            let nobody = Nobody {
                event: "who",
                address: AddressPort::as_written(address),
                unmatched: why,
            };
            return json::line(out, &nobody);
        }
        let width = text::end(out, address);
        text::spaces(out, 21_usize.saturating_sub(width) + 1);
        out.extend_from_slice(format!("? {why}\n").as_bytes());
        Ok(())
    }

    /// That no recording has an address, and what to do.
    pub fn not_recorded(&self, address: SocketAddr) -> String {
        let partial = self.partial.as_ref();
        format!(
            "no recording has a client with the address {address}{}. Record on the node that has it, or whose pod it is",
            partial.map(|partial| format!(" ({partial})")).unwrap_or_default()
        )
    }

    /// The end.
    ///
    /// # Errors
    /// None in practice: writing to memory does not fail.
    pub fn summary(
        &mut self,
        out: &mut Vec<u8>,
        kind: ServerKind,
        total: &Total,
        groups: &[Group],
        (unread, inferred): (Option<&Unread>, Option<&InferredOffset>),
    ) -> io::Result<()> {
        if self.json {
            let summary = summary(&mut self.clock, kind, total, groups, (unread, inferred));
            return json::line(out, &summary);
        }
        let Total {
            lines,
            rejected,
            matched,
            unreadable,
            ..
        } = total;
        let text = format!(
            "\n{lines} lines, {rejected} {}, {matched} of them named{}.\n",
            match kind {
                ServerKind::Etcd => "rejected connections".to_owned(),
                other => format!("of {} about such connections", other.title()),
            },
            if *unreadable == 0 {
                String::new()
            } else {
                format!(", {unreadable} more that can't be read")
            }
        );
        out.extend_from_slice(text.as_bytes());
        if let Some(unread) = unread {
            text::ascii(out, "The first that can't be read is line ");
            text::ascii(out, &unread.line.to_string());
            text::ascii(out, " of ");
            escape::push(out, &unread.log, WHO);
            text::ascii(out, ": ");
            text::ascii(out, unread.why);
            text::ascii(out, "\n  ");
            escape::push(out, &unread.text, QUOTED);
            out.push(b'\n');
        }
        if groups.is_empty() {
            return Ok(());
        }
        out.push(b'\n');
        table(out, groups);
        if total.ungrouped > 0 {
            let more = format!(
                "… and {} lines of clients that found no room here\n",
                total.ungrouped
            );
            out.extend_from_slice(more.as_bytes());
        }
        remedies(out, kind, groups);
        Ok(())
    }
}

fn table(out: &mut Vec<u8>, groups: &[Group]) {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(["LOGGED", "SEEN", "EVERY", "WHO", "ON", "ERROR"]);
    let text_of = |text: &str, limit| {
        let mut cell = Vec::new();
        escape::push(&mut cell, text, limit);
        String::from_utf8(cell).unwrap_or_default()
    };
    let (shown, others) = groups.split_at(groups.len().min(ROWS));
    for group in shown {
        let seen = group
            .seen
            .map_or_else(|| "?".to_owned(), |seen| seen.count.to_string());
        let every = group.seen.and_then(|seen| {
            let mut cell = Vec::new();
            text::intervals(&mut cell, &seen);
            String::from_utf8(cell).ok()
        });
        let (who, node) = match &group.who {
            Ok((identity, node)) => (identity.to_string(), node.clone()),
            Err(address) => (format!("? ({address})"), None),
        };
        table.add_row([
            group.logged.to_string(),
            seen,
            every.unwrap_or_default(),
            text_of(&who, WHO),
            text_of(&node.unwrap_or_default(), WHO),
            text_of(&group.error, ERROR),
        ]);
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    for number in [0, 1] {
        if let Some(column) = table.column_mut(number) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    out.extend_from_slice(table.trim_fmt().as_bytes());
    out.push(b'\n');
    if !others.is_empty() {
        let lines: u64 = others.iter().map(|group| group.logged).sum();
        let more = format!("… and {} more, {lines} lines (-o json has all)\n", others.len());
        out.extend_from_slice(more.as_bytes());
    }
}

/// What to do about each error, once.
fn remedies(out: &mut Vec<u8>, kind: ServerKind, groups: &[Group]) {
    let mut told: Vec<(&str, &str)> = Vec::new();
    for group in groups {
        let advice = advice(&group.error, group.sent_hello, kind);
        let error = group.error.as_str();
        if told.contains(&(error, advice)) {
            continue;
        }
        told.push((error, advice));
        out.push(b'\n');
        escape::push(out, error, ERROR);
        out.extend_from_slice(format!(": {advice}\n").as_bytes());
    }
}

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

fn raw(object: &Option<Box<str>>) -> Option<&RawValue> {
    // It was JSON when it was read.
    serde_json::from_str(object.as_deref()?).ok()
}

/// A client that was found.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct FoundClient<'a> {
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
    /// The client's own address and port.
    source: AddressPort,
    /// From the time asked for to the connection: 0 if it is within the connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    distance_ms: Option<u64>,
}

impl<'a> FoundClient<'a> {
    fn new(near: &Near<'a>) -> Self {
        Self {
            pod: raw(&near.client.objects.pod),
            container: raw(&near.client.objects.container),
            process: raw(&near.client.objects.process),
            node: near.client.node.as_deref(),
            source: AddressPort::as_written(near.flow.source),
            distance_ms: near
                .distance
                .map(|distance| u64::try_from(distance.as_millis()).unwrap_or(u64::MAX)),
        }
    }
}

/// One rejected connection in the log, from `probe etcd-log`.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "EtcdLog"))]
pub(super) struct RejectedEvent<'a> {
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
    /// What a match rests on, where it is less than a time.
    #[serde(skip_serializing_if = "Option::is_none")]
    certainty: Option<&'static str>,
    /// Instead of the client: why no connection matches, in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    unmatched: Option<String>,
}

fn object<'a>(
    clock: &mut Clock,
    rejected: &'a Rejected,
    found: &Result<Near<'a>, Unmatched>,
    partial: Option<&str>,
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
        certainty: (found.is_ok() && rejected.time.is_none()).then_some("time-unknown"),
        unmatched: found
            .as_ref()
            .err()
            .map(|unmatched| why(unmatched, rejected.peer, partial)),
    }
}

/// A connection that an address had, the nearest in time first, from `probe who`.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct Who<'a> {
    /// Always `who`.
    event: &'static str,
    /// The address on the command line.
    address: AddressPort,
    /// When the connection began.
    #[cfg_attr(test, schemars(extend("format" = "date-time")))]
    began: String,
    /// When it ended.
    #[cfg_attr(test, schemars(extend("format" = "date-time")))]
    ended: String,
    /// As of a connection.
    outcome: Named<Outcome>,
    /// The server's address and port.
    destination: AddressPort,
    #[serde(flatten)]
    found: FoundClient<'a>,
}

/// etcd is what the command is about: only other servers are named.
fn other_server(kind: ServerKind) -> Option<ServerKind> {
    (kind != ServerKind::Etcd).then_some(kind)
}

/// An address that no recorded connection explains.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "WhoUnmatched"))]
pub(super) struct Nobody {
    /// Always `who`.
    event: &'static str,
    /// The address that was asked for.
    address: AddressPort,
    /// Why nobody is named, in words.
    unmatched: String,
}

/// The last line of `probe etcd-log`, or of one kind of server.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "EtcdLogSummary"))]
pub(super) struct EtcdLogSummary<'a> {
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

fn summary<'a>(
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
        unmatched: total.unmatched,
        unreadable: total.unreadable,
        ungrouped: total.ungrouped,
    }
}
