//! Records to user space.

use aya_ebpf::{
    bindings::{BPF_RB_AVAIL_DATA, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP},
    maps::{RingBuf, ring_buf::RingBufEntry},
};

use crate::settings::setting;

/// Submits a record made at `now`. The reader looks on a timer by itself; waking it for each record would cost more
/// than all else here, so it is woken only when the ring fills, and only one record in sixteen, by the time's
/// arbitrary bits, looks whether it does: the question costs a call.
#[inline(always)]
pub fn submit<T: 'static>(ring: &RingBuf, entry: RingBufEntry<T>, now: u64) {
    let full =
        now >> 8 & 15 == 0 && ring.query(u64::from(BPF_RB_AVAIL_DATA)) >= u64::from(setting!(wake_bytes));
    entry.submit(u64::from(if full {
        BPF_RB_FORCE_WAKEUP
    } else {
        BPF_RB_NO_WAKEUP
    }));
}
