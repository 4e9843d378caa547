//! Packets that slip past conntrack: who sends them, how many, to which server's port.
//!
//! A packet is looked at when it is handed to a device, and when it is delivered to a socket: conntrack and all rules have
//! seen it by then. Of one that is tracked, a single word is read. A packet that passes several devices one on the
//! other (a bridge and its port) is counted at each; user space knows the devices and takes the uppermost.

#![no_std]
#![no_main]

mod sender;

use core::{mem::MaybeUninit, panic::PanicInfo};

use aya_ebpf::{
    bindings::BPF_NOEXIST,
    helpers::generated::bpf_ktime_get_ns,
    macros::{btf_tracepoint, fentry, kprobe, map, raw_tracepoint},
    maps::{Array, PerCpuArray, PerCpuHashMap},
    programs::{BtfTracePointContext, FEntryContext, ProbeContext, RawTracePointContext},
};
use probe_ebpf::{
    contract::{
        bypass::{Counters, Direction, Key, Server, Settings, UNTRACKED},
        offsets::ABSENT,
    },
    kernel::{
        copy::zero,
        globals::{filled, offset},
        log::debug,
        read::{Memory, Pointer, Probed, Typed, bytes, header, mapped, pointer},
    },
};

// SAFETY: it is `Zeroable`.
#[unsafe(no_mangle)]
static BYPASS: Settings = unsafe { core::mem::zeroed() };

#[map]
static PORTS: Array<u64> = Array::with_max_entries(1024, 0);

#[map]
static STREAMS: PerCpuHashMap<Key, Counters> = PerCpuHashMap::with_max_entries(8192, 0);

#[map]
static REST: PerCpuArray<Counters> = PerCpuArray::with_max_entries(1, 0);

mod ethertype {
    pub const IPV4: u16 = 0x0800;
    pub const IPV6: u16 = 0x86dd;
}

mod protocol {
    pub const TCP: u8 = 6;
    pub const UDP: u8 = 17;
    pub const ICMPV6: u8 = 58;
    pub const SCTP: u8 = 132;
}

/// Messages of ICMPv6 that conntrack itself leaves untracked: listeners of groups, neighbour discovery.
const NEIGHBOURS: core::ops::RangeInclusive<u8> = 130..=143;
/// Where in the packet this fragment belongs.
const FRAGMENT_OFFSET: u16 = 0x1fff;

const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;

const fn be16(high: u8, low: u8) -> u16 {
    (high as u16) << 8 | low as u16
}

/// Whether conntrack was told to leave this packet alone. A template has another state than this.
#[inline(always)]
unsafe fn is_untracked<M: Memory>(skb: Pointer) -> bool {
    // SAFETY: the hook's packet.
    offset!(skb_conntrack) != ABSENT
        && unsafe { M::read::<u64>(skb, offset!(skb_conntrack)) } & UNTRACKED == UNTRACKED
}

#[inline(always)]
unsafe fn is_here<M: Memory>(net: Pointer) -> bool {
    // SAFETY: the hook's network namespace.
    unsafe { M::read::<u32>(net, offset!(netns_inode)) == filled(&BYPASS.netns) }
}

// --- net_dev_start_xmit(skb, dev)

#[btf_tracepoint(function = "net_dev_start_xmit")]
pub fn bypass_xmit(ctx: BtfTracePointContext) -> i32 {
    // SAFETY: the hook's packet and device.
    unsafe { transmitted::<Typed>(ctx.arg(0), ctx.arg(1)) };
    0
}

#[raw_tracepoint(tracepoint = "net_dev_start_xmit")]
pub fn bypass_xmit_raw(ctx: RawTracePointContext) -> i32 {
    // SAFETY: the hook's packet and device.
    unsafe { transmitted::<Probed>(ctx.arg(0), ctx.arg(1)) };
    0
}

#[inline(always)]
unsafe fn transmitted<M: Memory>(skb: Pointer, device: Pointer) {
    // SAFETY: the hook's packet and device.
    unsafe {
        if !is_untracked::<M>(skb) || !is_here::<Probed>(pointer::<Probed>(device, offset!(device_net))) {
            return;
        }
        let input = M::read::<u32>(skb, offset!(skb_input));
        let direction = if input == 0 {
            Direction::Outgoing
        } else {
            Direction::Forwarded
        };
        count(
            skb,
            input,
            M::read::<u32>(device, offset!(device_index)),
            direction,
        );
    }
}

// --- ip_local_deliver_finish(net, sk, skb)

#[fentry(function = "ip_local_deliver_finish")]
pub fn bypass_in(ctx: FEntryContext) -> i32 {
    // SAFETY: the hook's packet and network namespace.
    unsafe { delivered::<Typed>(ctx.arg(0), ctx.arg(2)) };
    0
}

