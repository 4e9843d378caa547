//! One object an exchange; docs/json.md describes it.

use std::{io, net::SocketAddr};

use jiff::Timestamp;
use serde::{Serialize, Serializer, ser::SerializeMap};

use super::{
    super::{
        clock::Clock,
        json::{Address, line},
    },
    Lost, Told, Totals,
};
use crate::model::{
    address::AddressPort,
    path::{
        self, Blamed, Journey, Outcome, Places, Tracking, What,
        event::{Hook, HookVerdict},
    },
};

#[derive(Serialize)]
struct Line<'a> {
    event: &'static str,
    time: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<&'a str>,
    flow: u64,
    outcome: &'static str,
    conclusion: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    remedy: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    untracked: Option<Untracked<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    listener: Option<Listener<'a>>,
    #[serde(skip_serializing_if = "is_zero")]
    left_out: u64,
    packets: Vec<Packet<'a>>,
}

#[derive(Serialize)]
struct Untracked<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    rule: Option<Rule<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    service: Option<&'a str>,
}

#[derive(Serialize)]
struct Listener<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    process: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    waiting: Option<u32>,
}

#[derive(Serialize)]
struct Rule<'a> {
    text: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    remedy: &'a str,
    /// It is the one; else it is what fits.
    certain: bool,
}

#[derive(Serialize)]
struct Packet<'a> {
    direction: &'static str,
    title: String,
    protocol: u8,
    #[serde(skip_serializing_if = "is_false")]
    again: bool,
    #[serde(skip_serializing_if = "is_false")]
    about: bool,
    end: &'static str,
    duration_ns: u64,
    #[serde(skip_serializing_if = "is_zero")]
    left_out: u64,
    hops: Vec<Hop<'a>>,
}

#[derive(Serialize)]
struct Hop<'a> {
    after_ns: u64,
    point: &'static str,
    function: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    netns: Option<u32>,
    #[serde(skip_serializing_if = "String::is_empty")]
    place: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    device: Option<&'a str>,
    what: String,
    source: AddressPort,
    destination: AddressPort,
    #[serde(skip_serializing_if = "Option::is_none")]
    tracking: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mark: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    segments: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    at: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hook: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    verdict: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    found: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    icmp: Option<Icmp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tunnel: Option<Tunnel>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rule: Option<Rule<'a>>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    tables: &'a [String],
}

#[derive(Serialize)]
struct Icmp {
    r#type: u8,
    code: u8,
}

#[derive(Serialize)]
struct Tunnel {
    vni: u32,
    source: Address,
    destination: AddressPort,
}

/// Appends one line.
pub fn exchange(out: &mut Vec<u8>, clock: &mut Clock, node: Option<&str>, told: &Told<'_>) -> io::Result<()> {
    let exchange = told.exchange;
    let conclusion = exchange.conclusion(told.places);
    line(
        out,
        &Line {
            event: "path",
            time: utc(clock, told.time),
            node,
            flow: exchange.flow,
            outcome: conclusion.outcome.name(),
            conclusion: conclusion.text,
            remedy: conclusion.remedy,
            untracked: exchange.untracked.as_ref().map(|untracked| Untracked {
                rule: untracked.rule.as_ref().map(rule),
                service: untracked.service.as_deref(),
            }),
            listener: exchange.listener.as_ref().map(|listener| Listener {
                process: listener.process.as_deref(),
                waiting: listener.waiting,
            }),
            left_out: exchange.left_out,
            packets: exchange
                .journeys
                .iter()
                .map(|journey| packet(journey, told.places))
                .collect(),
        },
    )
}

fn utc(clock: &mut Clock, time: Timestamp) -> String {
    let mut out = Vec::new();
    clock.utc(&mut out, time);
    String::from_utf8(out).unwrap_or_default()
}

fn rule(rule: &Blamed) -> Rule<'_> {
    Rule {
        text: &rule.text,
        remedy: &rule.remedy,
        certain: rule.certain,
    }
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
        tracking: Some(event.tracking)
            .filter(|tracking| *tracking != Tracking::None)
            .map(Tracking::name),
        mark: Some(event.mark).filter(|mark| *mark != 0),
        segments: Some(event.segments).filter(|segments| *segments > 1),
        reason: None,
        at: None,
        hook: None,
        verdict: None,
        found: None,
        icmp: None,
        tunnel: packet.tunnel.map(|tunnel| Tunnel {
            vni: tunnel.vni,
            source: Address {
                address: tunnel.source,
            },
            destination: AddressPort::new(tunnel.destination),
        }),
        rule: hop.rule.as_ref().map(rule),
        tables: &hop.tables,
    };
    match &event.what {
        What::Dropped { reason, at } => {
            told.reason = reason.as_deref();
            told.at = at.as_deref();
        }
        What::Hook { hook, verdict } => {
            told.hook = hook.map(Hook::name);
            told.verdict = verdict.map(HookVerdict::name);
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

#[derive(Serialize)]
struct Summary<'a> {
    event: &'static str,
    started: String,
    ended: String,
    watched: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<&'a str>,
    exchanges: u64,
    packets: u64,
    outcomes: Counts<'a>,
    lost: Lost,
}

/// An object of counts.
struct Counts<'a>(&'a [(Outcome, u64)]);

impl Serialize for Counts<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (outcome, count) in self.0 {
            map.serialize_entry(outcome.name(), count)?;
        }
        map.end()
    }
}

/// Appends the last line.
pub fn last(out: &mut Vec<u8>, clock: &mut Clock, node: Option<&str>, totals: &Totals) -> io::Result<()> {
    line(
        out,
        &Summary {
            event: "summary",
            started: utc(clock, totals.started),
            ended: utc(clock, totals.ended),
            watched: &totals.watched,
            node,
            exchanges: totals.exchanges,
            packets: totals.packets,
            outcomes: Counts(&totals.outcomes),
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
