//! What `probe etcd-log` and `probe who` print.

use std::{io, net::SocketAddr, time::Duration};

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use jiff::tz::TimeZone;

#[cfg(test)]
pub(super) use self::objects::{EtcdLogSummary, RejectedEvent};
use self::objects::{FoundClient, likely_object, object, summary};
pub use self::objects::{InferredOffset, Unread};
pub(super) use self::objects::{Nobody, Who};
use super::{clock::Clock, escape, json, text};
use crate::model::{
    address::AddressPort,
    etcd_log::{
        Rejected, ServerKind,
        advice::advice,
        earlier::{EarlierEvidence, Likely},
        summary::{Group, Total},
    },
    flow::{Client, Flows, Near, Unmatched, matching::is_of_one_node},
    names::Named,
    plural::counted,
    unlisted_time::UnlistedTimes,
};

mod objects;

/// Columns for who it was.
const WHO: usize = 100;
/// Columns for an error, which a client may have a say in.
const ERROR: usize = 80;
/// Columns for a line that can't be read.
const QUOTED: usize = 160;
/// How far apart the log's clock and that of recordings may be.
const CLOCKS: Duration = Duration::from_secs(1);
/// Groups shown; JSON has them all.
const ROWS: usize = 30;

/// What recordings lack.
#[derive(Clone, Debug, Default)]
struct Lacks {
    /// What they were filtered by.
    partial: Option<String>,
    /// When connections are missing.
    unlisted: UnlistedTimes,
}

impl Lacks {
    /// Why a rejected connection has no name, and what to do.
    fn why(&self, unmatched: &Unmatched, rejected: &Rejected) -> String {
        let why = why(unmatched, rejected.peer, self.partial.as_deref());
        let missing = match unmatched {
            Unmatched::NotRecorded | Unmatched::ServerOnly | Unmatched::TooFar(_) => {
                rejected.time.and_then(|time| self.unlisted.at(time, CLOCKS))
            }
            Unmatched::OtherServer(_)
            | Unmatched::NodeUnknown
            | Unmatched::ZoneUnknown(_)
            | Unmatched::TimeUnknown
            | Unmatched::Reused(_)
            | Unmatched::SharedPhase(_) => None,
        };
        match missing {
            Some(missing) => format!(
                "it may be one that is not in the recordings: then {}; or {why}",
                missing.describe()
            ),
            None => why,
        }
    }
}

/// The same without what is missing at single times; `partial`: what the recordings leave out.
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
            format!(
                "not recorded{partial}: run probe watch --record on {} while it happens",
                node()
            )
        }
        Unmatched::ServerOnly => format!(
            "only its server's node recorded it{partial}: run probe watch --record on {} too",
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
        Unmatched::SharedPhase(names) => format!(
            "older than the recordings, and ambiguous: several connect at this phase of their interval: {}",
            names.join(", ")
        ),
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
    lacks: Lacks,
}

impl Report {
    pub fn new(json: bool, zone: TimeZone) -> Self {
        Self {
            json,
            clock: Clock::new(zone),
            lacks: Lacks::default(),
        }
    }

    /// Of answers from these recordings.
    pub fn of(mut self, flows: &Flows) -> Self {
        let partial = flows.scopes().iter().find(|scope| scope.is_partial());
        self.lacks = Lacks {
            partial: partial.map(|scope| format!("recorded {scope}")),
            unlisted: flows.unlisted().clone(),
        };
        self
    }

