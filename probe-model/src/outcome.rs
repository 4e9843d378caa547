//! What follows from an outcome: whether it is reported, whether a server logs it, whether a cause is looked for.
//!
//! Each rule names every outcome, so that a new one does not compile until each has an answer for it.

use super::{Outcome, Role};

/// Whether nothing went wrong: such connections are reported only on request.
pub const fn is_healthy(outcome: Outcome) -> bool {
    match outcome {
        Outcome::Closed | Outcome::Open => true,
        Outcome::HalfOpen
        | Outcome::HalfOpenReset
        | Outcome::HandshakeReset
        | Outcome::GreetingOnly
        | Outcome::ServerGaveUp
        | Outcome::SynOnly
        | Outcome::Refused
        | Outcome::Unanswered
        | Outcome::Unreachable
        | Outcome::NoReply
        | Outcome::ResetByClient
        | Outcome::ResetByServer
        | Outcome::TimedOut => false,
    }
}

/// When a connection failed, where the network may be the cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The handshake did not finish.
    Handshake,
    /// Later: packets may have been too large, or were lost.
    Established,
}

/// When it failed; `None`: no cause is looked for.
pub const fn failure(outcome: Outcome) -> Option<Failure> {
    match outcome {
        Outcome::Unanswered | Outcome::Refused | Outcome::Unreachable => Some(Failure::Handshake),
        Outcome::ResetByClient | Outcome::TimedOut => Some(Failure::Established),
        Outcome::HalfOpen
        | Outcome::HalfOpenReset
        | Outcome::HandshakeReset
        | Outcome::GreetingOnly
        | Outcome::ServerGaveUp
        | Outcome::SynOnly
        | Outcome::NoReply
        | Outcome::ResetByServer
        | Outcome::Closed
        | Outcome::Open => None,
    }
}

/// The side that ended it with RST.
pub const fn reset_by(outcome: Outcome) -> Option<Role> {
    match outcome {
        Outcome::HalfOpenReset | Outcome::HandshakeReset | Outcome::ResetByClient => Some(Role::Client),
        Outcome::Refused | Outcome::ResetByServer => Some(Role::Server),
        // After a greeting alone it may have been RST or FIN.
        Outcome::GreetingOnly
        | Outcome::HalfOpen
        | Outcome::ServerGaveUp
        | Outcome::SynOnly
        | Outcome::Unanswered
        | Outcome::Unreachable
        | Outcome::NoReply
        | Outcome::TimedOut
        | Outcome::Closed
        | Outcome::Open => None,
    }
}

/// Whether the server ever had the connection: otherwise it logs nothing.
pub const fn reaches_server(outcome: Outcome) -> bool {
    match outcome {
        Outcome::Refused | Outcome::Unanswered | Outcome::Unreachable | Outcome::HandshakeReset => false,
        Outcome::HalfOpen
        | Outcome::HalfOpenReset
        | Outcome::GreetingOnly
        | Outcome::ServerGaveUp
        | Outcome::SynOnly
        | Outcome::NoReply
        | Outcome::ResetByClient
        | Outcome::ResetByServer
        | Outcome::TimedOut
        | Outcome::Closed
        | Outcome::Open => true,
    }
}

/// Outcomes that are reported by default.
pub fn unhealthy() -> impl Iterator<Item = Outcome> {
    Outcome::ALL.into_iter().filter(|outcome| !is_healthy(*outcome))
}

/// Whether the server had a connection on which the client sent nothing. A server that expects a TLS handshake, or an answer to
/// its greeting, logs each of them as an error.
pub const fn is_silent_client(outcome: Outcome) -> bool {
    match outcome {
        Outcome::HalfOpen | Outcome::HalfOpenReset | Outcome::ServerGaveUp | Outcome::GreetingOnly => true,
        // Without a connection at the server nothing is logged.
        Outcome::HandshakeReset
        | Outcome::SynOnly
        | Outcome::Refused
        | Outcome::Unanswered
        | Outcome::Unreachable
        | Outcome::NoReply
        | Outcome::ResetByClient
        | Outcome::ResetByServer
        | Outcome::TimedOut
        | Outcome::Closed
        | Outcome::Open => false,
    }
}

/// Whether a connection can have this outcome at this side.
pub const fn has_side(outcome: Outcome, role: Role) -> bool {
    match outcome {
        Outcome::SynOnly => matches!(role, Role::Server),
        Outcome::Unanswered | Outcome::Unreachable | Outcome::HandshakeReset => matches!(role, Role::Client),
        Outcome::HalfOpen
        | Outcome::HalfOpenReset
        | Outcome::GreetingOnly
        | Outcome::ServerGaveUp
        | Outcome::Refused
        | Outcome::NoReply
        | Outcome::ResetByClient
        | Outcome::ResetByServer
        | Outcome::TimedOut
        | Outcome::Closed
        | Outcome::Open => true,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use probe_ebpf::contract::outcome::Ending;

    use super::*;

    #[test]
    fn a_silent_client_is_never_healthy() {
        for outcome in Outcome::ALL {
            assert!(!(is_silent_client(outcome) && is_healthy(outcome)), "{outcome:?}");
            assert!(failure(outcome).is_none() || !is_healthy(outcome), "{outcome:?}");
            // A server that logs it has the connection.
            assert!(
                !is_silent_client(outcome) || reaches_server(outcome),
                "{outcome:?}"
            );
            assert!(
                !reaches_server(outcome) || has_side(outcome, Role::Server),
                "{outcome:?}"
            );
            assert!(
                reset_by(outcome).is_none_or(|role| has_side(outcome, role)),
                "{outcome:?}"
            );
            assert!(
                Role::ALL.into_iter().any(|role| has_side(outcome, role)),
                "{outcome:?}"
            );
        }
        assert_eq!(unhealthy().count(), Outcome::ALL.len() - 2);
    }

    /// Each outcome is one that the rule gives, or that user space sets where a socket has not ended.
    #[test]
    fn every_outcome_has_a_rule() {
        let mut given = HashSet::from([Outcome::Open, Outcome::SynOnly]);
        for role in Role::ALL {
            for last_state in 1..=11 {
                for error in [0, 32, 103, 104, 110, 111, 113] {
                    for bits in 0..32_u8 {
                        let ending = Ending {
                            role,
                            last_state,
                            reset_received: bits & 1 != 0,
                            error,
                            segments_sent: u32::from(bits >> 3),
                            client_payload: bits & 2 != 0,
                            server_payload: bits & 4 != 0,
                        };
                        given.insert(ending.outcome());
                    }
                }
            }
        }
        let missing = Outcome::ALL
            .into_iter()
            .filter(|outcome| !given.contains(outcome));
        assert_eq!(missing.collect::<Vec<_>>(), [], "no rule gives these");
    }
}
