//! Rules that let packets past conntrack.

use std::net::IpAddr;

use crate::rule::{CandidateRule, RuleOwner};

/// A rule that sets notrack, and its counter from snapshot to snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotrackRule {
    pub rule: CandidateRule,
    /// What was added to its counter since probe began; `None`: it has no counter.
    pub since: Option<u64>,
    /// When its counter was last seen to have moved, `CLOCK_MONOTONIC` nanoseconds; 0: not yet.
    pub moved_ns: u64,
    /// The same of the first time.
    pub first_moved_ns: u64,
    /// What it serves, where that is by design.
    pub intended: Option<Intended>,
}

impl NotrackRule {
    /// As reports name it, and what distinguishes it from others of one snapshot.
    pub fn name(&self) -> String {
        self.rule.to_string()
    }
}

crate::names! {
    /// What leaves traffic untracked with good reason.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub enum Intended {
        /// NodeLocal DNSCache answers on the node itself, and saves conntrack its entries.
        NodeLocalDns = "NodeLocal DNSCache",
        /// Cilium's own rules, as for pods with its annotation.
        Cilium = "Cilium",
        /// Packets between nodes that the overlay encapsulated: nothing translates them, and conntrack need not know them.
        Overlay = "overlay",
        /// The node's own traffic, untracked both ways, and answered: nothing has to translate it.
        NodeTraffic = "the node's own traffic",
        /// To or from a virtual server of IPVS, which translates by its own table, and answered: nothing else has to.
        Ipvs = "IPVS",
    }
}

impl Intended {
    /// By the rule's owner, or by the address that only NodeLocal DNSCache has.
    pub fn of_rule(rule: &CandidateRule) -> Option<Self> {
        match rule.owner {
            Some(RuleOwner::Cilium) => Some(Self::Cilium),
            Some(RuleOwner::NodeLocalDns) => Some(Self::NodeLocalDns),
            Some(_) | None => rule.text.contains("169.254.20.10").then_some(Self::NodeLocalDns),
        }
    }
}

/// Where NodeLocal DNSCache listens, besides the DNS Service's own address.
pub const NODE_LOCAL: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(169, 254, 20, 10));
/// Of NodeLocal DNSCache: DNS, health, metrics.
pub const NODE_LOCAL_PORTS: [u16; 4] = [53, 8080, 9253, 9353];
