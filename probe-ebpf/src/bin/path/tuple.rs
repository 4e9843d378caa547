//! Whose packet it is: addresses, ports, and what no translation changes.

use core::mem::MaybeUninit;

use aya_ebpf::helpers::generated::bpf_probe_read_kernel;
use probe_ebpf::{
    contract::path::Tuple,
    kernel::read::{Pointer, bytes, header, mapped},
};

use crate::settings::{begins_between, setting};

mod protocol {
    pub const ICMP: u8 = 1;
    pub const TCP: u8 = 6;
    pub const UDP: u8 = 17;
    pub const ICMPV6: u8 = 58;
}

/// Where in the packet this fragment belongs.
const FRAGMENT_OFFSET: u16 = 0x1fff;
/// From a UDP header over VXLAN's to the type in the Ethernet header within, and behind that.
const INNER_TYPE: u16 = 8 + 8 + 12;
const INNER: u16 = INNER_TYPE + 2;

/// Bytes of both addresses of IPv6.
const ADDRESSES: u32 = 32;

/// Of a packet without options, from its IP header on: VXLAN over IPv4, and of what it carries the IP header and the ports.
#[repr(C, align(8))]
struct Glance([u8; 80]);

impl Glance {
    const V4: usize = 20;
    const V6: usize = 40;

    /// A byte.
    #[inline(always)]
    fn byte(&self, at: usize) -> u8 {
        self.0[at]
    }

    /// Two bytes at an even place, as they lie there. The compiler would read each byte for itself.
    #[inline(always)]
    fn half(&self, at: usize) -> u16 {
        let at = if at < 79 { at } else { 0 };
        // SAFETY: inside of the array, which is aligned to eight bytes.
        unsafe { self.0.as_ptr().add(at).cast::<u16>().read() }
    }

    /// The same of four bytes.
    #[inline(always)]
    fn word(&self, at: usize) -> u32 {
        u32::from(self.half(at)) | u32::from(self.half(at + 2)) << 16
    }

    /// An IPv6 address at a place that eight divides.
    #[inline(always)]
    fn address(&self, at: usize) -> [u64; 2] {
        let at = if at < 65 { at } else { 0 };
        // SAFETY: as above.
        unsafe { self.0.as_ptr().add(at).cast::<[u64; 2]>().read() }
    }

    /// Whether the IPv4 packet at `at` can't begin a flow; false also for what is too long to say.
    #[inline(always)]
    fn is_foreign_v4(&self, at: usize) -> bool {
        if self.byte(at) != 0x45 {
            return false;
        }
        let ports = (self.half(at + Self::V4), self.half(at + Self::V4 + 2));
        let (source, destination) = (self.word(at + 12), self.word(at + 16));
        is_foreign(mapped(source), mapped(destination), ports, self.byte(at + 9))
    }

    #[inline(always)]
    fn is_foreign(&self) -> bool {
        match self.byte(0) >> 4 {
            4 => match self.vxlan(Self::V4) {
                Some(inner) if self.byte(0) == 0x45 && self.byte(9) == protocol::UDP => {
                    self.half(inner - 2) == u16::to_be(0x0800) && self.is_foreign_v4(inner)
                }
                _ => self.is_foreign_v4(0),
            },
            6 => {
                let ports = (self.half(Self::V6), self.half(Self::V6 + 2));
                let next = self.byte(6);
                (next != protocol::UDP || self.vxlan(Self::V6).is_none())
                    && is_foreign(self.address(8), self.address(24), ports, next)
            }
            _ => false,
        }
    }

    /// Where the packet begins that VXLAN carries, if the UDP header at `at` has a port of it.
    #[inline(always)]
    fn vxlan(&self, at: usize) -> Option<usize> {
        let port = u16::from_be(self.half(at + 2));
        setting!(vxlan_ports)
            .contains(&port)
            .then_some(at + usize::from(INNER))
    }
}

/// Whether a packet between these begins no flow. Of ICMP it is not known: it has no ports, and may be about another packet.
#[inline(always)]
fn is_foreign(source: [u64; 2], destination: [u64; 2], ports: (u16, u16), protocol: u8) -> bool {
    if protocol != protocol::TCP && protocol != protocol::UDP {
        return false;
    }
    let ports = (u16::from_be(ports.0), u16::from_be(ports.1));
    begins_between(source, destination, ports, protocol).is_none()
}

/// Whether one read shows that the packet at `head + at` begins no flow, and carries none that does: what most packets cost. A read
/// costs some 20 ns whatever its length here, and the reading of a whole packet takes up to four. Called, not inlined: its stack is not
/// that of what follows a packet (5.10 to 6.12).
#[inline(never)]
pub fn is_foreign_at(head: u64, at: u32) -> bool {
    let mut glance = MaybeUninit::<Glance>::uninit();
    // SAFETY: the helper survives a wrong pointer, and writes all of it: zero, which is of no version, where it can't read.
    unsafe {
        bpf_probe_read_kernel(
            glance.as_mut_ptr().cast(),
            size_of::<Glance>() as u32,
            (head as Pointer).wrapping_add(at as usize).cast(),
        );
        glance.assume_init_ref().is_foreign()
    }
}

