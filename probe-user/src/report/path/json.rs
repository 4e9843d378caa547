//! One object an exchange; docs/json.md describes it.

use std::{io, net::SocketAddr};

use serde::Serialize;

use super::{
    super::{
        clock::Clock,
        json::{CountsByName, line},
    },
    Lost, Told, Totals,
};
use crate::model::{
    Verdict,
    address::AddressPort,
    finding::Fix,
    path::{
        self, AppliedRule, Journey, Listener, Outcome, Places, Rounds, Tracking, Untracked, What,
        event::{Hook, HookVerdict, Tunnel},
    },
};

/// What `probe path` prints, one object an exchange: a request, its answer, and the other packets of the flow meanwhile.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "Path"))]
pub(in crate::report) struct PathEvent<'a> {
    /// Always `path`.
    event: &'static str,
    /// The time of the exchange's first event.
    #[cfg_attr(test, schemars(extend("format" = "date-time")))]
    time: String,
    /// The name of the node: the host's, or `--node-name`.
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<&'a str>,
    /// A number, the same in all exchanges of a flow.
    flow: u64,
    /// `delivered` (it reached its socket; the answer came back), `refused` (no such socket, or RST), `dropped` (it, its reply,
    /// or a later packet), `untranslated` (it left for a Service untranslated, or its reply came from another address than was
    /// dialled), `unreachable` (an ICMP error came), `unanswered`, `no-request` (only the answer was seen).
    outcome: Outcome,
    /// `ok` if it was delivered, `unknown` if it is `unanswered` or `no-request`, else `faulty`.
    verdict: Verdict,
    /// Where the request ended and why, in a sentence.
    conclusion: String,
    /// How to fix it, the best first; probe never does it itself.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    fixes: Vec<Fix>,
    /// If packets for a Service bypassed conntrack.
    #[serde(skip_serializing_if = "Option::is_none")]
    untracked: Option<&'a Untracked>,
    /// The listener where the request was delivered.
    #[serde(skip_serializing_if = "Option::is_none")]
    listener: Option<&'a Listener>,
    /// Points of packets beyond those kept: 64 packets an exchange.
    #[serde(skip_serializing_if = "is_zero")]
    left_out: u64,
    /// Each packet of the exchange, in the order they began.
    packets: Vec<Packet<'a>>,
}

/// A packet and its way.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "PathPacket"))]
struct Packet<'a> {
    /// `request` or `reply`.
    direction: &'static str,
    /// What it is, in words: `SYN`, `1448 bytes`, `ICMP echo request`.
    title: String,
    /// IP protocol number.
    protocol: u8,
    /// True: TCP sent it before (retransmission).
    #[serde(skip_serializing_if = "is_false")]
    again: bool,
    /// True: an ICMP error about a packet of the flow.
    #[serde(skip_serializing_if = "is_false")]
    about: bool,
    /// `delivered`, `dropped`, `left` (a device sent it, and nothing more was seen), `arrived` (nothing was seen to drop it).
    end: &'static str,
    /// From its first point to the one that shows the end.
    duration_ns: u64,
    /// Its points beyond 192.
    #[serde(skip_serializing_if = "is_zero")]
    left_out: u64,
    /// The loop, if it went in circles.
    #[serde(skip_serializing_if = "Option::is_none")]
    rounds: Option<Rounds>,
    /// Each point that it passed, in order; of a loop, the first round alone.
    hops: Vec<Hop<'a>>,
}

/// A point that a packet passed.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "PathHop"))]
struct Hop<'a> {
    /// Since the packet's first point.
    after_ns: u64,
    /// `sent` (by a device), `received`, `dropped`, `consumed` (delivered), `hook` (of netfilter), `route`, `forward`, `local`,
    /// `output`, `socket`, `icmp` (an error is sent because of it), `conntrack`, `nat`, `encapsulate`, `decapsulate` (VXLAN).
    point: &'static str,
    /// The kernel's function or tracepoint of the event.
    function: &'static str,
    /// Inode of the network namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    netns: Option<u32>,
    /// The name of the network namespace.
    #[serde(skip_serializing_if = "String::is_empty")]
    place: String,
    /// The device; absent if it has none yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    device: Option<&'a str>,
    /// What happened, in words.
    what: String,
    /// The source at this point; in a tunnel the inner one.
    source: AddressPort,
    /// The destination at this point; in a tunnel the inner one.
    destination: AddressPort,
    /// conntrack's state.
    #[serde(skip_serializing_if = "Option::is_none")]
    tracking: Option<Tracking>,
    /// The mark, if it is not 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    mark: Option<u32>,
    /// Packets on the wire that it is cut into or put together of, if there are more than one.
    #[serde(skip_serializing_if = "Option::is_none")]
    segments: Option<u16>,
    /// Of `dropped`: the kernel's reason (absent before 5.17).
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    /// Of `dropped`: the function that dropped it.
    #[serde(skip_serializing_if = "Option::is_none")]
    at: Option<&'a str>,
    /// Of `hook`: the hook of netfilter.
    #[serde(skip_serializing_if = "Option::is_none")]
    hook: Option<Hook>,
    /// Of `hook`: the verdict.
    #[serde(skip_serializing_if = "Option::is_none")]
    verdict: Option<HookVerdict>,
    /// Of `route`: whether there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    found: Option<bool>,
    /// Of `icmp`: type and code of the error.
    #[serde(skip_serializing_if = "Option::is_none")]
    icmp: Option<Icmp>,
    /// VXLAN's outer header.
    #[serde(skip_serializing_if = "Option::is_none")]
    tunnel: Option<Tunnel>,
    /// The rule that dropped it, or exempted it from conntrack.
    #[serde(skip_serializing_if = "Option::is_none")]
    rule: Option<&'a AppliedRule>,
    /// Of a netfilter hook that accepted it: the tables with chains there, in their order, as they were read at most 10 s
    /// before (`iptables-legacy raw`, `nft inet shop pre`).
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    tables: &'a [String],
}

