//! Connections: who opened them, and what became of each.
//!
//! A connection is followed from the socket's state changes. Of the six (RST) or ten (FIN) changes that both ends
//! on one kernel make, only those into SYN_SENT, ESTABLISHED, FIN_WAIT1, LAST_ACK and CLOSE say anything new; the
//! rest return at once, as does everything on a port nobody watches.

#![no_std]
#![no_main]

use core::{mem::MaybeUninit, panic::PanicInfo};

use aya_ebpf::{
    helpers::generated::bpf_ktime_get_ns,
    macros::{btf_tracepoint, map, raw_tracepoint},
    maps::{Array, HashMap, PerCpuArray, RingBuf},
    programs::{BtfTracePointContext, RawTracePointContext},
};
use network_types::{
    ip::{IpProto, Ipv4Hdr, Ipv6Hdr},
    tcp::TcpHdr,
};
use probe_ebpf::{
    contract::{
        connection::{
            Address, Connection, CounterKey, Handshake, HandshakeKey, Loss, MAX_HANDSHAKES, Record,
            Unacknowledged,
        },
        offsets::ABSENT,
        outcome::{Ending, Outcome, Role, state},
    },
    kernel::{
        copy::{copy, zero},
        globals::offset,
        log::{debug, trace},
        read::{Memory, Pointer, Probed, Typed, bytes, header, low, mapped, pointer},
        sock,
    },
};

use self::{
    counters::{Ended, count, lost},
    settings::setting,
    table::{Hashed, Slots, Table},
};

mod counters;
mod filter;
mod owner;
mod ring;
mod settings;
mod storm;
mod table;

#[map]
static HANDSHAKES: HashMap<HandshakeKey, Handshake> = HashMap::with_max_entries(MAX_HANDSHAKES, 0);

/// 1 once [`HANDSHAKES`] has had an entry: until then no finished handshake need look for its own.
#[map]
static HANDSHAKES_USED: Array<u32> = Array::with_max_entries(1, 0);

#[map]
static RECORDS: RingBuf = RingBuf::with_byte_size(4 << 20, 0);

/// `sk_shutdown`: the process reads no more, whatever still arrives.
const RCV_SHUTDOWN: u8 = 1;

/// What `tcp_reset` leaves in `sk_err`: nothing else does in an established connection.
const ECONNRESET: u32 = 104;
const EPIPE: u32 = 32;

#[inline(always)]
fn now() -> u64 {
    // SAFETY: no arguments.
    unsafe { bpf_ktime_get_ns() }
}

// --- inet_sock_set_state(sk, oldstate, newstate)
//
// Twice: the kernel skips a program that it finds running on the CPU (6.1), as when an interrupt comes while the
// program runs in a process, and packets that it handles close other sockets. The second program then is not running:
// it does what the first did not. That goes for every change: on 7.3 a process that connects is hidden too, in storms,
// and ends were missing when the second left that out. For nearly all of them it finds that this CPU's last change of
// the first program was this one, and is done; where another came in between, the connection's own state decides.

#[btf_tracepoint(function = "inet_sock_set_state")]
pub fn conn_state(ctx: BtfTracePointContext) -> i32 {
    state_changed::<Typed, Slots, FIRST>(ctx.arg(0), ctx.arg::<i32>(1) as u8, ctx.arg::<i32>(2) as u8);
    0
}

#[btf_tracepoint(function = "inet_sock_set_state")]
pub fn conn_again(ctx: BtfTracePointContext) -> i32 {
    state_changed::<Typed, Slots, AGAIN>(ctx.arg(0), ctx.arg::<i32>(1) as u8, ctx.arg::<i32>(2) as u8);
    0
}

#[raw_tracepoint(tracepoint = "inet_sock_set_state")]
pub fn conn_state_raw(ctx: RawTracePointContext) -> i32 {
    state_changed::<Probed, Hashed, FIRST>(ctx.arg(0), ctx.arg::<i32>(1) as u8, ctx.arg::<i32>(2) as u8);
    0
}

