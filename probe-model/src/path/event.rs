//! A packet at one point of its way.

use std::net::{IpAddr, SocketAddr};

pub use probe_ebpf::contract::path::Direction;
use probe_ebpf::contract::path::Point;
use serde::Serialize;

use crate::address;

/// One packet at one point.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// `CLOCK_MONOTONIC` nanoseconds.
    pub time_ns: u64,
    /// Which flow it is of: the same for both ways, and behind every translation.
    pub flow: u64,
    pub direction: Direction,
    pub what: What,
    /// Inode of the network namespace; 0: not known.
    pub netns: u32,
    /// `None`: it has none yet.
    pub device: Option<PathDevice>,
    /// Index of the device it came by; `None`: made in this network namespace.
    pub input: Option<u32>,
    /// What rules and others left on it (`skb->mark`).
    pub mark: u32,
    pub tracking: Tracking,
    pub packet: Packet,
    /// Packets on the wire that it is cut into (GSO), or was put together of (GRO); at least 1.
    pub segments: u16,
    /// The kernel's address of it: the same packet has the same, until it is copied.
    pub skb: u64,
    pub cpu: u16,
    /// The tracepoint or function that showed it, for those who know the kernel.
    pub function: &'static str,
    /// The packet from its IP header on, as much of it as was taken.
    pub bytes: Vec<u8>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PathDevice {
    pub index: u32,
    /// Not escaped: who makes a device chooses its name.
    pub name: String,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// Handed to the device to be sent.
    Sent,
    /// Came in by the device.
    Received,
    /// Let go, and not on purpose.
    Dropped {
        /// As the kernel names it; `None` before 5.17, which reports none.
        reason: Option<String>,
        /// The kernel function that did it, where its name is known.
        at: Option<String>,
    },
    /// Let go after use.
    Consumed,
    /// Left a netfilter hook.
    Hook {
        hook: Option<Hook>,
        /// `None`: what was decided was not seen.
        verdict: Option<HookVerdict>,
    },
    /// Looked up in the routing tables on its way in.
    Route { found: bool },
    /// To be forwarded.
    Forward,
    /// For this host.
    Local,
    /// Routed on its way out.
    Output,
    /// Handed to a socket.
    Socket,
    /// An ICMP error is sent because of it.
    Icmp { kind: u8, code: u8 },
    /// Conntrack lookup.
    Conntrack,
    /// NAT rewrites an address of it.
    Nat {
        /// The destination's, or else the source's.
        destination: bool,
    },
    /// A VXLAN device takes it to encapsulate it.
    Encapsulate,
    /// VXLAN takes it to decapsulate it.
    Decapsulate,
}

impl What {
    /// The name in JSON.
    pub const fn name(&self) -> &'static str {
        let point = match self {
            Self::Sent => Point::Sent,
            Self::Received => Point::Received,
            Self::Dropped { .. } => Point::Dropped,
            Self::Consumed => Point::Consumed,
            Self::Hook { .. } => Point::Hook,
            Self::Route { .. } => Point::Route,
            Self::Forward => Point::Forward,
            Self::Local => Point::Local,
            Self::Output => Point::Output,
            Self::Socket => Point::Socket,
            Self::Icmp { .. } => Point::Icmp,
            Self::Conntrack => Point::Conntrack,
            Self::Nat { .. } => Point::Nat,
            Self::Encapsulate => Point::Encapsulate,
            Self::Decapsulate => Point::Decapsulate,
        };
        point.name()
    }
}

crate::names! {
    /// A hook of netfilter for IP packets, in the order of the kernel's numbers, named as rules name it.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub enum Hook {
        Prerouting = "PREROUTING",
        Input = "INPUT",
        Forward = "FORWARD",
        Output = "OUTPUT",
        Postrouting = "POSTROUTING",
    }
}

impl Hook {
    pub fn from_raw(raw: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|hook| *hook as u32 == raw)
    }
}

crate::names! {
    /// What a netfilter hook decided.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub enum HookVerdict {
        Accepted = "accepted",
        Dropped = "dropped",
        /// Taken by it: queued for a program, or put off.
        Taken = "taken",
    }
}

impl HookVerdict {
    /// What `nf_hook_slow` returns: 1 goes on, 0 was taken, below that dropped.
    pub const fn of_result(result: i32) -> Self {
        match result {
            1.. => Self::Accepted,
            0 => Self::Taken,
            ..0 => Self::Dropped,
        }
    }
}

crate::names! {
    /// What conntrack knows of a packet, by `_nfct`.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub enum Tracking {
        /// It has not looked at it here.
        None = "none",
        /// Exempted from conntrack (NOTRACK).
        Untracked = "untracked",
        New = "new",
        Established = "established",
        Related = "related",
        /// Of a connection, the other way.
        Reply = "reply",
    }
}

