//! Events of the path object into the model: headers are read again here, from the bytes that came with them.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
};

use etherparse::{IpNumber, LaxNetSlice, LaxSlicedPacket, TransportSlice};
use probe_ebpf::contract::path as raw;

use super::{connection::Malformed, reason::named};
use crate::model::path::{
    Event, Packet, Tracking, Tunnel, What,
    event::{Direction, Hook, HookVerdict, PathDevice, Tcp},
};

/// UDP's header, and VXLAN's behind it.
const UDP: usize = 8;
const VXLAN: usize = 8;

/// An event out of the ring.
///
/// # Errors
/// When the bytes are no event.
pub fn raw(bytes: &[u8]) -> Result<raw::Event, Malformed> {
    bytemuck::try_pod_read_unaligned(bytes).map_err(|_| Malformed {
        what: "length",
        value: bytes.len(),
    })
}

/// What an event needs beside itself.
pub struct EventContext<'a> {
    /// This kernel's names of reasons for drops, if it reports reasons at all.
    pub reasons: Option<&'a HashMap<u32, String>>,
    /// UDP ports of VXLAN.
    pub vxlan_ports: [u16; 2],
    /// The tracepoint or function that shows such a packet at a point.
    pub function: &'a dyn Fn(raw::Point, &Packet) -> &'static str,
    /// The kernel function at an address.
    pub symbol: &'a dyn Fn(u64) -> Option<String>,
}

/// The model of an event; `None`: it holds no packet that can be read.
///
/// # Errors
/// When it holds a point or a direction that is none.
pub fn event(raw: &raw::Event, known: &EventContext<'_>) -> Result<Option<Event>, Malformed> {
    let wrong = |what, value: u8| Malformed {
        what,
        value: value.into(),
    };
    let point = raw::Point::from_raw(raw.point).ok_or(wrong("point", raw.point))?;
    let direction = Direction::from_raw(raw.direction).ok_or(wrong("direction", raw.direction))?;
    let bytes = raw.snap.get(..usize::from(raw.snapped)).unwrap_or_default();
    let Some(packet) = packet(bytes, known.vxlan_ports) else {
        return Ok(None);
    };
    let name = raw.name.split(|byte| *byte == 0).next().unwrap_or_default();
    Ok(Some(Event {
        time_ns: raw.time_ns,
        flow: raw.flow,
        direction,
        what: what(point, raw, known),
        netns: raw.netns,
        device: (raw.device != 0).then(|| PathDevice {
            index: raw.device,
            name: String::from_utf8_lossy(name).into_owned(),
        }),
        input: (raw.input != 0).then_some(raw.input),
        mark: raw.mark,
        // What is known of a packet in VXLAN is of the outer one.
        tracking: match packet.tunnel {
            Some(_) => Tracking::None,
            None => Tracking::from_raw(raw.conntrack),
        },
        function: (known.function)(point, &packet),
        packet,
        segments: raw.segments.max(1),
        skb: raw.skb,
        cpu: raw.cpu,
        bytes: bytes.to_vec(),
    }))
}

fn what(point: raw::Point, raw: &raw::Event, known: &EventContext<'_>) -> What {
    match point {
        raw::Point::Sent => What::Sent,
        raw::Point::Received => What::Received,
        raw::Point::Dropped => What::Dropped {
            reason: named(raw.detail, known.reasons),
            at: (known.symbol)(raw.location),
        },
        raw::Point::Consumed => What::Consumed,
        raw::Point::Hook => What::Hook {
            hook: Hook::from_raw(raw.detail),
            verdict: (raw.result != raw::NO_VERDICT).then(|| HookVerdict::of_result(raw.result)),
        },
        raw::Point::Route => What::Route {
            found: raw.result == 0,
        },
        raw::Point::Forward => What::Forward,
        raw::Point::Local => What::Local,
        raw::Point::Output => What::Output,
        raw::Point::Socket => What::Socket,
        raw::Point::Icmp => What::Icmp {
            kind: (raw.detail >> 8) as u8,
            code: raw.detail as u8,
        },
        raw::Point::Conntrack => What::Conntrack,
        raw::Point::Nat => What::Nat {
            destination: raw.detail == 1,
        },
        raw::Point::Encapsulate => What::Encapsulate,
        raw::Point::Decapsulate => What::Decapsulate,
    }
}