#[raw_tracepoint(tracepoint = "inet_sock_set_state")]
pub fn conn_again_raw(ctx: RawTracePointContext) -> i32 {
    state_changed::<Probed, Hashed, AGAIN>(ctx.arg(0), ctx.arg::<i32>(1) as u8, ctx.arg::<i32>(2) as u8);
    0
}

const FIRST: bool = false;
const AGAIN: bool = true;

/// The change that the first program saw last on this CPU, see [`change`].
#[map]
static SEEN: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

/// A change of a socket's state as a number: half of the socket's address, and the new state.
#[inline(always)]
fn change(sk: Pointer, new: u8) -> u64 {
    u64::from(low(sk)) << 8 | u64::from(new)
}

#[inline(always)]
fn state_changed<M: Memory, T: Table, const RUN: bool>(sk: Pointer, old: u8, new: u8) {
    if !matches!(
        new,
        state::SYN_SENT | state::ESTABLISHED | state::FIN_WAIT1 | state::LAST_ACK | state::CLOSE
    ) {
        return;
    }
    let Some(seen) = SEEN.get_ptr_mut(0) else { return };
    // SAFETY: this CPU's own; `sk` is the hook's struct sock.
    unsafe {
        if RUN == FIRST {
            seen.write_volatile(change(sk, new));
        } else if seen.read_volatile() == change(sk, new) {
            return;
        }
        match new {
            state::SYN_SENT => connecting::<M, T, RUN>(sk),
            state::ESTABLISHED => established::<M, T, RUN>(sk, old),
            state::CLOSE => closed::<M, T, RUN>(sk, old),
            _ => closing::<M, T, RUN>(sk, new),
        }
    }
}

/// Whether the first program handled this change already.
#[inline(always)]
fn handled<const RUN: bool>(known: Option<*mut Connection>, new: u8) -> bool {
    // SAFETY: entries stay in place while the program runs.
    RUN == AGAIN && known.is_some_and(|known| unsafe { (*known).state == new })
}

/// connect(), in the connecting process. The source port is not chosen yet.
#[inline(always)]
unsafe fn connecting<M: Memory, T: Table, const RUN: bool>(sk: Pointer) {
    // SAFETY: the hook's socket; entries stay in place while the program runs.
    unsafe {
        let server_port = sock::peer_port::<M>(sk);
        if !filter::port(server_port) || !filter::role(Role::Client) || !sock::is_tcp::<M>(sk) {
            return;
        }
        let (client, server) = sock::addresses::<M>(sk);
        // The client's own address counts as well: for a server's record it is the peer, and names its owner.
        if filter::by_prefix() && !filter::prefix(server) && !filter::prefix(client) {
            return;
        }
        let known = T::get(sk);
        if handled::<RUN>(known, state::SYN_SENT) {
            return;
        }
        let Some(connection) = entry::<T, RUN>(sk, known, server_port) else {
            return;
        };
        trace!("connection to port {} begins", server_port: u16);
        begin(
            connection,
            Role::Client,
            (client, 0),
            (server, server_port),
            sock::netns::<M>(sk),
        );
        (*connection).state = state::SYN_SENT;
        owner::current::<M, RUN>(&raw mut (*connection).task);
    }
}

/// The entry for a new connection, all zero: what is `known` under this socket is left of one whose end was not seen.
#[inline(always)]
fn entry<T: Table, const RUN: bool>(
    sk: Pointer,
    known: Option<*mut Connection>,
    server_port: u16,
) -> Option<*mut Connection> {
    if let Some(known) = known {
        lost(Loss::Unended);
        debug!("entry of a socket reused, port {}: no end was seen of its last connection", server_port: u16);
        // SAFETY: an entry, which stays in place while the program runs; zero is a value of it.
        unsafe { zero(known) };
        return Some(known);
    }
    let taken = T::take(sk);
    if taken.is_none() && RUN == FIRST {
        lost(Loss::Connection);
        debug!("maps SLOTS and CONNECTIONS are full: connection at port {} not followed", server_port: u16);
    }
    taken
}