impl Tracking {
    /// By the lowest bits of `_nfct` (`enum ip_conntrack_info`, user interface of the kernel) and whether it has an entry.
    pub const fn from_raw(raw: u64) -> Self {
        match (raw & 7, raw & !7) {
            (7, _) => Self::Untracked,
            (_, 0) => Self::None,
            (0, _) => Self::Established,
            (1, _) => Self::Related,
            (2, _) => Self::New,
            (3..=6, _) => Self::Reply,
            (_, _) => Self::None,
        }
    }
}

/// The headers of a packet; of one in a tunnel, the inner ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Port 0 where the protocol has none; of an ICMP echo its identifier.
    pub source: SocketAddr,
    /// The same.
    pub destination: SocketAddr,
    /// IP protocol number.
    pub protocol: u8,
    /// IPv4's identification; `None` with IPv6.
    pub id: Option<u16>,
    /// IPv4's "don't fragment"; IPv6 never fragments on the way.
    pub dont_fragment: bool,
    /// A part of a packet that was cut.
    pub fragment: bool,
    /// TTL or hop limit: routers it may still pass.
    pub ttl: u8,
    /// From the IP header on, bytes.
    pub length: u32,
    /// Bytes behind the transport header.
    pub payload: u32,
    pub tcp: Option<Tcp>,
    /// Type and code.
    pub icmp: Option<(u8, u8)>,
    /// Of an ICMP echo.
    pub sequence: Option<u16>,
    /// An ICMP error: about a packet of the flow, from `source`.
    pub about: bool,
    /// What it is wrapped in.
    pub tunnel: Option<Tunnel>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tcp {
    pub sequence: u32,
    pub acknowledgment: u32,
    /// The byte of flags, FIN being 1.
    pub flags: u8,
}

impl Tcp {
    pub const FIN: u8 = 1;
    pub const SYN: u8 = 2;
    pub const RST: u8 = 4;
    pub const ACK: u8 = 16;

    pub const fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// VXLAN's outer header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[cfg_attr(
    feature = "schema",
    derive(schemars::JsonSchema),
    schemars(rename = "PathTunnel")
)]
pub struct Tunnel {
    /// The VNI.
    pub vni: u32,
    /// The outer source.
    #[serde(serialize_with = "address::alone")]
    #[cfg_attr(feature = "schema", schemars(with = "address::Address"))]
    pub source: IpAddr,
    /// The outer destination.
    #[serde(serialize_with = "address::with_port")]
    #[cfg_attr(feature = "schema", schemars(with = "address::AddressPort"))]
    pub destination: SocketAddr,
}

impl Packet {
    /// Source and destination.
    pub fn ends(&self) -> (SocketAddr, SocketAddr) {
        (self.source, self.destination)
    }

    /// Source address and IP protocol number of the outermost header, which the kernel's hooks use.
    pub fn outer(&self) -> (IpAddr, u8) {
        /// VXLAN's.
        const UDP: u8 = 17;
        match self.tunnel {
            Some(tunnel) => (tunnel.source, UDP),
            None => (self.source.ip(), self.protocol),
        }
    }

    /// Whether it is an ICMP redirect (type 5).
    pub fn is_redirect(&self) -> bool {
        self.source.is_ipv4() && matches!(self.icmp, Some((5, _)))
    }

    /// Whether it is an ICMP echo request, which wants an answer.
    pub fn is_echo(&self) -> bool {
        let v4 = self.source.is_ipv4();
        self.icmp
            .is_some_and(|(kind, _)| kind == if v4 { 8 } else { 128 })
    }

    /// What it is, in a word or two: `SYN`, `UDP, 12 bytes`.
    pub fn title(&self) -> String {
        if let Some((kind, code)) = self.icmp {
            return super::reason::icmp(self.source.is_ipv4(), kind, code);
        }
        let Some(tcp) = self.tcp else {
            let name = match self.protocol {
                17 => "UDP".to_owned(),
                132 => "SCTP".to_owned(),
                number => format!("protocol {number}"),
            };
            return format!("{name}, {}", bytes(self.payload));
        };
        let names = [
            (Tcp::SYN, "SYN"),
            (Tcp::FIN, "FIN"),
            (Tcp::RST, "RST"),
            (Tcp::ACK, "ACK"),
        ];
        let mut flags: Vec<_> = names
            .into_iter()
            .filter(|(flag, _)| tcp.has(*flag))
            .map(|(_, name)| name)
            .collect();
        // Every packet but the first has ACK: worth a word where there is no other, and with SYN.
        if flags.len() > 1 && !tcp.has(Tcp::SYN) {
            flags.retain(|name| *name != "ACK");
        }
        match (flags.as_slice(), self.payload) {
            ([] | ["ACK"], 1..) => bytes(self.payload),
            ([], 0) => "TCP without flags".to_owned(),
            (flags, 0) => flags.join("-"),
            (flags, payload) => format!("{} and {}", flags.join("-"), bytes(payload)),
        }
    }
}

fn bytes(count: u32) -> String {
    match count {
        1 => "1 byte".to_owned(),
        count => format!("{count} bytes"),
    }
}
