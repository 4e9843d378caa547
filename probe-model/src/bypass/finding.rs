//! Kinds of traffic that bypasses conntrack and should not.

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
}