#[kprobe]
pub fn bypass_in_kp(ctx: ProbeContext) -> u32 {
    if let (Some(net), Some(skb)) = (ctx.arg(0), ctx.arg(2)) {
        // SAFETY: the hook's packet and network namespace.
        unsafe { delivered::<Probed>(net, skb) };
    }
    0
}

// --- ip6_protocol_deliver_rcu(net, skb, nexthdr, have_final)

#[fentry(function = "ip6_protocol_deliver_rcu")]
pub fn bypass_in6(ctx: FEntryContext) -> i32 {
    if comes_from_input(ctx.arg(2)) {
        // SAFETY: the hook's packet and network namespace.
        unsafe { delivered::<Typed>(ctx.arg(0), ctx.arg(1)) };
    }
    0
}

#[kprobe]
pub fn bypass_in6_kp(ctx: ProbeContext) -> u32 {
    if let (Some(net), Some(skb), Some(next)) = (ctx.arg(0), ctx.arg(1), ctx.arg(2))
        && comes_from_input(next)
    {
        // SAFETY: the hook's packet and network namespace.
        unsafe { delivered::<Probed>(net, skb) };
    }
    0
}

/// Whether it is not UDP that gives back what it found inside a packet: that one says which header comes next.
#[inline(always)]
fn comes_from_input(next: i32) -> bool {
    next == 0
}

#[inline(always)]
unsafe fn delivered<M: Memory>(net: Pointer, skb: Pointer) {
    // SAFETY: the caller's.
    unsafe {
        if is_untracked::<M>(skb) && is_here::<M>(net) {
            came_in::<M>(skb);
        }
    }
}

// --- netfilter's LOCAL_IN, of the network namespace that is counted

/// The packet goes on.
const NF_ACCEPT: i32 = 1;

/// `struct bpf_nf_ctx`, user interface of the kernel.
#[repr(C)]
pub struct Filtered {
    state: Pointer,
    skb: Pointer,
}

// aya knows no section for netfilter programs. What is in this one it takes out of the object and, unless told to, does not
// load; probe-user/src/kernel/netfilter.rs does.

#[unsafe(no_mangle)]
#[unsafe(link_section = "socket")]
pub extern "C" fn bypass_in_nf(ctx: &Filtered) -> i32 {
    // SAFETY: the hook's packet.
    unsafe { filtered(ctx) }
}

#[unsafe(no_mangle)]
#[unsafe(link_section = "socket")]
pub extern "C" fn bypass_in6_nf(ctx: &Filtered) -> i32 {
    // SAFETY: the hook's packet.
    unsafe { filtered(ctx) }
}

#[inline(always)]
unsafe fn filtered(ctx: &Filtered) -> i32 {
    // SAFETY: the caller's.
    unsafe {
        if is_untracked::<Typed>(ctx.skb) {
            came_in::<Typed>(ctx.skb);
        }
    }
    NF_ACCEPT
}

#[inline(always)]
unsafe fn came_in<M: Memory>(skb: Pointer) {
    // SAFETY: the caller's.
    unsafe {
        let device = pointer::<M>(skb, offset!(skb_device));
        count(
            skb,
            M::read::<u32>(device, offset!(device_index)),
            0,
            Direction::Delivered,
        );
    }
}

