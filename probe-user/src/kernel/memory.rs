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

/// Gives back to the system what the start needed and running does not: freed heap, of which reading the kernel's types leaves
/// some 10 MB, and the pages of this program's code and constants, of which the start touches nearly all. Those that are used
/// again are still in the page cache.
pub fn give_back() {
    trim_heap();
    // SAFETY: the callback keeps nothing that it is lent, and does not unwind.
    unsafe {
        libc::dl_iterate_phdr(Some(unmap_program), std::ptr::null_mut());
    }
}

/// Gives freed heap back to the system.
pub fn trim_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: no arguments that matter, and it touches nothing but the allocator's own free lists.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Unmaps the pages of the first object, which is the program itself, where they are only ever read.
unsafe extern "C" fn unmap_program(
    info: *mut libc::dl_phdr_info,
    _size: libc::size_t,
    _data: *mut libc::c_void,
) -> libc::c_int {
    const STOP: libc::c_int = 1;
    let page = page_size();
    // SAFETY: the loader hands over a valid description, with as many headers as it says.
    let (base, headers) = unsafe {
        let info = &*info;
        let headers = std::slice::from_raw_parts(info.dlpi_phdr, info.dlpi_phnum.into());
        (info.dlpi_addr as usize, headers)
    };
    for header in headers {
        if header.p_type != libc::PT_LOAD || header.p_flags & libc::PF_W != 0 {
            continue;
        }
        let start = (base + header.p_vaddr as usize) / page * page;
        let end = base + (header.p_vaddr + header.p_memsz) as usize;
        // SAFETY: a private mapping of a file that was never written to: the next access reads the file's page again.
        // Refused where it is locked in memory: then it stays.
        unsafe {
            libc::madvise(start as *mut libc::c_void, end - start, libc::MADV_DONTNEED);
        }
    }
    STOP
}

/// What this process has in memory, bytes; 0 where that can't be read.
pub fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: u64 = statm
        .split(' ')
        .nth(1)
        .and_then(|pages| pages.parse().ok())
        .unwrap_or(0);
    pages * page_size() as u64
}

fn page_size() -> usize {
    let size = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE);
    let size = size.ok().flatten().and_then(|size| usize::try_from(size).ok());
    size.unwrap_or(4096)
}
