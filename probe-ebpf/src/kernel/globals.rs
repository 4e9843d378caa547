//! Read-only globals that user space fills before load. `.rodata` is frozen by then, so the verifier knows each
//! value as a constant and drops the branches it rules out.

use core::mem::zeroed;

use crate::contract::offsets::Offsets;

// SAFETY: it is `Zeroable`.
#[unsafe(no_mangle)]
pub static OFFSETS: Offsets = unsafe { zeroed() };

/// Reads a global as the kernel will have filled it: volatile, or the compiler would use the zero it sees here.
#[inline(always)]
pub fn filled<T: Copy>(global: &'static T) -> T {
    // SAFETY: a reference is readable.
    unsafe { (&raw const *global).read_volatile() }
}

/// One member of [`OFFSETS`]: `offset!(family)`.
#[macro_export]
macro_rules! offset {
    ($name:ident) => {
        $crate::kernel::globals::filled(&$crate::kernel::globals::OFFSETS.$name)
    };
}

pub use offset;
