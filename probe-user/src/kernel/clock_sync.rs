//! Whether the kernel's clock is kept.

use std::mem::MaybeUninit;

/// What the kernel says of its clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Somebody sets it by another clock.
    pub synchronised: bool,
    /// How far off it may be, microseconds, as who keeps it says.
    pub maximal_error_us: i64,
}

/// Asks; `None` where a sandbox does not let it be asked.
pub fn kept() -> Option<Kept> {
    let mut time = MaybeUninit::<libc::timex>::zeroed();
    // SAFETY: a timex of zeros is valid and asks for no change (modes 0); the kernel writes within it.
    let state = unsafe { libc::adjtimex(time.as_mut_ptr()) };
    if state < 0 {
        return None;
    }
    // SAFETY: it was zeroed, and every bit pattern is one of a timex.
    let time = unsafe { time.assume_init() };
    Some(Kept {
        synchronised: state != libc::TIME_ERROR && time.status & libc::STA_UNSYNC == 0,
        maximal_error_us: time.maxerror,
    })
}
