//! One object a snapshot; docs/json.md describes it.

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, SocketAddr},
};

use serde::Serialize;

use super::super::{clock::Clock, lines};
use crate::model::{
    Finding, Verdict,
    address::NamedEnd,
    finding::ago_ms,
    vxlan::{
        overlay::{Overlay, PeerEntry, PeerSource},
        traffic::{IcmpError, Layer, VxlanCount},
        view::{PeerView, View},
    },
};

/// What `probe vxlan` prints, one object an interval. The last has the event `summary`. Counters are since probe began.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "Vxlan"))]
pub(in crate::report) struct VxlanEvent<'a> {
    /// `vxlan`, or `summary` for the last.
    event: &'static str,
    /// When it was, RFC 3339, UTC, microseconds.
    #[cfg_attr(test, schemars(extend("format" = "date-time")))]
    time: String,
    /// The name of the node: the host's, or `--node-name`.
    node: &'a str,
    /// Each VXLAN device.
    devices: Vec<Device<'a>>,
    /// Each configured peer, and each that sends.
    peers: Vec<Peer<'a>>,
    /// The packets on the wire, of any VXLAN port and VNI.
    streams: Vec<Stream<'a>>,
    /// ICMP errors about VXLAN packets.
    errors: Vec<Error<'a>>,
    /// VXLAN packets dropped on this node.
    drops: Vec<Drop<'a>>,
    /// Each direction of each inner connection, most bytes first, with `--flows`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    flows: Vec<Flow<'a>>,
    /// [Findings](#finding) of these kinds: [vxlan.md](vxlan.md).
    findings: Vec<&'a Finding>,
    /// True if there is no finding.
    healthy: bool,
    /// `faulty` if there is a finding; `ok` if packets of every peer arrived; else `unknown`.
    verdict: Verdict,
    /// Not counted for lack of room: `packets`, `errors`, `drop_destinations` (counted without their addresses), `drops`,
    /// `flow_packets`; `skipped`: drops that an interrupt hid from the program; `forgotten_peers`: peers that were gone, and whose
    /// counters made room for those of others.
    lost: BTreeMap<&'static str, u64>,
    /// Why the packet filter's rules could not be read.
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    unread: &'a [String],
}

/// A VXLAN device.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "VxlanDevice"))]
struct Device<'a> {
    /// The name.
    name: &'a str,
    /// True if it is up.
    up: bool,
    /// The VNI.
    vni: u32,
    /// The UDP port.
    port: u16,
    /// The local address; null if none is set.
    local: Option<IpAddr>,
    /// The underlay device; null if it is not known.
    underlay: Option<&'a str>,
    /// The MTU of the underlay device.
    underlay_mtu: Option<u32>,
    /// Every device that its packets leave or arrive by, the first one first.
    underlays: Vec<&'a str>,
    /// The MTU of the device.
    mtu: u32,
    /// The MAC address.
    mac: Option<String>,
    /// Where its peers come from: `entries` (configured), `learning`, `external`.
    kind: PeerSource,
    /// Packets received, as the device counts.
    received: u64,
    /// Packets sent, as the device counts.
    sent: u64,
    /// Packets that the device could not send.
    send_failures: u64,
    /// `faulty` if it is down, or there is a finding about it or a peer of it; `unknown` if a peer of it is; else `ok`.
    verdict: Verdict,
}

/// Packets since probe began.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "VxlanCounts"))]
struct Counts {
    /// Packets: segments on the wire.
    packets: u64,
    /// Frames, as devices and tcpdump count.
    frames: u64,
    /// Bytes of the outer frames on the wire.
    bytes: u64,
    /// The latest, milliseconds ago; null if never.
    last_seen_ms: Option<u64>,
    /// Inner SYN.
    syn: u64,
    /// Inner SYN-ACK.
    syn_ack: u64,
    /// Inner RST.
    rst: u64,
    /// Packets in fragments.
    fragments: u64,
    /// Packets with a malformed header.
    malformed: u64,
}

/// A peer of a VXLAN device.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "VxlanPeer"))]
struct Peer<'a> {
    /// The VXLAN device.
    device: &'a str,
    /// The address on the underlay; null if the forwarding entry is missing.
    vtep: Option<IpAddr>,
    /// The MAC address of the peer's device.
    mac: Option<String>,
    /// The address of the peer's device, by which its pods are routed.
    gateway: Option<IpAddr>,
    /// The networks routed to it.
    routes: Vec<String>,
    /// The entries that are missing.
    lacks: &'a [PeerEntry],
    /// True if the device has entries for it.
    expected: bool,
    /// Packets from it.
    received: Counts,
    /// Packets to it.
    sent: Counts,
    /// Packets from or to it that were dropped on this node.
    dropped: u64,
    /// `ok`, `idle`, `direct` (routed without VXLAN), `not verified` (sent and nothing received), `no entries`, or the kinds of
    /// its findings.
    state: String,
    /// `faulty` if there is a finding about it, or the device is down; `unknown` if nothing was received from it and it is not
    /// `direct`; else `ok`.
    verdict: Verdict,
}

