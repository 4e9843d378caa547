//! VXLAN on the wire: who sends how much to whom, and what is dropped.
//!
//! Two tc programs count on the underlay device. They see arriving packets before the packet filter does, and
//! leaving ones after it. What is dropped in between, or inside the VXLAN device, `kfree_skb` tells.

#![no_std]
#![no_main]

use core::{ffi::c_void, mem::MaybeUninit, panic::PanicInfo};

use aya_ebpf::{
    bindings::{__sk_buff, BPF_NOEXIST},
    helpers::generated::{bpf_ktime_get_ns, bpf_skb_load_bytes},
    macros::{btf_tracepoint, classifier, map, raw_tracepoint},
    maps::{Array, HashMap, PerCpuArray, PerCpuHashMap},
    programs::{BtfTracePointContext, RawTracePointContext, TcContext},
};
use probe_ebpf::{
    contract::{
        connection::Address,
        vxlan::{
            Counters, Direction, DropCount, DropKey, ErrorCount, ErrorKey, FLAG_VNI, Flow, FlowKey,
            KNOWN_FLAGS, Key, Loss, Place, Settings,
        },
    },
    kernel::{
        atomic::add_one,
        copy::zero,
        globals::{filled, offset},
        read::{Memory, Pointer, Probed, Typed, bytes, header, mapped, pointer},
    },
};

// SAFETY: it is `Zeroable`.
#[unsafe(no_mangle)]
static VXLAN: Settings = unsafe { core::mem::zeroed() };

#[map]
static PORTS: Array<u64> = Array::with_max_entries(1024, 0);

#[map]
static DEVICES: HashMap<u32, u32> = HashMap::with_max_entries(64, 0);

#[map]
static COUNTERS: PerCpuHashMap<Key, Counters> = PerCpuHashMap::with_max_entries(8192, 0);

#[map]
static ERRORS: HashMap<ErrorKey, ErrorCount> = HashMap::with_max_entries(1024, 0);

#[map]
static DROPS: HashMap<DropKey, DropCount> = HashMap::with_max_entries(2048, 0);

#[map]
static FLOWS: PerCpuHashMap<FlowKey, Flow> = PerCpuHashMap::with_max_entries(1, 0);

#[map]
static LOSSES: PerCpuArray<u64> = PerCpuArray::with_max_entries(Loss::ALL.len() as u32, 0);

/// The next program has its say, too: this one decides nothing.
const NEXT: i32 = -1;

const ETHERNET: u32 = 14;
const IPV4: u32 = 20;
const IPV6: u32 = 40;
const UDP: u32 = 8;
const VXLAN_HEADER: u32 = 8;

mod ethertype {
    pub const IPV4: u16 = 0x0800;
    pub const ARP: u16 = 0x0806;
    pub const IPV6: u16 = 0x86dd;
}

mod protocol {
    pub const ICMP: u8 = 1;
    pub const TCP: u8 = 6;
    pub const UDP: u8 = 17;
    pub const ICMPV6: u8 = 58;
}

/// More fragments follow.
const MORE_FRAGMENTS: u16 = 0x2000;
/// Where in the packet this fragment belongs.
const FRAGMENT_OFFSET: u16 = 0x1fff;

const DNS: u16 = 53;

#[inline(always)]
fn now() -> u64 {
    // SAFETY: no arguments.
    unsafe { bpf_ktime_get_ns() }
}

#[inline(always)]
fn lost(loss: Loss) {
    if let Some(count) = LOSSES.get_ptr_mut(loss as u32) {
        // SAFETY: map values stay in place while the program runs.
        unsafe { add_one(count) };
    }
}

/// Whether a UDP port carries VXLAN.
#[inline(always)]
fn carries(port: u16) -> bool {
    PORTS
        .get(u32::from(port >> 6))
        .is_some_and(|word| *word >> (port & 63) & 1 != 0)
}

// --- tc, both ways through the underlay device

#[classifier]
pub fn vxlan_in(ctx: TcContext) -> i32 {
    // SAFETY: the program's context.
    unsafe { passed(ctx.skb.skb, Direction::In) };
    NEXT
}

