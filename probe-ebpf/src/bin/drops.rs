//! TCP packets that were dropped, in any network namespace: whose, why, by what.
//!
//! Every packet of the machine that is dropped comes by, those in sockets' queues too, where `skb->dev` is something
//! else (`bin/vxlan/drops.rs` says what). So nothing is read but with the helper that survives a wrong pointer.

#![no_std]
#![no_main]

use core::panic::PanicInfo;

use aya_ebpf::{
    bindings::BPF_NOEXIST,
    helpers::generated::bpf_ktime_get_ns,
    macros::{map, raw_tracepoint},
    maps::{Array, LruHashMap, PerCpuArray},
    programs::RawTracePointContext,
};
use probe_ebpf::{
    contract::{
        drops::{Count, Key, Place, Places, Settings},
        offsets::ABSENT,
    },
    kernel::{
        atomic::add_one,
        globals::{filled, offset},
        log::{debug, trace},
        read::{Memory, Pointer, Probed, bytes, header, mapped, pointer},
    },
};

// SAFETY: it is `Zeroable`.
#[unsafe(no_mangle)]
static SETTINGS: Settings = unsafe { core::mem::zeroed() };

#[map]
static PORTS: Array<u64> = Array::with_max_entries(1024, 0);

#[map]
static DROPS: LruHashMap<Key, Count> = LruHashMap::with_max_entries(4096, 0);

#[map]
static LOST: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

#[map]
static PLACES: Array<Places> = Array::with_max_entries(1, 0);

mod ethertype {
    pub const IPV4: u16 = 0x0800;
    pub const IPV6: u16 = 0x86dd;
}

const TCP: u8 = 6;
const SYN: u8 = 2;
const RST: u8 = 4;

// --- kfree_skb(skb, location, reason)

#[raw_tracepoint(tracepoint = "kfree_skb")]
pub fn tcp_drop(ctx: RawTracePointContext) -> i32 {
    let reason = if filled(&SETTINGS.reasons) == 1 {
        ctx.arg(2)
    } else {
        0
    };
    if filled(&SETTINGS.reasons) == 1
        && offset!(drop_queue_purge) != ABSENT
        && reason == offset!(drop_queue_purge)
    {
        return 0;
    }
    let location = ctx.arg(1);
    let by = taker(location);
    if by == Taker::Queue {
        return 0;
    }
    // SAFETY: the hook's packet.
    unsafe { dropped(ctx.arg(0), location, reason, by) };
    0
}

/// What frees a packet.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Taker {
    /// The queues of a closed socket.
    Queue,
    /// What hands packets to sockets.
    Receiver,
    /// Anything else.
    Other,
}

#[inline(always)]
fn taker(location: u64) -> Taker {
    let Some(places) = PLACES.get(0) else {
        return Taker::Other;
    };
    let is_in = |place: &Place| location >= place.start && location < place.end;
    if places.queues.iter().any(is_in) {
        Taker::Queue
    } else if places.receivers.iter().any(is_in) {
        Taker::Receiver
    } else {
        Taker::Other
    }
}

/// Whether a packet that had no fault was freed by what hands packets to sockets.
#[inline(always)]
fn is_settled(by: Taker, reason: u32, flags: u8) -> bool {
    by == Taker::Receiver
        && filled(&SETTINGS.reasons) == 1
        && reason == offset!(drop_not_specified)
        && flags & SYN == 0
}