    /// The time and the client of a line.
    fn line(&mut self, out: &mut Vec<u8>, rejected: &Rejected) {
        match rejected.time {
            Some(time) => self.clock.local(out, time, true),
            None => text::ascii(out, "--:--:--.---"),
        };
        text::ascii(out, " ");
        let width = text::end(out, rejected.peer);
        text::spaces(out, 21_usize.saturating_sub(width) + 1);
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
            return json::line(out, &object(&mut self.clock, rejected, found, &self.lacks));
        }
        self.line(out, rejected);
        match found {
            Ok(near) => {
                self.near(out, near);
                if rejected.time.is_none() {
                    text::ascii(out, ", time unknown");
                }
            }
            Err(unmatched) => {
                text::ascii(out, "? ");
                let why = self.lacks.why(unmatched, rejected);
                escape::push(out, &why, 2 * WHO);
            }
        }
        text::ascii(out, "  ");
        escape::push(out, &rejected.error, ERROR);
        out.push(b'\n');
        Ok(())
    }

    /// One that is older than the recordings, and who is likely behind it.
    ///
    /// # Errors
    /// None in practice: writing to memory does not fail.
    pub fn earlier(
        &mut self,
        out: &mut Vec<u8>,
        rejected: &Rejected,
        found: &Result<Likely, Unmatched>,
    ) -> io::Result<()> {
        let likely = match found {
            Ok(likely) => likely,
            Err(unmatched) => return self.rejected(out, rejected, &Err(unmatched.clone())),
        };
        if self.json {
            return json::line(out, &likely_object(&mut self.clock, rejected, likely));
        }
        self.line(out, rejected);
        text::ascii(out, "likely ");
        push_client(out, &likely.client);
        let evidence = self.evidence(&likely.evidence);
        text::ascii(out, ", ");
        escape::push(out, &evidence, 2 * WHO);
        text::ascii(out, "  ");
        escape::push(out, &rejected.error, ERROR);
        out.push(b'\n');
        Ok(())
    }

    /// The heading of the lines that are older than the recordings.
    pub fn earlier_heading(&self, out: &mut Vec<u8>) {
        if !self.json {
            out.extend_from_slice(b"\nOlder than the recordings:\n");
        }
    }

    /// `every 60.0 s ×120 within 4 ms, process since 2026-11-22T08:00:00`
    fn evidence(&self, evidence: &EarlierEvidence) -> String {
        match evidence {
            EarlierEvidence::Interval {
                every,
                beats,
                spread,
                since,
                is_process,
            } => format!(
                "{beats} lines at its interval of {} within {}, {} since {}",
                span(*every),
                span(*spread),
                if *is_process { "process" } else { "pod" },
                self.clock.date(*since)
            ),
            EarlierEvidence::PodAddress { since } => {
                format!("the pod has had this address since {}", self.clock.date(*since))
            }
        }
    }

    /// `monitoring/sdp-monitor-z8989 (python3) on beta, from 10.244.2.2:41234, 3 ms away`
    fn near(&self, out: &mut Vec<u8>, near: &Near<'_>) {
        push_client(out, near.client);
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

    /// An address without a match, among several.
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
    pub fn not_recorded(&mut self, address: SocketAddr) -> String {
        let partial = self.lacks.partial.as_ref();
        let partial = partial.map(|partial| format!(" ({partial})")).unwrap_or_default();
        let missing = self.missing();
        format!(
            "no recording has a client with address {address}{partial}: run probe watch --record on the node that has it, or \
             that runs the pod{missing}"
        )
    }

    /// When connections are missing in the recordings, and how many, to end a sentence with; empty if none is.
    pub fn missing(&mut self) -> String {
        let Some(missing) = self.lacks.unlisted.whole() else {
            return String::new();
        };
        let mut local = |time| {
            let mut out = Vec::new();
            self.clock.local(&mut out, time, true);
            String::from_utf8(out).unwrap_or_default()
        };
        format!(
            "; from {} to {} {}",
            local(missing.since),
            local(missing.until),
            missing.describe()
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
            likely,
            unreadable,
            ..
        } = total;
        let text = format!(
            "\n{}, {rejected} {}, {matched} named{}{}.\n",
            counted(*lines, "line", "lines"),
            match kind {
                ServerKind::Etcd if *rejected == 1 => "rejected connection".to_owned(),
                ServerKind::Etcd => "rejected connections".to_owned(),
                other => format!("of {} about such connections", other.title()),
            },
            if *likely == 0 {
                String::new()
            } else {
                format!(", {likely} more likely (older than the recordings)")
            },
            if *unreadable == 0 {
                String::new()
            } else {
                format!(", {unreadable} unreadable")
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
                "… and {} lines of clients not listed (table full)\n",
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
            Ok((identity, node)) if group.is_likely => (format!("likely {identity}"), node.clone()),
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

/// `monitoring/sdp-monitor-z8989 (python3) on beta`
fn push_client(out: &mut Vec<u8>, client: &Client) {
    escape::push(out, &client.identity.to_string(), WHO);
    if let (Some(node), Some(_)) = (&client.node, &client.identity.pod) {
        text::ascii(out, " on ");
        escape::push(out, node, WHO);
    }
}

#[cfg(test)]
mod tests;
