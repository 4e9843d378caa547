//! What could not be kept.

use aya_ebpf::{macros::map, maps::PerCpuArray};
use probe_ebpf::{contract::vxlan::Loss, kernel::atomic::add_one};

#[map]
static LOSSES: PerCpuArray<u64> = PerCpuArray::with_max_entries(Loss::ALL.len() as u32, 0);

#[inline(always)]
pub fn lost(loss: Loss) {
    if let Some(count) = LOSSES.get_ptr_mut(loss as u32) {
        // SAFETY: map values stay in place while the program runs.
        unsafe { add_one(count) };
    }
}
