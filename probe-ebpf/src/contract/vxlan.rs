//! VXLAN on the wire: the counters, the maps and the programs of `bin/vxlan.rs`.
//!
//! Every type here is [`Pod`]: no padding, so no byte of kernel memory leaves unwritten, and user space decodes
//! it without `unsafe`. Packets are counted in the kernel, none is reported.

use bytemuck::{Pod, Zeroable};

use super::connection::Address;

/// Names of the maps. Kernel names are cut at 15 characters; these are shorter.
pub mod map {
    /// UDP ports that carry VXLAN: an array of 1024 words, one bit a port.
    pub const PORTS: &str = "PORTS";
    /// Interface indices of the VXLAN devices: `u32` → `u32`, of no meaning.
    pub const DEVICES: &str = "DEVICES";
    /// Per CPU: [`Key`](super::Key) → [`Counters`](super::Counters).
    pub const COUNTERS: &str = "COUNTERS";
    /// [`ErrorKey`](super::ErrorKey) → [`ErrorCount`](super::ErrorCount).
    pub const ERRORS: &str = "ERRORS";
    /// [`DropKey`](super::DropKey) → [`DropCount`](super::DropCount).
    pub const DROPS: &str = "DROPS";
    /// Per CPU: [`FlowKey`](super::FlowKey) → [`Flow`](super::Flow).
    pub const FLOWS: &str = "FLOWS";
    /// One `u64` per CPU for each [`Loss`](super::Loss).
    pub const LOSSES: &str = "LOSSES";
}

/// Names of the read-only globals that user space fills before load.
pub mod global {
    /// [`Settings`](super::Settings).
    pub const SETTINGS: &str = "VXLAN";
}

/// Names of the programs that are attached to an underlay device.
pub mod program {
    pub const IN: &str = "vxlan_in";
    pub const OUT: &str = "vxlan_out";
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Settings {
    /// Inode of the network namespace whose drops are counted.
    pub netns: u32,
    /// 1: inner connections are counted in [`map::FLOWS`].
    pub flows: u32,
    /// 1: `kfree_skb` has a third argument, the reason. Kernel 5.17.
    pub reasons: u32,
    /// 1: the kernel has `bpf_ktime_get_coarse_ns`, which costs a tenth. Kernel 5.11.
    pub coarse: u32,
}

/// Which way a packet passes the underlay device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Direction {
    In = 0,
    Out = 1,
}

impl Direction {
    pub const ALL: [Self; 2] = [Self::In, Self::Out];

    pub const fn name(self) -> &'static str {
        match self {
            Self::In => "in",
            Self::Out => "out",
        }
    }

    pub fn from_raw(raw: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|direction| *direction as u8 == raw)
    }
}

/// What is counted apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Pod, Zeroable)]
#[repr(C)]
pub struct Key {
    /// The VTEP on this node.
    pub local: Address,
    pub peer: Address,
    /// VXLAN network identifier, 24 bits, as the header has it.
    pub vni: u32,
    /// Index of the underlay device.
    pub underlay: u32,
    /// UDP destination port, host byte order.
    pub port: u16,
    /// [`Direction`].
    pub direction: u8,
    pub zero: u8,
}

/// VXLAN packets of one [`Key`].
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Counters {
    /// Packets on the wire: of a packet that the kernel handles whole and cuts later (GSO), or has put together
    /// (GRO), each segment.
    pub packets: u64,
    /// The same, such a packet counted once, as the devices count and tcpdump shows.
    pub frames: u64,
    /// On the wire, from the outer Ethernet header on, without checksum and preamble.
    pub bytes: u64,
    /// The latest, `CLOCK_MONOTONIC` nanoseconds.
    pub last_ns: u64,
    /// Inner TCP segments with SYN and without ACK.
    pub syn: u64,
    /// Inner TCP segments with SYN and ACK.
    pub syn_ack: u64,
    /// Inner TCP segments with RST.
    pub rst: u64,
    /// Inner packets that call for an answer: SYN, echo requests, DNS questions.
    pub asks: u64,
    /// Inner packets that answer: SYN-ACK, RST, echo replies, DNS answers, ICMP "unreachable".
    pub answers: u64,
    /// Inner TCP segments with ACK and without SYN: their sender has received what was sent to it.
    pub acks: u64,
    /// Packets whose outer packet is the first fragment of several. Of the others nothing is counted.
    pub fragments: u64,
    /// Packets whose VXLAN header says that it has no VNI, or has a flag that no extension defines.
    pub malformed: u64,
    /// Inner link layer addresses of the latest unicast packet as they lie in it: destination, source.
    pub macs: [u32; 3],
    /// The first word of the latest VXLAN header that was malformed, host byte order.
    pub malformed_header: u32,
}

impl Counters {
    /// Inner destination and source link layer address of the latest unicast packet; zeros where there was none.
    pub fn link_layer(&self) -> ([u8; 6], [u8; 6]) {
        let [a, b, c, d, e, f, g, h, i, j, k, l]: [u8; 12] = bytemuck::cast(self.macs);
        ([a, b, c, d, e, f], [g, h, i, j, k, l])
    }
}

