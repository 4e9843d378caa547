//! A BPF program that returns at once: what it takes is what measuring costs.

use std::{
    ffi::CStr,
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

use anyhow::{Context, Result};

use super::statistics::Runs;

const BPF_PROG_LOAD: i64 = 5;
const BPF_RAW_TRACEPOINT_OPEN: i64 = 17;
const BPF_PROG_TYPE_RAW_TRACEPOINT: u32 = 17;

/// `union bpf_attr` of BPF_PROG_LOAD, as far as it is needed.
#[repr(C)]
struct Load {
    program_type: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
    rest: [u64; 12],
}

/// The same of BPF_RAW_TRACEPOINT_OPEN.
#[repr(C)]
struct Open {
    name: u64,
    program: u32,
    rest: u32,
}

/// The program, attached as long as this lives.
pub struct Bare {
    program: OwnedFd,
    _link: OwnedFd,
}

impl Bare {
    /// Attaches it to a raw tracepoint.
    pub fn attach(tracepoint: &CStr) -> Result<Self> {
        // r0 = 0; exit
        let instructions: [u64; 2] = [0xb7, 0x95];
        let load = Load {
            program_type: BPF_PROG_TYPE_RAW_TRACEPOINT,
            instruction_count: 2,
            instructions: instructions.as_ptr() as u64,
            license: c"Dual MIT/GPL".as_ptr() as u64,
            rest: [0; 12],
        };
        // SAFETY: `load` is a whole attribute of this command, and what it points to outlives the call.
        let program =
            unsafe { bpf(BPF_PROG_LOAD, &load) }.context("can't load a program of two instructions")?;
        let open = Open {
            name: tracepoint.as_ptr() as u64,
            program: program.as_raw_fd().cast_unsigned(),
            rest: 0,
        };
        // SAFETY: as above.
        let link = unsafe { bpf(BPF_RAW_TRACEPOINT_OPEN, &open) }
            .with_context(|| format!("can't attach to {}", tracepoint.to_string_lossy()))?;
        Ok(Self { program, _link: link })
    }

    pub fn runs(&self) -> Result<Runs> {
        Runs::of_descriptor(self.program.as_raw_fd())
    }
}

/// A bpf() call that returns a descriptor.
///
/// # Safety
/// `attribute` is what `command` expects, zero where it expects nothing, and points to live memory.
unsafe fn bpf<T>(command: i64, attribute: &T) -> io::Result<OwnedFd> {
    // SAFETY: the caller's.
    let descriptor = unsafe { libc::syscall(libc::SYS_bpf, command, attribute, size_of::<T>()) };
    match i32::try_from(descriptor) {
        // SAFETY: the kernel just made it, and nobody else has it.
        Ok(descriptor @ 0..) => Ok(unsafe { OwnedFd::from_raw_fd(descriptor) }),
        _ => Err(io::Error::last_os_error()),
    }
}