#[classifier]
pub fn vxlan_out(ctx: TcContext) -> i32 {
    // SAFETY: the program's context.
    unsafe { passed(ctx.skb.skb, Direction::Out) };
    NEXT
}

/// Both ends of an IP packet, in the order of [`Key`] and the like.
#[derive(Clone, Copy)]
struct Ends {
    source: Address,
    destination: Address,
}

/// `N` bytes of the packet, wherever they are: beyond its first part they are in pages that a program can't see.
#[inline(always)]
unsafe fn load<const N: usize>(skb: *mut __sk_buff, at: u32) -> Option<[u8; N]> {
    let mut to = MaybeUninit::<[u8; N]>::uninit();
    // SAFETY: the helper writes all of it, or fails.
    unsafe {
        let failed = bpf_skb_load_bytes(skb.cast::<c_void>(), at, to.as_mut_ptr().cast(), N as u32);
        (failed == 0).then(|| to.assume_init())
    }
}

/// The same where the bytes are in the packet's first part, which costs no call.
#[inline(always)]
unsafe fn look<const N: usize>(skb: *mut __sk_buff, at: usize) -> Option<[u8; N]> {
    // SAFETY: the bounds are checked as the verifier wants it.
    unsafe {
        let start = (*skb).data as usize + at;
        if start + N > (*skb).data_end as usize {
            return None;
        }
        Some((start as *const [u8; N]).read_unaligned())
    }
}

const fn be16(high: u8, low: u8) -> u16 {
    (high as u16) << 8 | low as u16
}

/// A VXLAN packet, as far as its UDP header.
#[derive(Clone, Copy)]
struct Outer {
    ends: Ends,
    /// Where the UDP header is.
    transport: u32,
    port: u16,
    /// The first of several.
    fragment: bool,
}

#[inline(always)]
unsafe fn passed(skb: *mut __sk_buff, direction: Direction) {
    // SAFETY: the caller's.
    unsafe {
        let outer = match u16::from_be((*skb).protocol as u16) {
            ethertype::IPV4 => outer_v4(skb, direction),
            ethertype::IPV6 => outer_v6(skb, direction),
            _ => None,
        };
        if let Some(outer) = outer {
            count(skb, direction, &outer);
        }
    }
}

#[inline(always)]
unsafe fn outer_v4(skb: *mut __sk_buff, direction: Direction) -> Option<Outer> {
    // SAFETY: the caller's.
    unsafe {
        let ip: [u8; IPV4 as usize] = look(skb, ETHERNET as usize).or_else(|| load(skb, ETHERNET))?;
        let fragment = be16(ip[6], ip[7]);
        if fragment & FRAGMENT_OFFSET != 0 {
            return None;
        }
        let transport = ETHERNET + u32::from(ip[0] & 0xf) * 4;
        match ip[9] {
            protocol::UDP => {}
            protocol::ICMP => {
                error(skb, direction, transport, false);
                return None;
            }
            _ => return None,
        }
        Some(Outer {
            port: vxlan_port(skb, transport)?,
            ends: Ends {
                source: v4(ip[12], ip[13], ip[14], ip[15]),
                destination: v4(ip[16], ip[17], ip[18], ip[19]),
            },
            transport,
            fragment: fragment & MORE_FRAGMENTS != 0,
        })
    }
}

/// VXLAN puts nothing between IPv6 and UDP.
#[inline(always)]
unsafe fn outer_v6(skb: *mut __sk_buff, direction: Direction) -> Option<Outer> {
    // SAFETY: the caller's.
    unsafe {
        let ip: [u8; IPV6 as usize] = look(skb, ETHERNET as usize).or_else(|| load(skb, ETHERNET))?;
        let transport = ETHERNET + IPV6;
        match ip[6] {
            protocol::UDP => {}
            protocol::ICMPV6 => {
                error(skb, direction, transport, true);
                return None;
            }
            _ => return None,
        }
        Some(Outer {
            port: vxlan_port(skb, transport)?,
            ends: v6_ends(&ip),
            transport,
            fragment: false,
        })
    }
}

