//! What an outcome means to those who report it: which ones are healthy, and which a server complains about.

use super::{Outcome, Role};

/// Whether nothing went wrong: such connections are reported only where they are asked for.
pub const fn is_healthy(outcome: Outcome) -> bool {
    matches!(outcome, Outcome::Closed | Outcome::Open)
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
    use super::*;

    #[test]
    fn a_silent_client_is_never_healthy() {
        for outcome in Outcome::ALL {
            assert!(!(is_silent_client(outcome) && is_healthy(outcome)), "{outcome:?}");
            // A server that complains has the connection.
            assert!(
                !is_silent_client(outcome) || has_side(outcome, Role::Server),
                "{outcome:?}"
            );
            assert!(
                Role::ALL.into_iter().any(|role| has_side(outcome, role)),
                "{outcome:?}"
            );
        }
        assert_eq!(unhealthy().count(), Outcome::ALL.len() - 2);
    }
}
