//! Dropped TCP packets, and what they say of a connection.

use std::{
    collections::HashSet,
    net::{IpAddr, SocketAddr},
};

use jiff::Timestamp;

use crate::{
    Connection,
    bypass::service::Service,
    rule::{PacketPath, RuleFlow},
};

const TCP: u8 = 6;

/// Dropped packets of one way of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DroppedPackets {
    pub source: SocketAddr,
    pub destination: SocketAddr,
    /// Inode of the network namespace.
    pub netns: u32,
    /// As the kernel names it; `None` before 5.17, which reports none.
    pub reason: Option<String>,
    /// The kernel function that dropped the latest, where it is known.
    pub at: Option<String>,
    /// Index of the device they came by; `None`: made in this namespace.
    pub input: Option<u32>,
    pub packets: u64,
    /// One with SYN was among them.
    pub syn: bool,
    pub first: Timestamp,
    pub last: Timestamp,
}

/// What a drop says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weight {
    /// It happens in good health, or the kernel does not say why.
    Nothing,
    /// The packet filter did it.
    Filter,
    /// It was for no socket.
    NoSocket,
    /// Something that the kernel names.
    Other,
}

/// The kernel function that every verdict of netfilter to drop ends in.
const FILTER: &str = "nf_hook_slow";
/// Reasons that come with healthy connections too, or with their end, by the kernel's names.
const HEALTHY: [&str; 20] = [
    "NOT_DROPPED_YET",
    "CONSUMED",
    // A bridge that does not know where an address is sends to all.
    "OTHERHOST",
    "SKB_CONSUMED",
    "SOCKET_FILTER",
    "SOCKET_CLOSE",
    "TCP_ABORT_ON_CLOSE",
    "TCP_ABORT_ON_DATA",
    "TCP_ABORT_ON_LINGER",
    "TCP_ABORT_ON_MEMORY",
    "TCP_CLOSE",
    "TCP_FASTOPEN",
    "TCP_FLAGS",
    "TCP_OFOMERGE",
    "TCP_OLD_ACK",
    "TCP_OLD_DATA",
    "TCP_OLD_SEQUENCE",
    "TCP_RESET",
    "TCP_TOO_OLD_ACK",
    "TCP_ZEROWINDOW",
];

impl DroppedPackets {
    pub fn weight(&self) -> Weight {
        match self.reason.as_deref() {
            Some("NETFILTER_DROP") => Weight::Filter,
            Some("NO_SOCKET") => Weight::NoSocket,
            None | Some("NOT_SPECIFIED") if self.at.as_deref() == Some(FILTER) => Weight::Filter,
            None | Some("NOT_SPECIFIED") => Weight::Nothing,
            Some(reason) if HEALTHY.contains(&reason) => Weight::Nothing,
            Some(_) => Weight::Other,
        }
    }

    /// The hooks that it passes; `own`: the addresses of the network namespace.
    pub fn path(&self, own: &HashSet<IpAddr>) -> PacketPath {
        match self.input {
            None => PacketPath::Out,
            Some(_) if own.contains(&self.destination.ip()) => PacketPath::In,
            Some(_) => PacketPath::Forward,
        }
    }

    /// The packets, without the client's port: the next connection has another.
    pub fn rule_flow(&self, connection: &Connection, own: &HashSet<IpAddr>) -> RuleFlow {
        let flow = RuleFlow::between(self.path(own), TCP, self.source.ip(), self.destination.ip());
        let client = |end: SocketAddr| end == connection.source || Some(end) == connection.seen_as;
        if client(self.source) {
            RuleFlow {
                destination_port: Some(self.destination.port()),
                ..flow
            }
        } else {
            RuleFlow {
                source_port: Some(self.source.port()),
                ..flow
            }
        }
    }

    /// Whether it is a packet of this connection's client, either way.
    pub fn is_of_client(&self, connection: &Connection) -> bool {
        let client = |end: SocketAddr| end == connection.source || Some(end) == connection.seen_as;
        client(self.source) || client(self.destination)
    }

    /// Whether it is a packet of this connection, either way, translated or not. `service`: what was dialled; a packet that
    /// is dropped leaves no conntrack entry, so its endpoint is unknown.
    pub fn is_of(&self, connection: &Connection, service: Option<&Service>) -> bool {
        let client = |end: SocketAddr| end == connection.source || Some(end) == connection.seen_as;
        let server = |end: SocketAddr| {
            end == connection.destination
                || Some(end) == connection.dialled
                || service.is_some_and(|service| service.endpoints.contains(&end))
        };
        client(self.source) && server(self.destination) || server(self.source) && client(self.destination)
    }
}
