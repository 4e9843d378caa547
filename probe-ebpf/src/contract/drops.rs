//! Dropped TCP packets: the table and the program of `bin/drops.rs`.
//!
//! Every type here is [`Pod`]: no padding, so no byte of kernel memory leaves unwritten, and user space decodes
//! it without `unsafe`.

use bytemuck::{Pod, Zeroable};

use super::connection::Address;

/// Names of the maps. Kernel names are cut at 15 characters; these are shorter.
pub mod map {
    /// Ports of servers: an array of 1024 words, one bit a port.
    pub const PORTS: &str = "PORTS";
    /// [`Key`](super::Key) → [`Count`](super::Count); the least recently used make room.
    pub const DROPS: &str = "DROPS";
    /// Per CPU, one: drops that found no room all the same.
    pub const LOST: &str = "LOST";
}

/// Names of the read-only globals that user space fills before load.
pub mod global {
    /// [`Settings`](super::Settings).
    pub const SETTINGS: &str = "SETTINGS";
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Settings {
    /// 1: of every port, 0: of those in [`map::PORTS`].
    pub every_port: u32,
    /// 1: the kernel gives reasons (5.17), 0: it does not.
    pub reasons: u32,
}

/// What is counted apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Pod, Zeroable)]
#[repr(C)]
pub struct Key {
    pub source: Address,
    pub destination: Address,
    /// Host byte order.
    pub source_port: u16,
    /// Host byte order.
    pub destination_port: u16,
    /// Inode of the network namespace it was dropped in.
    pub netns: u32,
    /// The kernel's number for why; 0 where it gives none.
    pub reason: u32,
    /// Index of the device it came by; 0: made in this namespace.
    pub input: u32,
}

/// Dropped packets of one [`Key`].
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Count {
    pub packets: u64,
    /// `CLOCK_MONOTONIC` nanoseconds.
    pub first_ns: u64,
    /// `CLOCK_MONOTONIC` nanoseconds.
    pub last_ns: u64,
    /// Address in the kernel's code of what dropped the latest.
    pub location: u64,
    /// TCP flags of all of them.
    pub flags: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_has_padding_and_words_are_aligned() {
        assert_eq!(size_of::<Key>(), 48);
        assert_eq!(size_of::<Count>(), 40);
        assert_eq!(size_of::<Settings>(), 8);
    }
}
