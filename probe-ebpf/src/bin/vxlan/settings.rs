//! What user space asked for, and which UDP ports carry VXLAN.

use core::mem::zeroed;

use aya_ebpf::{
    helpers::generated::{bpf_ktime_get_coarse_ns, bpf_ktime_get_ns},
    macros::map,
    maps::Array,
};
use probe_ebpf::contract::vxlan::Settings;

// SAFETY: it is `Zeroable`.
#[unsafe(no_mangle)]
pub static VXLAN: Settings = unsafe { zeroed() };

#[map]
static PORTS: Array<u64> = Array::with_max_entries(1024, 0);

/// One member of [`VXLAN`]: `setting!(flows)`.
macro_rules! setting {
    ($name:ident) => {
        probe_ebpf::kernel::globals::filled(&$crate::settings::VXLAN.$name)
    };
}

pub(crate) use setting;

/// `CLOCK_MONOTONIC`, nanoseconds.
#[inline(always)]
pub fn now() -> u64 {
    // SAFETY: no arguments.
    unsafe { bpf_ktime_get_ns() }
}

/// The same, to some milliseconds where the kernel has a cheaper clock. Only for tc programs: no kernel gives it to
/// tracing programs.
#[inline(always)]
pub fn about_now() -> u64 {
    if setting!(coarse) != 0 {
        // SAFETY: no arguments. The verifier of a kernel without it never comes here.
        unsafe { bpf_ktime_get_coarse_ns() }
    } else {
        now()
    }
}

/// Whether a UDP port carries VXLAN.
#[inline(always)]
pub fn carries(port: u16) -> bool {
    PORTS
        .get(u32::from(port >> 6))
        .is_some_and(|word| *word >> (port & 63) & 1 != 0)
}
