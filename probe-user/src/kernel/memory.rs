//! Memory: the limit that old kernels set, and what loading needs and running does not.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Before 5.11 maps counted against RLIMIT_MEMLOCK, 64 KiB by default.
pub fn raise_limit() {
    // Refused without CAP_SYS_RESOURCE, and needless on newer kernels: loading says so if it did matter.
    let _ = setrlimit(Resource::RLIMIT_MEMLOCK, libc::RLIM_INFINITY, libc::RLIM_INFINITY);
}

/// Runs `make` while no file can be opened. For aya's loader, which reads and builds all of the kernel's types
/// before it can be asked not to, and goes on without: measured 15 MB and 30 ms.
pub fn without_files<T>(make: impl FnOnce() -> T) -> T {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else {
        return make();
    };
    let _ = setrlimit(Resource::RLIMIT_NOFILE, 0, hard);
    let made = make();
    let _ = setrlimit(Resource::RLIMIT_NOFILE, soft, hard);
    made
}

/// Gives freed heap back to the system. Loading reads some 10 MB of type information; without this they would stay
/// resident for as long as probe runs.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: no arguments that matter, and it touches nothing but the allocator's own free lists.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// What this process has in memory, bytes; 0 where that can't be read.
pub fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: u64 = statm
        .split(' ')
        .nth(1)
        .and_then(|pages| pages.parse().ok())
        .unwrap_or(0);
    let size = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE)
        .ok()
        .flatten();
    pages * size.and_then(|size| u64::try_from(size).ok()).unwrap_or(4096)
}