/// Writes an entry, all zero, about which no more is known than the hook says.
///
/// # Safety
/// `connection` is writable.
#[inline(always)]
unsafe fn begin(
    connection: *mut Connection,
    role: Role,
    client: (Address, u16),
    server: (Address, u16),
    netns: u32,
) {
    // SAFETY: the caller's.
    unsafe {
        (*connection).start_ns = now();
        ((*connection).client, (*connection).client_port) = client;
        ((*connection).server, (*connection).server_port) = server;
        (*connection).netns = netns;
        (*connection).role = role as u8;
    }
}

/// The handshake is finished.
#[inline(always)]
unsafe fn established<M: Memory, T: Table, const RUN: bool>(sk: Pointer, old: u8) {
    // SAFETY: the hook's socket; entries stay in place while the program runs.
    unsafe {
        let local = sock::local_port::<M>(sk);
        let peer = sock::peer_port::<M>(sk);
        if old == state::SYN_SENT {
            if filter::port(peer)
                && let Some(connection) = T::get(sk)
            {
                (*connection).client_port = local;
                (*connection).established = 1;
                (*connection).state = state::ESTABLISHED;
            }
            return;
        }
        if !filter::port(local) || !filter::role(Role::Server) || !sock::is_tcp::<M>(sk) {
            return;
        }
        let known = T::get(sk);
        if handled::<RUN>(known, state::ESTABLISHED) {
            return;
        }
        let (server, client) = sock::addresses::<M>(sk);
        if filter::by_prefix() && !filter::prefix(client) {
            return;
        }
        let netns = sock::netns::<M>(sk);
        if HANDSHAKES_USED.get(0).is_some_and(|used| *used != 0) {
            let _ = HANDSHAKES.remove(HandshakeKey {
                client,
                server,
                client_port: peer,
                server_port: local,
                netns,
            });
        }
        if let Some(known) = known
            && (*known).established == 0
            && (*known).role == Role::Client as u8
        {
            // Both ends sent SYN at once: this one is a client all the same.
            (*known).client_port = local;
            (*known).established = 1;
            (*known).state = state::ESTABLISHED;
            return;
        }
        let Some(connection) = entry::<T, RUN>(sk, known, local) else {
            return;
        };
        trace!("connection accepted at port {}", local: u16);
        begin(connection, Role::Server, (client, peer), (server, local), netns);
        (*connection).established = 1;
        (*connection).state = state::ESTABLISHED;
    }
}

/// shutdown() or close(), in the process that does it: at the server the only hook where its owner is known.
#[inline(always)]
unsafe fn closing<M: Memory, T: Table, const RUN: bool>(sk: Pointer, new: u8) {
    // SAFETY: the hook's socket, here and below; map values stay in place while the program runs.
    unsafe {
        if !filter::port(sock::peer_port::<M>(sk)) && !filter::port(sock::local_port::<M>(sk)) {
            return;
        }
        let known = T::get(sk);
        if handled::<RUN>(known, new) {
            return;
        }
        let Some(connection) = known else { return };
        let tcp = M::tcp_sock(sk);
        if tcp.is_null() {
            debug!("socket of a connection that closes is not a TCP socket");
            return;
        }
        (*connection).state = new;
        (*connection).segments_at_fin = M::read::<u32>(tcp, offset!(data_segments_in));
        (*connection).fin_sent = 1;
        if (*connection).role == Role::Server as u8 {
            owner::current::<M, RUN>(&raw mut (*connection).task);
        }
    }
}

