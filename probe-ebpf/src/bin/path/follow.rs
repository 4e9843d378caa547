//! Which flow a packet is of.

use core::mem::MaybeUninit;

use aya_ebpf::{
    helpers::generated::{bpf_get_smp_processor_id, bpf_ktime_get_ns},
    macros::map,
    maps::{Array, LruHashMap, PerCpuArray},
};
use probe_ebpf::{
    contract::path::{Direction, Flow, FlowEntry, Followed, IDLE_NS, Loss, Tuple},
    kernel::{
        log::debug,
        read::{Pointer, Probed},
        sock::{addresses, local_port, peer_port},
    },
};

use crate::{
    settings::begins,
    tuple::{Parsed, is_foreign_at, parse},
};

#[map]
static FLOWS: LruHashMap<Tuple, FlowEntry> = LruHashMap::with_max_entries(8192, 0);

#[map]
static PACKETS: LruHashMap<u64, Followed> = LruHashMap::with_max_entries(8192, 0);

#[map]
static LOSSES: PerCpuArray<u64> = PerCpuArray::with_max_entries(Loss::COUNT, 0);

/// 1 once there is a flow: until then no packet is looked for in the maps.
#[map]
static ACTIVE: Array<u64> = Array::with_max_entries(1, 0);

/// Counts one that could not be kept.
#[inline(always)]
pub fn lost(loss: Loss) {
    if let Some(count) = LOSSES.get_ptr_mut(loss as u32) {
        // SAFETY: this CPU's own; an interrupt's may be lost, which is one of many.
        unsafe { *count += 1 };
    }
}

fn is_active() -> bool {
    ACTIVE.get(0).is_some_and(|active| *active != 0)
}

/// Whether a packet can't be of a flow, for all that one look at its header shows: while no flow is followed, most are.
#[inline(always)]
pub fn is_foreign(head: u64, at: u16, may_begin: bool) -> bool {
    !is_active() && (!may_begin || is_foreign_at(head, u32::from(at)))
}

/// Whether a packet, known by its memory alone, may be one that is followed.
#[inline(always)]
pub fn is_known(skb: Pointer) -> bool {
    is_active() && PACKETS.get_ptr(skb as u64).is_some()
}

/// The memory is another packet's from now on.
#[inline(always)]
pub fn forget(skb: Pointer) {
    // What is not there need not be forgotten.
    let _ = PACKETS.remove(skb as u64);
}

/// Whether a packet that is of no flow may begin one.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Begin {
    No = 0,
    Yes = 1 << 16,
}

/// Finds the flow of the packet whose IP header is at `head + at`, and begins one where it may and the filter says so; 1 where
/// there is one. Called, not inlined: each program has it. `skb` is a name only, and is never read; `socket` is 0, or the one that
/// sends it: what it dialled may have been translated by now. `place` is `at` and [`Begin`].
#[inline(never)]
pub fn find(skb: u64, head: u64, place: u32, socket: u64, to: &mut Flow) -> u32 {
    match flow(skb, head, place & 0xffff, socket, place & Begin::Yes as u32 != 0) {
        Some(flow) => {
            *to = flow;
            1
        }
        None => 0,
    }
}

