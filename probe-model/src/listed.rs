//! Sets of names that help, completions and messages list. Each set stands beside its type, so that no list is written twice.

use super::{Outcome, Role, bypass, doctor::Check, path, vxlan};

/// A value that has a name, one of a fixed set.
pub trait Listed: Copy + Send + Sync + 'static {
    /// Every value, in the order of lists.
    const ALL: &'static [Self];

    /// The name on the command line, in tables and in JSON.
    fn name(self) -> &'static str;

    /// The meaning, in one line for a list of names.
    fn description(self) -> &'static str;
}

/// Delegates to the names that the type has.
macro_rules! listed {
    ($type:ty, $description:expr) => {
        impl Listed for $type {
            const ALL: &'static [Self] = &<$type>::ALL;

            fn name(self) -> &'static str {
                <$type>::name(self)
            }

            fn description(self) -> &'static str {
                $description(self)
            }
        }
    };
}

listed!(Outcome, of_outcome);
listed!(Role, of_role);
listed!(path::Outcome, path::Outcome::description);
listed!(vxlan::Fault, vxlan::Fault::description);
listed!(bypass::finding::Fault, bypass::finding::Fault::description);
listed!(Check, Check::looks_at);

const fn of_role(role: Role) -> &'static str {
    match role {
        Role::Client => "opened the connection",
        Role::Server => "accepted the connection",
    }
}

/// Here, because the type belongs to the contract with the kernel program, which has no texts.
const fn of_outcome(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::HalfOpen => "established, closed by the client with FIN, no payload in either direction",
        Outcome::HalfOpenReset => "established, reset by the client, no payload in either direction",
        Outcome::HandshakeReset => "client side: RST in answer to SYN-ACK; the server has no connection",
        Outcome::GreetingOnly => "payload from the server only, then closed or reset by the client",
        Outcome::ServerGaveUp => "established, closed by the server with FIN, no payload in either direction",
        Outcome::SynOnly => "server side: SYN answered, handshake never completed",
        Outcome::Refused => "RST in answer to SYN",
        Outcome::Unanswered => "no answer to SYN: timed out, or abandoned by the client",
        Outcome::Unreachable => "ICMP error in answer to SYN, or SYN not sent",
        Outcome::NoReply => "payload from the client, none from the server, then closed",
        Outcome::ResetByClient => "RST from the client after payload",
        Outcome::ResetByServer => "RST from the server after the handshake",
        Outcome::TimedOut => "established, then retransmissions ran out",
        Outcome::Closed => "orderly close that is none of the above",
        Outcome::Open => "still open when reported",
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    /// What a line of a list of names has room for, in a terminal of 100 columns.
    const LONGEST: usize = 76;

    fn every_value_has_a_line<T: Listed>() {
        let names: HashSet<_> = T::ALL.iter().map(|value| value.name()).collect();
        assert_eq!(names.len(), T::ALL.len(), "a name stands for two");
        let texts: HashSet<_> = T::ALL.iter().map(|value| value.description()).collect();
        assert_eq!(texts.len(), T::ALL.len(), "a description stands for two");
        for text in texts {
            assert!((1..=LONGEST).contains(&text.chars().count()), "{text}");
            assert!(!text.ends_with('.') && !text.contains('\n'), "{text}");
        }
    }

    #[test]
    fn lists_are_of_one_line_each() {
        every_value_has_a_line::<Outcome>();
        every_value_has_a_line::<Role>();
        every_value_has_a_line::<path::Outcome>();
        every_value_has_a_line::<vxlan::Fault>();
        every_value_has_a_line::<bypass::finding::Fault>();
        every_value_has_a_line::<Check>();
        every_value_has_a_line::<crate::JsonEvent>();
    }
}