#[inline(always)]
unsafe fn dropped(skb: Pointer, location: u64, reason: u32, by: Taker) {
    let mut key = Key {
        source: [0; 16],
        destination: [0; 16],
        source_port: 0,
        destination_port: 0,
        netns: 0,
        reason,
        input: 0,
    };
    // SAFETY: the hook's packet, and memory read with the helper that survives a wrong pointer.
    unsafe {
        let head = pointer::<Probed>(skb, offset!(skb_head));
        let network = Probed::read::<u16>(skb, offset!(skb_network_header));
        let transport;
        match u16::from_be(Probed::read::<u16>(skb, offset!(skb_protocol))) {
            ethertype::IPV4 => {
                let ip: [u8; 20] = header(head, network);
                if ip[9] != TCP {
                    return;
                }
                key.source = bytes(mapped(u32::from_ne_bytes([ip[12], ip[13], ip[14], ip[15]])));
                key.destination = bytes(mapped(u32::from_ne_bytes([ip[16], ip[17], ip[18], ip[19]])));
                transport = u16::from(ip[0] & 0xf) * 4;
            }
            ethertype::IPV6 => {
                let ip: [u8; 8] = header(head, network);
                if ip[6] != TCP {
                    return;
                }
                key.source = header(head, network.wrapping_add(8));
                key.destination = header(head, network.wrapping_add(24));
                transport = 40;
            }
            _ => return,
        }
        let tcp: [u8; 14] = header(head, network.wrapping_add(transport));
        let flags = tcp[13];
        // A packet that ends a connection is freed with it.
        if flags & RST != 0 || is_settled(by, reason, flags) {
            return;
        }
        key.source_port = u16::from_be_bytes([tcp[0], tcp[1]]);
        key.destination_port = u16::from_be_bytes([tcp[2], tcp[3]]);
        if !is_watched(key.source_port) && !is_watched(key.destination_port) {
            return;
        }
        key.input = Probed::read::<u32>(skb, offset!(skb_input));
        key.netns = namespace(skb);
        count(&key, location, flags);
    }
}

/// Where it is: a packet on its way out has no device yet, but the socket that sends it.
#[inline(always)]
unsafe fn namespace(skb: Pointer) -> u32 {
    // SAFETY: the caller's.
    unsafe {
        let socket = pointer::<Probed>(skb, offset!(skb_socket));
        let net = if socket.is_null() {
            let device = pointer::<Probed>(skb, offset!(skb_device));
            pointer::<Probed>(device, offset!(device_net))
        } else {
            pointer::<Probed>(socket, offset!(sock_net))
        };
        Probed::read::<u32>(net, offset!(netns_inode))
    }
}

#[inline(always)]
fn is_watched(port: u16) -> bool {
    filled(&SETTINGS.every_port) == 1
        || PORTS
            .get(u32::from(port >> 6))
            .is_some_and(|word| *word >> (port & 63) & 1 != 0)
}

#[inline(always)]
fn count(key: &Key, location: u64, flags: u8) {
    // SAFETY: no arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    if let Some(count) = DROPS.get_ptr_mut(key) {
        // SAFETY: map values stay in place while the program runs. Of the rest, what another CPU writes is as good.
        unsafe {
            add_one(&raw mut (*count).packets);
            (*count).last_ns = now;
            (*count).location = location;
            (*count).flags |= u64::from(flags);
        }
        return;
    }
    let count = Count {
        packets: 1,
        first_ns: now,
        last_ns: now,
        location,
        flags: u64::from(flags),
    };
    if DROPS.insert(key, &count, u64::from(BPF_NOEXIST)).is_err() {
        match (DROPS.get_ptr_mut(key), LOST.get_ptr_mut(0)) {
            // Another CPU made the entry meanwhile.
            // SAFETY: as above.
            (Some(count), _) => unsafe {
                add_one(&raw mut (*count).packets);
                trace!("entry of map DROPS made by another CPU at the same time");
            },
            // SAFETY: this CPU's own.
            (None, Some(lost)) => unsafe {
                *lost += 1;
                let (source, destination, reason) = (key.source_port, key.destination_port, key.reason);
                debug!("map DROPS is full: dropped packet, port {} to {}, reason {}, not counted",
                    source: u16, destination: u16, reason: u32);
            },
            (None, None) => {}
        }
    }
}

#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    loop {}
}

#[unsafe(no_mangle)]
#[unsafe(link_section = "license")]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
