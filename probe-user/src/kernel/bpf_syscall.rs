//! bpf(2), for what aya has no function for.

use std::{io, ptr};

use aya_obj::generated::{bpf_attr, bpf_cmd};

/// What the kernel answers, which is not negative.
///
/// # Safety
/// What `attributes` points to is there, as long as `command` takes it for.
pub unsafe fn bpf(command: bpf_cmd, attributes: &mut bpf_attr) -> io::Result<i32> {
    let size = size_of::<bpf_attr>();
    // SAFETY: the caller's, and `attributes` has the given length. Older kernels take the longer one whose end is zero.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command as libc::c_long,
            ptr::from_mut(attributes),
            size,
        )
    };
    match i32::try_from(result) {
        Ok(answer @ 0..) => Ok(answer),
        Ok(_) | Err(_) => Err(io::Error::last_os_error()),
    }
}