/// The headers of a packet from its IP header on, cut short or not; of one in VXLAN, the inner ones.
fn packet(bytes: &[u8], vxlan_ports: [u16; 2]) -> Option<Packet> {
    let (outer, payload) = headers(bytes)?;
    let is_vxlan = outer.protocol == IpNumber::UDP.0 && vxlan_ports.contains(&outer.destination.port());
    if is_vxlan
        && let Some(header) = payload.get(..VXLAN)
        && let Some((inner, _)) = payload.get(VXLAN..).and_then(inside)
    {
        return Some(Packet {
            tunnel: Some(Tunnel {
                vni: u32::from_be_bytes([0, header[4], header[5], header[6]]),
                source: outer.source.ip(),
                destination: outer.destination,
            }),
            ..inner
        });
    }
    Some(outer)
}

/// The packet in an Ethernet frame.
fn inside(frame: &[u8]) -> Option<(Packet, &[u8])> {
    headers(frame.get(14..)?)
}

/// The packet's headers and what is there of its payload.
fn headers(bytes: &[u8]) -> Option<(Packet, &[u8])> {
    let sliced = LaxSlicedPacket::from_ip(bytes).ok()?;
    let (source, destination, protocol, id, dont_fragment, fragment, ttl, length, header): (
        IpAddr,
        IpAddr,
        _,
        _,
        _,
        _,
        _,
        u32,
        u32,
    ) = match sliced.net.as_ref()? {
        LaxNetSlice::Ipv4(ip) => {
            let header = ip.header();
            (
                header.source_addr().into(),
                header.destination_addr().into(),
                header.protocol().0,
                Some(header.identification()),
                header.dont_fragment(),
                header.is_fragmenting_payload(),
                header.ttl(),
                header.total_len().into(),
                u32::from(header.ihl()) * 4,
            )
        }
        LaxNetSlice::Ipv6(ip) => {
            let header = ip.header();
            let length = 40 + u32::from(header.payload_length());
            let payload = ip.payload();
            let before = payload.payload.as_ptr() as usize - bytes.as_ptr() as usize;
            (
                header.source_addr().into(),
                header.destination_addr().into(),
                payload.ip_number.0,
                None,
                true,
                payload.fragmented,
                header.hop_limit(),
                length,
                before as u32,
            )
        }
        LaxNetSlice::Arp(_) => return None,
    };
    let mut packet = Packet {
        source: SocketAddr::new(source, 0),
        destination: SocketAddr::new(destination, 0),
        protocol,
        id,
        dont_fragment,
        fragment,
        ttl,
        length,
        payload: length.saturating_sub(header),
        tcp: None,
        icmp: None,
        sequence: None,
        about: false,
        tunnel: None,
    };
    let mut rest: &[u8] = &[];
    let mut ports = |source: u16, destination: u16| {
        packet.source.set_port(source);
        packet.destination.set_port(destination);
    };
    match &sliced.transport {
        Some(TransportSlice::Tcp(tcp)) => {
            ports(tcp.source_port(), tcp.destination_port());
            let flags = tcp.slice().get(13).copied().unwrap_or(0);
            packet.tcp = Some(Tcp {
                sequence: tcp.sequence_number(),
                acknowledgment: tcp.acknowledgment_number(),
                flags,
            });
            packet.payload = packet.payload.saturating_sub(u32::from(tcp.data_offset()) * 4);
            rest = tcp.payload();
        }
        Some(TransportSlice::Udp(udp)) => {
            ports(udp.source_port(), udp.destination_port());
            packet.payload = packet.payload.saturating_sub(UDP as u32);
            rest = udp.payload();
        }
        Some(TransportSlice::Icmpv4(icmp)) => {
            icmp_header(&mut packet, icmp.slice());
        }
        Some(TransportSlice::Icmpv6(icmp)) => {
            icmp_header(&mut packet, icmp.slice());
        }
        // The first fragment of a packet; others are not reported.
        None if matches!(IpNumber(protocol), IpNumber::TCP | IpNumber::UDP) => {
            let transport = bytes.get(header as usize..).unwrap_or_default();
            if let Some([source @ .., high, low]) = transport.first_chunk::<4>() {
                ports(u16::from_be_bytes(*source), u16::from_be_bytes([*high, *low]));
            }
        }
        Some(TransportSlice::Igmp(_)) | None => {}
    }
    Some((packet, rest))
}

/// Type, code, and of an echo its identifier in place of ports.
fn icmp_header(packet: &mut Packet, icmp: &[u8]) {
    let Some([kind, code, _, _, identifier @ .., high, low]) = icmp.first_chunk::<8>() else {
        return;
    };
    let (kind, code) = (*kind, *code);
    packet.icmp = Some((kind, code));
    packet.payload = packet.payload.saturating_sub(8);
    let v4 = packet.source.is_ipv4();
    packet.about = matches!((v4, kind), (true, 3 | 5 | 11 | 12) | (false, 1..=4));
    if matches!((v4, kind), (true, 0 | 8) | (false, 128 | 129)) {
        let identifier = u16::from_be_bytes(*identifier);
        packet.source.set_port(identifier);
        packet.destination.set_port(identifier);
        packet.sequence = Some(u16::from_be_bytes([*high, *low]));
    }
}

