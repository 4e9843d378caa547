//! Rules that let packets past conntrack.

use std::net::IpAddr;

/// A rule that sets notrack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// `iptables-legacy: raw PREROUTING rule 3: -A PREROUTING -p tcp -j CT --notrack`
    pub text: String,
    /// Its own counter, where it has one.
    pub packets: Option<u64>,
    /// What was added to it since probe began; `None`: it has no counter.
    pub since: Option<u64>,
    /// When its counter was last seen to have moved, `CLOCK_MONOTONIC` nanoseconds; 0: not yet.
    pub moved_ns: u64,
    /// What takes it away, as a command.
    pub remedy: String,
    /// Whose rule it is, where it has to be.
    pub intended: Option<Intended>,
}

crate::names! {
    /// What leaves traffic untracked with good reason.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub enum Intended {
        /// NodeLocal DNSCache answers on the node itself, and saves conntrack its entries.
        NodeLocalDns = "NodeLocal DNSCache",
        /// Cilium's own rules, as for pods with its annotation.
        Cilium = "Cilium",
    }
}

impl Intended {
    /// By the rule's chain, comment and addresses, as its maker writes them.
    pub fn of_rule(chain: &str, text: &str) -> Option<Self> {
        if chain.starts_with("CILIUM_") || chain.starts_with("OLD_CILIUM_") || text.contains("\"cilium:") {
            return Some(Self::Cilium);
        }
        (text.contains("NodeLocal DNS Cache") || text.contains("169.254.20.10")).then_some(Self::NodeLocalDns)
    }
}

/// Where NodeLocal DNSCache listens, besides the DNS Service's own address.
pub const NODE_LOCAL: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(169, 254, 20, 10));
/// Of NodeLocal DNSCache: DNS, health, metrics.
pub const NODE_LOCAL_PORTS: [u16; 4] = [53, 8080, 9253, 9353];

/// A rule that a stream may bypass conntrack by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CandidateRule {
    /// [`Rule::text`].
    pub rule: String,
    /// All that it asks for is met by the packets.
    pub certain: bool,
}
