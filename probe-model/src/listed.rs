//! Sets of names that help, completions and messages list, each with its meaning.

use super::{Outcome, Role};

/// A value that has a name, one of a fixed set.
pub trait Listed: Copy + Send + Sync + 'static {
    /// Every value, in the order of lists.
    const ALL: &'static [Self];

    /// The name on the command line, in tables and in JSON.
    fn name(self) -> &'static str;

    /// The meaning, in one line for a list of names.
    fn description(self) -> &'static str;
}

/// Describes each value of a type that has names: of one by [`names!`](crate::names), or of the contract with the kernel programs,
/// which has no texts. A value that is missing here, or in the type's own list, does not compile.
#[doc(hidden)]
#[macro_export]
macro_rules! listed {
    ($type:ident { $($value:ident => $description:literal,)+ }) => {
        const _: () = assert!($type::ALL.len() == [$($description),+].len());

        impl $crate::Listed for $type {
            const ALL: &'static [Self] = &Self::ALL;

            fn name(self) -> &'static str {
                self.name()
            }

            fn description(self) -> &'static str {
                match self {
                    $(Self::$value => $description,)+
                }
            }
        }
    };
}

listed! {
    Role {
        Client => "opened the connection",
        Server => "accepted the connection",
    }
}

listed! {
    Outcome {
        HalfOpen => "established, closed by the client with FIN, no payload in either direction",
        HalfOpenReset => "established, reset by the client, no payload in either direction",
        HandshakeReset => "client side: RST in answer to SYN-ACK; the server has no connection",
        GreetingOnly => "payload from the server only, then closed or reset by the client",
        ServerGaveUp => "established, closed by the server with FIN, no payload in either direction",
        SynOnly => "server side: SYN answered, handshake never completed",
        Refused => "RST in answer to SYN",
        Unanswered => "no answer to SYN: timed out, or abandoned by the client",
        Unreachable => "ICMP error in answer to SYN, or SYN not sent",
        NoReply => "payload from the client, none from the server, then closed",
        ResetByClient => "RST from the client after payload",
        ResetByServer => "RST from the server after the handshake",
        TimedOut => "established, then retransmissions ran out",
        Closed => "orderly close that is none of the above",
        Open => "still open when reported",
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::{Exit, JsonEvent, bypass, doctor::Check, path, vxlan};

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
        every_value_has_a_line::<Exit>();
        every_value_has_a_line::<JsonEvent>();
    }
}