/// The end.
#[inline(always)]
unsafe fn closed<M: Memory, T: Table, const RUN: bool>(sk: Pointer, old: u8) {
    if matches!(old, state::LISTEN | state::CLOSE) {
        return;
    }
    // SAFETY: the hook's socket, here and below; map values stay in place while the program runs.
    unsafe {
        let tcp = M::tcp_sock(sk);
        if tcp.is_null() {
            return;
        }
        // skc_num is already cleared.
        let local_port = u16::from_be(M::read::<u16>(tcp, offset!(local_port_kept)));
        if !filter::port(sock::peer_port::<M>(sk)) && !filter::port(local_port) {
            return;
        }
        let Some(connection) = T::get(sk) else {
            // The first program released it.
            if RUN == AGAIN {
                return;
            }
            unfollowed(sock::peer_port::<M>(sk), local_port, old);
            return;
        };
        let client = (*connection).role == Role::Client as u8;
        let error = M::read::<u32>(sk, offset!(error));
        let segments_in = M::read::<u32>(tcp, offset!(data_segments_in));
        let reset = if old == state::SYN_SENT {
            // RST and ICMP port unreachable leave the same error; only RST is a segment.
            M::read::<u32>(tcp, offset!(segments_in)) != 0
        } else {
            // Payload that arrives after close() makes the kernel reset the connection itself, in the function
            // that a RST from the peer calls (`TCPAbortOnData`): then no RST came in, one goes out.
            matches!(error, ECONNRESET | EPIPE)
                && !((*connection).fin_sent != 0
                    && M::read::<u8>(sk, offset!(shutdown)) & RCV_SHUTDOWN != 0
                    && segments_in != (*connection).segments_at_fin)
        };
        if client {
            (*connection).client_port = local_port;
        } else if (*connection).task.pid == 0
            && error == 0
            && matches!(old, state::ESTABLISHED | state::CLOSE_WAIT)
        {
            // Sending RST instead of FIN: the only other change that runs in the closing process.
            owner::current::<M, RUN>(&raw mut (*connection).task);
        }

        let sent = M::read::<u64>(tcp, offset!(bytes_sent))
            .wrapping_sub(M::read::<u64>(tcp, offset!(bytes_retransmitted)));
        // bytes_received counts a FIN as one; without a data segment it counts nothing else.
        let received = if segments_in == 0 {
            0
        } else {
            let fin = M::read::<u64>(sk, offset!(sock_flags)) >> (offset!(flag_done) & 63) & 1;
            M::read::<u64>(tcp, offset!(bytes_received)).wrapping_sub(fin)
        };
        let (up, down) = if client {
            (sent, received)
        } else {
            (received, sent)
        };
        let outcome = Ending {
            role: if client { Role::Client } else { Role::Server },
            last_state: old,
            reset_received: reset,
            error,
            segments_sent: M::read::<u32>(tcp, offset!(segments_out)),
            client_payload: up != 0,
            server_payload: down != 0,
        }
        .outcome();
        let code = outcome as u8;
        trace!("connection at port {} ended: outcome {}, state before {}, error {}",
            local_port: u16, code: u8, old: u8, error: u32);
        let unacknowledged = unacknowledged::<M>(tcp);
        report(connection, now(), old, outcome, error, up, down, &unacknowledged);
        T::release(sk, connection);
    }
}

/// What this end was sending again. Most connections end without, and cost one read.
///
/// # Safety
/// `tcp` is a `tcp_sock` of the kernel.
#[inline(always)]
unsafe fn unacknowledged<M: Memory>(tcp: Pointer) -> Unacknowledged {
    let known = offset!(timeouts) != ABSENT
        && offset!(next_sequence) != ABSENT
        && offset!(first_unacknowledged) != ABSENT
        && offset!(sacked) != ABSENT
        && offset!(segment_payload) != ABSENT
        && offset!(segment_header) != ABSENT;
    if !known {
        return Unacknowledged::NOTHING;
    }
    // SAFETY: the caller's.
    unsafe {
        let timeouts = M::read::<u8>(tcp, offset!(timeouts));
        if timeouts == 0 {
            return Unacknowledged::NOTHING;
        }
        let payload = M::read::<u32>(tcp, offset!(segment_payload)) as u16;
        Unacknowledged {
            bytes: M::read::<u32>(tcp, offset!(next_sequence))
                .wrapping_sub(M::read::<u32>(tcp, offset!(first_unacknowledged))),
            segment: payload.wrapping_add(M::read::<u16>(tcp, offset!(segment_header))),
            timeouts,
            sacked: M::read::<u32>(tcp, offset!(sacked)).min(255) as u8,
        }
    }
}