#[inline(always)]
fn v4(a: u8, b: u8, c: u8, d: u8) -> Address {
    bytes(mapped(u32::from_ne_bytes([a, b, c, d])))
}

#[inline(always)]
unsafe fn v6_ends(ip: &[u8; IPV6 as usize]) -> Ends {
    let ip: *const u8 = ip.as_ptr();
    // SAFETY: an IPv6 header has both addresses from byte 8 on.
    unsafe {
        Ends {
            source: ip.add(8).cast::<Address>().read_unaligned(),
            destination: ip.add(24).cast::<Address>().read_unaligned(),
        }
    }
}

/// The UDP destination port at `at`, where it carries VXLAN.
#[inline(always)]
unsafe fn vxlan_port(skb: *mut __sk_buff, at: u32) -> Option<u16> {
    // SAFETY: the caller's.
    let udp: [u8; 4] = unsafe { load(skb, at) }?;
    let port = be16(udp[2], udp[3]);
    carries(port).then_some(port)
}

/// What a VXLAN packet holds.
#[derive(Clone, Copy)]
struct Inner {
    ends: Ends,
    /// Headers on the wire before the payload, all of them.
    headers: u32,
    source_port: u16,
    destination_port: u16,
    protocol: u8,
    tcp_flags: u8,
    asks: bool,
    answers: bool,
}

/// Counts a VXLAN packet.
#[inline(always)]
unsafe fn count(skb: *mut __sk_buff, direction: Direction, outer: &Outer) {
    // SAFETY: the program's context, and values of maps, which stay in place while it runs.
    unsafe {
        // VXLAN header and inner Ethernet header.
        let at = outer.transport + UDP;
        let Some(headers) = load::<22>(skb, at) else {
            return;
        };
        let flags = u32::from_be_bytes([headers[0], headers[1], headers[2], headers[3]]);
        let Ends { source, destination } = outer.ends;
        let (local, peer) = match direction {
            Direction::In => (destination, source),
            Direction::Out => (source, destination),
        };
        let key = Key {
            local,
            peer,
            vni: u32::from_be_bytes([0, headers[4], headers[5], headers[6]]),
            underlay: (*skb).ifindex,
            port: outer.port,
            direction: direction as u8,
            zero: 0,
        };
        let Some(counters) = counters(&key) else {
            lost(Loss::Packet);
            return;
        };
        let time = now();
        let frame = at + VXLAN_HEADER;
        // Not left unwritten: what is then never used the compiler reads from any register, which the verifier of every
        // kernel refuses (`!read_ok`).
        let mut inner = Inner {
            ends: Ends {
                source: [0; 16],
                destination: [0; 16],
            },
            headers: 0,
            source_port: 0,
            destination_port: 0,
            protocol: 0,
            tcp_flags: 0,
            asks: false,
            answers: false,
        };
        let parsed = parse(skb, frame, be16(headers[20], headers[21]), &mut inner);

        let segments = (*skb).gso_segs.max(1);
        let mut bytes = u64::from((*skb).len);
        if segments > 1 && parsed {
            // On the wire each segment has the headers.
            bytes += u64::from(segments - 1) * u64::from(inner.headers);
        }
        (*counters).packets += u64::from(segments);
        (*counters).frames += 1;
        (*counters).bytes += bytes;
        (*counters).last_ns = time;
        (*counters).fragments += u64::from(outer.fragment);
        if flags & FLAG_VNI == 0 || flags & !(FLAG_VNI | KNOWN_FLAGS) != 0 {
            (*counters).malformed += 1;
            (*counters).malformed_header = flags;
        }
        // Group addresses are nobody's own.
        if headers[8] & 1 == 0 {
            (*counters).destination_mac = [
                headers[8],
                headers[9],
                headers[10],
                headers[11],
                headers[12],
                headers[13],
            ];
            (*counters).source_mac = [
                headers[14],
                headers[15],
                headers[16],
                headers[17],
                headers[18],
                headers[19],
            ];
        }
        if !parsed {
            return;
        }
        let tcp = inner.tcp_flags;
        (*counters).syn += u64::from(tcp & (SYN | ACK) == SYN);
        (*counters).syn_ack += u64::from(tcp & (SYN | ACK) == SYN | ACK);
        (*counters).rst += u64::from(tcp & RST != 0);
        (*counters).asks += u64::from(inner.asks);
        (*counters).answers += u64::from(inner.answers);
        if filled(&VXLAN.flows) != 0 {
            flow(&inner, key.vni, direction, u64::from(segments), bytes, time);
        }
    }
}

