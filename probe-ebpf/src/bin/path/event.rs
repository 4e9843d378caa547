//! Events to user space.

use aya_ebpf::{
    helpers::generated::{bpf_get_smp_processor_id, bpf_ktime_get_ns, bpf_probe_read_kernel},
    macros::map,
    maps::{PerCpuArray, RingBuf},
};
use probe_ebpf::{
    contract::{
        offsets::ABSENT,
        path::{Event, Flow, Loss, Point, SNAP},
    },
    kernel::{
        globals::offset,
        log::debug,
        read::{Memory, Pointer, Probed},
    },
};

use crate::{follow::lost, settings::setting};

/// Made anew by user space, as large as it wants.
#[map]
static EVENTS: RingBuf = RingBuf::with_byte_size(1 << 12, 0);

/// Events that this CPU emitted in the current second.
#[repr(C)]
struct Emitted {
    second: u64,
    events: u64,
}

#[map]
static EMITTED: PerCpuArray<Emitted> = PerCpuArray::with_max_entries(1, 0);

/// Where a packet was seen, and what there is to say of that.
#[derive(Clone, Copy)]
pub struct Observation {
    pub point: Point,
    /// Where its IP header is.
    pub head: Pointer,
    pub at: u16,
    pub netns: u32,
    /// Null: it has none yet.
    pub device: Pointer,
    pub detail: u32,
    pub result: i32,
    pub location: u64,
}

/// Whether this second has room for another event.
#[inline(always)]
fn is_within_budget(now: u64) -> bool {
    let Some(emitted) = EMITTED.get_ptr_mut(0) else {
        return false;
    };
    let second = now >> 30;
    // SAFETY: this CPU's own.
    unsafe {
        if (*emitted).second != second {
            (*emitted).second = second;
            (*emitted).events = 0;
        }
        (*emitted).events += 1;
        (*emitted).events <= u64::from(setting!(budget))
    }
}

/// Called, not inlined: each program has it. All is read with the helper that survives a wrong pointer.
#[inline(never)]
pub fn emit(skb: u64, flow: &Flow, observation: &Observation) {
    let skb = skb as Pointer;
    // SAFETY: no arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    if !is_within_budget(now) {
        lost(Loss::Budget);
        debug!("more events than this second has room for: one left out");
        return;
    }
    let Some(mut entry) = EVENTS.reserve::<Event>(0) else {
        lost(Loss::Ring);
        debug!("ring EVENTS is full: event lost");
        return;
    };
    let event = entry.as_mut_ptr();
    // SAFETY: the entry is an event's room, of which every byte is written but what is behind the packet's end, where bytes of
    // earlier events are; the rest is the caller's.
    unsafe {
        let length = Probed::read::<u32>(skb, offset!(skb_length));
        let paged = Probed::read::<u32>(skb, offset!(skb_paged));
        let data = Probed::read::<u64>(skb, offset!(skb_data));
        let tail = (data.wrapping_sub(observation.head as u64) as u32)
            .wrapping_add(length)
            .wrapping_sub(paged);
        let there = tail.wrapping_sub(u32::from(observation.at));
        (*event).time_ns = now;
        (*event).flow = flow.id;
        (*event).skb = skb as u64;
        (*event).location = observation.location;
        (*event).conntrack = if offset!(skb_conntrack) == ABSENT {
            0
        } else {
            Probed::read::<u64>(skb, offset!(skb_conntrack))
        };
        (*event).netns = observation.netns;
        (*event).device = if observation.device.is_null() {
            0
        } else {
            Probed::read::<u32>(observation.device, offset!(device_index))
        };
        (*event).input = Probed::read::<u32>(skb, offset!(skb_input));
        (*event).mark = Probed::read::<u32>(skb, offset!(skb_mark));
        (*event).detail = observation.detail;
        (*event).result = observation.result;
        let end = Probed::read::<u32>(skb, offset!(skb_end));
        (*event).segments = Probed::read::<u16>(
            observation.head.wrapping_add(end as usize),
            offset!(shared_segments),
        );
        (*event).point = observation.point as u8;
        (*event).direction = flow.direction as u8;
        (*event).cpu = bpf_get_smp_processor_id() as u16;
        // Zeroed where it can't be read.
        bpf_probe_read_kernel(
            (&raw mut (*event).name).cast(),
            16,
            observation
                .device
                .wrapping_add(offset!(device_name) as usize)
                .cast(),
        );
        let snapped = if there > SNAP as u32 { SNAP as u32 } else { there };
        (*event).snapped = snapped as u16;
        bpf_probe_read_kernel(
            (&raw mut (*event).snap).cast(),
            // Constant, as all verifiers want it; what is behind the end is not looked at.
            SNAP as u32,
            observation.head.wrapping_add(usize::from(observation.at)).cast(),
        );
    }
    // The reader looks on a timer.
    entry.submit(u64::from(aya_ebpf::bindings::BPF_RB_NO_WAKEUP));
}
