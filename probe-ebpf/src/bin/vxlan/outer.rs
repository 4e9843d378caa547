//! The packet that carries: as far as its UDP header.

use probe_ebpf::{contract::vxlan::Direction, kernel::packet::Packet};

use super::{
    counters::count,
    errors::error,
    headers::{ETHERNET, Endpoints, IPV6, Ipv4, Ipv6, ethertype, ports, protocol},
    settings::carries,
};

/// A VXLAN packet, as far as its UDP header.
#[derive(Clone, Copy)]
pub struct Outer {
    pub endpoints: Endpoints,
    /// Where the UDP header is.
    pub transport: u32,
    pub port: u16,
    /// The first of several.
    pub fragment: bool,
}

/// Counts a packet that passes the underlay device, if it has to do with VXLAN.
#[inline(always)]
pub fn passed(packet: Packet, direction: Direction) {
    let outer = match packet.ethertype() {
        ethertype::IPV4 => v4(packet, direction),
        ethertype::IPV6 => v6(packet, direction),
        _ => None,
    };
    if let Some(outer) = outer {
        count(packet, direction, &outer);
    }
}

#[inline(always)]
fn v4(packet: Packet, direction: Direction) -> Option<Outer> {
    let ip = Ipv4::at(packet, ETHERNET)?;
    if ip.is_later_fragment() {
        return None;
    }
    let transport = ETHERNET + ip.length();
    match ip.protocol() {
        protocol::UDP => {}
        protocol::ICMP => {
            error(packet, direction, transport, ip.endpoints().source, false);
            return None;
        }
        _ => return None,
    }
    Some(Outer {
        port: vxlan_port(packet, transport)?,
        endpoints: ip.endpoints(),
        transport,
        fragment: ip.is_first_fragment(),
    })
}

/// VXLAN puts nothing between IPv6 and UDP.
#[inline(always)]
fn v6(packet: Packet, direction: Direction) -> Option<Outer> {
    let ip = Ipv6::at(packet, ETHERNET)?;
    let transport = ETHERNET + IPV6;
    match ip.next_header() {
        protocol::UDP => {}
        protocol::ICMPV6 => {
            error(packet, direction, transport, ip.endpoints().source, true);
            return None;
        }
        _ => return None,
    }
    Some(Outer {
        port: vxlan_port(packet, transport)?,
        endpoints: ip.endpoints(),
        transport,
        fragment: false,
    })
}

/// The UDP destination port at `at`, where it carries VXLAN.
#[inline(always)]
pub fn vxlan_port(packet: Packet, at: u32) -> Option<u16> {
    let [word] = packet.words(at)?;
    let (_, port) = ports(word);
    carries(port).then_some(port)
}
