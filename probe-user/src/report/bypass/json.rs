//! One object a look; docs/json.md describes it.

use std::{io, net::IpAddr};

use serde::Serialize;

use super::super::{clock::Clock, lines};
use crate::model::{
    Container, Finding, Pod,
    bypass::{
        View,
        diagnosis::protocol,
        rule::Rule,
        stream::Server,
        view::{JudgedStream, RuleState, SeenBy, Sender},
    },
    finding::ago_ms,
};

#[derive(Serialize)]
struct Line<'a> {
    event: &'static str,
    time: String,
    node: &'a str,
    healthy: bool,
    streams: Vec<Stream<'a>>,
    rules: Vec<RuleLine<'a>>,
    services: usize,
    findings: Vec<&'a Finding>,
    lost: Lost,
    hooks: Vec<Hook>,
    #[serde(skip_serializing_if = "<[&str]>::is_empty")]
    unseen: &'a [&'static str],
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    unread: &'a [String],
}

#[derive(Serialize)]
struct Lost {
    packets: u64,
}

/// As `probe check` tells it.
#[derive(Serialize)]
struct Hook {
    gives: &'static str,
    tracepoint: &'static str,
    program: &'static str,
}

#[derive(Serialize)]
struct End<'a> {
    address: IpAddr,
    #[serde(skip_serializing_if = "Option::is_none")]
    port: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pod: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    namespace: Option<&'a str>,
}

#[derive(Serialize)]
struct Stream<'a> {
    source: End<'a>,
    destination: End<'a>,
    protocol: String,
    direction: &'static str,
    input: Option<&'a str>,
    output: Option<&'a str>,
    packets: u64,
    frames: u64,
    bytes: u64,
    syn: u64,
    syn_ack: u64,
    rst: u64,
    first_seen_ms: Option<u64>,
    last_seen_ms: Option<u64>,
    rules: Vec<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    intended: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    service: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    owner: Option<Owner<'a>>,
}

#[derive(Serialize)]
struct Owner<'a> {
    cgroup: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    container: Option<&'a Container>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pod: Option<&'a Pod>,
    others: bool,
}

#[derive(Serialize)]
struct RuleLine<'a> {
    rule: &'a str,
    packets: Option<u64>,
    since: Option<u64>,
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    intended: Option<&'static str>,
}

pub fn line(view: &View, event: &'static str, node: &str, clock: &mut Clock) -> io::Result<Vec<u8>> {
    let mut time = Vec::new();
    clock.utc(&mut time, view.time);
    let line = Line {
        event,
        time: String::from_utf8_lossy(&time).into_owned(),
        node,
        healthy: view.findings.is_empty(),
        streams: view.streams.iter().map(|seen| stream(view, seen)).collect(),
        rules: view.rules.iter().map(rule).collect(),
        services: view.services,
        findings: view.findings.iter().collect(),
        lost: Lost { packets: view.rest },
        hooks: view.seen_by.iter().map(hook).collect(),
        unseen: &view.unseen,
        unread: &view.unread,
    };
    Ok(lines::to_vec(&line)?)
}

fn hook(by: &SeenBy) -> Hook {
    Hook {
        gives: by.gives,
        tracepoint: by.hook,
        program: by.program,
    }
}

fn end(view: &View, address: IpAddr, port: Option<u16>) -> End<'_> {
    let name = view.names.get(&address);
    End {
        address,
        port,
        pod: name.map(|name| name.pod.as_str()),
        namespace: name.map(|name| name.namespace.as_str()),
    }
}

fn stream<'a>(view: &'a View, seen: &'a JudgedStream) -> Stream<'a> {
    let (stream, count) = (&seen.stream, &seen.count);
    let device = |index: Option<u32>| view.devices.get(&index?).map(String::as_str);
    let port = |which| (stream.server == which).then_some(stream.port);
    Stream {
        source: end(view, stream.source, port(Server::Source)),
        destination: end(view, stream.destination, port(Server::Destination)),
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
        rules: seen
            .rules
            .iter()
            .map(|candidate| candidate.rule.as_str())
            .collect(),
        intended: seen.intended.map(|intended| intended.name()),
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

fn rule(rule: &Rule) -> RuleLine<'_> {
    RuleLine {
        rule: &rule.text,
        packets: rule.packets,
        since: rule.since,
        state: RuleState::of(rule).name(),
        intended: rule.intended.map(|intended| intended.name()),
    }
}
