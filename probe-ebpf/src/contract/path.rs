//! Packets on their way through the kernel: the event, the maps and the programs of `bin/path/`.
//!
//! A flow begins with a packet that the filter lets in. From then on its packets are known by their tuple; one that is translated
//! is known by its `sk_buff` until its new tuple is known too. So a flow is followed through NAT, network namespaces and tunnels.
//!
//! Every type here is [`Pod`]: no padding, so no byte of kernel memory leaves unwritten, and user space decodes
//! it without `unsafe`.

use bytemuck::{Pod, Zeroable};

use super::connection::Address;

/// Names of the maps. Kernel names are cut at 15 characters; these are shorter.
pub mod map {
    /// Ring buffer of [`Event`](super::Event).
    pub const EVENTS: &str = "EVENTS";
    /// [`Tuple`](super::Tuple) → [`FlowEntry`](super::FlowEntry); the least recently used make room.
    pub const FLOWS: &str = "FLOWS";
    /// `u64` address of a `sk_buff` → [`Followed`](super::Followed); the least recently used make room.
    pub const PACKETS: &str = "PACKETS";
    /// One `u64` per CPU for each [`Loss`](super::Loss).
    pub const LOSSES: &str = "LOSSES";
}

/// Names of the read-only globals that user space fills before load.
pub mod global {
    /// [`Settings`](super::Settings).
    pub const SETTINGS: &str = "SETTINGS";
}

/// Bytes of a packet that an event carries at most, from the IP header on: room for an outer header, VXLAN, and all of an
/// inner one that matters.
pub const SNAP: usize = 160;

/// Which addresses are meant: two words in the order they lie in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Prefix {
    pub address: [u64; 2],
    /// All zero: any address.
    pub mask: [u64; 2],
}

/// What begins a flow. Zero: any.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Settings {
    /// Of a request's source, a reply's destination.
    pub from: Prefix,
    /// Of a request's destination, a reply's source.
    pub to: Prefix,
    /// Inode of the network namespace it is first seen in.
    pub netns: u32,
    /// Index of the device it is first seen at.
    pub device: u32,
    /// Events a second and CPU; what goes beyond is counted as [`Loss::Budget`].
    pub budget: u32,
    /// 1: the kernel gives reasons for drops (5.17), 0: it does not.
    pub reasons: u32,
    /// The server's, host byte order.
    pub port: u16,
    /// UDP ports of VXLAN, host byte order.
    pub vxlan_ports: [u16; 2],
    /// IP protocol number.
    pub protocol: u8,
    pub zero: u8,
}

/// One way of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Pod, Zeroable)]
#[repr(C, align(8))]
pub struct Tuple {
    pub source: Address,
    pub destination: Address,
    /// Host byte order; of an ICMP echo its identifier, of what has none 0.
    pub source_port: u16,
    /// The same.
    pub destination_port: u16,
    /// IP protocol number.
    pub protocol: u8,
    pub zero: [u8; 3],
}

impl Tuple {
    /// The other way.
    #[inline(always)]
    pub const fn reversed(&self) -> Self {
        Self {
            source: self.destination,
            destination: self.source,
            source_port: self.destination_port,
            destination_port: self.source_port,
            protocol: self.protocol,
            zero: [0; 3],
        }
    }
}

/// Which flow a tuple is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Flow {
    /// Never 0, never the same again.
    pub id: u64,
    /// [`Direction`].
    pub direction: u64,
}

/// A flow without a packet for so long is none: its ports may be another's by now. Nanoseconds.
pub const IDLE_NS: u64 = 60_000_000_000;

/// A flow as it is known by a tuple.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct FlowEntry {
    pub flow: Flow,
    /// When the latest packet of that tuple was seen, `CLOCK_MONOTONIC` nanoseconds.
    pub seen_ns: u64,
}

/// A packet that is known by its `sk_buff`, whatever becomes of its addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Followed {
    pub flow: Flow,
    /// Of what no translation changes: another packet in the same memory has another.
    pub print: u64,
}

/// Which way a packet goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Direction {
    Request = 0,
    Reply = 1,
}

impl Direction {
    pub const ALL: [Self; 2] = [Self::Request, Self::Reply];

    /// The name in JSON and in tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Request => "request",
            Self::Reply => "reply",
        }
    }

    pub fn from_raw(raw: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|direction| *direction as u8 == raw)
    }
}

