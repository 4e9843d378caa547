//! Protocol numbers, and IP headers as words of a packet.

use probe_ebpf::{
    contract::connection::Address,
    kernel::{
        packet::Packet,
        read::{bytes, mapped},
    },
};

/// Lengths in bytes.
pub const ETHERNET: u32 = 14;
pub const IPV4: u32 = 20;
pub const IPV6: u32 = 40;
pub const UDP: u32 = 8;
pub const VXLAN: u32 = 8;

pub mod ethertype {
    pub const IPV4: u16 = 0x0800;
    pub const ARP: u16 = 0x0806;
    pub const IPV6: u16 = 0x86dd;
}

pub mod protocol {
    pub const ICMP: u8 = 1;
    pub const TCP: u8 = 6;
    pub const UDP: u8 = 17;
    pub const ICMPV6: u8 = 58;
}

/// Both endpoints of an IP packet.
#[derive(Clone, Copy)]
pub struct Endpoints {
    pub source: Address,
    pub destination: Address,
}

/// An IPv4 header without its options, or an IPv6 header.
#[derive(Clone, Copy)]
pub struct Ipv4(pub [u32; IPV4 as usize / 4]);
#[derive(Clone, Copy)]
pub struct Ipv6(pub [u32; IPV6 as usize / 4]);

impl Ipv4 {
    #[inline(always)]
    pub fn at(packet: Packet, at: u32) -> Option<Self> {
        packet.words(at).map(Self)
    }

    /// With options, bytes.
    #[inline(always)]
    pub fn length(&self) -> u32 {
        (self.0[0] & 0xf) * 4
    }

    /// Of several fragments: the first.
    #[inline(always)]
    pub fn is_first_fragment(&self) -> bool {
        const MORE_FRAGMENTS: u16 = 0x2000;
        self.fragment() & MORE_FRAGMENTS != 0
    }

    /// One that does not begin with the transport's header.
    #[inline(always)]
    pub fn is_later_fragment(&self) -> bool {
        const OFFSET: u16 = 0x1fff;
        self.fragment() & OFFSET != 0
    }

    #[inline(always)]
    fn fragment(&self) -> u16 {
        ((self.0[1] >> 16) as u16).swap_bytes()
    }

    #[inline(always)]
    pub fn protocol(&self) -> u8 {
        (self.0[2] >> 8) as u8
    }

    #[inline(always)]
    pub fn endpoints(&self) -> Endpoints {
        Endpoints {
            source: bytes(mapped(self.0[3])),
            destination: bytes(mapped(self.0[4])),
        }
    }
}

impl Ipv6 {
    #[inline(always)]
    pub fn at(packet: Packet, at: u32) -> Option<Self> {
        packet.words(at).map(Self)
    }

    #[inline(always)]
    pub fn next_header(&self) -> u8 {
        (self.0[1] >> 16) as u8
    }

    #[inline(always)]
    pub fn endpoints(&self) -> Endpoints {
        let [_, _, a, b, c, d, e, f, g, h] = self.0;
        Endpoints {
            source: bytemuck::cast([a, b, c, d]),
            destination: bytemuck::cast([e, f, g, h]),
        }
    }
}

/// The ports that a TCP or UDP header begins with: source, destination; host byte order.
#[inline(always)]
pub fn ports(word: u32) -> (u16, u16) {
    ((word as u16).swap_bytes(), ((word >> 16) as u16).swap_bytes())
}
