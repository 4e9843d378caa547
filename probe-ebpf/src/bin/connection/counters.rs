//! Counts of connections without a record, and of losses.

use core::mem::MaybeUninit;

use aya_ebpf::{
    bindings::BPF_NOEXIST,
    macros::map,
    maps::{HashMap, PerCpuArray},
};

use probe_ebpf::{
    contract::connection::{CounterKey, Loss, MAX_COUNTERS},
    kernel::{atomic::add_one, copy::zero, log::debug},
};

#[map]
static COUNTERS: HashMap<CounterKey, u64> = HashMap::with_max_entries(MAX_COUNTERS, 0);

#[map]
static LOSSES: PerCpuArray<u64> = PerCpuArray::with_max_entries(Loss::ALL.len() as u32, 0);

/// Adds one to the counter of `key`, or, when the table is full, to the one without its peer.
#[inline(never)]
pub fn count(key: &CounterKey) {
    if add(key) {
        return;
    }
    let mut other = MaybeUninit::<CounterKey>::uninit();
    // SAFETY: zero is a value of it; through a pointer, or the compiler calls `memset`.
    let other = unsafe {
        let other = other.as_mut_ptr();
        zero(other);
        (*other).netns = key.netns;
        (*other).port = key.port;
        (*other).role = key.role;
        (*other).outcome = key.outcome;
        &*other
    };
    let counted = add(other);
    let port = key.port;
    if counted {
        debug!("map COUNTERS is full: connection at port {} counted without its peer", port: u16);
    } else {
        debug!("map COUNTERS is full: connection at port {} not counted", port: u16);
    }
    lost(if counted { Loss::Peer } else { Loss::Count });
}

#[inline(always)]
fn add(key: &CounterKey) -> bool {
    if increment(key) {
        return true;
    }
    // Another CPU may have made the entry meanwhile: then the insert fails, and the second look finds it.
    COUNTERS.insert(key, &1, u64::from(BPF_NOEXIST)).is_ok() || increment(key)
}

#[inline(always)]
fn increment(key: &CounterKey) -> bool {
    let Some(count) = COUNTERS.get_ptr_mut(key) else {
        return false;
    };
    // SAFETY: map values stay in place while the program runs.
    unsafe { add_one(count) };
    true
}

/// Counts something that could not be kept.
#[inline(always)]
pub fn lost(loss: Loss) {
    if let Some(count) = LOSSES.get_ptr_mut(loss as u32) {
        // This CPU's own slot, but an interrupt may bring another program in between.
        // SAFETY: map values stay in place while the program runs.
        unsafe { add_one(count) };
    }
}
