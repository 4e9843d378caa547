//! Has the kernel count how often and how long it runs BPF programs.

use std::os::fd::OwnedFd;

use aya::sys::{Stats, enable_stats};

use crate::error::chain;

/// For as long as this lives. Kernel 5.8; CAP_SYS_ADMIN.
pub struct Statistics {
    _held: OwnedFd,
}

impl Statistics {
    /// # Errors
    /// The kernel's, as a sentence.
    pub fn enable() -> Result<Self, String> {
        enable_stats(Stats::RunTime)
            .map(|held| Self { _held: held })
            .map_err(|error| chain(&error))
    }
}
