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
        PortMismatch = "port-mismatch" => "a peer sends to a UDP port that the device does not listen on",
        VniMismatch = "vni-mismatch" => "a peer sends a VNI that the device does not have",
        Filtered = "filtered" => "an iptables or nft rule on this node drops or rejects VXLAN packets",
        Refused = "refused" => "a peer answers with an ICMP error",
        NoAnswer = "no-answer" => "packets leave, none come back, and this node shows no cause",
        MissingRoute = "missing-route" => "the route to a peer's pods is missing",
        MissingNeighbour = "missing-neighbour" => "the neighbour entry of a peer is missing",
        MissingForwarding = "missing-forwarding" => "the FDB entry of a peer is missing",
        DeadVtep = "dead-vtep" => "no host answers for a peer's address on the underlay",
        UnderlayRoute = "underlay-route" => "the route to a peer's VTEP is missing, rejects, or uses the \
                         device itself",
        OwnAddress = "own-address" => "a peer's VTEP is an address of this node",
        MissingAddress = "missing-address" => "the device sends from an address that this node does not have",
        DuplicateMac = "duplicate-mac" => "two VXLAN devices have the same MAC address",
        DuplicateVtep = "duplicate-vtep" => "two peers have the same VTEP",
        PrefixOverlap = "prefix-overlap" => "a peer's pods and another network have addresses in common",
        StaleMac = "stale-mac" => "this node or a peer has an outdated MAC address of the other's device",
        BadChecksum = "bad-checksum" => "packets arrive with a wrong outer checksum",
        Mtu = "mtu" => "the device's MTU is larger than the underlay carries",
        MalformedHeader = "malformed-header" => "packets that are not VXLAN arrive on the device's port",
        PortTaken = "port-taken" => "another socket holds the device's UDP port",
        DeviceDown = "device-down" => "the device is down",
        Dropped = "dropped" => "this node drops VXLAN packets for another reason",
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
                "none of the iptables and nft rules that could be read matches: it may be another hook, such as \
                     a BPF program's"
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
