//! What is wrong, how it is known, and what to do.

use std::{
    net::IpAddr,
    ops::{Deref, DerefMut},
};

use super::traffic::Direction;
use crate::{
    finding::{Finding, Kind},
    rule::{self, Action, CandidateRule, PacketPath, RuleFlow},
};

const UDP: u8 = 17;

crate::names! {
    /// A kind of fault.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
    pub enum Fault {
        PortMismatch = "port-mismatch",
        VniMismatch = "vni-mismatch",
        Filtered = "filtered",
        Refused = "refused",
        NoAnswer = "no-answer",
        MissingRoute = "missing-route",
        MissingNeighbour = "missing-neighbour",
        MissingForwarding = "missing-forwarding",
        DeadVtep = "dead-vtep",
        UnderlayRoute = "underlay-route",
        OwnAddress = "own-address",
        MissingAddress = "missing-address",
        DuplicateMac = "duplicate-mac",
        DuplicateVtep = "duplicate-vtep",
        PrefixOverlap = "prefix-overlap",
        StaleMac = "stale-mac",
        BadChecksum = "bad-checksum",
        Mtu = "mtu",
        MalformedHeader = "malformed-header",
        PortTaken = "port-taken",
        DeviceDown = "device-down",
        Dropped = "dropped",
    }
}

impl Fault {
    /// In one line, for lists of names.
    pub const fn description(self) -> &'static str {
        match self {
            Self::PortMismatch => "a peer sends to a UDP port that the device does not listen on",
            Self::VniMismatch => "a peer sends a VNI that the device does not have",
            Self::Filtered => "an iptables or nft rule on this node drops or rejects VXLAN packets",
            Self::Refused => "a peer answers with an ICMP error",
            Self::NoAnswer => "packets leave, none come back, and this node shows no cause",
            Self::MissingRoute => "the route to a peer's pods is missing",
            Self::MissingNeighbour => "the neighbour entry of a peer is missing",
            Self::MissingForwarding => "the FDB entry of a peer is missing",
            Self::DeadVtep => "no host answers for a peer's address on the underlay",
            Self::UnderlayRoute => "the route to a peer's VTEP leads nowhere, or into the device itself",
            Self::OwnAddress => "a peer's VTEP is an address of this node",
            Self::MissingAddress => "the device sends from an address that this node does not have",
            Self::DuplicateMac => "two VXLAN devices have the same MAC address",
            Self::DuplicateVtep => "two peers have the same VTEP",
            Self::PrefixOverlap => "a peer's pods and another network have addresses in common",
            Self::StaleMac => "this node or a peer has an outdated MAC address of the other's device",
            Self::BadChecksum => "packets arrive with a wrong outer checksum",
            Self::Mtu => "the device's MTU is larger than the underlay carries",
            Self::MalformedHeader => "packets that are not VXLAN arrive on the device's port",
            Self::PortTaken => "another socket holds the device's UDP port",
            Self::DeviceDown => "the device is down",
            Self::Dropped => "this node drops VXLAN packets for another reason",
        }
    }
}

/// A fault of one device, mostly with one peer, and what its diagnosis goes on with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnosed {
    pub fault: Fault,
    pub finding: Finding,
    /// Tells findings of one kind apart: port, VNI, gateway.
    pub detail: String,
    /// When it was seen first, `CLOCK_MONOTONIC` nanoseconds.
    pub since_ns: u64,
    /// The packets that a rule drops, where one is looked for.
    pub filtered: Option<FilteredPackets>,
}

impl Diagnosed {
    pub fn new(fault: Fault, device: &str, peer: Option<IpAddr>, what: String) -> Self {
        Self {
            fault,
            finding: Finding {
                device: Some(device.to_owned()),
                peer,
                ..Finding::failed(Kind::Vxlan(fault), what)
            },
            detail: String::new(),
            since_ns: 0,
            filtered: None,
        }
    }
}

impl Deref for Diagnosed {
    type Target = Finding;

    fn deref(&self) -> &Finding {
        &self.finding
    }
}

impl DerefMut for Diagnosed {
    fn deref_mut(&mut self) -> &mut Finding {
        &mut self.finding
    }
}

/// Whether so many packets dropped of so many are a loss that is felt: one of a hundred, or half of the few that there were.
/// Single packets are dropped now and then for reasons that say nothing of an overlay.
pub const fn is_loss(dropped: u64, of: u64) -> bool {
    const MANY: u64 = 10;
    const FEW: u64 = 3;
    (dropped >= MANY && dropped.saturating_mul(100) >= of)
        || (dropped >= FEW && dropped.saturating_mul(2) >= of)
}

/// VXLAN packets that the packet filter drops.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilteredPackets {
    pub direction: Direction,
    pub source: IpAddr,
    pub destination: IpAddr,
    /// UDP destination port.
    pub port: u16,
    /// The underlay device.
    pub underlay: Option<String>,
    /// How many were dropped.
    pub packets: u64,
    /// Of how many.
    pub of: u64,
    /// When the latest was dropped, `CLOCK_MONOTONIC` nanoseconds.
    pub latest_ns: u64,
}

impl FilteredPackets {
    /// Its packets, as rules see them. VXLAN's source port is a hash of what is inside.
    pub fn rule_flow(&self) -> RuleFlow {
        let path = match self.direction {
            Direction::In => PacketPath::In,
            Direction::Out => PacketPath::Out,
        };
        RuleFlow {
            destination_port: Some(self.port),
            ..RuleFlow::between(path, UDP, self.source, self.destination)
        }
    }
}

impl Diagnosed {
    /// Names the rules that may drop its packets; whether there is a fault at all: single packets that no reason and no rule
    /// explains are none.
    #[must_use]
    pub fn explain(&mut self, rules: Vec<CandidateRule>) -> bool {
        let Some(packets) = &self.filtered else {
            return true;
        };
        let rules = rule::decisive(rules);
        let Some(first) = rules.first() else {
            if self.fault != Fault::Filtered {
                return is_loss(packets.packets, packets.of);
            }
            self.evidence.push(
                    "no rule of iptables or nft that could be read matches: it may be another hook, such as a BPF \
                     program's"
                        .to_owned(),
            );
            return true;
        };
        let (direction, port) = (packets.direction, packets.port);
        let which = match direction {
            Direction::In => format!("{} sends", packets.source),
            Direction::Out => format!("this node sends to {}", packets.destination),
        };
        let does = match first.action {
            Action::Reject => "rejected",
            Action::Drop | Action::NoTrack => "dropped",
        };
        let word = if first.certain { "by" } else { "perhaps by" };
        let fixes = first.fixes(&packets.rule_flow());
        self.fault = Fault::Filtered;
        self.kind = Kind::Vxlan(Fault::Filtered);
        self.what = format!(
            "VXLAN packets that {which} to UDP port {port} are {does} on this node {word} a rule: {first}"
        );
        for rule in rules {
            let counted = rule.packets.map_or_else(
                || "it has no counter".to_owned(),
                |packets| format!("it counted {packets} packets"),
            );
            let rule = rule.to_string();
            self.evidence.push(format!("{rule}; {counted}"));
            self.rules.push(rule);
        }
        self.fixes = fixes;
        true
    }
}
