//! What address translation made of a connection, and whether what conntrack says is of this connection at all.

use std::net::SocketAddr;

use jiff::Timestamp;

use super::Outcome;

/// One conntrack entry, from its original direction's point of view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConntrackEntry {
    /// The client's own end.
    pub client: SocketAddr,
    /// What it dialled.
    pub dialled: SocketAddr,
    /// The client as the server's end sees it.
    pub seen_as: SocketAddr,
    /// The server that answers.
    pub backend: SocketAddr,
    pub state: Option<TcpState>,
    /// When it was made, where `nf_conntrack_timestamp` is on.
    pub started: Option<Timestamp>,
}

impl ConntrackEntry {
    /// Whether this node changes the addresses of the connection.
    pub fn is_translated(&self) -> bool {
        (self.client, self.dialled) != (self.seen_as, self.backend)
    }
}

/// `enum tcp_conntrack` of `linux/netfilter/nf_conntrack_tcp.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TcpState {
    None,
    SynSent,
    SynReceived,
    Established,
    FinWait,
    CloseWait,
    LastAck,
    TimeWait,
    Close,
    /// Both ends sent SYN.
    SynSent2,
}

impl TcpState {
    /// `None` for what no kernel had when this was written.
    pub const fn from_kernel(state: u8) -> Option<Self> {
        Some(match state {
            0 => Self::None,
            1 => Self::SynSent,
            2 => Self::SynReceived,
            3 => Self::Established,
            4 => Self::FinWait,
            5 => Self::CloseWait,
            6 => Self::LastAck,
            7 => Self::TimeWait,
            8 => Self::Close,
            9 => Self::SynSent2,
            _ => return None,
        })
    }

    /// Whether the entry is of a connection whose end conntrack has seen.
    const fn is_ending(self) -> bool {
        match self {
            Self::None | Self::SynSent | Self::SynReceived | Self::Established | Self::SynSent2 => false,
            Self::FinWait | Self::CloseWait | Self::LastAck | Self::TimeWait | Self::Close => true,
        }
    }
}

/// What the node did to a connection's addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Translation {
    pub seen_as: SocketAddr,
    pub backend: SocketAddr,
}

crate::names! {
    /// Why it is not known what a client was seen as.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum Untranslated {
        /// Conntrack has no entry: never had, or no longer.
        NoEntry = "no-entry",
        /// Its entry is of a later connection from the same port to the same server.
        Reused = "reused",
        /// There were too many to ask for all.
        Busy = "busy",
        /// Conntrack can't be asked.
        Unavailable = "unavailable",
    }
}

/// Whether `entry` is of a connection with this outcome that began at `began`. An entry with the same original tuple
/// may be a later connection's, made from the same port before conntrack was asked.
///
/// # Errors
/// Why it is unknown.
pub fn translation(
    entry: &ConntrackEntry,
    outcome: Outcome,
    began: Timestamp,
) -> Result<Translation, Untranslated> {
    let of_this = match entry.started {
        // The entry is made with the first packet, a moment after the socket's first change.
        Some(started) => started.duration_since(began).as_millis().abs() < 500,
        None => entry.state.is_none_or(|state| match outcome {
            // Ended by both ends or by RST, which conntrack sees before the socket does or at once after.
            Outcome::HalfOpen
            | Outcome::HalfOpenReset
            | Outcome::HandshakeReset
            | Outcome::GreetingOnly
            | Outcome::ServerGaveUp
            | Outcome::NoReply
            | Outcome::ResetByClient
            | Outcome::ResetByServer
            | Outcome::Closed => state.is_ending(),
            // Refused by RST, by an ICMP error or not at all: the entry may be where it began.
            Outcome::Refused | Outcome::Unanswered | Outcome::Unreachable | Outcome::SynOnly => {
                state != TcpState::Established
            }
            // Neither side sent FIN.
            Outcome::TimedOut | Outcome::Open => true,
        }),
    };
    if of_this {
        Ok(Translation {
            seen_as: entry.seen_as,
            backend: entry.backend,
        })
    } else {
        Err(Untranslated::Reused)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    /// An entry may be a later connection's: what it says must fit how this one ended.
    #[test]
    fn an_entry_of_this_connection() {
        use Outcome::*;
        use TcpState as State;
        for (outcome, state, fits) in [
            (HalfOpen, State::TimeWait, true),
            (HalfOpen, State::LastAck, true),
            (HalfOpen, State::FinWait, true),
            (HalfOpen, State::Established, false),
            (HalfOpen, State::SynSent, false),
            (HalfOpenReset, State::Close, true),
            (HalfOpenReset, State::SynReceived, false),
            (HandshakeReset, State::Close, true),
            (ServerGaveUp, State::LastAck, true),
            (GreetingOnly, State::Established, false),
            (Closed, State::Established, false),
            (Unanswered, State::SynSent, true),
            (Unanswered, State::Established, false),
            (Refused, State::Close, true),
            (Unreachable, State::SynSent, true),
            (TimedOut, State::Established, true),
            (Open, State::Established, true),
        ] {
            let entry = ConntrackEntry {
                client: ([10, 244, 2, 2], 40_000).into(),
                dialled: ([192, 168, 88, 11], 2379).into(),
                seen_as: ([192, 168, 88, 12], 62134).into(),
                backend: ([192, 168, 88, 11], 2379).into(),
                state: Some(state),
                started: None,
            };
            let found = translation(&entry, outcome, time(10));
            assert_eq!(found.is_ok(), fits, "{outcome:?} {state:?}");
            // A time of its own says it better.
            for (started, fits) in [(10, true), (12, false), (8, false)] {
                let entry = ConntrackEntry {
                    started: Some(time(started)),
                    ..entry
                };
                let found = translation(&entry, outcome, time(10));
                assert_eq!(found.is_ok(), fits, "{outcome:?} {state:?} {started}");
            }
        }
    }
}