/// The VXLAN header's flag that says it has a VNI; all others are reserved, but for [`KNOWN_FLAGS`].
pub const FLAG_VNI: u32 = 1 << 27;
/// Flags of extensions that the kernel knows: group policy (G, with D and A), generic protocol (version, P, O), remote
/// checksum (RCO).
pub const KNOWN_FLAGS: u32 = 1 << 31 | 1 << 22 | 1 << 19 | 0x3500_0000 | 1 << 21;

/// An ICMP error about a VXLAN packet, as it passes the underlay device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Pod, Zeroable)]
#[repr(C)]
pub struct ErrorKey {
    /// Who sends the error.
    pub reporter: Address,
    /// Source of the VXLAN packet.
    pub source: Address,
    /// Destination of the VXLAN packet.
    pub destination: Address,
    /// UDP destination port of the VXLAN packet, host byte order.
    pub port: u16,
    /// ICMP or ICMPv6 type, by the addresses' family.
    pub kind: u8,
    pub code: u8,
    /// [`Direction`] of the error.
    pub direction: u8,
    pub zero: [u8; 3],
}

#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct ErrorCount {
    pub packets: u64,
    /// The latest, `CLOCK_MONOTONIC` nanoseconds.
    pub last_ns: u64,
    /// Largest packet that would pass, bytes; 0 where the error does not say.
    pub mtu: u64,
}

/// Where a packet was when it was dropped: before it was encapsulated, or after.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Layer {
    /// In its VXLAN packet.
    Outer = 0,
    /// Without it, at the VXLAN device.
    Inner = 1,
}

impl Layer {
    pub const ALL: [Self; 2] = [Self::Outer, Self::Inner];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Outer => "outside",
            Self::Inner => "inside",
        }
    }

    pub fn from_raw(raw: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|layer| *layer as u8 == raw)
    }
}

/// Packets dropped, as `kfree_skb` reports them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Pod, Zeroable)]
#[repr(C)]
pub struct DropKey {
    /// Of the VXLAN packet; zero inside.
    pub source: Address,
    /// Of the VXLAN packet; inside of the inner one, for ARP the address asked for. Zero in the entry that takes what no
    /// longer fits.
    pub destination: Address,
    /// `enum skb_drop_reason` of this kernel; 0 where it gives none.
    pub reason: u32,
    /// Index of the device it was at.
    pub device: u32,
    /// Outside only.
    pub vni: u32,
    /// UDP destination port, host byte order; 0 inside.
    pub port: u16,
    /// EtherType of the packet, inside of the inner one, host byte order.
    pub ethertype: u16,
    /// [`Layer`].
    pub place: u8,
    pub zero: [u8; 3],
}

#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct DropCount {
    pub packets: u64,
    /// The latest, `CLOCK_MONOTONIC` nanoseconds.
    pub last_ns: u64,
}

/// One direction of an inner connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Pod, Zeroable)]
#[repr(C)]
pub struct FlowKey {
    pub source: Address,
    pub destination: Address,
    pub vni: u32,
    /// Host byte order; 0 where the protocol has none.
    pub source_port: u16,
    /// Host byte order.
    pub destination_port: u16,
    /// IP protocol number.
    pub protocol: u8,
    /// [`Direction`].
    pub direction: u8,
    pub zero: [u8; 2],
}

#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Flow {
    /// As [`Counters::packets`].
    pub packets: u64,
    /// As [`Counters::bytes`].
    pub bytes: u64,
    /// `CLOCK_MONOTONIC` nanoseconds.
    pub first_ns: u64,
    /// `CLOCK_MONOTONIC` nanoseconds.
    pub last_ns: u64,
    /// TCP flags seen so far.
    pub flags: u64,
}

/// What could not be kept, counted per CPU in [`map::LOSSES`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Loss {
    /// [`map::COUNTERS`] was full: packets of a further peer are not counted.
    Packet = 0,
    /// [`map::ERRORS`] was full.
    Error = 1,
    /// [`map::DROPS`] was full: counted without its destination.
    DropDestination = 2,
    /// Not even that entry could be made.
    Drop = 3,
    /// [`map::FLOWS`] was full: packets of a further inner connection are in no flow.
    Flow = 4,
}

impl Loss {
    pub const ALL: [Self; 5] = [
        Self::Packet,
        Self::Error,
        Self::DropDestination,
        Self::Drop,
        Self::Flow,
    ];

    /// The name in JSON and summaries.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Packet => "packets",
            Self::Error => "errors",
            Self::DropDestination => "drop_destinations",
            Self::Drop => "drops",
            Self::Flow => "flow_packets",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_has_padding_and_words_are_aligned() {
        assert_eq!(size_of::<Key>(), 44);
        assert_eq!(size_of::<Counters>(), 112);
        assert_eq!(size_of::<ErrorKey>(), 56);
        assert_eq!(size_of::<DropKey>(), 52);
        assert_eq!(size_of::<FlowKey>(), 44);
        assert_eq!(Loss::ALL.map(|loss| loss as usize), [0, 1, 2, 3, 4]);
    }

    #[test]
    fn numbers_of_enumerations() {
        for direction in Direction::ALL {
            assert_eq!(Direction::from_raw(direction as u8), Some(direction));
        }
        for layer in Layer::ALL {
            assert_eq!(Layer::from_raw(layer as u8), Some(layer));
        }
        assert_eq!((Direction::from_raw(2), Layer::from_raw(2)), (None, None));
    }
}
