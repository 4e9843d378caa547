//! What slips past conntrack and should not, how it is known, and what to do.

use std::net::IpAddr;

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Fault {
    /// Packets to a Service's address that nothing translates: they reach nobody.
    UntrackedRequest,
    /// Packets of a Service's endpoint that are not translated back: the client does not know them.
    UntrackedReply,
    /// Other packets: not translated, not masqueraded, a new connection to every stateful rule.
    Untracked,
}

impl Fault {
    pub const ALL: [Self; 3] = [Self::UntrackedRequest, Self::UntrackedReply, Self::Untracked];

    /// The name in JSON and in tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::UntrackedRequest => "untracked-request",
            Self::UntrackedReply => "untracked-reply",
            Self::Untracked => "untracked",
        }
    }

    /// In one line, for lists of names.
    pub const fn description(self) -> &'static str {
        match self {
            Self::UntrackedRequest => {
                "requests to a Service skip DNAT: no endpoint answers, clients time out"
            }
            Self::UntrackedReply => "replies of a Service's endpoint skip NAT: the client resets them",
            Self::Untracked => "other packets skip NAT and masquerading: pods can lose external access",
        }
    }
}

/// One fault, of one rule and Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub fault: Fault,
    /// The rules, [`Rule::text`](super::rule::Rule::text); empty where none was found.
    pub rules: Vec<String>,
    /// `namespace/name:port`, or the address where there is no name.
    pub service: Option<String>,
    /// Whom it hits: clients of the Service, or who sends.
    pub felt_by: Vec<IpAddr>,
    /// What is wrong, one sentence.
    pub what: String,
    /// What was seen: numbers, addresses, rules.
    pub evidence: Vec<String>,
    /// What to do, one sentence.
    pub remedy: String,
    /// The rule is the one, and so is the damage; else it is what fits best.
    pub certain: bool,
    /// Packets of it since probe began.
    pub packets: u64,
    /// When it was seen first, `CLOCK_MONOTONIC` nanoseconds.
    pub since_ns: u64,
}
