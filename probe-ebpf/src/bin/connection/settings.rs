//! What user space asked for: read-only globals, as [`globals`](probe_ebpf::kernel::globals).

use core::mem::zeroed;

use probe_ebpf::contract::connection::{Ports, Settings};

// SAFETY: both are `Zeroable`.
#[unsafe(no_mangle)]
pub static SETTINGS: Settings = unsafe { zeroed() };
// SAFETY: as above.
#[unsafe(no_mangle)]
pub static PORTS: Ports = unsafe { zeroed() };

/// One member of [`SETTINGS`]: `setting!(roles)`.
macro_rules! setting {
    ($name:ident) => {
        probe_ebpf::kernel::globals::filled(&$crate::settings::SETTINGS.$name)
    };
}

pub(crate) use setting;
