//! The process on the CPU: name, command line, control group.

use aya_ebpf::{
    helpers::generated::{bpf_get_current_uid_gid, bpf_probe_read_user},
    macros::map,
    maps::{LruHashMap, PerCpuArray},
};

use probe_ebpf::{
    contract::{
        connection::{CGROUP_V2, COMMAND_BYTES, CgroupPath, Process, Task},
        offsets::ABSENT,
    },
    kernel::{
        cgroup,
        globals::offset,
        log::debug,
        read::{Memory, Pointer, Probed, bytes, pointer, sixteen},
    },
};

use crate::settings::setting;

/// `task_struct.flags`: a kernel thread (`include/linux/sched.h`, unchanged since 2.6).
const PF_KTHREAD: u32 = 0x0020_0000;

#[map]
static PROCESSES: LruHashMap<u32, Process> = LruHashMap::with_max_entries(4096, 0);

// One for each of the two programs: where tracepoints can be preempted (PREEMPT_RT, and full preemption), the second may run for
// another process in the middle of the first, and must not leave its command line there.

#[map]
static PROCESS_SCRATCH: PerCpuArray<Process> = PerCpuArray::with_max_entries(2, 0);

#[map]
static CGROUPS: LruHashMap<u64, CgroupPath> = LruHashMap::with_max_entries(2048, 0);

#[map]
static CGROUP_SCRATCH: PerCpuArray<CgroupPath> = PerCpuArray::with_max_entries(2, 0);

/// Writes the process on the CPU to `to`; leaves it as it is in a kernel thread, which closes sockets for others.
///
/// Only from hooks that run in the process that acts: connect, shutdown and close do.
///
/// # Safety
/// `to` is writable.
#[inline(always)]
pub unsafe fn current<M: Memory, const RUN: bool>(to: *mut Task) {
    let task = M::current();
    // SAFETY: a task_struct; offsets are of its members; `to` is the caller's.
    unsafe {
        if M::read::<u32>(task, offset!(task_flags)) & PF_KTHREAD != 0 {
            return;
        }
        // The leader's name is the process's; threads may have names of their own. Three loads are of it, so it is worth a typed
        // one; the other pointers are not.
        let leader = pointer::<M>(task, offset!(task_leader));
        let pid = M::read::<u32>(task, offset!(task_tgid));
        let start = M::read::<u64>(leader, offset!(task_start));
        (*to).cgroup = cgroup::<RUN>(task, pid, start);
        (*to).start_boot_ns = start;
        (*to).pid = pid;
        // Of the process on the CPU the helper says it without two reads of memory.
        (*to).uid = bpf_get_current_uid_gid() as u32;
        (*to).name = bytes(sixteen::<M>(leader, offset!(task_name)));
    }
}

/// The id of the process's control group, 0 without control groups. What else is kept of a process and a control
/// group is taken here when either is new.
///
/// # Safety
/// `task` is the task_struct on the CPU.
#[inline(always)]
unsafe fn cgroup<const RUN: bool>(task: Pointer, pid: u32, start: u64) -> u64 {
    // SAFETY: the caller's; values of the map stay in place while the program runs.
    unsafe {
        let set = match offset!(task_cgroups) {
            ABSENT => 0,
            offset => pointer::<Probed>(task, offset) as u64,
        };
        let same = |known: &*const Process| {
            (**known).pid == pid && (**known).start_boot_ns == start && (**known).cgroup_set == set
        };
        // The scratch slot is the process that this CPU took last, often the one that connects again now; an array
        // costs no call.
        if let Some(last) = PROCESS_SCRATCH.get_ptr(u32::from(RUN)).filter(same) {
            return (*last).cgroup;
        }
        match PROCESSES.get_ptr(pid).filter(same) {
            Some(known) => (*known).cgroup,
            None => take::<RUN>(task, pid, start, set),
        }
    }
}

/// # Safety
/// `task` is the task_struct on the CPU, of the process `pid` started at `start`, and `set` its css_set.
#[inline(never)]
unsafe fn take<const RUN: bool>(task: Pointer, pid: u32, start: u64, set: u64) -> u64 {
    let Some(process) = PROCESS_SCRATCH.get_ptr_mut(u32::from(RUN)) else {
        return 0;
    };
    // SAFETY: the scratch slot is this CPU's; offsets are of the structs the pointers lead to.
    unsafe {
        let cgroup = take_cgroup::<RUN>(set as Pointer);
        let mm = pointer::<Probed>(task, offset!(task_mm));
        let from = Probed::read::<u64>(mm, offset!(mm_arg_start));
        let full = Probed::read::<u64>(mm, offset!(mm_arg_end)).wrapping_sub(from);
        // Not beyond the end of the arguments: the environment follows, and may hold secrets.
        let mut length = if full < COMMAND_BYTES as u64 {
            full as u32
        } else {
            COMMAND_BYTES as u32
        };
        // The page may be swapped out, which this hook can't wait for.
        if bpf_probe_read_user((&raw mut (*process).command).cast(), length, from as *const _) != 0 {
            debug!("command line of process {} can't be read: {} bytes", pid: u32, length: u32);
            length = 0;
        }
        (*process).pid = pid;
        (*process).start_boot_ns = start;
        (*process).cgroup_set = set;
        (*process).cgroup = cgroup;
        (*process).length = length;
        (*process).full_length = full as u32;
        // An LRU map takes every new entry, at the cost of the oldest; user space has copied that one long since.
        if PROCESSES.insert(pid, &*process, 0).is_err() {
            debug!("map PROCESSES does not accept process {}", pid: u32);
        }
        cgroup
    }
}

/// The id of the control group of a css_set; its path is kept in [`CGROUPS`].
///
/// # Safety
/// `set` is a css_set or null.
#[inline(always)]
unsafe fn take_cgroup<const RUN: bool>(set: Pointer) -> u64 {
    if offset!(task_cgroups) == ABSENT || offset!(node_id) == ABSENT {
        return 0;
    }
    // SAFETY: the caller's; every offset is of the struct the pointer before it leads to.
    unsafe {
        let subsystem = setting!(cgroup_subsystem);
        let cgroup = if subsystem == CGROUP_V2 {
            pointer::<Probed>(set, offset!(css_set_v2))
        } else {
            let state = pointer::<Probed>(
                set,
                offset!(css_set_subsystems) + subsystem * size_of::<Pointer>() as u32,
            );
            pointer::<Probed>(state, offset!(css_cgroup))
        };
        let (node, id) = cgroup::node(cgroup);
        if CGROUPS.get_ptr(id).is_some() {
            return id;
        }
        let Some(path) = CGROUP_SCRATCH.get_ptr_mut(u32::from(RUN)) else {
            return id;
        };
        cgroup::names(node, path);
        if CGROUPS.insert(id, &*path, 0).is_err() {
            debug!("map CGROUPS does not accept control group {}", id: u64);
        }
        id
    }
}
