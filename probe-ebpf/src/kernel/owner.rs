//! The process on the CPU, and its control group.

use aya_ebpf::{
    helpers::generated::{bpf_get_current_uid_gid, bpf_probe_read_kernel_str},
    macros::map,
    maps::{LruHashMap, PerCpuArray},
};

use super::{
    command,
    globals::{offset, setting},
    read::{Memory, Pointer, Probed, bytes, pointer, sixteen},
};
use crate::contract::{
    connection::{CGROUP_LEVELS, CGROUP_NAME, CGROUP_V2, CgroupPath, Task},
    offsets::ABSENT,
};

/// `task_struct.flags`: a kernel thread (`include/linux/sched.h`, unchanged since 2.6).
const PF_KTHREAD: u32 = 0x0020_0000;

#[map]
static CGROUPS: LruHashMap<u64, CgroupPath> = LruHashMap::with_max_entries(2048, 0);

#[map]
static CGROUP_SCRATCH: PerCpuArray<CgroupPath> = PerCpuArray::with_max_entries(1, 0);

/// The process on the CPU; `None` in a kernel thread, which closes sockets for others.
///
/// Only from hooks that run in the process that acts: connect, shutdown and close do.
#[inline(always)]
pub fn current<M: Memory>() -> Option<Task> {
    let task = M::current();
    // SAFETY: a task_struct; offsets are of its members.
    unsafe {
        if M::read::<u32>(task, offset!(task_flags)) & PF_KTHREAD != 0 {
            return None;
        }
        // The leader's name is the process's; threads may have names of their own.
        let leader = pointer::<M>(task, offset!(task_leader));
        let pid = M::read::<u32>(task, offset!(task_tgid));
        let start_boot_ns = M::read::<u64>(leader, offset!(task_start));
        command::remember::<M>(task, pid, start_boot_ns);
        Some(Task {
            cgroup: cgroup::<M>(task),
            start_boot_ns,
            pid,
            uid: bpf_get_current_uid_gid() as u32,
            name: bytes(sixteen::<M>(leader, offset!(task_name))),
        })
    }
}

/// The id of the task's control group; its path is kept in [`CGROUPS`] when it is new. 0 without control groups.
///
/// # Safety
/// `task` is a task_struct.
#[inline(always)]
unsafe fn cgroup<M: Memory>(task: Pointer) -> u64 {
    if offset!(task_cgroups) == ABSENT || offset!(node_id) == ABSENT {
        return 0;
    }
    // SAFETY: the caller's; every offset is of the struct the pointer before it leads to.
    unsafe {
        let set = pointer::<M>(task, offset!(task_cgroups));
        let subsystem = setting!(cgroup_subsystem);
        let cgroup = if subsystem == CGROUP_V2 {
            pointer::<M>(set, offset!(css_set_v2))
        } else {
            let state = pointer::<M>(set, offset!(css_set_subsystems) + subsystem * size_of::<Pointer>() as u32);
            pointer::<M>(state, offset!(css_cgroup))
        };
        let node = pointer::<M>(cgroup, offset!(cgroup_node));
        let id = M::read::<u64>(node, offset!(node_id));
        if CGROUPS.get_ptr(id).is_none() {
            remember_cgroup(id, node);
        }
        id
    }
}

/// Keeps the names from `node` up: a container's control group may be gone before user space looks.
///
/// # Safety
/// `node` is a kernfs_node.
#[inline(never)]
unsafe fn remember_cgroup(id: u64, node: Pointer) {
    let Some(path) = CGROUP_SCRATCH.get_ptr_mut(0) else { return };
    let mut node = node;
    for level in 0..CGROUP_LEVELS {
        // SAFETY: `level` is below the array's length; the helper writes a terminating zero even for a null name,
        // except on failure, when the first byte is set here.
        unsafe {
            let name = (&raw mut (*path).names).cast::<[u8; CGROUP_NAME]>().add(level).cast::<u8>();
            let from = pointer::<Probed>(node, offset!(node_name));
            if bpf_probe_read_kernel_str(name.cast(), CGROUP_NAME as u32, from.cast()) < 0 {
                *name = 0;
            }
            node = pointer::<Probed>(node, offset!(node_parent));
        }
    }
    // An LRU map takes every new entry, at the cost of the oldest; user space has copied that one long since.
    // SAFETY: the scratch slot is this CPU's and fully written.
    let _ = CGROUPS.insert(id, unsafe { &*path }, 0);
}