/// Type and code of an ICMP error.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "PathIcmp"))]
struct Icmp {
    /// The type.
    r#type: u8,
    /// The code.
    code: u8,
}

/// Appends one line.
pub fn exchange(out: &mut Vec<u8>, clock: &mut Clock, node: Option<&str>, told: &Told<'_>) -> io::Result<()> {
    let exchange = told.exchange;
    let conclusion = exchange.conclusion(told.places);
    line(
        out,
        &PathEvent {
            event: "path",
            time: clock.utc_text(told.time),
            node,
            flow: exchange.flow,
            outcome: conclusion.outcome,
            verdict: conclusion.outcome.verdict(),
            conclusion: conclusion.text,
            fixes: conclusion.fixes,
            untracked: exchange.untracked.as_ref(),
            listener: exchange.listener.as_ref(),
            left_out: exchange.left_out,
            packets: exchange
                .journeys
                .iter()
                .map(|journey| packet(journey, told.places))
                .collect(),
        },
    )
}

fn packet<'a>(journey: &'a Journey, places: Places<'_>) -> Packet<'a> {
    let first = journey.packet();
    let end = journey.end();
    Packet {
        direction: journey.direction.name(),
        title: first.map(path::Packet::title).unwrap_or_default(),
        protocol: first.map_or(0, |packet| packet.protocol),
        again: journey.again,
        about: first.is_some_and(|packet| packet.about),
        end: end.name(),
        duration_ns: journey.after_ns(end.hop()),
        left_out: journey.left_out,
        rounds: journey.rounds,
        hops: journey
            .hops
            .iter()
            .enumerate()
            .map(|(at, one)| hop(journey, at, one, places))
            .collect(),
    }
}

fn hop<'a>(journey: &Journey, at: usize, hop: &'a path::Hop, places: Places<'_>) -> Hop<'a> {
    let event = &hop.event;
    let packet = &event.packet;
    // Port numbers of ICMP are an echo's identifier, or none.
    let end = |end: SocketAddr| match packet.icmp {
        Some(_) => AddressPort::new(SocketAddr::new(end.ip(), 0)),
        None => AddressPort::new(end),
    };
    let mut told = Hop {
        after_ns: journey.after_ns(at),
        point: event.what.name(),
        function: event.function,
        netns: Some(event.netns).filter(|netns| *netns != 0),
        place: places(event.netns),
        device: event.device.as_ref().map(|device| device.name.as_str()),
        what: journey.words(at),
        source: end(packet.source),
        destination: end(packet.destination),
        tracking: Some(event.tracking).filter(|tracking| *tracking != Tracking::None),
        mark: Some(event.mark).filter(|mark| *mark != 0),
        segments: Some(event.segments).filter(|segments| *segments > 1),
        reason: None,
        at: None,
        hook: None,
        verdict: None,
        found: None,
        icmp: None,
        tunnel: packet.tunnel,
        rule: hop.rule.as_ref(),
        tables: &hop.tables,
    };
    match &event.what {
        What::Dropped { reason, at } => {
            told.reason = reason.as_deref();
            told.at = at.as_deref();
        }
        What::Hook { hook, verdict } => {
            told.hook = *hook;
            told.verdict = *verdict;
        }
        What::Route { found } => told.found = Some(*found),
        What::Icmp { kind, code } => {
            told.icmp = Some(Icmp {
                r#type: *kind,
                code: *code,
            });
        }
        _ => {}
    }
    told
}

/// The last line of `probe path`.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "PathSummary"))]
pub(in crate::report) struct PathSummary<'a> {
    /// Always `summary`.
    event: &'static str,
    /// When it began.
    #[cfg_attr(test, schemars(extend("format" = "date-time")))]
    started: String,
    /// When it ended.
    #[cfg_attr(test, schemars(extend("format" = "date-time")))]
    ended: String,
    /// What was watched, in words.
    watched: &'a str,
    /// The name of the node: the host's, or `--node-name`.
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<&'a str>,
    /// The number of exchanges.
    exchanges: u64,
    /// The number of packets.
    packets: u64,
    /// How many exchanges of each outcome.
    outcomes: CountsByName,
    /// What was not seen.
    lost: Lost,
}

/// Appends the last line.
pub fn last(out: &mut Vec<u8>, clock: &mut Clock, node: Option<&str>, totals: &Totals) -> io::Result<()> {
    let outcomes = totals.outcomes.iter();
    let outcomes = outcomes.map(|(outcome, count)| (outcome.name(), *count));
    line(
        out,
        &PathSummary {
            event: "summary",
            started: clock.utc_text(totals.started),
            ended: clock.utc_text(totals.ended),
            watched: &totals.watched,
            node,
            exchanges: totals.exchanges,
            packets: totals.packets,
            outcomes: CountsByName::of(outcomes),
            lost: totals.lost,
        },
    )
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

fn is_false(flag: &bool) -> bool {
    !*flag
}
