//! Memory that loading needed and running does not.

/// Gives freed heap back to the system. Loading reads some 10 MB of type information; without this they would stay
/// resident for as long as probe runs.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: no arguments that matter, and it touches nothing but the allocator's own free lists.
    unsafe {
        libc::malloc_trim(0);
    }
}
