//! Counts of connections without a record, and of losses.

use core::mem::MaybeUninit;

use aya_ebpf::{
    bindings::BPF_NOEXIST,
    macros::map,
    maps::{HashMap, PerCpuArray},
};

use probe_ebpf::{
    contract::connection::{Counter, CounterKey, Loss, MAX_COUNTERS, second},
    kernel::{
        atomic::{add, add_one},
        copy::zero,
        log::debug,
    },
};

#[map]
static COUNTERS: HashMap<CounterKey, Counter> = HashMap::with_max_entries(MAX_COUNTERS, 0);

#[map]
static LOSSES: PerCpuArray<u64> = PerCpuArray::with_max_entries(Loss::ALL.len() as u32, 0);

/// A connection that ended, as far as it is counted.
pub struct Ended {
    pub ns: u64,
    pub client_bytes: u64,
    pub server_bytes: u64,
}

/// Adds one to the counter of `key`, or, when the table is full, to the one without its addresses.
#[inline(never)]
pub fn count(key: &CounterKey, ended: &Ended) {
    if let Some(counter) = counter(key) {
        return add_to(counter, ended);
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
    let port = key.port;
    if let Some(counter) = counter(other) {
        add_to(counter, ended);
        lost(Loss::Peer);
        debug!("map COUNTERS is full: connection at port {} counted without its addresses", port: u16);
    } else {
        lost(Loss::Count);
        debug!("map COUNTERS is full: connection at port {} not counted", port: u16);
    }
}

/// How many connections of this source have asked for a record in the second of `now`, this one included; 1 where it finds no
/// counter.
#[inline(never)]
pub fn asked(key: &CounterKey, now: u64) -> u64 {
    let Some(counter) = counter(key) else {
        return 1;
    };
    // SAFETY: map values stay in place while the program runs. Of two CPUs at once one may be forgotten: one too many is handed over;
    // what is not handed over is counted.
    unsafe {
        if (*counter).second != second(now) {
            (*counter).second = second(now);
            (*counter).asked = 0;
        }
        (*counter).asked += 1;
        (*counter).asked
    }
}

/// The counter of a key, made where there is none and there is room.
#[inline(always)]
fn counter(key: &CounterKey) -> Option<*mut Counter> {
    if let Some(counter) = COUNTERS.get_ptr_mut(key) {
        return Some(counter);
    }
    let mut new = MaybeUninit::<Counter>::uninit();
    // Another CPU may make the entry meanwhile: then the insert fails, and the second lookup finds it.
    // SAFETY: zero is a value of it.
    unsafe {
        zero(new.as_mut_ptr());
        let _ = COUNTERS.insert(key, &*new.as_ptr(), u64::from(BPF_NOEXIST));
    }
    COUNTERS.get_ptr_mut(key)
}

#[inline(always)]
fn add_to(counter: *mut Counter, ended: &Ended) {
    // SAFETY: map values stay in place while the program runs.
    unsafe {
        add_one(&raw mut (*counter).connections);
        // Most of what storms are made of carries nothing.
        if ended.client_bytes | ended.server_bytes != 0 {
            add(&raw mut (*counter).client_bytes, ended.client_bytes);
            add(&raw mut (*counter).server_bytes, ended.server_bytes);
        }
        if (*counter).first_ns == 0 {
            (*counter).first_ns = ended.ns;
        }
        (*counter).last_ns = ended.ns;
    }
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