/// Counts an untracked packet. Read with the helper, whatever the program: these are few.
#[inline(never)]
fn count_at(skb: u64, input: u32, output: u32, direction: u32) {
    let skb = skb as Pointer;
    let Some(direction) = Direction::from_raw(direction as u8) else {
        return;
    };
    let mut key = Key {
        source: [0; 16],
        destination: [0; 16],
        input,
        output,
        port: 0,
        protocol: 0,
        direction: direction as u8,
        server: Server::Neither as u8,
        zero: [0; 3],
    };
    // SAFETY: the hook's packet; headers are plain memory, read with the helper that survives a wrong pointer.
    unsafe {
        let head = pointer::<Probed>(skb, offset!(skb_head));
        let network = Probed::read::<u16>(skb, offset!(skb_network_header));
        let (transport, length, first);
        match u16::from_be(Probed::read::<u16>(skb, offset!(skb_protocol))) {
            ethertype::IPV4 => {
                let ip: [u8; 20] = header(head, network);
                key.protocol = ip[9];
                key.source = bytes(mapped(u32::from_ne_bytes([ip[12], ip[13], ip[14], ip[15]])));
                key.destination = bytes(mapped(u32::from_ne_bytes([ip[16], ip[17], ip[18], ip[19]])));
                transport = u16::from(ip[0] & 0xf) * 4;
                length = u64::from(be16(ip[2], ip[3]));
                first = be16(ip[6], ip[7]) & FRAGMENT_OFFSET == 0;
            }
            ethertype::IPV6 => {
                let ip: [u8; 8] = header(head, network);
                key.protocol = ip[6];
                key.source = header(head, network.wrapping_add(8));
                key.destination = header(head, network.wrapping_add(24));
                transport = 40;
                length = 40 + u64::from(be16(ip[4], ip[5]));
                first = true;
            }
            ethertype => {
                debug!("untracked packet of EtherType {:x} not counted", ethertype: u16);
                return;
            }
        }
        let at = network.wrapping_add(transport);
        let (mut flags, mut headers, mut other) = (0, u64::from(transport), 0);
        match key.protocol {
            protocol::TCP | protocol::UDP | protocol::SCTP if first => {
                let ports: [u8; 14] = header(head, at);
                if key.protocol == protocol::TCP {
                    headers += u64::from(ports[12] >> 4) * 4;
                    flags = ports[13];
                } else {
                    headers += 8;
                }
                let (source, destination) = (be16(ports[0], ports[1]), be16(ports[2], ports[3]));
                if serves(source, destination, flags) {
                    (key.port, key.server, other) = (source, Server::Source as u8, destination);
                } else {
                    (key.port, key.server, other) = (destination, Server::Destination as u8, source);
                }
            }
            protocol::ICMPV6 => {
                let [kind]: [u8; 1] = header(head, at);
                if NEIGHBOURS.contains(&kind) {
                    return;
                }
            }
            _ => {}
        }
        let end = Probed::read::<u32>(skb, offset!(skb_end));
        let shared = head.wrapping_add(end as usize);
        let segments = u64::from(Probed::read::<u16>(shared, offset!(shared_segments)).max(1));
        let counters = match counters(&key) {
            Some(counters) => counters,
            None => match REST.get_ptr_mut(0) {
                Some(rest) => {
                    let port = key.port;
                    debug!("map STREAMS is full: untracked packet at port {} counted without its addresses", port: u16);
                    rest
                }
                None => return,
            },
        };
        let now = bpf_ktime_get_ns();
        // On one CPU no packet's way interrupts another's here: transmission and delivery run with bottom halves off.
        (*counters).packets += segments;
        (*counters).frames += 1;
        (*counters).bytes += length + (segments - 1) * headers;
        (*counters).syn += u64::from(flags & (SYN | ACK) == SYN);
        (*counters).syn_ack += u64::from(flags & (SYN | ACK) == SYN | ACK);
        (*counters).rst += u64::from(flags & RST != 0);
        if (*counters).first_ns == 0 {
            (*counters).first_ns = now;
        }
        (*counters).last_ns = now;
        (*counters).other_port = u64::from(other);
        if let Direction::Outgoing = direction {
            let id = sender::sender(skb as u64);
            if id != 0 {
                let last = (*counters).sender;
                (*counters).others |= u64::from(last != 0 && last != id);
                (*counters).sender = id;
            }
        }
    }
}

#[inline(always)]
unsafe fn count(skb: Pointer, input: u32, output: u32, direction: Direction) {
    count_at(skb as u64, input, output, direction as u32);
}

/// Whether the source is the server. Known ports come first, then who begins; the lower port is the server's otherwise.
#[inline(always)]
fn serves(source: u16, destination: u16, flags: u8) -> bool {
    match (known(source), known(destination)) {
        (true, false) => true,
        (false, true) => false,
        _ if flags & (SYN | ACK) == SYN => false,
        _ if flags & (SYN | ACK) == SYN | ACK => true,
        _ => source < destination,
    }
}

/// Whether a server is known to have this port.
#[inline(always)]
fn known(port: u16) -> bool {
    PORTS
        .get(u32::from(port >> 6))
        .is_some_and(|word| *word >> (port & 63) & 1 != 0)
}

/// This CPU's counters of a key, made where there are none and there is room.
#[inline(always)]
unsafe fn counters(key: &Key) -> Option<*mut Counters> {
    if let Some(counters) = STREAMS.get_ptr_mut(key) {
        return Some(counters);
    }
    let mut counters = MaybeUninit::<Counters>::uninit();
    // SAFETY: zero is a value of it. Another CPU may have made the entry meanwhile; then the insert fails.
    unsafe {
        zero(counters.as_mut_ptr());
        if STREAMS
            .insert(key, &*counters.as_ptr(), u64::from(BPF_NOEXIST))
            .is_err()
        {
            debug!("map STREAMS does not accept an entry: full, or made by another CPU");
        }
    }
    STREAMS.get_ptr_mut(key)
}

#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    loop {}
}

#[unsafe(no_mangle)]
#[unsafe(link_section = "license")]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