const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;

/// This CPU's counters of a key, made where there are none. On one CPU no packet of a direction interrupts another.
#[inline(always)]
unsafe fn counters(key: &Key) -> Option<*mut Counters> {
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
        let _ = COUNTERS.insert(key, &*counters.as_ptr(), u64::from(BPF_NOEXIST));
    }
}

/// Reads the inner packet, whose Ethernet header is at `frame`; whether there is an IP packet that tells anything.
#[inline(always)]
unsafe fn parse(skb: *mut __sk_buff, frame: u32, ethertype: u16, inner: &mut Inner) -> bool {
    // SAFETY: the caller's.
    unsafe {
        let at = frame + ETHERNET;
        let transport;
        match ethertype {
            ethertype::IPV4 => {
                let Some(ip) = load::<{ IPV4 as usize }>(skb, at) else {
                    return false;
                };
                if be16(ip[6], ip[7]) & FRAGMENT_OFFSET != 0 {
                    return false;
                }
                transport = at + u32::from(ip[0] & 0xf) * 4;
                inner.protocol = ip[9];
                inner.ends.source = v4(ip[12], ip[13], ip[14], ip[15]);
                inner.ends.destination = v4(ip[16], ip[17], ip[18], ip[19]);
            }
            ethertype::IPV6 => {
                let Some(ip) = load::<{ IPV6 as usize }>(skb, at) else {
                    return false;
                };
                transport = at + IPV6;
                inner.protocol = ip[6];
                inner.ends = v6_ends(&ip);
            }
            _ => return false,
        }
        inner.headers = transport;
        match inner.protocol {
            protocol::TCP => {
                let Some(tcp) = load::<14>(skb, transport) else {
                    return false;
                };
                inner.source_port = be16(tcp[0], tcp[1]);
                inner.destination_port = be16(tcp[2], tcp[3]);
                inner.headers += u32::from(tcp[12] >> 4) * 4;
                inner.tcp_flags = tcp[13];
                inner.asks = tcp[13] & (SYN | ACK) == SYN;
                inner.answers = tcp[13] & RST != 0 || tcp[13] & (SYN | ACK) == SYN | ACK;
            }
            protocol::UDP => {
                let Some(udp) = load::<4>(skb, transport) else {
                    return false;
                };
                inner.source_port = be16(udp[0], udp[1]);
                inner.destination_port = be16(udp[2], udp[3]);
                inner.headers += UDP;
                inner.asks = inner.destination_port == DNS;
                inner.answers = inner.source_port == DNS;
            }
            protocol::ICMP | protocol::ICMPV6 => {
                let Some([kind]) = load::<1>(skb, transport) else {
                    return false;
                };
                // Echo, echo reply, unreachable.
                (inner.asks, inner.answers) = if inner.protocol == protocol::ICMP {
                    (kind == 8, kind == 0 || kind == 3)
                } else {
                    (kind == 128, kind == 129 || kind == 1)
                };
            }
            _ => {}
        }
        true
    }
}

#[inline(always)]
unsafe fn flow(inner: &Inner, vni: u32, direction: Direction, packets: u64, bytes: u64, time: u64) {
    let key = FlowKey {
        source: inner.ends.source,
        destination: inner.ends.destination,
        vni,
        source_port: inner.source_port,
        destination_port: inner.destination_port,
        protocol: inner.protocol,
        direction: direction as u8,
        zero: [0; 2],
    };
    if let Some(flow) = FLOWS.get_ptr_mut(key) {
        // SAFETY: map values stay in place while the program runs.
        unsafe {
            if (*flow).first_ns == 0 {
                // Another CPU made the entry.
                (*flow).first_ns = time;
            }
            (*flow).packets += packets;
            (*flow).bytes += bytes;
            (*flow).last_ns = time;
            (*flow).flags |= u64::from(inner.tcp_flags);
        }
        return;
    }
    let flow = Flow {
        packets,
        bytes,
        first_ns: time,
        last_ns: time,
        flags: u64::from(inner.tcp_flags),
    };
    if FLOWS.insert(&key, &flow, u64::from(BPF_NOEXIST)).is_err() {
        lost(Loss::Flow);
    }
}

