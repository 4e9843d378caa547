//! What the node is set to, as the kernel's tables have it.

use std::{fmt, net::IpAddr};

use ipnet::IpNet;

/// An Ethernet address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// `None` where it has another length.
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    pub fn is_zero(self) -> bool {
        self.0 == [0; 6]
    }

    /// Of a group, such as all of IPv6's neighbours.
    pub fn is_group(self) -> bool {
        self.0[0] & 1 != 0
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// A network device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    pub index: u32,
    pub name: String,
    /// Set up by its administrator.
    pub up: bool,
    /// Its packets have an Ethernet header.
    pub ethernet: bool,
    pub mtu: u32,
    pub mac: Option<Mac>,
    /// Index of the bridge, bond or VRF it is in.
    pub controller: Option<u32>,
    /// It is a bridge.
    pub bridge: bool,
    /// Packets received, as it counts them.
    pub received: u64,
    /// Packets sent, as it counts them.
    pub sent: u64,
    /// Packets it could not send.
    pub send_failures: u64,
    pub vxlan: Option<Vxlan>,
    /// Id of the XDP program that runs before all else.
    pub xdp: Option<u32>,
}

/// A device's name as rules and routes see it: of a bridge's port the bridge.
pub fn upper_name(devices: &[Device], index: u32) -> Option<&str> {
    let by_index = |index: u32| devices.iter().find(|device| device.index == index);
    let device = by_index(index)?;
    let bridge = device.controller.and_then(by_index);
    let seen = bridge.filter(|bridge| bridge.bridge).unwrap_or(device);
    Some(&seen.name)
}

/// What a VXLAN device is set to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Vxlan {
    pub vni: u32,
    pub port: u16,
    pub local: Option<IpAddr>,
    /// Index of the device it sends through; `None`: what the routes say.
    pub underlay: Option<u32>,
    /// It learns where addresses are from what arrives.
    pub learning: bool,
    /// VNI and peer are set per packet by a program (`external`).
    pub external: bool,
    /// A multicast group to which it sends what it has no entry for.
    pub group: Option<IpAddr>,
    /// Two devices share a UDP port only with the same options.
    pub options: ReceiveOptions,
    /// It was made in another network namespace, where its socket and its underlay still are.
    pub elsewhere: bool,
}

impl Vxlan {
    /// Whether the kernel refuses to have both up: their UDP port is the same, and what they expect there is not
    /// (`vxlan_find_sock`).
    pub fn conflicts(&self, other: &Self) -> bool {
        self.port == other.port && (self.external != other.external || self.options != other.options)
    }
}

/// What a VXLAN device's socket is set to besides its port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReceiveOptions {
    /// Group policy extension.
    pub gbp: bool,
    /// Generic protocol extension.
    pub gpe: bool,
    /// Takes IPv6 packets without a checksum.
    pub zero_checksum: bool,
    /// Remote checksum offload.
    pub remote_checksum: bool,
}

crate::names! {
    /// What a route does with packets.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub enum RouteKind {
        /// Sends them on.
        #[default]
        Unicast = "unicast",
        /// Drops them.
        Blackhole = "blackhole",
        /// Drops them, and answers "host unreachable".
        Unreachable = "unreachable",
        /// Drops them, and answers "prohibited".
        Prohibit = "prohibit",
    }
}

/// A route, or one next hop of a route with several.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Route {
    pub prefix: IpNet,
    pub gateway: Option<IpAddr>,
    /// Index of the device it leads through.
    pub device: Option<u32>,
    /// Lower goes first.
    pub metric: u32,
    pub kind: RouteKind,
    /// The routing table; 254 is the main one.
    pub table: u32,
    /// The peer that the route itself gives to a tunnel device in external mode.
    pub encap: Option<IpAddr>,
}

/// The main routing table.
pub const MAIN_TABLE: u32 = 254;

/// What the kernel does with packets of this node to an address, by all its tables and rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouteLookup {
    Sent {
        /// Index of the device.
        device: u32,
        gateway: Option<IpAddr>,
    },
    /// The address is this node's own.
    Own,
    /// A route or a rule of policy routing rejects them.
    Rejected(RouteKind),
    /// No table has a route.
    NoRoute,
}

/// A neighbour: the link layer address of an IP address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Neighbour {
    pub device: u32,
    pub address: IpAddr,
    pub mac: Option<Mac>,
    pub state: Reachability,
}

/// How far a neighbour is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reachability {
    /// Set by hand, or by what manages the overlay; never asked for.
    Permanent,
    /// Asked for, and known.
    Known,
    /// Asked for, no answer yet.
    Asked,
    /// No answer to the lookup (`NUD_FAILED`).
    Failed,
    /// Needs no asking, as group addresses.
    NoNeed,
}

/// A forwarding entry of a VXLAN device: the peer behind a link layer address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForwardingEntry {
    pub device: u32,
    pub mac: Mac,
    pub peer: IpAddr,
    /// Set, not learned.
    pub permanent: bool,
}
