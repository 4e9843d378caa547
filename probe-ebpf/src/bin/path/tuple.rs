//! Whose packet it is: addresses, ports, and what no translation changes.

use core::mem::MaybeUninit;

use aya_ebpf::helpers::generated::bpf_probe_read_kernel;
use probe_ebpf::{
    contract::path::Tuple,
    kernel::read::{Pointer, bytes, header, mapped},
};

use crate::{
    follow::BY_ADDRESSES,
    settings::{may_begin, setting},
};

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

/// Reads the IP packet at `head + place`; whether it is one, and with [`BY_ADDRESSES`] one that may matter. Called, not inlined:
/// each program has it twice.
#[inline(never)]
pub fn parse(head: u64, place: u32, to: &mut Parsed) -> u32 {
    let (head, at) = (head as Pointer, place as u16);
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
    // VXLAN's may have one that matters within.
    if place & BY_ADDRESSES != 0 && to.tuple.protocol != protocol::UDP && !may_begin(&to.tuple) {
        return 0;
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
