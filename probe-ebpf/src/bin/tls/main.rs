//! The first payload of watched connections, at both ends: what TLS says in the clear.
//!
//! The payload that a process sends is in pages, which a program can't read; the helper that hands a packet to user space can.
//! So nothing is looked at here: what is said in it is found out there (`model/tls`). Of a connection that has exchanged more
//! than a handshake takes, all that is done is to read its counter.

#![no_std]
#![no_main]

use core::panic::PanicInfo;

use aya_ebpf::{
    bindings::BPF_F_CURRENT_CPU,
    helpers::generated::{bpf_ktime_get_ns, bpf_skb_output},
    macros::{btf_tracepoint, map},
    maps::{PerCpuArray, PerfEventArray},
    programs::BtfTracePointContext,
};
use probe_ebpf::{
    contract::tls::{SNAP, Segment, WINDOW, Way},
    kernel::{
        globals::offset,
        log::debug,
        read::{Memory, Pointer, Probed, Typed, header, pointer},
        sock,
    },
};

mod settings;

#[map]
static SEGMENTS: PerfEventArray<Segment> = PerfEventArray::new(0);

#[map]
static TLS_LOST: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

mod ethertype {
    pub const IPV4: u16 = 0x0800;
    pub const IPV6: u16 = 0x86dd;
}

const TCP: u8 = 6;
/// Bytes of a TCP header without options.
const LEAST_HEADER: u32 = 20;

/// `enum tcp_state`, user interface of the kernel but for the last: those that are no full sockets, or have no connection.
mod state {
    pub const TIME_WAIT: u8 = 6;
    pub const LISTEN: u8 = 10;
    pub const NEW_SYN_RECV: u8 = 12;
}

/// Where the payload is in a packet.
struct Payload {
    sequence: u32,
    length: u32,
    headers: u32,
}

// --- net_dev_start_xmit(skb, dev): at a device of the socket's own network namespace, translated already where that is done

#[btf_tracepoint(function = "net_dev_start_xmit")]
pub fn tls_sent(ctx: BtfTracePointContext) -> i32 {
    // SAFETY: the hook's packet and device.
    unsafe { sent(ctx.arg(0), ctx.arg(1)) };
    0
}

#[inline(always)]
unsafe fn sent(skb: Pointer, device: Pointer) {
    // SAFETY: the hook's packet and device. The packet holds its socket, or has none.
    unsafe {
        let sk = pointer::<Typed>(skb, offset!(skb_socket));
        if sk.is_null() || !settings::ports(sock::local_port::<Typed>(sk), sock::peer_port::<Typed>(sk)) {
            return;
        }
        if matches!(
            Typed::read::<u8>(sk, offset!(sock_state)),
            state::TIME_WAIT | state::LISTEN | state::NEW_SYN_RECV
        ) || !sock::is_tcp::<Typed>(sk)
        {
            return;
        }
        // This segment included.
        let counted = Probed::read::<u64>(sk, offset!(bytes_sent));
        let whole = Typed::read::<u32>(skb, offset!(skb_length));
        if counted == 0 || counted.saturating_sub(u64::from(whole)) >= WINDOW {
            return;
        }
        let Some(payload) = sent_payload(skb, whole) else {
            return;
        };
        if counted.saturating_sub(u64::from(payload.length)) >= WINDOW {
            return;
        }
        // Bridges, and what else is on the way to a network namespace further out, pass it on with its socket.
        if Probed::read::<u64>(device, offset!(device_net)) != Probed::read::<u64>(sk, offset!(sock_net)) {
            return;
        }
        let first = payload
            .sequence
            .wrapping_add(payload.length)
            .wrapping_sub(counted as u32);
        emit(skb, sk, &payload, first, Way::Sent);
    }
}