/// VXLAN packets of one direction between two addresses.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "VxlanStream"))]
struct Stream<'a> {
    /// The address on this node.
    local: IpAddr,
    /// The address of the peer.
    peer: IpAddr,
    /// The VNI.
    vni: u32,
    /// The UDP destination port.
    port: u16,
    /// The underlay device.
    underlay: Option<&'a str>,
    /// `in` or `out`.
    direction: &'static str,
    #[serde(flatten)]
    counts: Counts,
}

/// ICMP errors about VXLAN packets.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "VxlanError"))]
struct Error<'a> {
    #[serde(flatten)]
    error: &'a IcmpError,
    /// The number of errors.
    packets: u64,
    /// The largest packet that would pass.
    #[serde(skip_serializing_if = "Option::is_none")]
    mtu: Option<u32>,
    /// The latest, milliseconds ago; null if never.
    last_seen_ms: Option<u64>,
}

/// Packets dropped on this node.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "VxlanDrop"))]
struct Drop<'a> {
    /// `outside`: the VXLAN packet; `inside`: the packet at the VXLAN device.
    place: &'static str,
    /// The kernel's reason; null before 5.17.
    reason: Option<&'a str>,
    /// The device.
    device: Option<&'a str>,
    /// The source of the VXLAN packet.
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<IpAddr>,
    /// The destination of the VXLAN packet; `inside`, of the inner one.
    destination: IpAddr,
    /// The VNI.
    #[serde(skip_serializing_if = "Option::is_none")]
    vni: Option<u32>,
    /// The UDP destination port.
    #[serde(skip_serializing_if = "Option::is_none")]
    port: Option<u16>,
    /// The EtherType, such as `0x0800`.
    ethertype: String,
    /// The number of packets.
    packets: u64,
    /// The latest, milliseconds ago; null if never.
    last_seen_ms: Option<u64>,
}

/// One direction of an inner connection.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "InnerFlow"))]
struct Flow<'a> {
    /// The source.
    source: NamedEnd<'a>,
    /// The destination.
    destination: NamedEnd<'a>,
    /// The IP protocol.
    protocol: String,
    /// The VNI.
    vni: u32,
    /// `in` or `out`.
    direction: &'static str,
    /// Packets.
    packets: u64,
    /// Bytes.
    bytes: u64,
    /// The first, milliseconds ago.
    first_seen_ms: Option<u64>,
    /// The latest, milliseconds ago.
    last_seen_ms: Option<u64>,
    /// All TCP flags seen, as one number.
    tcp_flags: u8,
}

pub fn line(view: &View, event: &'static str, node: &str, clock: &mut Clock) -> io::Result<Vec<u8>> {
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
        error,
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
    let end = |end: SocketAddr| NamedEnd::new(end.ip(), Some(end.port()), &view.names);
    let flows = view.traffic.flows.iter().map(|(flow, count)| Flow {
        source: end(flow.source),
        destination: end(flow.destination),
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
    let devices = view.overlays.iter();
    let all = view.peers();
    let line = VxlanEvent {
        event,
        time: clock.utc_text(view.time),
        node,
        devices: devices.map(|overlay| device_of(view, overlay, &all)).collect(),
        peers: all.iter().map(|peer| peer_of(peer, now)).collect(),
        streams: streams.collect(),
        errors: errors.collect(),
        drops: drops.collect(),
        flows: flows.collect(),
        findings: view.findings.iter().map(|found| &found.finding).collect(),
        healthy: view.findings.is_empty(),
        verdict: view.verdict(),
        lost: losses.copied().collect(),
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

fn device_of<'a>(view: &View, overlay: &'a Overlay, peers: &[PeerView<'_>]) -> Device<'a> {
    let device = &overlay.device;
    Device {
        name: &device.name,
        up: device.up,
        vni: overlay.vxlan.vni,
        port: overlay.vxlan.port,
        local: overlay.vxlan.local,
        underlay: overlay.underlay.as_ref().map(|underlay| underlay.name.as_str()),
        underlay_mtu: overlay.underlay.as_ref().map(|underlay| underlay.mtu),
        underlays: overlay
            .underlays()
            .map(|underlay| underlay.name.as_str())
            .collect(),
        mtu: device.mtu,
        mac: device.mac.map(|mac| mac.to_string()),
        kind: overlay.kind,
        received: device.received,
        sent: device.sent,
        send_failures: device.send_failures,
        verdict: view.verdict_of(overlay, peers),
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
        lacks: peer.map(|peer| peer.lacks.as_slice()).unwrap_or_default(),
        expected: peer.is_some(),
        received: counts(&view.received, now),
        sent: counts(&view.sent, now),
        dropped: view.dropped,
        state: view.state(),
        verdict: view.verdict(),
    }
}
