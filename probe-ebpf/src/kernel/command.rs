//! Command lines, taken once a process: one that lives a few milliseconds is gone before user space looks.

use aya_ebpf::{
    helpers::generated::bpf_probe_read_user,
    macros::map,
    maps::{LruHashMap, PerCpuArray},
};

use super::{
    globals::offset,
    read::{Memory, Pointer, Probed, pointer},
};
use crate::contract::connection::{COMMAND_BYTES, Command};

#[map]
static COMMANDS: LruHashMap<u32, Command> = LruHashMap::with_max_entries(4096, 0);

#[map]
static COMMAND_SCRATCH: PerCpuArray<Command> = PerCpuArray::with_max_entries(1, 0);

/// Keeps the command line of the process on the CPU, unless it is known.
///
/// # Safety
/// `task` is the task_struct on the CPU, of process `pid` started at `start_boot_ns`.
#[inline(always)]
pub unsafe fn remember<M: Memory>(task: Pointer, pid: u32, start_boot_ns: u64) {
    // SAFETY: a value of the map, read while the program runs.
    let known = COMMANDS.get_ptr(pid).is_some_and(|command| unsafe { (*command).start_boot_ns } == start_boot_ns);
    if !known {
        // SAFETY: the caller's.
        unsafe { take(task, pid, start_boot_ns) };
    }
}

/// # Safety
/// As [`remember`].
#[inline(never)]
unsafe fn take(task: Pointer, pid: u32, start_boot_ns: u64) {
    let Some(command) = COMMAND_SCRATCH.get_ptr_mut(0) else { return };
    // SAFETY: the scratch slot is this CPU's; offsets are of the structs the pointers lead to.
    unsafe {
        let mm = pointer::<Probed>(task, offset!(task_mm));
        let start = Probed::read::<u64>(mm, offset!(mm_arg_start));
        let end = Probed::read::<u64>(mm, offset!(mm_arg_end));
        let full = end.wrapping_sub(start);
        // Not beyond the end of the arguments: the environment follows, and may hold secrets.
        let mut length = if full < COMMAND_BYTES as u64 { full as u32 } else { COMMAND_BYTES as u32 };
        // The page may be swapped out, which this hook can't wait for.
        if bpf_probe_read_user((&raw mut (*command).bytes).cast(), length, start as *const _) != 0 {
            length = 0;
        }
        (*command).start_boot_ns = start_boot_ns;
        (*command).length = length;
        (*command).full_length = full as u32;
        let _ = COMMANDS.insert(pid, &*command, 0);
    }
}
