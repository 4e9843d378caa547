//! Untracked packets, by where they come from and where they go.

use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
};

pub use probe_ebpf::contract::bypass::{Direction, Server};

use crate::{
    network::Device,
    rule::{PacketPath, RuleFlow},
};

/// What is counted apart: all connections of one client to one server's port, one way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UntrackedStream {
    pub source: IpAddr,
    pub destination: IpAddr,
    /// IP protocol number.
    pub protocol: u8,
    /// The server's; 0 where the protocol has none.
    pub port: u16,
    /// Who of both is the server.
    pub server: Server,
    pub direction: Direction,
    /// Index of the device it came by; `None`: made here.
    pub input: Option<u32>,
    /// Index of the device it leaves by; `None`: delivered here.
    pub output: Option<u32>,
}

impl UntrackedStream {
    /// Whether the kernel sends it by itself, and never tracks it: group membership of IPv6 (MLD), whose packets have a hop-by-hop
    /// header before ICMPv6. `nf_conntrack_icmpv6_error()` leaves them untracked.
    pub const fn is_group_membership(&self) -> bool {
        const HOP_BY_HOP: u8 = 0;
        match self.destination {
            IpAddr::V6(group) => self.protocol == HOP_BY_HOP && group.is_multicast(),
            IpAddr::V4(_) => false,
        }
    }

    /// The hooks that its packets pass.
    pub const fn path(&self) -> PacketPath {
        match self.direction {
            Direction::Forwarded => PacketPath::Forward,
            Direction::Outgoing => PacketPath::Out,
            Direction::Delivered => PacketPath::In,
        }
    }

    /// Its packets, as rules see them.
    pub fn rule_flow(&self) -> RuleFlow {
        let flow = RuleFlow::between(self.path(), self.protocol, self.source, self.destination);
        match self.server {
            Server::Neither => flow,
            Server::Destination => RuleFlow {
                destination_port: Some(self.port),
                ..flow
            },
            Server::Source => RuleFlow {
                source_port: Some(self.port),
                ..flow
            },
        }
    }
}

/// Packets of one stream since probe began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UntrackedCount {
    /// On the wire; what the kernel cuts or puts together counts each part.
    pub packets: u64,
    /// As rules count.
    pub frames: u64,
    /// From the IP header on.
    pub bytes: u64,
    pub syn: u64,
    pub syn_ack: u64,
    pub rst: u64,
    /// `CLOCK_MONOTONIC` nanoseconds.
    pub first_ns: u64,
    /// `CLOCK_MONOTONIC` nanoseconds.
    pub last_ns: u64,
    /// The client's port of the latest packet.
    pub other_port: u16,
    /// Of outgoing packets: the control group whose socket sent the latest of which that is known.
    pub sender: Option<u64>,
    /// Whether another group sent too.
    pub others: bool,
}

/// Each packet once: one that passes several devices is counted at each, and again when the loopback device hands it
/// to its receiver. The uppermost device is the one the rules see. Without what the kernel itself never tracks.
pub fn once(
    streams: Vec<(UntrackedStream, UntrackedCount)>,
    devices: &[Device],
) -> Vec<(UntrackedStream, UntrackedCount)> {
    let above: HashMap<u32, u32> = devices
        .iter()
        .filter_map(|device| Some((device.index, device.controller?)))
        .collect();
    let loopback: HashSet<u32> = devices
        .iter()
        .filter(|device| device.name == "lo")
        .map(|device| device.index)
        .collect();
    let all: HashSet<UntrackedStream> = streams.iter().map(|(stream, _)| *stream).collect();
    let again = |stream: &UntrackedStream| {
        if stream.direction == Direction::Delivered {
            return stream.input.is_some_and(|input| loopback.contains(&input));
        }
        let mut device = stream.output;
        // As deep as devices are stacked, and no deeper than sense.
        for _ in 0..4 {
            device = device.and_then(|index| above.get(&index).copied());
            let upper = UntrackedStream {
                output: device,
                ..*stream
            };
            if device.is_some() && all.contains(&upper) {
                return true;
            }
        }
        false
    };
    streams
        .into_iter()
        .filter(|(stream, _)| !stream.is_group_membership() && !again(stream))
        .collect()
}
