//! Rules that let packets past conntrack.

use std::net::IpAddr;

use crate::rule::{CandidateRule, RuleOwner, Tool};

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
    /// rule of SYNPROXY is there too: `has_synproxy` is called for the rules that it can be of.
    pub fn of_rule(rule: &CandidateRule, has_synproxy: impl FnOnce() -> bool) -> Option<Self> {
        if rule.owner == Some(RuleOwner::Cilium) {
            Some(Self::Cilium)
        } else if is_of_node_local_dns(rule) {
            Some(Self::NodeLocalDns)
        } else if is_of_loopback(rule) {
            Some(Self::Loopback)
        } else if is_of_first_segments(rule) && has_synproxy() {
            Some(Self::Synproxy)
        } else {
            None
        }
    }
}

/// Whether a rule is of NodeLocal DNSCache: by its comment, or by the address that nothing else has.
pub fn is_of_node_local_dns(rule: &CandidateRule) -> bool {
    match rule.owner {
        Some(RuleOwner::NodeLocalDns) => true,
        Some(RuleOwner::Cilium) => false,
        Some(_) | None => rule.text.contains("169.254.20.10"),
    }
}

/// Whether a rule hands SYNs to SYNPROXY.
pub fn is_synproxy(rule: &CandidateRule) -> bool {
    words(rule).any(|word| word.eq_ignore_ascii_case("synproxy"))
}

/// Whether a rule is for packets that arrive by `lo` alone.
fn is_of_loopback(rule: &CandidateRule) -> bool {
    let mut words = words(rule);
    let mut negated = false;
    while let Some(word) = words.next() {
        let names_device = matches!(word, "-i" | "--in-interface" | "iif" | "iifname");
        if names_device && !negated {
            return words.next() == Some("lo");
        }
        negated = word == "!";
    }
    false
}

/// Whether a rule is for the first segment of a TCP connection alone.
fn is_of_first_segments(rule: &CandidateRule) -> bool {
    let words: Vec<_> = words(rule).collect();
    let follow = |found: &[&str]| words.windows(found.len()).any(|words| words == found);
    // iptables prints --syn so. nft: `tcp flags syn`, with or without a mask.
    follow(&["--tcp-flags", "FIN,SYN,RST,ACK", "SYN"])
        || follow(&["tcp", "flags", "syn"])
        || follow(&["tcp", "flags", "==", "syn"])
        || follow(&[
            "tcp", "flags", "&", "(fin", "|", "syn", "|", "rst", "|", "ack)", "==", "syn",
        ])
}

/// What a rule says, word by word, in iptables' words or nft's. A comment, which anybody may have chosen, is one word. Nothing, where
/// a rule of iptables was not read whole.
fn words(rule: &CandidateRule) -> impl Iterator<Item = &str> {
    let of_iptables = rule.words.iter().flatten().map(String::as_str);
    let of_nft = Some(rule.text.as_str()).filter(|_| rule.tool == Tool::Nft);
    // nft quotes names of devices and comments; no quote is within one.
    let parts = of_nft.into_iter().flat_map(|text| text.split('"').enumerate());
    let of_nft = parts.flat_map(|(place, part)| {
        let (quoted, bare) = match place % 2 {
            0 => (None, part),
            _ => (Some(part), ""),
        };
        quoted.into_iter().chain(bare.split_whitespace())
    });
    of_iptables.chain(of_nft)
}

/// Where NodeLocal DNSCache listens, besides the DNS Service's own address.
pub const NODE_LOCAL: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(169, 254, 20, 10));
/// Of NodeLocal DNSCache: DNS, health, metrics.
pub const NODE_LOCAL_PORTS: [u16; 4] = [53, 8080, 9253, 9353];
