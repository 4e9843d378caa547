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
        /// A rule for packets that arrive by the loopback device. The kernel keeps what conntrack made of them where they were
        /// sent (`xt_ct_target`, `nft_notrack_eval`), so that the rule exempts nothing.
        Loopback = "loopback",
        /// SYNPROXY answers SYNs that are exempted for it, and they go no further.
        Synproxy = "SYNPROXY",
        /// To or from a virtual server of IPVS, which translates by its own table, and answered: nothing else has to.
        Ipvs = "IPVS",
    }
}

impl Intended {
    /// By the rule's owner, by the address that only NodeLocal DNSCache has, by the device, or by what the rule asks for where a
    /// rule of SYNPROXY is there too.
    pub fn of_rule(rule: &CandidateRule, has_synproxy: bool) -> Option<Self> {
        match rule.owner {
            Some(RuleOwner::Cilium) => return Some(Self::Cilium),
            Some(RuleOwner::NodeLocalDns) => return Some(Self::NodeLocalDns),
            Some(_) | None => {}
        }
        if rule.text.contains("169.254.20.10") {
            Some(Self::NodeLocalDns)
        } else if is_of_loopback(&rule.text) {
            Some(Self::Loopback)
        } else if has_synproxy && is_of_first_segments(&rule.text) {
            Some(Self::Synproxy)
        } else {
            None
        }
    }
}

/// Whether a rule hands SYNs to SYNPROXY.
pub fn is_synproxy(rule: &CandidateRule) -> bool {
    rule.text
        .split_whitespace()
        .any(|word| word.eq_ignore_ascii_case("synproxy"))
}

/// Whether a rule is for packets that arrive by `lo` alone, in iptables' words or nft's.
fn is_of_loopback(rule: &str) -> bool {
    let mut words = rule.split_whitespace();
    let mut negated = false;
    while let Some(word) = words.next() {
        let names_device = matches!(word, "-i" | "--in-interface" | "iif" | "iifname");
        if names_device && !negated {
            return words
                .next()
                .is_some_and(|device| device.trim_matches('"') == "lo");
        }
        negated = word == "!";
    }
    false
}

/// Whether a rule is for the first segment of a TCP connection alone.
fn is_of_first_segments(rule: &str) -> bool {
    let words: Vec<_> = rule.split_whitespace().collect();
    let follow = |found: &[&str]| words.windows(found.len()).any(|words| words == found);
    // iptables prints --syn so. nft: `tcp flags syn`, with or without a mask.
    follow(&["--tcp-flags", "FIN,SYN,RST,ACK", "SYN"])
        || follow(&["tcp", "flags", "syn"])
        || follow(&["tcp", "flags", "==", "syn"])
        || follow(&[
            "tcp", "flags", "&", "(fin", "|", "syn", "|", "rst", "|", "ack)", "==", "syn",
        ])
}

/// Where NodeLocal DNSCache listens, besides the DNS Service's own address.
pub const NODE_LOCAL: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(169, 254, 20, 10));
/// Of NodeLocal DNSCache: DNS, health, metrics.
pub const NODE_LOCAL_PORTS: [u16; 4] = [53, 8080, 9253, 9353];
