//! The packet that is carried.

use probe_ebpf::kernel::packet::Packet;

use super::headers::{ETHERNET, IPV6, Ipv4, Ipv6, UDP, ethertype, ports, protocol};

pub const SYN: u8 = 2;
pub const RST: u8 = 4;
pub const ACK: u8 = 16;

const DNS: u16 = 53;

/// What a VXLAN packet holds.
#[derive(Clone, Copy)]
pub struct Inner {
    /// Where its IP header is.
    pub network: u32,
    pub ethertype: u16,
    /// Bytes of headers on the wire before the payload, all of them.
    pub headers: u32,
    pub source_port: u16,
    pub destination_port: u16,
    pub protocol: u8,
    pub tcp_flags: u8,
    pub asks: bool,
    pub answers: bool,
}

impl Inner {
    /// Reads the inner packet, whose Ethernet header is at `frame`; `None` where there is no IP packet that tells
    /// anything.
    #[inline(always)]
    pub fn at(packet: Packet, frame: u32, ethertype: u16) -> Option<Self> {
        let network = frame + ETHERNET;
        let (transport, protocol) = match ethertype {
            ethertype::IPV4 => {
                let ip = Ipv4::at(packet, network)?;
                if ip.is_later_fragment() {
                    return None;
                }
                (network + ip.length(), ip.protocol())
            }
            ethertype::IPV6 => {
                let ip = Ipv6::at(packet, network)?;
                (network + IPV6, ip.next_header())
            }
            _ => return None,
        };
        let mut inner = Self {
            network,
            ethertype,
            headers: transport,
            source_port: 0,
            destination_port: 0,
            protocol,
            tcp_flags: 0,
            asks: false,
            answers: false,
        };
        match protocol {
            protocol::TCP => {
                // As far as flags and window.
                let [both, _, _, flags] = packet.words(transport)?;
                (inner.source_port, inner.destination_port) = ports(both);
                inner.headers += (flags >> 4 & 0xf) * 4;
                let flags = (flags >> 8) as u8;
                inner.tcp_flags = flags;
                inner.asks = flags & (SYN | ACK) == SYN;
                inner.answers = flags & RST != 0 || flags & (SYN | ACK) == SYN | ACK;
            }
            protocol::UDP => {
                let [both] = packet.words(transport)?;
                (inner.source_port, inner.destination_port) = ports(both);
                inner.headers += UDP;
                inner.asks = inner.destination_port == DNS;
                inner.answers = inner.source_port == DNS;
            }
            protocol::ICMP | protocol::ICMPV6 => {
                let kind = packet.half(transport)? >> 8;
                // Echo, echo reply, unreachable.
                (inner.asks, inner.answers) = if protocol == protocol::ICMP {
                    (kind == 8, kind == 0 || kind == 3)
                } else {
                    (kind == 128, kind == 129 || kind == 1)
                };
            }
            _ => {}
        }
        Some(inner)
    }
}
