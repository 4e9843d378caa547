//! Control groups, by their nodes in the kernel's file system of them.

use aya_ebpf::helpers::generated::bpf_probe_read_kernel_str;

use super::{
    globals::offset,
    read::{Memory, Pointer, Probed, pointer},
};
use crate::contract::connection::{CGROUP_LEVELS, CGROUP_NAME, CgroupPath};

/// The node of a control group, and its id; null and 0 where there is none.
///
/// # Safety
/// `cgroup` is a `struct cgroup` or null, and `cgroup_node` and `node_id` are not absent.
#[inline(always)]
pub unsafe fn node(cgroup: Pointer) -> (Pointer, u64) {
    // SAFETY: the caller's.
    unsafe {
        let node = pointer::<Probed>(cgroup, offset!(cgroup_node));
        (node, Probed::read::<u64>(node, offset!(node_id)))
    }
}

/// Writes the names of a control group and of those above it, leaf first.
///
/// # Safety
/// `node` is a node's, and `path` is writable.
#[inline(always)]
pub unsafe fn names(mut node: Pointer, path: *mut CgroupPath) {
    // SAFETY: the caller's.
    unsafe {
        for level in 0..CGROUP_LEVELS {
            let name = (&raw mut (*path).names)
                .cast::<[u8; CGROUP_NAME]>()
                .add(level)
                .cast::<u8>();
            let from = pointer::<Probed>(node, offset!(node_name));
            // Writes a terminating zero, except when it fails, as it does beyond the root.
            if bpf_probe_read_kernel_str(name.cast(), CGROUP_NAME as u32, from.cast()) < 0 {
                *name = 0;
            }
            node = pointer::<Probed>(node, offset!(node_parent));
        }
    }
}