/// What a packet's headers say.
#[repr(C)]
pub struct Parsed {
    pub tuple: Tuple,
    /// Of what no translation changes.
    pub print: u64,
    /// Where a packet within it begins; 0: there is none.
    pub inner: u16,
    /// 1: that one is what this one, an ICMP error, is about.
    pub about: u16,
    pub zero: u32,
}

const fn be16(high: u8, low: u8) -> u16 {
    (high as u16) << 8 | low as u16
}

/// Reads the IP packet at `head + at`; whether it is one. Called, not inlined: each program has it twice.
#[inline(never)]
pub fn parse(head: u64, at: u32, to: &mut Parsed) -> u32 {
    let (head, at) = (head as Pointer, at as u16);
    let mut ip = MaybeUninit::<[u8; 20]>::uninit();
    let ip = read(head, at, &mut ip);
    let (transport, numbered);
    match ip[0] >> 4 {
        4 => {
            to.tuple.source = bytes(mapped(u32::from_ne_bytes([ip[12], ip[13], ip[14], ip[15]])));
            to.tuple.destination = bytes(mapped(u32::from_ne_bytes([ip[16], ip[17], ip[18], ip[19]])));
            to.tuple.protocol = ip[9];
            numbered = u64::from(be16(ip[4], ip[5]));
            transport = u16::from(ip[0] & 0xf) * 4;
            if be16(ip[6], ip[7]) & FRAGMENT_OFFSET != 0 {
                return 0;
            }
        }
        6 => {
            // Both at once, and where they belong: the stack has no room for copies (5.10 to 6.12).
            // SAFETY: a tuple begins with its two addresses, as they are in the header; the helper writes all of them.
            unsafe {
                bpf_probe_read_kernel(
                    (&raw mut to.tuple).cast(),
                    ADDRESSES,
                    head.wrapping_add(usize::from(at) + 8).cast(),
                );
            }
            to.tuple.protocol = ip[6];
            numbered = 0;
            transport = 40;
        }
        _ => return 0,
    }
    let at = at.wrapping_add(transport);
    let mut next = MaybeUninit::<[u8; 16]>::uninit();
    let next = read(head, at, &mut next);
    let words = |from: usize| {
        u64::from(u32::from_ne_bytes([
            next[from],
            next[from + 1],
            next[from + 2],
            next[from + 3],
        ]))
    };
    to.tuple.source_port = 0;
    to.tuple.destination_port = 0;
    to.tuple.zero = [0; 3];
    to.inner = 0;
    to.about = 0;
    to.zero = 0;
    match to.tuple.protocol {
        protocol::TCP => {
            ports(next, to);
            to.print = (words(4) << 32 | words(8)) ^ u64::from(next[13]);
        }
        protocol::UDP => {
            ports(next, to);
            to.print = (words(8) << 32 | words(12)) ^ numbered << 16 ^ u64::from(be16(next[4], next[5]));
            let port = to.tuple.destination_port;
            if setting!(vxlan_ports).contains(&port) {
                // SAFETY: as above.
                let kind = u16::from_be(unsafe { header(head, at.wrapping_add(INNER_TYPE)) });
                if kind == 0x0800 || kind == 0x86dd {
                    to.inner = at.wrapping_add(INNER);
                }
            }
        }
        protocol::ICMP | protocol::ICMPV6 => {
            let (kind, of_v4) = (next[0], to.tuple.protocol == protocol::ICMP);
            // The identifier, which NAT may change, is no part of the print.
            to.print = u64::from(kind) << 32 | u64::from(be16(next[6], next[7])) ^ numbered << 40;
            if matches!((of_v4, kind), (true, 3 | 5 | 11 | 12) | (false, 1..=4)) {
                to.inner = at.wrapping_add(8);
                to.about = 1;
            } else if matches!((of_v4, kind), (true, 0 | 8) | (false, 128 | 129)) {
                let identifier = be16(next[4], next[5]);
                to.tuple.source_port = identifier;
                to.tuple.destination_port = identifier;
            }
        }
        _ => to.print = numbered,
    }
    1
}

/// Plain bytes at `head + at`, without the copy that giving them back would be.
#[inline(always)]
fn read<const N: usize>(head: Pointer, at: u16, to: &mut MaybeUninit<[u8; N]>) -> &[u8; N] {
    // SAFETY: the helper survives a wrong pointer, and writes all of it, zero where it can't read.
    unsafe {
        bpf_probe_read_kernel(
            to.as_mut_ptr().cast(),
            N as u32,
            head.wrapping_add(usize::from(at)).cast(),
        );
        to.assume_init_ref()
    }
}

#[inline(always)]
fn ports(next: &[u8; 16], to: &mut Parsed) {
    to.tuple.source_port = be16(next[0], next[1]);
    to.tuple.destination_port = be16(next[2], next[3]);
}
