//! What the kernel's namespaces are known by.

/// The inode of the pid namespace that the kernel begins with (`PROC_PID_INIT_INO`): a process in any other is a
/// container's.
pub const FIRST_PID: u64 = 0xEFFF_FFFC;