/// A watched connection ended that is not in the table: it began before probe, or an interrupt hid its beginning.
#[inline(never)]
fn unfollowed(peer_port: u16, local_port: u16, old: u8) {
    // A child that never finished its handshake has no entry by design; with a peer filter, nor has most else.
    let watched = filter::port(peer_port) && filter::role(Role::Client)
        || filter::port(local_port) && filter::role(Role::Server);
    if old != state::SYN_RECV && watched && !filter::by_prefix() {
        lost(Loss::Unfollowed);
        debug!("connection ended, port {} to {}, state before {}: its begin was not seen",
            local_port: u16, peer_port: u16, old: u8);
    }
}

/// Hands a finished connection to user space, or counts it where that is not asked for or not possible.
///
/// # Safety
/// `connection` is readable: a map value or the caller's own.
#[inline(always)]
unsafe fn report(
    connection: *const Connection,
    end_ns: u64,
    last_state: u8,
    outcome: Outcome,
    error: u32,
    client_bytes: u64,
    server_bytes: u64,
    unacknowledged: &Unacknowledged,
) {
    // SAFETY: the caller's; a ring entry is ours until submitted, and every byte of it is written here.
    unsafe {
        let key = || CounterKey {
            cgroup: (*connection).task.cgroup,
            client: (*connection).client,
            server: (*connection).server,
            netns: (*connection).netns,
            port: (*connection).server_port,
            role: (*connection).role,
            outcome: outcome as u8,
        };
        if setting!(outcomes) & outcome.bit() != 0 {
            if !storm::is_told(end_ns, key) {
                lost(Loss::Aggregated);
            } else if let Some(mut entry) = RECORDS.reserve::<Record>(0) {
                let record = entry.as_mut_ptr();
                copy(connection, &raw mut (*record).connection);
                (*record).end_ns = end_ns;
                (*record).client_bytes = client_bytes;
                (*record).server_bytes = server_bytes;
                (*record).error = error;
                (*record).outcome = outcome as u8;
                (*record).last_state = last_state;
                (*record).zero = [0; 2];
                (*record).unacknowledged = *unacknowledged;
                ring::submit(&RECORDS, entry, end_ns);
                return;
            } else {
                lost(Loss::Record);
                let port = (*connection).server_port;
                debug!("ring RECORDS is full: record of a connection at port {} lost", port: u16);
            }
        }
        let ended = Ended {
            ns: end_ns,
            client_bytes,
            server_bytes,
        };
        count(&key(), &ended);
    }
}

// --- tcp_send_reset(sk, skb, reason): without a socket it answers a SYN to a closed port (6.10)

#[btf_tracepoint(function = "tcp_send_reset")]
pub fn conn_rstout(ctx: BtfTracePointContext) -> i32 {
    // SAFETY: the hook's arguments, either may be null.
    unsafe { reset_sent::<Typed>(ctx.arg(0), ctx.arg(1)) };
    0
}

#[raw_tracepoint(tracepoint = "tcp_send_reset")]
pub fn conn_rstout_raw(ctx: RawTracePointContext) -> i32 {
    // SAFETY: the hook's arguments, either may be null.
    unsafe { reset_sent::<Probed>(ctx.arg(0), ctx.arg(1)) };
    0
}

#[inline(always)]
unsafe fn reset_sent<M: Memory>(sk: Pointer, skb: Pointer) {
    if sk.is_null() && !skb.is_null() {
        // SAFETY: the hook's packet.
        unsafe { refused::<M>(skb) };
    }
}

// --- kfree_skb(skb, location, reason): the same SYN, dropped after the answer (5.17)

#[btf_tracepoint(function = "kfree_skb")]
pub fn conn_nosock(ctx: BtfTracePointContext) -> i32 {
    if ctx.arg::<u32>(2) == offset!(drop_no_socket) {
        // SAFETY: the hook's packet.
        unsafe { refused::<Typed>(ctx.arg(0)) };
    }
    0
}

#[raw_tracepoint(tracepoint = "kfree_skb")]
pub fn conn_nosock_raw(ctx: RawTracePointContext) -> i32 {
    if ctx.arg::<u32>(2) == offset!(drop_no_socket) {
        // SAFETY: the hook's packet.
        unsafe { refused::<Probed>(ctx.arg(0)) };
    }
    0
}

