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
    /// One [`Places`](super::Places), all zero until user space knows them.
    pub const PLACES: &str = "PLACES";
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

/// A function of the kernel: the address of its first byte, and of the first behind it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Place {
    pub start: u64,
    pub end: u64,
}

/// Functions that let go of packets which came as far as their socket: nothing on the way dropped those. Every orderly end of
/// a connection has one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Places {
    /// Of [`QUEUES`].
    pub queues: [Place; QUEUES.len()],
    /// Of [`RECEIVERS`].
    pub receivers: [Place; RECEIVERS.len()],
}

/// They empty the queues of a socket that is closed. Since 6.10 the reason says so too (`QUEUE_PURGE`).
pub const QUEUES: [&str; 2] = ["sk_stream_kill_queues", "inet_sock_destruct"];

/// They hand packets to sockets, and to what is left of a closed one (`TIME_WAIT`), which needs no more of them. What they drop
/// for a fault has a reason, where the kernel gives any; a SYN that such a rest swallows has none.
pub const RECEIVERS: [&str; 2] = ["tcp_v4_rcv", "tcp_v6_rcv"];

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
        assert_eq!(size_of::<Places>(), 64);
    }
}
