//! Packets by VTEPs, VNI, port and direction.

use core::mem::MaybeUninit;

use aya_ebpf::{bindings::BPF_NOEXIST, macros::map, maps::PerCpuHashMap};
use probe_ebpf::{
    contract::vxlan::{Counters, Direction, FLAG_VNI, KNOWN_FLAGS, Key, Loss},
    kernel::{copy::zero, log::debug, packet::Packet},
};

use super::{
    flows::flow,
    headers::{Endpoints, UDP, VXLAN},
    inner::{ACK, Inner, RST, SYN},
    losses::lost,
    outer::Outer,
    settings::{about_now, setting},
};

#[map]
static COUNTERS: PerCpuHashMap<Key, Counters> = PerCpuHashMap::with_max_entries(8192, 0);

/// Counts a VXLAN packet.
#[inline(always)]
pub fn count(packet: Packet, direction: Direction, outer: &Outer) {
    // VXLAN header and inner Ethernet header.
    let at = outer.transport + UDP;
    let frame = at + VXLAN;
    let (Some([flags, vni, macs @ ..]), Some(ethertype)) = (packet.words::<5>(at), packet.half(at + 20))
    else {
        return;
    };
    let flags = flags.swap_bytes();
    let Endpoints { source, destination } = outer.endpoints;
    let (local, peer) = match direction {
        Direction::In => (destination, source),
        Direction::Out => (source, destination),
    };
    let key = Key {
        local,
        peer,
        vni: vni.swap_bytes() >> 8,
        underlay: packet.device(),
        port: outer.port,
        direction: direction as u8,
        zero: 0,
    };
    let Some(counters) = counters(&key) else {
        lost(Loss::Packet);
        let vni = key.vni;
        debug!("map COUNTERS is full: packet of VNI {} not counted", vni: u32);
        return;
    };
    let time = about_now();
    let inner = Inner::at(packet, frame, ethertype);

    let segments = packet.segments();
    let mut bytes = u64::from(packet.length());
    if let Some(inner) = &inner
        && segments > 1
    {
        // On the wire each segment has the headers.
        bytes += u64::from(segments - 1) * u64::from(inner.headers);
    }
    let segments = u64::from(segments);
    // SAFETY: map values stay in place while the program runs, and are this CPU's own.
    unsafe {
        (*counters).packets += segments;
        (*counters).frames += 1;
        (*counters).bytes += bytes;
        (*counters).last_ns = time;
        if outer.fragment {
            (*counters).fragments += 1;
        }
        if flags & FLAG_VNI == 0 || flags & !(FLAG_VNI | KNOWN_FLAGS) != 0 {
            (*counters).malformed += 1;
            (*counters).malformed_header = flags;
            let port = outer.port;
            debug!("VXLAN header to port {} has flags {:x}", port: u16, flags: u32);
        }
        // Group addresses are nobody's own.
        if macs[0] & 1 == 0 {
            (*counters).macs = macs;
        }
        let Some(inner) = inner else { return };
        if inner.tcp_flags & (SYN | ACK) == ACK {
            (*counters).acks += 1;
        }
        if inner.tcp_flags & (SYN | RST) != 0 {
            let syn = inner.tcp_flags & (SYN | ACK);
            (*counters).syn += u64::from(syn == SYN);
            (*counters).syn_ack += u64::from(syn == SYN | ACK);
            (*counters).rst += u64::from(inner.tcp_flags & RST != 0);
        }
        if inner.asks {
            (*counters).asks += 1;
        }
        if inner.answers {
            (*counters).answers += 1;
        }
        if setting!(flows) != 0 {
            flow(packet, &inner, &key, segments, bytes, time);
        }
    }
}

/// This CPU's counters of a key, made where there are none. On one CPU no packet of a direction interrupts another.
#[inline(always)]
fn counters(key: &Key) -> Option<*mut Counters> {
    if let Some(counters) = COUNTERS.get_ptr_mut(key) {
        return Some(counters);
    }
    make_counters(key);
    COUNTERS.get_ptr_mut(key)
}

#[inline(never)]
fn make_counters(key: &Key) {
    let mut counters = MaybeUninit::<Counters>::uninit();
    // SAFETY: zero is a value of it. Another CPU may have made the entry meanwhile; then the insert fails.
    unsafe {
        zero(counters.as_mut_ptr());
        if COUNTERS
            .insert(key, &*counters.as_ptr(), u64::from(BPF_NOEXIST))
            .is_err()
        {
            debug!("map COUNTERS does not accept an entry: full, or made by another CPU");
        }
    }
}
