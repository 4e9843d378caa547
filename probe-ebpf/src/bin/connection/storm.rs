//! How many records are handed over one by one. Of a storm, many connections of the same sources, the rest is counted.

use aya_ebpf::{macros::map, maps::Array};
use probe_ebpf::{
    contract::connection::{CounterKey, StormLimit, second},
    kernel::atomic::add_one,
};

use crate::counters::asked;

#[map]
static STORM_LIMIT: Array<StormLimit> = Array::with_max_entries(1, 0);

/// What happened in the current second.
#[repr(C)]
struct Second {
    number: u64,
    ended: u64,
    /// Handed over of those beyond the limit.
    samples: u64,
}

#[map]
static SECONDS: Array<Second> = Array::with_max_entries(1, 0);

/// Whether a connection that ends `now` gets a record. `key` is asked for in a storm only.
#[inline(always)]
pub fn is_told(now: u64, key: impl FnOnce() -> CounterKey) -> bool {
    let Some(limit) = STORM_LIMIT.get(0) else {
        return true;
    };
    if limit.records == StormLimit::UNLIMITED {
        return true;
    }
    let Some(this) = SECONDS.get_ptr_mut(0) else {
        return true;
    };
    // SAFETY: a value of the map. CPUs that begin a second at once may forget some of what ended in it; the limit is no exact
    // number, and what is not handed over is counted.
    unsafe {
        if (&raw const (*this).number).read_volatile() != second(now) {
            (&raw mut (*this).number).write_volatile(second(now));
            (&raw mut (*this).ended).write_volatile(0);
            (&raw mut (*this).samples).write_volatile(0);
        }
        add_one(&raw mut (*this).ended);
        if (&raw const (*this).ended).read_volatile() <= limit.records {
            return true;
        }
        let samples = (&raw const (*this).samples).read_volatile();
        if samples >= limit.records {
            return false;
        }
        let each = if samples < limit.records / 2 {
            limit.samples
        } else {
            1
        };
        let is_sample = asked(&key(), now) <= each;
        if is_sample {
            add_one(&raw mut (*this).samples);
        }
        is_sample
    }
}
