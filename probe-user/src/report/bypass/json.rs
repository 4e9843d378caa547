//! One object a snapshot; docs/json.md describes it.

use std::io;

use serde::Serialize;

use super::super::{clock::Clock, lines};
use crate::model::{
    Container, Finding, Pod, Verdict,
    address::NamedEnd,
    bypass::{
        View,
        diagnosis::protocol,
        rule::{Intended, NotrackRule},
        stream::Server,
        view::{JudgedStream, RuleState, SeenBy, Sender},
    },
    finding::ago_ms,
};

/// What `probe bypass` prints, one object an interval. The last has the event `summary`. Counters are since probe began.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "Bypass"))]
pub(in crate::report) struct BypassEvent<'a> {
    /// `bypass`, or `summary` for the last.
    event: &'static str,
    /// When it was, RFC 3339, UTC, microseconds.
    #[cfg_attr(test, schemars(extend("format" = "date-time")))]
    time: String,
    /// The name of the node: the host's, or `--node-name`.
    node: &'a str,
    /// True if there is no finding.
    healthy: bool,
    /// `faulty` if there is a finding; `unknown` if rules could not be read (`unread`), packets are not shown (`unseen`), or were
    /// not counted (`lost`); else `ok`.
    verdict: Verdict,
    /// Untracked packets, most first.
    streams: Vec<Stream<'a>>,
    /// Every rule that sets notrack.
    rules: Vec<RuleLine>,
    /// How many Services the node's rules have.
    services: usize,
    /// [Findings](#finding) of these kinds: [bypass.md](bypass.md).
    findings: Vec<&'a Finding>,
    /// What could not be counted.
    lost: Lost,
    /// The programs that see the packets.
    hooks: &'a [SeenBy],
    /// Packets that this kernel does not show.
    #[serde(skip_serializing_if = "<[&str]>::is_empty")]
    unseen: &'a [&'static str],
    /// Why rules could not be read.
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    unread: &'a [String],
}

/// What could not be counted.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "BypassLost"))]
struct Lost {
    /// Packets counted not assigned to a stream (table full).
    packets: u64,
}

/// Untracked packets of one direction.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "BypassStream"))]
struct Stream<'a> {
    /// The source.
    source: NamedEnd<'a>,
    /// The destination.
    destination: NamedEnd<'a>,
    /// The IP protocol.
    protocol: String,
    /// `forwarded`, `outgoing` or `delivered`.
    direction: &'static str,
    /// The input device; null if none.
    input: Option<&'a str>,
    /// The output device; null if none.
    output: Option<&'a str>,
    /// Packets: segments on the wire.
    packets: u64,
    /// Packets as rules count them.
    frames: u64,
    /// Bytes from the IP header on.
    bytes: u64,
    /// SYN.
    syn: u64,
    /// SYN-ACK.
    syn_ack: u64,
    /// RST.
    rst: u64,
    /// The first, milliseconds ago; null if never.
    first_seen_ms: Option<u64>,
    /// The latest, milliseconds ago; null if never.
    last_seen_ms: Option<u64>,
    /// The rules that exempt it from conntrack; empty if none were found.
    rules: Vec<String>,
    /// What exempts it on purpose.
    #[serde(skip_serializing_if = "Option::is_none")]
    intended: Option<Intended>,
    /// The Service that it breaks.
    #[serde(skip_serializing_if = "Option::is_none")]
    service: Option<&'a str>,
    /// The owner of the node's own packets, by the socket of the latest.
    #[serde(skip_serializing_if = "Option::is_none")]
    owner: Option<Owner<'a>>,
}

/// The sender of the node's own packets.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "BypassOwner"))]
struct Owner<'a> {
    /// The last levels of the path of the cgroup.
    cgroup: &'a str,
    /// As of a connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    container: Option<&'a Container>,
    /// As of a connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pod: Option<&'a Pod>,
    /// True if another cgroup sent too.
    others: bool,
}

/// A rule that sets notrack.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "BypassRule"))]
struct RuleLine {
    /// The rule.
    rule: String,
    /// Its counter; null if it has none.
    packets: Option<u64>,
    /// Its increase since probe began.
    since: Option<u64>,
    /// `hit`: its counter moved; `latent`: it did not, or there is none.
    state: RuleState,
    /// What exempts packets on purpose.
    #[serde(skip_serializing_if = "Option::is_none")]
    intended: Option<Intended>,
}

pub fn line(view: &View, event: &'static str, node: &str, clock: &mut Clock) -> io::Result<Vec<u8>> {
    let line = BypassEvent {
        event,
        time: clock.utc_text(view.time),
        node,
        healthy: view.findings.is_empty(),
        verdict: view.verdict(),
        streams: view.streams.iter().map(|seen| stream(view, seen)).collect(),
        rules: view.rules.iter().map(rule).collect(),
        services: view.services,
        findings: view.findings.iter().collect(),
        lost: Lost { packets: view.rest },
        hooks: &view.seen_by,
        unseen: &view.unseen,
        unread: &view.unread,
    };
    Ok(lines::to_vec(&line)?)
}

fn stream<'a>(view: &'a View, seen: &'a JudgedStream) -> Stream<'a> {
    let (stream, count) = (&seen.stream, &seen.count);
    let device = |index: Option<u32>| view.devices.get(&index?).map(String::as_str);
    let end = |address, which| {
        let port = (stream.server == which).then_some(stream.port);
        NamedEnd::new(address, port, &view.names)
    };
    Stream {
        source: end(stream.source, Server::Source),
        destination: end(stream.destination, Server::Destination),
        protocol: protocol(stream.protocol),
        direction: stream.direction.name(),
        input: device(stream.input),
        output: device(stream.output),
        packets: count.packets,
        frames: count.frames,
        bytes: count.bytes,
        syn: count.syn,
        syn_ack: count.syn_ack,
        rst: count.rst,
        first_seen_ms: ago_ms(view.now_ns, count.first_ns),
        last_seen_ms: ago_ms(view.now_ns, count.last_ns),
        rules: seen.rules.iter().map(ToString::to_string).collect(),
        intended: seen.intended,
        service: seen.service.as_deref(),
        owner: seen.sender.as_ref().map(owner),
    }
}

fn owner(sender: &Sender) -> Owner<'_> {
    Owner {
        cgroup: &sender.cgroup,
        container: sender.owner.container.as_ref(),
        pod: sender.owner.pod.as_ref(),
        others: sender.others,
    }
}

fn rule(rule: &NotrackRule) -> RuleLine {
    RuleLine {
        rule: rule.name(),
        packets: rule.rule.packets,
        since: rule.since,
        state: RuleState::of(rule),
        intended: rule.intended,
    }
}