/// A packet that found no socket: reported if it is a SYN to a watched port.
#[inline(always)]
unsafe fn refused<M: Memory>(skb: Pointer) {
    if !filter::role(Role::Server) {
        return;
    }
    // SAFETY: the hook's packet; headers are plain memory, read with the helper that survives a wrong pointer.
    unsafe {
        let head = pointer::<M>(skb, offset!(skb_head));
        let tcp: TcpHdr = header(head, M::read::<u16>(skb, offset!(skb_transport_header)));
        let server_port = u16::from_be_bytes(tcp.dest);
        if tcp.syn() == 0 || tcp.ack() != 0 || !filter::port(server_port) {
            return;
        }
        let network = M::read::<u16>(skb, offset!(skb_network_header));
        let v4: Ipv4Hdr = header(head, network);
        // UDP that finds no socket passes through kfree_skb as well.
        let (client, server) = if v4.version() == 4 {
            if v4.proto != IpProto::Tcp as u8 {
                return;
            }
            (
                bytes(mapped(u32::from_ne_bytes(v4.src_addr))),
                bytes(mapped(u32::from_ne_bytes(v4.dst_addr))),
            )
        } else {
            let v6: Ipv6Hdr = header(head, network);
            if v6.next_hdr != IpProto::Tcp as u8 {
                return;
            }
            (v6.src_addr, v6.dst_addr)
        };
        if filter::by_prefix() && !filter::prefix(client) {
            return;
        }
        let device = pointer::<Probed>(skb, offset!(skb_device));
        let net = pointer::<Probed>(device, offset!(device_net));
        let netns = Probed::read::<u32>(net, offset!(netns_inode));
        let source = (client, u16::from_be_bytes(tcp.source));
        let mut connection = MaybeUninit::uninit();
        let connection = connection.as_mut_ptr();
        zero(connection);
        begin(connection, Role::Server, source, (server, server_port), netns);
        report(
            connection,
            (*connection).start_ns,
            state::CLOSE,
            Outcome::Refused,
            0,
            0,
            0,
            &Unacknowledged::NOTHING,
        );
    }
}

// --- tcp_retransmit_synack(sk, req): the client did not finish its handshake yet

#[btf_tracepoint(function = "tcp_retransmit_synack")]
pub fn conn_synack(ctx: BtfTracePointContext) -> i32 {
    // SAFETY: the hook's request socket.
    unsafe { synack_again::<Typed>(ctx.arg(0), ctx.arg(1)) };
    0
}

#[raw_tracepoint(tracepoint = "tcp_retransmit_synack")]
pub fn conn_synack_raw(ctx: RawTracePointContext) -> i32 {
    // SAFETY: the hook's request socket.
    unsafe { synack_again::<Probed>(ctx.arg(0), ctx.arg(1)) };
    0
}

#[inline(always)]
unsafe fn synack_again<M: Memory>(listener: Pointer, request: Pointer) {
    // SAFETY: a request socket begins with a struct sock_common, as a socket does.
    unsafe {
        let server_port = sock::local_port::<M>(request);
        if !filter::port(server_port) || !filter::role(Role::Server) {
            return;
        }
        let (server, client) = sock::addresses::<M>(request);
        if filter::by_prefix() && !filter::prefix(client) {
            return;
        }
        let key = HandshakeKey {
            client,
            server,
            client_port: sock::peer_port::<M>(request),
            server_port,
            netns: sock::netns::<M>(listener),
        };
        let time = now();
        if let Some(handshake) = HANDSHAKES.get_ptr_mut(key) {
            (*handshake).last_ns = time;
            (*handshake).retransmits += 1;
            return;
        }
        if let Some(used) = HANDSHAKES_USED.get_ptr_mut(0) {
            *used = 1;
        }
        let handshake = Handshake {
            first_ns: time,
            last_ns: time,
            retransmits: 1,
        };
        if HANDSHAKES.insert(key, handshake, 0).is_err() {
            lost(Loss::Handshake);
            debug!("map HANDSHAKES is full: handshake at port {} not kept", server_port: u16);
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
