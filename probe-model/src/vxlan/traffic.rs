//! What is: counts of VXLAN packets on the wire, of errors about them, and of drops.

use std::{
    collections::HashSet,
    net::{IpAddr, SocketAddr},
};

use serde::{Serialize, Serializer};

use super::filters::DeviceFilter;
use crate::network::Mac;
pub use probe_ebpf::contract::vxlan::{Direction, Layer};

/// What is counted apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct VxlanStream {
    /// The VTEP on this node.
    pub local: IpAddr,
    pub peer: IpAddr,
    pub vni: u32,
    /// UDP destination port.
    pub port: u16,
    /// Index of the underlay device.
    pub underlay: u32,
    pub direction: Direction,
}

/// Packets of one stream since probe began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VxlanCount {
    /// On the wire; what the kernel cuts or puts together counts each part.
    pub packets: u64,
    /// As devices count and tcpdump shows.
    pub frames: u64,
    /// On the wire, with the outer Ethernet header.
    pub bytes: u64,
    /// The latest, `CLOCK_MONOTONIC` nanoseconds.
    pub last_ns: u64,
    pub syn: u64,
    pub syn_ack: u64,
    pub rst: u64,
    /// Inner packets that call for an answer.
    pub asks: u64,
    /// Inner packets that answer.
    pub answers: u64,
    /// Inner TCP segments with ACK and without SYN.
    pub acks: u64,
    /// Packets whose outer packet came in fragments.
    pub fragments: u64,
    pub malformed: u64,
    /// The first word of the latest header that was malformed.
    pub malformed_header: u32,
    /// Of the latest unicast packet inside.
    pub source_mac: Mac,
    pub destination_mac: Mac,
}

/// ICMP errors about VXLAN packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct IcmpError {
    /// The sender of the errors.
    pub reporter: IpAddr,
    /// The source of the VXLAN packets.
    pub source: IpAddr,
    /// Their destination.
    pub destination: IpAddr,
    /// Their UDP destination port.
    pub port: u16,
    /// The error.
    #[serde(rename = "error")]
    pub kind: IcmpErrorKind,
    /// `in` or `out`.
    #[serde(serialize_with = "name")]
    #[cfg_attr(feature = "schema", schemars(with = "&'static str"))]
    pub direction: Direction,
}

fn name<S: Serializer>(direction: &Direction, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(direction.name())
}

crate::names! {
    /// What an ICMP error says, of either family.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
    pub enum IcmpErrorKind {
        /// Nothing listens on the port, or a rule says so.
        Port = "port unreachable",
        /// The host, or the network it is in, can't be reached.
        Host = "host unreachable",
        /// A filter forbids it.
        Prohibited = "prohibited",
        /// The packet is too large for the way.
        TooBig = "packet too big",
        Other = "unreachable",
    }
}

impl IcmpErrorKind {
    /// By type and code of ICMP (`six`: ICMPv6).
    pub const fn of(six: bool, kind: u8, code: u8) -> Self {
        match (six, kind, code) {
            (false, 3, 3) | (true, 1, 4) => Self::Port,
            (false, 3, 0 | 1 | 5 | 6 | 7) | (true, 1, 0 | 3) => Self::Host,
            (false, 3, 9 | 10 | 13) | (true, 1, 1 | 5 | 6) => Self::Prohibited,
            (false, 3, 4) | (true, 2, _) => Self::TooBig,
            _ => Self::Other,
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ErrorCount {
    pub packets: u64,
    /// `CLOCK_MONOTONIC` nanoseconds.
    pub last_ns: u64,
    /// The largest packet that would pass, bytes; 0: not said.
    pub mtu: u32,
}

/// Packets dropped on this node.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct VxlanDrop {
    pub place: Layer,
    /// As the kernel names it; `None` before 5.17, which reports none.
    pub reason: Option<String>,
    /// Index of the device.
    pub device: u32,
    /// Of the VXLAN packet; inside: unspecified.
    pub source: IpAddr,
    /// Of the VXLAN packet; inside: of the inner one, or who ARP asks for.
    pub destination: IpAddr,
    pub vni: u32,
    pub port: u16,
    pub ethertype: u16,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DropCount {
    pub packets: u64,
    /// `CLOCK_MONOTONIC` nanoseconds.
    pub last_ns: u64,
}

/// One direction of an inner connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct InnerFlow {
    pub source: SocketAddr,
    pub destination: SocketAddr,
    /// IP protocol number.
    pub protocol: u8,
    pub vni: u32,
    pub direction: Direction,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowCount {
    pub packets: u64,
    pub bytes: u64,
    /// `CLOCK_MONOTONIC` nanoseconds.
    pub first_ns: u64,
    /// `CLOCK_MONOTONIC` nanoseconds.
    pub last_ns: u64,
    /// TCP flags seen.
    pub tcp_flags: u8,
}

/// All that was counted, at one moment.
#[derive(Clone, Debug, Default)]
pub struct Traffic {
    /// `CLOCK_MONOTONIC` nanoseconds.
    pub now_ns: u64,
    pub streams: Vec<(VxlanStream, VxlanCount)>,
    pub errors: Vec<(IcmpError, ErrorCount)>,
    pub drops: Vec<(VxlanDrop, DropCount)>,
    pub flows: Vec<(InnerFlow, FlowCount)>,
    /// UDP packets with a wrong checksum, of all ports (`Udp: InCsumErrors`).
    pub checksum_errors: u64,
    /// Who besides the kernel has the UDP port of a device that is down: port and process.
    pub holders: Vec<(u16, String)>,
    /// UDP ports with a socket in this network namespace, whoever has it: a device made here may have gone to another one.
    pub listening: HashSet<u16>,
    /// The kernel gives a reason of its own for packets with a VNI that no device has (6.13).
    pub has_vni_reason: bool,
    /// Packets dropped by `rp_filter`, of all devices (`TcpExt: IPReversePathFilter`).
    pub reverse_path_drops: u64,
    /// tc filters and XDP programs of the underlay devices, without probe's own.
    pub filters: Vec<DeviceFilter>,
    /// Addresses with which conntrack has VXLAN packets, with the UDP port. Read only where a peer's VTEP is not known.
    pub contacts: Vec<(u16, IpAddr)>,
    /// What could not be counted, by name.
    pub losses: Vec<(&'static str, u64)>,
}
