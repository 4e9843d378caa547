//! Packets on their way: where each is seen, whose it is, what happened there.
//!
//! Tracepoints show devices and ends in every network namespace. Functions, where the kernel lets programs in, show what is
//! decided in between. All of them read a packet's headers and ask `follow` whether it is of a flow that is followed; most
//! are not, and that is all there is to it.

#![no_std]
#![no_main]

mod event;
mod follow;
mod settings;
mod tuple;

use core::panic::PanicInfo;

use aya_ebpf::{
    macros::{btf_tracepoint, fentry, fexit, kprobe, raw_tracepoint},
    programs::{BtfTracePointContext, FEntryContext, FExitContext, ProbeContext, RawTracePointContext},
};
use probe_ebpf::{
    contract::{
        offsets::ABSENT,
        path::{Flow, NO_VERDICT, Point},
    },
    kernel::{
        globals::offset,
        read::{Memory, NULL, Pointer, Probed, Typed, pointer},
    },
};

use crate::{
    event::{Observation, emit},
    follow::Begin,
    settings::{may_have_dialled, setting},
};

mod ethertype {
    pub const IPV4: u16 = 0x0800;
    pub const IPV6: u16 = 0x86dd;
}

/// What a hook adds to the packet.
#[derive(Clone, Copy)]
struct Detail {
    detail: u32,
    result: i32,
    location: u64,
}

const NOTHING: Detail = Detail {
    detail: 0,
    result: 0,
    location: 0,
};

/// Where a packet's IP header is.
#[derive(Clone, Copy)]
enum Header {
    /// Where its network header is said to be.
    Network,
    /// At its data: it just came in.
    Data,
}

/// Where a packet is.
#[derive(Clone, Copy)]
enum Location {
    /// At its own device, or at its socket's.
    Own,
    /// At a device.
    Device(Pointer),
    /// In a network namespace, at a device where there is one.
    Net(Pointer, Pointer),
}

/// Emits an event of a packet that is followed; false if it is not.
///
/// # Safety
/// `skb` is the hook's packet, and the location's pointers are the hook's.
#[inline(always)]
unsafe fn record<M: Memory>(
    skb: Pointer,
    point: Point,
    header: Header,
    location: Location,
    detail: Detail,
) -> bool {
    // SAFETY: the caller's.
    unsafe {
        let kind = u16::from_be(M::read::<u16>(skb, offset!(skb_protocol)));
        if kind != ethertype::IPV4 && kind != ethertype::IPV6 {
            return false;
        }
        let head = M::read::<u64>(skb, offset!(skb_head));
        let at = match header {
            Header::Network => M::read::<u16>(skb, offset!(skb_network_header)),
            Header::Data => M::read::<u64>(skb, offset!(skb_data)).wrapping_sub(head) as u16,
        };
        // Where no network namespace and no device is asked for, which the verifier knows, nothing of this is left.
        let (netns, index) = (setting!(netns), setting!(device));
        let may_begin = netns == 0 && index == 0 || {
            let (here, device) = locate(skb, location);
            (netns == 0 || netns == here)
                && (index == 0
                    || !device.is_null() && Probed::read::<u32>(device, offset!(device_index)) == index)
        };
        let mut flow = Flow { id: 0, direction: 0 };
        // By the time it is at its first device, a packet of this host's may have another destination than was dialled.
        let socket = match (point, may_begin) {
            (Point::Sent, true) => {
                let socket = pointer::<M>(skb, offset!(skb_socket));
                if !socket.is_null() && may_have_dialled::<M>(socket) {
                    Probed::read::<u64>(skb, offset!(skb_socket))
                } else {
                    0
                }
            }
            _ => 0,
        };
        if socket == 0 && follow::is_foreign(head, at, may_begin) {
            return false;
        }
        let begin = if may_begin { Begin::Yes } else { Begin::No };
        let where_it_is = u32::from(at) | begin as u32;
        if follow::find(skb as u64, head, where_it_is, socket, &mut flow) == 0 {
            return false;
        }
        let (netns, device) = locate(skb, location);
        let observation = Observation {
            point,
            head: head as Pointer,
            at,
            netns,
            device,
            detail: detail.detail,
            result: detail.result,
            location: detail.location,
        };
        emit(skb as u64, &flow, &observation);
        true
    }
}

/// The network namespace's inode and the device.
#[inline(always)]
unsafe fn locate(skb: Pointer, location: Location) -> (u32, Pointer) {
    // SAFETY: the caller's.
    unsafe {
        let inode = |net: Pointer| Probed::read::<u32>(net, offset!(netns_inode));
        match location {
            Location::Device(device) => (inode(pointer::<Probed>(device, offset!(device_net))), device),
            Location::Net(net, device) => (inode(net), device),
            Location::Own => {
                let device = pointer::<Probed>(skb, offset!(skb_device));
                let socket = pointer::<Probed>(skb, offset!(skb_socket));
                // A device's pointer may be something else in a socket's queue; its own network namespace then is none.
                let net = if device.is_null() {
                    pointer::<Probed>(socket, offset!(sock_net))
                } else {
                    pointer::<Probed>(device, offset!(device_net))
                };
                match inode(net) {
                    0 => (inode(pointer::<Probed>(socket, offset!(sock_net))), NULL),
                    netns => (netns, device),
                }
            }
        }
    }
}

