//! Packets that slip past conntrack: the counters, the maps and the programs of `bin/bypass/`.
//!
//! Every type here is [`Pod`]: no padding, so no byte of kernel memory leaves unwritten, and user space decodes
//! it without `unsafe`. Packets are counted in the kernel, none is reported.

use bytemuck::{Pod, Zeroable};

use super::connection::Address;

/// Names of the maps. Kernel names are cut at 15 characters; these are shorter.
pub mod map {
    /// Ports of servers: an array of 1024 words, one bit a port.
    pub const PORTS: &str = "PORTS";
    /// Per CPU: [`Key`](super::Key) → [`Counters`](super::Counters).
    pub const STREAMS: &str = "STREAMS";
    /// Per CPU, one: [`Counters`](super::Counters) of packets whose stream found no room.
    pub const REST: &str = "REST";
    /// Control group id → [`CgroupPath`](crate::contract::connection::CgroupPath), of who sends untracked packets.
    pub const CGROUPS: &str = "CGROUPS";
}

/// Names of the read-only globals that user space fills before load.
pub mod global {
    /// [`Settings`](super::Settings).
    pub const SETTINGS: &str = "BYPASS";
}

/// The lowest bits of `_nfct` of a packet that conntrack was told to leave alone (`IP_CT_UNTRACKED`, user interface of
/// the kernel since 4.12).
pub const UNTRACKED: u64 = 7;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Settings {
    /// Inode of the network namespace whose packets are counted.
    pub netns: u32,
    pub zero: u32,
}

/// Where a packet was seen, and where it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Direction {
    /// Came by one device, leaves by another.
    Forwarded = 0,
    /// Made here.
    Outgoing = 1,
    /// For a socket here.
    Delivered = 2,
}

impl Direction {
    pub const ALL: [Self; 3] = [Self::Forwarded, Self::Outgoing, Self::Delivered];

    /// The name in JSON and in tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Forwarded => "forwarded",
            Self::Outgoing => "outgoing",
            Self::Delivered => "delivered",
        }
    }

    pub fn from_raw(raw: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|direction| *direction as u8 == raw)
    }
}

/// Which of a packet's ports is the server's. The other one is of no stream: connections have a new one each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Server {
    /// The protocol has no ports, or this packet has none of them.
    Neither = 0,
    /// It goes to the server: a request.
    Destination = 1,
    /// It comes from the server: a reply.
    Source = 2,
}

impl Server {
    pub const ALL: [Self; 3] = [Self::Neither, Self::Destination, Self::Source];

    pub fn from_raw(raw: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|server| *server as u8 == raw)
    }
}

/// What is counted apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Pod, Zeroable)]
#[repr(C)]
pub struct Key {
    pub source: Address,
    pub destination: Address,
    /// Index of the device it came by; 0: made here.
    pub input: u32,
    /// Index of the device it leaves by; 0: delivered.
    pub output: u32,
    /// The server's, host byte order.
    pub port: u16,
    /// IP protocol number.
    pub protocol: u8,
    /// [`Direction`].
    pub direction: u8,
    /// [`Server`].
    pub server: u8,
    pub zero: [u8; 3],
}

/// Untracked packets of one [`Key`].
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Counters {
    /// Packets on the wire: of a packet that the kernel handles whole and cuts later (GSO), or has put together
    /// (GRO), each segment.
    pub packets: u64,
    /// The same, such a packet counted once, as rules count.
    pub frames: u64,
    /// From the IP header on.
    pub bytes: u64,
    /// TCP segments with SYN and without ACK.
    pub syn: u64,
    /// TCP segments with SYN and ACK.
    pub syn_ack: u64,
    /// TCP segments with RST.
    pub rst: u64,
    /// `CLOCK_MONOTONIC` nanoseconds.
    pub first_ns: u64,
    /// `CLOCK_MONOTONIC` nanoseconds.
    pub last_ns: u64,
    /// The other port of the latest packet, host byte order.
    pub other_port: u64,
    /// Of outgoing packets: the control group (version 2) whose socket sent the latest of which that is known; 0: of none.
    pub sender: u64,
    /// Whether another one sent too: 0 or 1.
    pub others: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_has_padding_and_words_are_aligned() {
        assert_eq!(size_of::<Key>(), 48);
        assert_eq!(size_of::<Counters>(), 88);
        assert_eq!(size_of::<Settings>(), 8);
    }

    #[test]
    fn numbers_of_enumerations() {
        for direction in Direction::ALL {
            assert_eq!(Direction::from_raw(direction as u8), Some(direction));
        }
        for server in Server::ALL {
            assert_eq!(Server::from_raw(server as u8), Some(server));
        }
        assert_eq!((Direction::from_raw(3), Server::from_raw(3)), (None, None));
    }
}
