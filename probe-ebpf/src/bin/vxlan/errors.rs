//! ICMP errors about VXLAN packets.

use aya_ebpf::{bindings::BPF_NOEXIST, macros::map, maps::HashMap};
use probe_ebpf::{
    contract::{
        connection::Address,
        vxlan::{Direction, ErrorCount, ErrorKey, Loss},
    },
    kernel::{atomic::add_one, log::debug, packet::Packet},
};

use super::{
    headers::{IPV6, Ipv4, Ipv6, protocol},
    losses::lost,
    outer::vxlan_port,
    settings::now,
};

#[map]
static ERRORS: HashMap<ErrorKey, ErrorCount> = HashMap::with_max_entries(1024, 0);

/// Bytes of an ICMP header, of either family.
const ICMP: u32 = 8;
const UNREACHABLE: u8 = 3;
const UNREACHABLE_V6: u8 = 1;
const TOO_BIG_V6: u8 = 2;

/// Counts what is at `at`, if it is an ICMP error about a VXLAN packet.
#[inline(always)]
pub fn error(packet: Packet, direction: Direction, at: u32, reporter: Address, six: bool) {
    let Some([first, second]) = packet.words(at) else {
        return;
    };
    let (kind, code) = (first as u8, (first >> 8) as u8);
    let about = at + ICMP;
    let (endpoints, transport) = if six {
        if kind != UNREACHABLE_V6 && kind != TOO_BIG_V6 {
            return;
        }
        let Some(ip) = Ipv6::at(packet, about) else { return };
        if ip.next_header() != protocol::UDP {
            return;
        }
        (ip.endpoints(), about + IPV6)
    } else {
        if kind != UNREACHABLE {
            return;
        }
        let Some(ip) = Ipv4::at(packet, about) else { return };
        if ip.protocol() != protocol::UDP {
            return;
        }
        (ip.endpoints(), about + ip.length())
    };
    let Some(port) = vxlan_port(packet, transport) else {
        return;
    };
    let key = ErrorKey {
        reporter,
        source: endpoints.source,
        destination: endpoints.destination,
        port,
        kind,
        code,
        direction: direction as u8,
        zero: [0; 3],
    };
    // ICMP has the MTU in its last two bytes, ICMPv6 in all four.
    let mtu = second.swap_bytes();
    let mtu = u64::from(if six { mtu } else { mtu & 0xffff });
    if let Some(count) = ERRORS.get_ptr_mut(key) {
        // SAFETY: map values stay in place while the program runs.
        unsafe {
            add_one(&raw mut (*count).packets);
            (*count).last_ns = now();
            (*count).mtu = mtu;
        }
        return;
    }
    let count = ErrorCount {
        packets: 1,
        last_ns: now(),
        mtu,
    };
    if ERRORS.insert(&key, &count, u64::from(BPF_NOEXIST)).is_err() {
        lost(Loss::Error);
        debug!("map ERRORS does not accept an entry: ICMP error, type {} code {}, not counted", kind: u8, code: u8);
    }
}