/// Of a packet from its link's header on. Around tunnels it is another protocol's: their devices showed what is in it.
#[inline(always)]
unsafe fn sent_payload(skb: Pointer, whole: u32) -> Option<Payload> {
    // SAFETY: the hook's packet; headers are plain memory, read with the helper that survives a wrong pointer.
    unsafe {
        let head = Probed::read::<u64>(skb, offset!(skb_head));
        let network = Probed::read::<u16>(skb, offset!(skb_network_header));
        let transport = Probed::read::<u16>(skb, offset!(skb_transport_header));
        let ip: [u8; 12] = header(head as Pointer, network);
        let protocol = match u16::from_be(Probed::read::<u16>(skb, offset!(skb_protocol))) {
            ethertype::IPV4 => ip[9],
            ethertype::IPV6 => ip[6],
            _ => return None,
        };
        if protocol != TCP {
            return None;
        }
        let data = Probed::read::<u64>(skb, offset!(skb_data));
        let before = (head.wrapping_sub(data) as u32).wrapping_add(u32::from(transport));
        in_segment(header(head as Pointer, transport), before, whole)
    }
}

/// What a segment with this TCP header carries, which comes after so many bytes; `None`: nothing.
#[inline(always)]
fn in_segment(tcp: [u8; 16], before: u32, whole: u32) -> Option<Payload> {
    let length = u32::from(tcp[12] >> 4) * 4;
    let headers = before.wrapping_add(length);
    if length < LEAST_HEADER || headers >= whole {
        return None;
    }
    Some(Payload {
        sequence: u32::from_be_bytes([tcp[4], tcp[5], tcp[6], tcp[7]]),
        length: whole - headers,
        headers,
    })
}

// --- tcp_probe(sk, skb): an established socket gets a segment, from its TCP header on

#[btf_tracepoint(function = "tcp_probe")]
pub fn tls_received(ctx: BtfTracePointContext) -> i32 {
    // SAFETY: the hook's socket and packet.
    unsafe { received(ctx.arg(0), ctx.arg(1)) };
    0
}

#[inline(always)]
unsafe fn received(sk: Pointer, skb: Pointer) {
    // SAFETY: the hook's socket and packet; its header is plain memory, read with the helper that survives a wrong pointer.
    unsafe {
        if !settings::ports(sock::local_port::<Typed>(sk), sock::peer_port::<Typed>(sk)) {
            return;
        }
        // Before this segment.
        let counted = Probed::read::<u64>(sk, offset!(bytes_received));
        if counted >= WINDOW {
            return;
        }
        let whole = Typed::read::<u32>(skb, offset!(skb_length));
        let data = Probed::read::<u64>(skb, offset!(skb_data));
        if let Some(payload) = in_segment(header(data as Pointer, 0), 0, whole) {
            let first = payload.sequence.wrapping_sub(counted as u32);
            emit(skb, sk, &payload, first, Way::Received);
        }
    }
}

/// Hands the packet to user space, as much of it as is wanted.
#[inline(always)]
unsafe fn emit(skb: Pointer, sk: Pointer, payload: &Payload, first: u32, way: Way) {
    // SAFETY: the hook's packet and its socket.
    unsafe {
        let (local, peer) = sock::addresses::<Typed>(sk);
        if !settings::addresses(local, peer) {
            return;
        }
        let captured = payload.headers
            + if payload.length > SNAP {
                SNAP
            } else {
                payload.length
            };
        let mut segment = Segment {
            time_ns: bpf_ktime_get_ns(),
            socket: sk as u64,
            local,
            peer,
            local_port: sock::local_port::<Typed>(sk),
            peer_port: sock::peer_port::<Typed>(sk),
            netns: Probed::read::<u32>(pointer::<Probed>(sk, offset!(sock_net)), offset!(netns_inode)),
            sequence: payload.sequence,
            first,
            length: payload.length,
            headers: payload.headers,
            captured,
            way: way as u32,
        };
        let failed = bpf_skb_output(
            skb.cast_mut().cast(),
            (&raw const SEGMENTS).cast_mut().cast(),
            u64::from(captured) << 32 | BPF_F_CURRENT_CPU,
            (&raw mut segment).cast(),
            size_of::<Segment>() as u64,
        );
        if failed != 0
            && let Some(lost) = TLS_LOST.get_ptr_mut(0)
        {
            // This CPU's own.
            *lost += 1;
            debug!("perf buffer SEGMENTS did not accept a segment of {} bytes: error {}",
                captured: u32, failed: i64);
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
