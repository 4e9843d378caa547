//! Kinds of traffic that bypasses conntrack and should not.

crate::names! {
    /// A kind of fault.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
    pub enum Fault {
        /// Packets to a Service's address that are not translated: no endpoint receives them.
        UntrackedRequest = "untracked-request" => "requests to a Service skip DNAT: no endpoint answers, clients time out",
        /// Packets of a Service's endpoint that are not translated back: the client does not know them.
        UntrackedReply = "untracked-reply" => "replies of a Service's endpoint skip NAT: the client resets them",
        /// Other packets: not translated, not masqueraded, a new connection to every stateful rule.
        Untracked = "untracked" => "other packets skip NAT and masquerading: pods can lose external access",
    }
}