#[cfg(test)]
mod tests {
    use etherparse::PacketBuilder;

    use super::*;

    fn tcp(source: [u8; 4], destination: [u8; 4]) -> Vec<u8> {
        let mut bytes = Vec::new();
        PacketBuilder::ipv4(source, destination, 64)
            .tcp(41234, 443, 7, 1000)
            .syn()
            .write(&mut bytes, b"hello")
            .unwrap();
        bytes
    }

    fn in_vxlan(inner: &[u8], port: u16) -> Vec<u8> {
        let mut payload = vec![8, 0, 0, 0, 0, 0, 1, 0];
        payload.extend([0; 12]);
        payload.extend([8, 0]);
        payload.extend(inner);
        let mut bytes = Vec::new();
        PacketBuilder::ipv4([192, 168, 88, 11], [192, 168, 88, 12], 64)
            .udp(50000, port)
            .write(&mut bytes, &payload)
            .unwrap();
        bytes
    }

    #[test]
    fn headers_of_packets() {
        let plain = tcp([10, 244, 1, 5], [10, 96, 7, 7]);
        let seen = packet(&plain, [8472, 4789]).unwrap();
        assert_eq!(seen.source, "10.244.1.5:41234".parse().unwrap());
        assert_eq!(seen.destination, "10.96.7.7:443".parse().unwrap());
        assert_eq!((seen.payload, seen.title()), (5, "SYN and 5 bytes".to_owned()));
        assert_eq!(seen.tunnel, None);

        let wrapped = packet(&in_vxlan(&plain, 8472), [8472, 4789]).unwrap();
        assert_eq!(wrapped.ends(), seen.ends());
        assert_eq!(wrapped.outer(), ([192, 168, 88, 11].into(), 17));
        assert_eq!(seen.outer(), ([10, 244, 1, 5].into(), 6));
        let tunnel = wrapped.tunnel.unwrap();
        assert_eq!(
            (tunnel.vni, tunnel.destination),
            (1, "192.168.88.12:8472".parse().unwrap())
        );
        // Another port's is a datagram like any.
        let other = packet(&in_vxlan(&plain, 9999), [8472, 4789]).unwrap();
        assert_eq!((other.protocol, other.tunnel), (17, None));
    }

    #[test]
    fn echoes_and_errors() {
        let mut bytes = Vec::new();
        PacketBuilder::ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64)
            .icmpv4_echo_request(77, 3)
            .write(&mut bytes, b"x")
            .unwrap();
        let echo = packet(&bytes, [0; 2]).unwrap();
        assert_eq!(
            (echo.source.port(), echo.sequence, echo.about),
            (77, Some(3), false)
        );
        let mut bytes = Vec::new();
        PacketBuilder::ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64)
            .icmpv4_raw(3, 4, [0; 4])
            .write(&mut bytes, &tcp([10, 0, 0, 2], [10, 0, 0, 3]))
            .unwrap();
        let error = packet(&bytes, [0; 2]).unwrap();
        assert_eq!(
            (error.about, error.title()),
            (true, "ICMP packet too big".to_owned())
        );
    }

    #[test]
    fn a_first_fragment_has_ports() {
        let mut bytes = Vec::new();
        PacketBuilder::ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64)
            .udp(41234, 53)
            .write(&mut bytes, &[0; 100])
            .unwrap();
        // More fragments.
        bytes[6] = 0x20;
        let seen = packet(&bytes, [0; 2]).unwrap();
        assert_eq!((seen.source.port(), seen.destination.port()), (41234, 53));
        assert_eq!((seen.fragment, seen.ttl), (true, 64));
        bytes[6] = 0x40;
        bytes[8] = 3;
        let whole = packet(&bytes, [0; 2]).unwrap();
        assert_eq!((whole.fragment, whole.ttl), (false, 3));
    }

    /// Whatever the bytes, and wherever they are cut.
    #[test]
    fn what_is_cut_or_damaged() {
        let whole = in_vxlan(&tcp([10, 244, 1, 5], [10, 96, 7, 7]), 8472);
        for length in 0..=whole.len() {
            let _ = packet(&whole[..length], [8472, 4789]);
        }
        for at in 0..whole.len() {
            for value in [0, 0x45, 0x60, 0xff] {
                let mut damaged = whole.clone();
                damaged[at] = value;
                let _ = packet(&damaged, [8472, 4789]);
            }
        }
        assert!(packet(&[], [0; 2]).is_none());
    }
}
