//! One end of a connection, with all that is known of it. What is not known is `None`, never empty.

use std::{net::SocketAddr, time::Duration};

use jiff::Timestamp;

use super::{Cadence, Outcome, Owner, Role};

#[derive(Clone, Debug)]
pub struct Connection {
    /// When it ended, or, still open, when it was reported.
    pub time: Timestamp,
    /// From SYN (client) or finished handshake (server) to the end.
    pub duration: Duration,
    pub role: Role,
    pub outcome: Outcome,
    /// The client's end. The port is 0 where no SYN left. IPv4 mapped into IPv6 is shown as IPv4.
    pub source: SocketAddr,
    /// The server's end.
    pub destination: SocketAddr,
    /// `None` while it is open.
    pub payload: Option<Payload>,
    /// Inode of the network namespace of this end.
    pub netns: u32,
    /// Who owns this end.
    pub owner: Owner,
    /// Who owns the other end, where that is a process of this kernel.
    pub peer: Option<Owner>,
    /// How often this owner does this, once three were seen.
    pub cadence: Option<Cadence>,
}

/// Payload bytes, retransmissions left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Payload {
    /// From source to destination.
    pub sent: u64,
    /// From destination to source.
    pub received: u64,
}