// --- net_dev_start_xmit(skb, dev)

#[btf_tracepoint(function = "net_dev_start_xmit")]
pub fn path_sent(ctx: BtfTracePointContext) -> i32 {
    // SAFETY: the hook's packet and device.
    unsafe {
        record::<Typed>(
            ctx.arg(0),
            Point::Sent,
            Header::Network,
            Location::Device(ctx.arg(1)),
            NOTHING,
        )
    };
    0
}

#[raw_tracepoint(tracepoint = "net_dev_start_xmit")]
pub fn path_sent_raw(ctx: RawTracePointContext) -> i32 {
    // SAFETY: the hook's packet and device.
    unsafe {
        record::<Probed>(
            ctx.arg(0),
            Point::Sent,
            Header::Network,
            Location::Device(ctx.arg(1)),
            NOTHING,
        )
    };
    0
}

// --- netif_receive_skb(skb): its network header is not set yet

#[btf_tracepoint(function = "netif_receive_skb")]
pub fn path_received(ctx: BtfTracePointContext) -> i32 {
    // SAFETY: the hook's packet.
    unsafe { record::<Typed>(ctx.arg(0), Point::Received, Header::Data, Location::Own, NOTHING) };
    0
}

#[raw_tracepoint(tracepoint = "netif_receive_skb")]
pub fn path_received_raw(ctx: RawTracePointContext) -> i32 {
    // SAFETY: the hook's packet.
    unsafe { record::<Probed>(ctx.arg(0), Point::Received, Header::Data, Location::Own, NOTHING) };
    0
}

// --- kfree_skb(skb, location, reason): never typed, as bin/vxlan/drops.rs says

#[raw_tracepoint(tracepoint = "kfree_skb")]
pub fn path_dropped(ctx: RawTracePointContext) -> i32 {
    let skb = ctx.arg(0);
    let detail = Detail {
        detail: if setting!(reasons) == 1 { ctx.arg(2) } else { 0 },
        location: ctx.arg(1),
        ..NOTHING
    };
    // SAFETY: the hook's packet.
    if unsafe { record::<Probed>(skb, Point::Dropped, Header::Network, Location::Own, detail) } {
        follow::forget(skb);
    }
    0
}

// --- consume_skb(skb, location): every packet that is done with, so only memory that is known is looked at

#[raw_tracepoint(tracepoint = "consume_skb")]
pub fn path_consumed(ctx: RawTracePointContext) -> i32 {
    let skb = ctx.arg(0);
    if follow::is_known(skb) {
        // SAFETY: the hook's packet.
        unsafe { record::<Probed>(skb, Point::Consumed, Header::Network, Location::Own, NOTHING) };
        follow::forget(skb);
    }
    0
}

// --- nf_hook_slow(skb, state, entries, index)

#[fexit(function = "nf_hook_slow")]
pub fn path_hook(ctx: FExitContext) -> i32 {
    let result = ctx.arg(4);
    // SAFETY: the hook's packet and state. What was dropped or taken may be another's by now: only what goes on is read.
    unsafe { hooked(ctx.arg(0), ctx.arg(1), result) };
    0
}

#[kprobe]
pub fn path_hook_kp(ctx: ProbeContext) -> u32 {
    if let (Some(skb), Some(state)) = (ctx.arg(0), ctx.arg(1)) {
        // SAFETY: the hook's packet and state.
        unsafe { hooked(skb, state, NO_VERDICT) };
    }
    0
}

#[inline(always)]
unsafe fn hooked(skb: Pointer, state: Pointer, result: i32) {
    if offset!(filter_hook) == ABSENT || result < 1 {
        return;
    }
    // SAFETY: the caller's.
    unsafe {
        let input = pointer::<Probed>(state, offset!(filter_input));
        let output = pointer::<Probed>(state, offset!(filter_output));
        let detail = Detail {
            // A byte since 5.19, a word before; a hook's number is small.
            detail: u32::from(Probed::read::<u8>(state, offset!(filter_hook))),
            result,
            ..NOTHING
        };
        let device = if input.is_null() { output } else { input };
        let net = pointer::<Probed>(state, offset!(filter_net));
        record::<Probed>(
            skb,
            Point::Hook,
            Header::Network,
            Location::Net(net, device),
            detail,
        );
    }
}

// --- ip_route_input_noref(skb, destination, source, tos, device): 0, or why not