#[inline(always)]
fn flow(skb: u64, head: u64, at: u32, socket: u64, may_begin: bool) -> Option<Flow> {
    let mut parsed = MaybeUninit::<Parsed>::uninit();
    // SAFETY: `parse` writes all of it where it says that it read a packet.
    let parsed = unsafe { &mut *parsed.as_mut_ptr() };
    if parse(head, at, parsed) == 0 {
        return None;
    }
    let mut about = false;
    if parsed.inner != 0 {
        about = parsed.about != 0;
        let (inner, print) = (parsed.inner, parsed.print);
        if parse(head, u32::from(inner), parsed) == 0 {
            return None;
        }
        if about {
            // Errors about one packet may be many.
            parsed.print ^= print;
        }
    }
    let tuple = &parsed.tuple;
    if is_active() {
        // SAFETY: no arguments.
        let now = unsafe { bpf_ktime_get_ns() };
        if !about && let Some(followed) = PACKETS.get_ptr(skb) {
            // SAFETY: map values stay in place while the program runs.
            let Followed { flow, print } = unsafe { *followed };
            if print == parsed.print {
                if known(tuple, now).is_none() {
                    learn(tuple, flow.id, flow.direction, now);
                }
                return Some(flow);
            }
        }
        if let Some(Flow { id, direction }) = known(tuple, now) {
            let flow = Flow {
                id,
                // An error about a request goes the way of replies.
                direction: direction ^ u64::from(about),
            };
            if !about {
                keep(skb, flow, parsed.print);
            }
            return Some(flow);
        }
    }
    if about || !may_begin {
        return None;
    }
    let mut dialled = None;
    let direction = begins(tuple).or_else(|| {
        dialled = Some(dialled_by(socket as Pointer, tuple.protocol)?);
        // What comes back is known by the translated tuple, reversed.
        begins(dialled.as_ref()?).filter(|direction| *direction == Direction::Request)
    })?;
    // SAFETY: no arguments.
    let (now, cpu) = unsafe { (bpf_ktime_get_ns(), bpf_get_smp_processor_id()) };
    let flow = Flow {
        // Two processors may begin one at the same time.
        id: now & !0x3f | u64::from(cpu) & 0x3f,
        direction: direction as u64,
    };
    if let Some(active) = ACTIVE.get_ptr_mut(0) {
        // SAFETY: as above; all write the same.
        unsafe { *active = 1 };
    }
    learn(tuple, flow.id, flow.direction, now);
    if let Some(dialled) = &dialled {
        learn(dialled, flow.id, flow.direction, now);
    }
    keep(skb, flow, parsed.print);
    Some(flow)
}

/// What a socket of this host has as its own and its peer's address.
#[inline(always)]
fn dialled_by(socket: Pointer, protocol: u8) -> Option<Tuple> {
    if socket.is_null() {
        return None;
    }
    // SAFETY: a packet's socket, read with the helper that survives a wrong pointer.
    unsafe {
        let (source, destination) = addresses::<Probed>(socket);
        Some(Tuple {
            source,
            destination,
            source_port: local_port::<Probed>(socket),
            destination_port: peer_port::<Probed>(socket),
            protocol,
            zero: [0; 3],
        })
    }
}

/// The flow that this tuple is of, unless it has rested too long.
#[inline(always)]
fn known(tuple: &Tuple, now: u64) -> Option<Flow> {
    let known = FLOWS.get_ptr_mut(tuple)?;
    // SAFETY: map values stay in place while the program runs; all write much the same.
    unsafe {
        if now.wrapping_sub((*known).seen_ns) > IDLE_NS {
            return None;
        }
        (*known).seen_ns = now;
        Some((*known).flow)
    }
}

/// Knows the flow by this tuple, and by what comes back. Called, not inlined: on the stack of who calls it, which 512 bytes are all
/// of, three times the room for what is written here would be too much (5.10 to 6.12).
#[inline(never)]
fn learn(tuple: &Tuple, id: u64, direction: u64, now: u64) {
    let mut known = FlowEntry {
        flow: Flow { id, direction },
        seen_ns: now,
    };
    let there = FLOWS.insert(tuple, &known, 0);
    known.flow.direction ^= Direction::Request as u64 ^ Direction::Reply as u64;
    if there.is_err() || FLOWS.insert(tuple.reversed(), &known, 0).is_err() {
        lost(Loss::Flows);
        debug!("map FLOWS does not accept an entry: packets of a flow may be missed");
    }
}

/// Knows the packet by its memory, until it is another's.
#[inline(always)]
fn keep(skb: u64, flow: Flow, print: u64) {
    if PACKETS.insert(skb, &Followed { flow, print }, 0).is_err() {
        lost(Loss::Flows);
        debug!("map PACKETS does not accept an entry: a packet may be missed after its translation");
    }
}