macro_rules! points {
    ($($(#[$doc:meta])* $name:ident = $number:literal, $text:literal;)*) => {
        /// Where a packet was seen.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum Point {
            $($(#[$doc])* $name = $number,)*
        }

        impl Point {
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The name in JSON.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }

            pub fn from_raw(raw: u8) -> Option<Self> {
                Self::ALL.iter().copied().find(|point| *point as u8 == raw)
            }
        }
    };
}

points! {
    /// Handed to a device to be sent (tracepoint `net_dev_start_xmit`).
    Sent = 1, "sent";
    /// Came in by a device (tracepoint `netif_receive_skb`).
    Received = 2, "received";
    /// Let go, and not on purpose (tracepoint `kfree_skb`); `detail` is the kernel's number for why, `location` the code.
    Dropped = 3, "dropped";
    /// Let go after use (tracepoint `consume_skb`).
    Consumed = 4, "consumed";
    /// Left a netfilter hook (`nf_hook_slow`); `detail` is the hook, `result` what was decided.
    Hook = 5, "hook";
    /// Looked up in the routing tables on its way in (`ip_route_input_noref`); `result` other than 0: no route.
    Route = 6, "route";
    /// To be forwarded (`ip_forward`, `ip6_forward`).
    Forward = 7, "forward";
    /// For this host (`ip_local_deliver`, `ip6_input`).
    Local = 8, "local";
    /// Routed, and made here or to be translated on its way out (`ip_output`, `ip6_output`).
    Output = 9, "output";
    /// Handed to a socket (`tcp_v4_do_rcv`, `tcp_v6_do_rcv`, `__udp_enqueue_schedule_skb`).
    Socket = 10, "socket";
    /// An ICMP error is sent because of it (`__icmp_send`, `icmp6_send`); `detail` is type and code, a byte each.
    Icmp = 11, "icmp";
    /// Conntrack looks it up (`nf_conntrack_in`).
    Conntrack = 12, "conntrack";
    /// NAT rewrites it (`nf_nat_manip_pkt`); `detail` is 0 for the source, 1 for the destination.
    Nat = 13, "nat";
    /// A VXLAN device takes it to encapsulate it (`vxlan_xmit`).
    Encapsulate = 14, "encapsulate";
    /// VXLAN takes it to decapsulate it (`vxlan_rcv`).
    Decapsulate = 15, "decapsulate";
}

/// [`Event::result`] of a [`Point::Hook`] whose verdict is not known: at the function's entry.
pub const NO_VERDICT: i32 = i32::MAX;

/// One packet at one point.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Event {
    /// `CLOCK_MONOTONIC` nanoseconds.
    pub time_ns: u64,
    /// [`Flow::id`].
    pub flow: u64,
    /// The kernel's address of the `sk_buff`.
    pub skb: u64,
    /// Address in the kernel's code, where that says more than the point.
    pub location: u64,
    /// `_nfct`: conntrack's entry and, in the lowest three bits, its state; all 0: not looked up here.
    pub conntrack: u64,
    /// Inode of the network namespace; 0: not known.
    pub netns: u32,
    /// Index of the device; 0: none yet.
    pub device: u32,
    /// Index of the device it came by; 0: made in this namespace.
    pub input: u32,
    /// What rules and others left on it (`skb->mark`).
    pub mark: u32,
    /// By the point.
    pub detail: u32,
    /// By the point.
    pub result: i32,
    /// Packets on the wire that it is cut into (GSO), or was put together of (GRO).
    pub segments: u16,
    /// Of [`Event::snap`].
    pub snapped: u16,
    /// [`Point`].
    pub point: u8,
    /// [`Direction`].
    pub direction: u8,
    pub cpu: u16,
    /// The device's name, zero-terminated.
    pub name: [u8; 16],
    /// The packet from its IP header on; behind [`Event::snapped`] bytes there is nothing of it.
    pub snap: [u8; SNAP],
}

/// What the kernel side could not do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Loss {
    /// Events that found the ring full.
    Ring = 0,
    /// Events beyond [`Settings::budget`].
    Budget = 1,
    /// Flows and packets that found no room.
    Flows = 2,
}

impl Loss {
    pub const COUNT: u32 = 3;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_has_padding_and_words_are_aligned() {
        assert_eq!(size_of::<Settings>(), 88);
        assert_eq!(size_of::<Tuple>(), 40);
        assert_eq!((size_of::<Flow>(), size_of::<FlowEntry>()), (16, 24));
        assert_eq!(size_of::<Followed>(), 24);
        assert_eq!(size_of::<Event>(), 248);
    }

    #[test]
    fn numbers_of_enumerations() {
        for direction in Direction::ALL {
            assert_eq!(Direction::from_raw(direction as u8), Some(direction));
        }
        for point in Point::ALL {
            assert_eq!(Point::from_raw(*point as u8), Some(*point));
        }
        assert_eq!((Direction::from_raw(2), Point::from_raw(0)), (None, None));
    }

    #[test]
    fn reversed_twice_is_the_same() {
        let tuple = Tuple {
            source: [1; 16],
            destination: [2; 16],
            source_port: 3,
            destination_port: 4,
            protocol: 6,
            zero: [0; 3],
        };
        assert_eq!(tuple.reversed().reversed(), tuple);
        assert_eq!(tuple.reversed().source_port, 4);
    }
}