/// An ICMP error at `at`, if it is one and about a VXLAN packet.
#[inline(always)]
unsafe fn error(skb: *mut __sk_buff, direction: Direction, at: u32, six: bool) {
    // SAFETY: the program's context.
    unsafe {
        const UNREACHABLE: u8 = 3;
        const UNREACHABLE_V6: u8 = 1;
        const TOO_BIG_V6: u8 = 2;
        const ICMP: u32 = 8;
        let Some(icmp) = load::<{ ICMP as usize }>(skb, at) else {
            return;
        };
        let (ends, transport) = if six {
            if icmp[0] != UNREACHABLE_V6 && icmp[0] != TOO_BIG_V6 {
                return;
            }
            let Some(ip) = load::<{ IPV6 as usize }>(skb, at + ICMP) else {
                return;
            };
            if ip[6] != protocol::UDP {
                return;
            }
            (v6_ends(&ip), at + ICMP + IPV6)
        } else {
            if icmp[0] != UNREACHABLE {
                return;
            }
            let Some(ip) = load::<{ IPV4 as usize }>(skb, at + ICMP) else {
                return;
            };
            if ip[9] != protocol::UDP {
                return;
            }
            let ends = Ends {
                source: v4(ip[12], ip[13], ip[14], ip[15]),
                destination: v4(ip[16], ip[17], ip[18], ip[19]),
            };
            (ends, at + ICMP + u32::from(ip[0] & 0xf) * 4)
        };
        let Some(port) = vxlan_port(skb, transport) else {
            return;
        };
        let Some(reporter) = reporter(skb, six) else {
            return;
        };
        let key = ErrorKey {
            reporter,
            source: ends.source,
            destination: ends.destination,
            port,
            kind: icmp[0],
            code: icmp[1],
            direction: direction as u8,
            zero: [0; 3],
        };
        // ICMP has the MTU in its last two bytes, ICMPv6 in all four.
        let mtu = if six {
            u32::from_be_bytes([icmp[4], icmp[5], icmp[6], icmp[7]])
        } else {
            u32::from(be16(icmp[6], icmp[7]))
        };
        if let Some(count) = ERRORS.get_ptr_mut(key) {
            add_one(&raw mut (*count).packets);
            (*count).last_ns = now();
            (*count).mtu = u64::from(mtu);
            return;
        }
        let count = ErrorCount {
            packets: 1,
            last_ns: now(),
            mtu: u64::from(mtu),
        };
        if ERRORS.insert(key, &count, u64::from(BPF_NOEXIST)).is_err() {
            lost(Loss::Error);
        }
    }
}

/// The outer packet's source.
#[inline(always)]
unsafe fn reporter(skb: *mut __sk_buff, six: bool) -> Option<Address> {
    // SAFETY: the program's context.
    unsafe {
        if six {
            load(skb, ETHERNET + 8)
        } else {
            let [a, b, c, d] = load(skb, ETHERNET + 12)?;
            Some(v4(a, b, c, d))
        }
    }
}

// --- kfree_skb(skb, location, reason): the third from 5.17 on

#[btf_tracepoint(function = "kfree_skb")]
pub fn vxlan_drop(ctx: BtfTracePointContext) -> i32 {
    // SAFETY: the hook's packet.
    unsafe {
        dropped::<Typed>(
            ctx.arg(0),
            if filled(&VXLAN.reasons) != 0 {
                ctx.arg(2)
            } else {
                0
            },
        )
    };
    0
}