#[fexit(function = "ip_route_input_noref")]
pub fn path_route(ctx: FExitContext) -> i32 {
    let detail = Detail {
        result: ctx.arg(5),
        ..NOTHING
    };
    // SAFETY: the hook's packet and device.
    unsafe {
        record::<Probed>(
            ctx.arg(0),
            Point::Route,
            Header::Network,
            Location::Device(ctx.arg(4)),
            detail,
        )
    };
    0
}

/// A function's entry, by fentry and by kprobe: the packet is argument number `$skb`.
macro_rules! function {
    ($entry:ident, $kprobe:ident, $function:tt, $skb:tt, $point:ident) => {
        #[fentry(function = $function)]
        pub fn $entry(ctx: FEntryContext) -> i32 {
            // SAFETY: the hook's packet.
            unsafe {
                record::<Probed>(
                    ctx.arg($skb),
                    Point::$point,
                    Header::Network,
                    Location::Own,
                    NOTHING,
                )
            };
            0
        }

        function!($kprobe, $skb, $point);
    };
    ($kprobe:ident, $skb:tt, $point:ident) => {
        #[kprobe]
        pub fn $kprobe(ctx: ProbeContext) -> u32 {
            if let Some(skb) = ctx.arg::<Pointer>($skb) {
                // SAFETY: the hook's packet.
                unsafe { record::<Probed>(skb, Point::$point, Header::Network, Location::Own, NOTHING) };
            }
            0
        }
    };
}

function!(path_fwd, path_fwd_kp, "ip_forward", 0, Forward);
function!(path_fwd6, path_fwd6_kp, "ip6_forward", 0, Forward);
function!(path_local, path_local_kp, "ip_local_deliver", 0, Local);
function!(path_local6, path_local6_kp, "ip6_input", 0, Local);
function!(path_out, path_out_kp, "ip_output", 2, Output);
function!(path_out6, path_out6_kp, "ip6_output", 2, Output);
function!(path_tcp, path_tcp_kp, "tcp_v4_do_rcv", 1, Socket);
function!(path_tcp6, path_tcp6_kp, "tcp_v6_do_rcv", 1, Socket);
function!(path_udp, path_udp_kp, "__udp_enqueue_schedule_skb", 1, Socket);
// Of modules, mostly: fentry would need their types.
function!(path_conntrack_kp, 0, Conntrack);
function!(path_encap_kp, 0, Encapsulate);
function!(path_decap_kp, 1, Decapsulate);

// --- __icmp_send(skb, type, code, ...), icmp6_send(skb, type, code, ...)

#[fentry(function = "__icmp_send")]
pub fn path_icmp(ctx: FEntryContext) -> i32 {
    // SAFETY: the hook's packet.
    unsafe { answered(ctx.arg(0), ctx.arg(1), ctx.arg(2)) };
    0
}

#[kprobe]
pub fn path_icmp_kp(ctx: ProbeContext) -> u32 {
    // SAFETY: as above.
    unsafe { answered_by(&ctx) }
}

#[fentry(function = "icmp6_send")]
pub fn path_icmp6(ctx: FEntryContext) -> i32 {
    // SAFETY: the hook's packet.
    unsafe { answered(ctx.arg(0), ctx.arg(1), ctx.arg(2)) };
    0
}

#[kprobe]
pub fn path_icmp6_kp(ctx: ProbeContext) -> u32 {
    // SAFETY: as above.
    unsafe { answered_by(&ctx) }
}

#[inline(always)]
unsafe fn answered_by(ctx: &ProbeContext) -> u32 {
    if let (Some(skb), Some(kind), Some(code)) = (ctx.arg(0), ctx.arg(1), ctx.arg(2)) {
        // SAFETY: the caller's.
        unsafe { answered(skb, kind, code) };
    }
    0
}

#[inline(always)]
unsafe fn answered(skb: Pointer, kind: i32, code: i32) {
    let detail = Detail {
        detail: (kind as u32 & 0xff) << 8 | code as u32 & 0xff,
        ..NOTHING
    };
    // SAFETY: the caller's.
    unsafe { record::<Probed>(skb, Point::Icmp, Header::Network, Location::Own, detail) };
}

// --- nf_nat_manip_pkt(skb, entry, what, direction): what is 0 for the source, 1 for the destination

#[kprobe]
pub fn path_nat_kp(ctx: ProbeContext) -> u32 {
    if let (Some(skb), Some(what)) = (ctx.arg::<Pointer>(0), ctx.arg::<i32>(2)) {
        let detail = Detail {
            detail: what as u32 & 1,
            ..NOTHING
        };
        // SAFETY: the hook's packet.
        unsafe { record::<Probed>(skb, Point::Nat, Header::Network, Location::Own, detail) };
    }
    0
}

#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    loop {}
}

#[unsafe(no_mangle)]
#[unsafe(link_section = "license")]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
