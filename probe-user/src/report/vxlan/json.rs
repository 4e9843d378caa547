//! One object a look; docs/json.md describes it.

use std::{io, net::IpAddr};

use serde::Serialize;

use super::super::{clock::Clock, lines};
use crate::model::{
    Finding,
    finding::ago_ms,
    vxlan::{
        overlay::{Overlay, PeerEntry},
        traffic::{Layer, VxlanCount},
        view::{PeerView, View},
    },
};

#[derive(Serialize)]
struct Line<'a> {
    event: &'static str,
    time: String,
    node: &'a str,
    devices: Vec<Device<'a>>,
    peers: Vec<Peer<'a>>,
    /// Every stream on the wire, those of no device too.
    streams: Vec<Stream<'a>>,
    errors: Vec<Error>,
    drops: Vec<Drop<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    flows: Vec<Flow<'a>>,
    findings: Vec<&'a Finding>,
    healthy: bool,
    lost: serde_json::Map<String, serde_json::Value>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    unread: &'a [String],
}

#[derive(Serialize)]
struct Device<'a> {
    name: &'a str,
    up: bool,
    vni: u32,
    port: u16,
    local: Option<IpAddr>,
    underlay: Option<&'a str>,
    underlay_mtu: Option<u32>,
    mtu: u32,
    mac: Option<String>,
    kind: &'static str,
    /// As the device itself counts.
    received: u64,
    sent: u64,
    send_failures: u64,
}

#[derive(Serialize)]
struct Counts {
    packets: u64,
    frames: u64,
    bytes: u64,
    last_seen_ms: Option<u64>,
    syn: u64,
    syn_ack: u64,
    rst: u64,
    fragments: u64,
    malformed: u64,
}

#[derive(Serialize)]
struct Peer<'a> {
    device: &'a str,
    vtep: Option<IpAddr>,
    mac: Option<String>,
    gateway: Option<IpAddr>,
    routes: Vec<String>,
    lacks: Vec<&'static str>,
    expected: bool,
    received: Counts,
    sent: Counts,
    dropped: u64,
    state: String,
}

#[derive(Serialize)]
struct Stream<'a> {
    local: IpAddr,
    peer: IpAddr,
    vni: u32,
    port: u16,
    underlay: Option<&'a str>,
    direction: &'static str,
    #[serde(flatten)]
    counts: Counts,
}

#[derive(Serialize)]
struct Error {
    reporter: IpAddr,
    source: IpAddr,
    destination: IpAddr,
    port: u16,
    error: &'static str,
    direction: &'static str,
    packets: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    mtu: Option<u32>,
    last_seen_ms: Option<u64>,
}

#[derive(Serialize)]
struct Drop<'a> {
    place: &'static str,
    reason: Option<&'a str>,
    device: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<IpAddr>,
    destination: IpAddr,
    #[serde(skip_serializing_if = "Option::is_none")]
    vni: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    port: Option<u16>,
    ethertype: String,
    packets: u64,
    last_seen_ms: Option<u64>,
}

#[derive(Serialize)]
struct FlowEnd<'a> {
    address: IpAddr,
    port: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    pod: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    namespace: Option<&'a str>,
}

#[derive(Serialize)]
struct Flow<'a> {
    source: FlowEnd<'a>,
    destination: FlowEnd<'a>,
    protocol: String,
    vni: u32,
    direction: &'static str,
    packets: u64,
    bytes: u64,
    first_seen_ms: Option<u64>,
    last_seen_ms: Option<u64>,
    tcp_flags: u8,
}