#[raw_tracepoint(tracepoint = "kfree_skb")]
pub fn vxlan_drop_raw(ctx: RawTracePointContext) -> i32 {
    // SAFETY: the hook's packet.
    unsafe {
        dropped::<Probed>(
            ctx.arg(0),
            if filled(&VXLAN.reasons) != 0 {
                ctx.arg(2)
            } else {
                0
            },
        )
    };
    0
}

#[inline(always)]
unsafe fn dropped<M: Memory>(skb: Pointer, reason: u32) {
    // SAFETY: the hook's packet; headers are plain memory, read with the helper that survives a wrong pointer.
    unsafe {
        let device = pointer::<M>(skb, offset!(skb_device));
        let net = pointer::<M>(device, offset!(device_net));
        if M::read::<u32>(net, offset!(netns_inode)) != filled(&VXLAN.netns) {
            return;
        }
        let head = pointer::<M>(skb, offset!(skb_head));
        let network = M::read::<u16>(skb, offset!(skb_network_header));
        let ethertype = u16::from_be(M::read::<u16>(skb, offset!(skb_protocol)));
        let index = M::read::<u32>(device, offset!(device_index));

        let mut key = DropKey {
            source: [0; 16],
            destination: [0; 16],
            reason,
            device: index,
            vni: 0,
            port: 0,
            ethertype,
            place: Place::Inside as u8,
            zero: [0; 3],
        };
        let transport;
        let protocol;
        match ethertype {
            ethertype::IPV4 => {
                let ip: [u8; 20] = header(head, network);
                key.source = v4(ip[12], ip[13], ip[14], ip[15]);
                key.destination = v4(ip[16], ip[17], ip[18], ip[19]);
                transport = network.wrapping_add(u16::from(ip[0] & 0xf) * 4);
                protocol = ip[9];
            }
            ethertype::IPV6 => {
                let ip: [u8; 40] = header(head, network);
                let ends = v6_ends(&ip);
                key.source = ends.source;
                key.destination = ends.destination;
                transport = network.wrapping_add(IPV6 as u16);
                protocol = ip[6];
            }
            ethertype::ARP => {
                // The address asked for ends a packet of 28 bytes.
                let [a, b, c, d]: [u8; 4] = header(head, network.wrapping_add(24));
                key.destination = v4(a, b, c, d);
                transport = network;
                protocol = 0;
            }
            _ => return,
        }
        if protocol == protocol::UDP {
            let udp: [u8; 16] = header(head, transport);
            let port = be16(udp[2], udp[3]);
            if carries(port) {
                key.port = port;
                key.vni = u32::from_be_bytes([0, udp[12], udp[13], udp[14]]);
                key.place = Place::Outside as u8;
                return count_drop(&mut key);
            }
        }
        if DEVICES.get(index).is_some() {
            key.source = [0; 16];
            count_drop(&mut key);
        }
    }
}

/// Adds one to a drop's counter, or, when the table is full, to the one without its ends.
#[inline(always)]
fn count_drop(key: &mut DropKey) {
    if add_drop(key) {
        return;
    }
    key.source = [0; 16];
    key.destination = [0; 16];
    lost(if add_drop(key) {
        Loss::DropDestination
    } else {
        Loss::Drop
    });
}

#[inline(never)]
fn add_drop(key: &DropKey) -> bool {
    let time = now();
    if let Some(count) = DROPS.get_ptr_mut(key) {
        // SAFETY: map values stay in place while the program runs.
        unsafe {
            add_one(&raw mut (*count).packets);
            (*count).last_ns = time;
        }
        return true;
    }
    let count = DropCount {
        packets: 1,
        last_ns: time,
    };
    if DROPS.insert(key, &count, u64::from(BPF_NOEXIST)).is_ok() {
        return true;
    }
    // Another CPU made the entry meanwhile, or the table is full.
    match DROPS.get_ptr_mut(key) {
        Some(count) => {
            // SAFETY: as above.
            unsafe { add_one(&raw mut (*count).packets) };
            true
        }
        None => false,
    }
}

#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    loop {}
}

#[unsafe(no_mangle)]
#[unsafe(link_section = "license")]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
