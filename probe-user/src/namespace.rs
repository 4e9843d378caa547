//! What the kernel's namespaces are known by.

use std::{fs, os::unix::fs::MetadataExt as _, path::Path};

/// The inode of the pid namespace that the kernel begins with (`PROC_PID_INIT_INO`): a process in any other is a
/// container's.
pub const FIRST_PID: u64 = 0xEFFF_FFFC;

/// The inode of a namespace, by its file in /proc.
pub fn inode(file: impl AsRef<Path>) -> Option<u64> {
    fs::metadata(file).ok().map(|file| file.ino())
}

/// The inode of the calling thread's network namespace.
pub fn own_netns() -> Option<u64> {
    inode("/proc/thread-self/ns/net")
}