pub fn line(view: &View, event: &'static str, node: &str, clock: &mut Clock) -> io::Result<Vec<u8>> {
    let mut time = Vec::new();
    clock.utc(&mut time, view.time);
    let now = view.traffic.now_ns;
    let device = |index: &u32| view.devices.get(index).map(String::as_str);
    let streams = view.traffic.streams.iter().map(|(stream, count)| Stream {
        local: stream.local,
        peer: stream.peer,
        vni: stream.vni,
        port: stream.port,
        underlay: device(&stream.underlay),
        direction: stream.direction.name(),
        counts: counts(count, now),
    });
    let errors = view.traffic.errors.iter().map(|(error, count)| Error {
        reporter: error.reporter,
        source: error.source,
        destination: error.destination,
        port: error.port,
        error: error.kind.name(),
        direction: error.direction.name(),
        packets: count.packets,
        mtu: (count.mtu > 0).then_some(count.mtu),
        last_seen_ms: ago_ms(now, count.last_ns),
    });
    let drops = view.traffic.drops.iter().map(|(dropped, count)| {
        let outside = dropped.place == Layer::Outer;
        Drop {
            place: dropped.place.name(),
            reason: dropped.reason.as_deref(),
            device: device(&dropped.device),
            source: outside.then_some(dropped.source),
            destination: dropped.destination,
            vni: outside.then_some(dropped.vni),
            port: outside.then_some(dropped.port),
            ethertype: format!("{:#06x}", dropped.ethertype),
            packets: count.packets,
            last_seen_ms: ago_ms(now, count.last_ns),
        }
    });
    let flows = view.traffic.flows.iter().map(|(flow, count)| Flow {
        source: end(view, flow.source),
        destination: end(view, flow.destination),
        protocol: super::text::protocol(flow.protocol),
        vni: flow.vni,
        direction: flow.direction.name(),
        packets: count.packets,
        bytes: count.bytes,
        first_seen_ms: ago_ms(now, count.first_ns),
        last_seen_ms: ago_ms(now, count.last_ns),
        tcp_flags: count.tcp_flags,
    });
    let losses = view.traffic.losses.iter();
    let line = Line {
        event,
        time: String::from_utf8_lossy(&time).into_owned(),
        node,
        devices: view.overlays.iter().map(device_of).collect(),
        peers: view.peers().iter().map(|peer| peer_of(peer, now)).collect(),
        streams: streams.collect(),
        errors: errors.collect(),
        drops: drops.collect(),
        flows: flows.collect(),
        findings: view.findings.iter().map(|found| &found.finding).collect(),
        healthy: view.findings.is_empty(),
        lost: losses
            .map(|(name, lost)| ((*name).to_owned(), (*lost).into()))
            .collect(),
        unread: &view.unread,
    };
    Ok(lines::to_vec(&line)?)
}

fn counts(count: &VxlanCount, now: u64) -> Counts {
    Counts {
        packets: count.packets,
        frames: count.frames,
        bytes: count.bytes,
        last_seen_ms: ago_ms(now, count.last_ns),
        syn: count.syn,
        syn_ack: count.syn_ack,
        rst: count.rst,
        fragments: count.fragments,
        malformed: count.malformed,
    }
}

fn device_of(overlay: &Overlay) -> Device<'_> {
    let device = &overlay.device;
    Device {
        name: &device.name,
        up: device.up,
        vni: overlay.vxlan.vni,
        port: overlay.vxlan.port,
        local: overlay.vxlan.local,
        underlay: overlay.underlay.as_ref().map(|underlay| underlay.name.as_str()),
        underlay_mtu: overlay.underlay.as_ref().map(|underlay| underlay.mtu),
        mtu: device.mtu,
        mac: device.mac.map(|mac| mac.to_string()),
        kind: overlay.kind.name(),
        received: device.received,
        sent: device.sent,
        send_failures: device.send_failures,
    }
}

fn peer_of<'a>(view: &PeerView<'a>, now: u64) -> Peer<'a> {
    let peer = view.peer;
    Peer {
        device: &view.overlay.device.name,
        vtep: view.vtep,
        mac: peer.and_then(|peer| peer.mac).map(|mac| mac.to_string()),
        gateway: peer.and_then(|peer| peer.gateway),
        routes: peer
            .map(|peer| peer.routes.iter().map(ToString::to_string).collect())
            .unwrap_or_default(),
        lacks: peer
            .map(|peer| peer.lacks.iter().copied().map(PeerEntry::name).collect())
            .unwrap_or_default(),
        expected: peer.is_some(),
        received: counts(&view.received, now),
        sent: counts(&view.sent, now),
        dropped: view.dropped,
        state: view.state(),
    }
}

fn end(view: &View, end: std::net::SocketAddr) -> FlowEnd<'_> {
    let name = view.names.get(&end.ip());
    FlowEnd {
        address: end.ip(),
        port: end.port(),
        pod: name.map(|name| name.pod.as_str()),
        namespace: name.map(|name| name.namespace.as_str()),
    }
}
