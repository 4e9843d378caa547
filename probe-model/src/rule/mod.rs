//! Rules of the packet filter that may have done something to a packet: how sure that is, who keeps the rule, and how to undo
//! it.

mod fix;
mod owner;
#[cfg(test)]
pub(crate) mod samples;
#[cfg(test)]
mod tests;

use std::{
    fmt::{self, Display, Formatter},
    net::IpAddr,
};

pub use fix::RuleFlow;
pub(crate) use fix::endpoints;
pub use owner::{RuleOwner, owner_of, owner_of_policy};

/// The program that lists a rule, and changes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Tool {
    /// `iptables-legacy`: `x_tables` of the kernel.
    IptablesLegacy,
    /// `iptables-nft`: rules of iptables, kept by `nf_tables`.
    IptablesNft,
    /// `ebtables-legacy`: `ebtables` of the kernel.
    EbtablesLegacy,
    /// `ebtables-nft`: rules of ebtables, kept by `nf_tables`.
    EbtablesNft,
    /// `nft`.
    Nft,
}

impl Tool {
    /// The command's name. That for IPv6 differs with iptables.
    pub const fn name(self, family: Family) -> &'static str {
        match (self, family) {
            (Self::IptablesLegacy, Family::Ip6) => "ip6tables-legacy",
            (Self::IptablesLegacy, Family::Ip | Family::Inet | Family::Netdev | Family::Bridge) => {
                "iptables-legacy"
            }
            (Self::IptablesNft, Family::Ip6) => "ip6tables-nft",
            (Self::IptablesNft, Family::Ip | Family::Inet | Family::Netdev | Family::Bridge) => {
                "iptables-nft"
            }
            (Self::EbtablesLegacy, _) => "ebtables-legacy",
            (Self::EbtablesNft, _) => "ebtables-nft",
            (Self::Nft, Family::Ip | Family::Ip6 | Family::Inet | Family::Netdev | Family::Bridge) => "nft",
        }
    }
}

crate::names! {
    /// The packets of a table, as nft writes it. The family that no IP packet passes (arp) is not read.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub enum Family {
        /// IPv4.
        Ip = "ip",
        /// IPv6.
        Ip6 = "ip6",
        /// Both.
        Inet = "inet",
        /// Both, at a device.
        Netdev = "netdev",
        /// Both, between the ports of a bridge, and between a port and its host.
        Bridge = "bridge",
    }
}

impl Family {
    /// Whether packets of this address's kind go through the family's tables.
    pub const fn covers(self, address: IpAddr) -> bool {
        match self {
            Self::Ip => address.is_ipv4(),
            Self::Ip6 => address.is_ipv6(),
            Self::Inet | Self::Netdev | Self::Bridge => true,
        }
    }
}

/// What a rule does to a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Drops it silently.
    Drop,
    /// Drops it and answers its sender.
    Reject,
    /// Exempts it from connection tracking. The packet goes on.
    NoTrack,
}

/// The hooks that a packet passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PacketPath {
    /// To this network namespace: prerouting, input.
    In,
    /// From this network namespace: output, postrouting.
    Out,
    /// Through this network namespace: prerouting, forward, postrouting.
    Forward,
}

/// Where in its chain a rule is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RulePosition {
    /// Counted from 1, as `iptables -L --line-numbers` does.
    Position(u32),
    /// The handle, as `nft --handle list ruleset` prints it. It stays the same when other rules come and go.
    Handle(u64),
    /// No rule of the chain: its policy.
    Policy,
}

/// A rule, or a chain's policy, that did something to a packet or may have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CandidateRule {
    pub tool: Tool,
    /// The table's family.
    pub family: Family,
    pub table: String,
    pub chain: String,
    pub place: RulePosition,
    /// The rule as its tool writes it, without counters, cut for display and free of control characters: nothing to make a
    /// command of.
    pub text: String,
    /// All words of the rule behind `-A`, the chain first; `None`: it was not read whole, or is none of iptables or ebtables.
    pub words: Option<Vec<String>>,
    pub action: Action,
    /// Every match of the rule is understood and matches, and so does every jump on the way: a packet that reaches the rule is
    /// caught by it. Rules before it may still have accepted the packet.
    pub certain: bool,
    /// The packet reaches the rule: nothing before it may have accepted the packet, returned it, or come in another order.
    pub reached: bool,
    /// How many packets the rule, or the policy, counted; `None`: it has no counter.
    pub packets: Option<u64>,
    /// The program that keeps the rule, and writes it again.
    pub owner: Option<RuleOwner>,
}

impl CandidateRule {
    /// The same rule, wherever others push it in its chain.
    pub fn identity(&self) -> String {
        let tool = self.tool.name(self.family);
        format!("{tool} {} {} {}", self.table, self.chain, self.text)
    }

    /// That its counter did not move rules it out.
    pub fn is_ruled_out(&self) -> bool {
        self.packets == Some(0)
    }
}

/// As reports name it: `iptables-legacy: raw PREROUTING rule 3: -A PREROUTING -p tcp -j CT --notrack`.
impl Display for CandidateRule {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.tool.name(self.family))?;
        match self.tool {
            Tool::IptablesLegacy | Tool::IptablesNft => {}
            Tool::Nft | Tool::EbtablesLegacy | Tool::EbtablesNft => write!(f, "{} ", self.family.name())?,
        }
        write!(f, "{} {} ", clean(&self.table), clean(&self.chain))?;
        match self.place {
            RulePosition::Position(position) => write!(f, "rule {position}: {}", self.text),
            RulePosition::Handle(handle) => write!(f, "handle {handle}: {}", self.text),
            RulePosition::Policy => f.write_str(&self.text),
        }
    }
}

/// The candidates that count: without those whose counter did not move. Of rules that are certain only the first did it, if the
/// packet reached it and no other that may match is before it. Else none of them is certain, and all are there.
pub fn decisive(candidates: Vec<CandidateRule>) -> Vec<CandidateRule> {
    let moved: Vec<_> = candidates
        .into_iter()
        .filter(|candidate| !candidate.is_ruled_out())
        .collect();
    // What was the only one that could do it, did it, however the packet came there.
    let is_known = moved
        .first()
        .is_some_and(|first| first.certain && (first.reached || moved.len() == 1));
    let (mut certain, likely): (Vec<_>, Vec<_>) = moved.into_iter().partition(|candidate| candidate.certain);
    if !is_known {
        for rule in &mut certain {
            rule.certain = false;
        }
        certain.extend(likely);
    }
    certain
}

/// The first that counts: what it did to a packet, later rules found done.
pub fn first(candidates: Vec<CandidateRule>) -> Option<CandidateRule> {
    decisive(candidates).into_iter().next()
}

/// Text of a rule for display, without control characters: a container that may write rules chooses its names and
/// comments.
pub fn clean(text: &str) -> String {
    text.chars()
        .map(|c| {
            if c.is_control() || is_bidi(c) {
                char::REPLACEMENT_CHARACTER
            } else {
                c
            }
        })
        .collect()
}

/// Characters that turn the reading direction of what follows.
const fn is_bidi(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}
