//! The first payload of connections, as sockets send and receive it: what `bin/tls` reports.

use bytemuck::{Pod, Zeroable};

use super::connection::Address;

/// Names of the maps. Kernel names are cut at 15 characters; these are shorter.
pub mod map {
    /// Perf buffer of [`Segment`](super::Segment), each with its packet behind it.
    pub const SEGMENTS: &str = "SEGMENTS";
    /// One `u64` per CPU: segments that the buffer did not take.
    pub const LOST: &str = "TLS_LOST";
    /// Peer prefixes to watch, as those of connections.
    pub const PREFIXES: &str = "TLS_PREFIXES";
}

/// Names of the read-only globals that user space fills before load, besides those of connections.
pub mod global {
    /// [`Settings`](super::Settings).
    pub const SETTINGS: &str = "TLS";
}

/// How much of each direction of a connection is reported, bytes: a handshake up to the last alert that is in the clear.
/// Certificates of both ends fit in; what comes later is encrypted.
pub const WINDOW: u64 = 16 << 10;

/// How much of one segment, bytes: a ClientHello with post-quantum keys takes half of it. Segments may be large, the kernel
/// cuts them up later.
pub const SNAP: u32 = 4 << 10;

/// Which way a segment goes, for the socket that it was seen at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Way {
    Sent = 0,
    Received = 1,
}

/// A segment with payload; behind it in the buffer are `captured` bytes of its packet, then what fills up to eight bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Segment {
    /// `CLOCK_MONOTONIC` nanoseconds.
    pub time_ns: u64,
    /// The kernel's address of the socket.
    pub socket: u64,
    pub local: Address,
    pub peer: Address,
    /// Host byte order, as the next.
    pub local_port: u16,
    pub peer_port: u16,
    /// Inode of the socket's network namespace.
    pub netns: u32,
    /// Sequence number of the first byte of payload.
    pub sequence: u32,
    /// Sequence number of the connection's first byte of payload, by what the socket has counted. Too low where bytes were
    /// sent again, or wait to be sent; too high where some are missing before this segment.
    pub first: u32,
    /// Bytes of payload, captured or not.
    pub length: u32,
    /// Bytes of the packet before its payload.
    pub headers: u32,
    /// Bytes of the packet that follow this, headers included.
    pub captured: u32,
    /// [`Way`].
    pub way: u32,
}

/// What the kernel side filters, read-only once loaded.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Settings {
    /// Roles that are followed: bits of [`Role::bit`](super::outcome::Role::bit).
    pub roles: u32,
    /// 1: only ports of [`Ports`](super::connection::Ports) are followed.
    pub by_port: u32,
    /// 1: only peers in [`map::PREFIXES`] are followed.
    pub by_prefix: u32,
}
