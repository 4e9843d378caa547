//! Atomic instructions that core does not have for BPF targets.

use core::arch::asm;

/// Adds one. Kernel 3.18.
///
/// # Safety
/// `count` is a value of a map, aligned to 8 bytes.
#[inline(always)]
pub unsafe fn add_one(count: *mut u64) {
    // SAFETY: the caller's.
    unsafe { add(count, 1) };
}

/// Adds a number. Kernel 3.18.
///
/// # Safety
/// `sum` is a value of a map, aligned to 8 bytes.
#[inline(always)]
pub unsafe fn add(sum: *mut u64, number: u64) {
    // SAFETY: the caller's.
    unsafe { asm!("lock *(u64 *)({0} + 0) += {1}", in(reg) sum, in(reg) number) };
}

/// Writes `new` if `old` is there, atomically and with a full barrier; whether it did. Kernel 5.12.
///
/// # Safety
/// `at` is a value of a map, aligned to 8 bytes.
#[inline(always)]
pub unsafe fn exchange(at: *mut u64, old: u64, new: u64) -> bool {
    let found: u64;
    // SAFETY: the caller's.
    unsafe {
        asm!("r0 = cmpxchg_64({at} + 0, r0, {new})", at = in(reg) at, new = in(reg) new, inout("r0") old => found);
    }
    found == old
}
