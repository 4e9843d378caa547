//! What became of a connection: one pure rule, used by the kernel program and tested here as a table.

/// Which end of the connection a record speaks of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Role {
    /// The end that sent the SYN.
    Client = 0,
    /// The end that answered it.
    Server = 1,
}

impl Role {
    pub const ALL: [Self; 2] = [Self::Client, Self::Server];

    /// The name used on the command line, in tables and in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Server => "server",
        }
    }

    /// The inverse of `role as u8`; `None` for a value no probe wrote.
    pub fn from_u8(value: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|role| *role as u8 == value)
    }

    /// This role's bit in a mask of roles.
    pub const fn bit(self) -> u32 {
        1 << self as u32
    }
}

/// What became of a connection. See docs/outcomes.md for what an operator reads from each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Outcome {
    /// Established, closed by the client with FIN, no payload either way.
    HalfOpen = 0,
    /// The same, ended by the client with RST.
    HalfOpenReset = 1,
    /// Server side: SYN answered, handshake never finished.
    SynOnly = 2,
    /// RST in answer to SYN.
    Refused = 3,
    /// No answer to SYN: timed out, or given up by the client.
    Unanswered = 4,
    /// ICMP error in answer to SYN, or the SYN could not be sent.
    Unreachable = 5,
    /// The client sent payload, the server none, then it closed.
    NoReply = 6,
    /// RST by the client after payload.
    ResetByClient = 7,
    /// RST by the server, established.
    ResetByServer = 8,
    /// Established, then retransmissions ran out.
    TimedOut = 9,
    /// An orderly end that is none of the above.
    Closed = 10,
    /// Still open when reported.
    Open = 11,
    /// Client side: the SYN-ACK came, and a RST went out in place of the ACK. The server has no connection.
    HandshakeReset = 12,
    /// Established, closed by the server with FIN, no payload either way.
    ServerGaveUp = 13,
    /// Payload from the server only, then closed or reset by the client.
    GreetingOnly = 14,
}

impl Outcome {
    pub const ALL: [Self; 15] = [
        Self::HalfOpen,
        Self::HalfOpenReset,
        Self::HandshakeReset,
        Self::GreetingOnly,
        Self::ServerGaveUp,
        Self::SynOnly,
        Self::Refused,
        Self::Unanswered,
        Self::Unreachable,
        Self::NoReply,
        Self::ResetByClient,
        Self::ResetByServer,
        Self::TimedOut,
        Self::Closed,
        Self::Open,
    ];

    /// The name used on the command line, in tables and in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::HalfOpen => "half-open",
            Self::HalfOpenReset => "half-open-reset",
            Self::SynOnly => "syn-only",
            Self::Refused => "refused",
            Self::Unanswered => "unanswered",
            Self::Unreachable => "unreachable",
            Self::NoReply => "no-reply",
            Self::ResetByClient => "reset-by-client",
            Self::ResetByServer => "reset-by-server",
            Self::TimedOut => "timed-out",
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HandshakeReset => "handshake-reset",
            Self::ServerGaveUp => "server-gave-up",
            Self::GreetingOnly => "greeting-only",
        }
    }

    /// The inverse of `outcome as u8`; `None` for a value no probe wrote.
    pub fn from_u8(value: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|outcome| *outcome as u8 == value)
    }

    /// This outcome's bit in a mask of outcomes.
    pub const fn bit(self) -> u32 {
        1 << self as u32
    }
}

/// TCP states, as `include/net/tcp_states.h` numbers them (unchanged since 2.6; `NEW_SYN_RECV` never reaches us).
pub mod state {
    pub const ESTABLISHED: u8 = 1;
    pub const SYN_SENT: u8 = 2;
    pub const SYN_RECV: u8 = 3;
    pub const FIN_WAIT1: u8 = 4;
    pub const FIN_WAIT2: u8 = 5;
    pub const TIME_WAIT: u8 = 6;
    pub const CLOSE: u8 = 7;
    pub const CLOSE_WAIT: u8 = 8;
    pub const LAST_ACK: u8 = 9;
    pub const LISTEN: u8 = 10;
    pub const CLOSING: u8 = 11;
}

/// Error numbers the rule looks at, the same on every architecture Linux and BPF share.
mod errno {
    pub const ETIMEDOUT: u32 = 110;
    pub const ECONNRESET: u32 = 104;
    pub const ECONNABORTED: u32 = 103;
    pub const EPIPE: u32 = 32;
}

/// All that is known of a connection when its socket reaches `TCP_CLOSE`.
#[derive(Clone, Copy, Debug)]
pub struct Ending {
    pub role: Role,
    /// The state left for `TCP_CLOSE`, see [`state`].
    pub last_state: u8,
    /// A RST from the peer ended it (`tcp_receive_reset`).
    pub reset_received: bool,
    /// `sk->sk_err` as an errno, 0 for none.
    pub error: u32,
    /// Segments that left this socket, the SYN counted (`segs_out`). `tcp_disconnect` counts its own RST later: it changes the
    /// state first.
    pub segments_sent: u32,
    /// Payload went from client to server.
    pub client_payload: bool,
    /// Payload went from server to client.
    pub server_payload: bool,
}

impl Ending {
    /// The rule of docs/outcomes.md.
    ///
    /// Always inlined: the kernel program calls it with most of it known.
    #[inline(always)]
    pub const fn outcome(&self) -> Outcome {
        if self.last_state == state::SYN_SENT {
            return self.never_established();
        }
        let client = matches!(self.role, Role::Client);
        // Which end sent its FIN first is in the state: no earlier transition need be remembered.
        let closed_here = matches!(
            self.last_state,
            state::FIN_WAIT1 | state::FIN_WAIT2 | state::CLOSING | state::TIME_WAIT
        );
        let closed_there = matches!(self.last_state, state::CLOSE_WAIT | state::LAST_ACK);
        // A socket with an error that no RST explains gave up retransmitting: ETIMEDOUT, or the last ICMP error.
        let gave_up = !matches!(
            self.error,
            0 | errno::ECONNRESET | errno::ECONNABORTED | errno::EPIPE
        ) && !self.reset_received;
        // The kernel leaves these states for CLOSE without an error only when it sends RST itself.
        let reset_sent = !self.reset_received
            && !gave_up
            && matches!(
                self.last_state,
                state::ESTABLISHED | state::SYN_RECV | state::CLOSE_WAIT | state::FIN_WAIT1
            );
        let reset_by_client = if client { reset_sent } else { self.reset_received };
        let reset_by_server = if client { self.reset_received } else { reset_sent };

        if gave_up {
            return Outcome::TimedOut;
        }
        // Both at once counts as the client's, so that both sides agree.
        let client_fin_first = if client {
            closed_here
        } else {
            closed_there || self.last_state == state::CLOSING
        };
        if !self.client_payload && !self.server_payload {
            return if client_fin_first {
                Outcome::HalfOpen
            } else if reset_by_client {
                // A client's first segment is the SYN, its second the ACK that ends the handshake.
                if client && self.segments_sent == 1 {
                    Outcome::HandshakeReset
                } else {
                    Outcome::HalfOpenReset
                }
            } else if reset_by_server {
                Outcome::ResetByServer
            } else {
                Outcome::ServerGaveUp
            };
        }
        if !self.client_payload && (client_fin_first || reset_by_client) {
            Outcome::GreetingOnly
        } else if reset_by_client {
            Outcome::ResetByClient
        } else if reset_by_server {
            Outcome::ResetByServer
        } else if self.client_payload && !self.server_payload {
            Outcome::NoReply
        } else {
            Outcome::Closed
        }
    }

    #[inline(always)]
    const fn never_established(&self) -> Outcome {
        if self.reset_received {
            Outcome::Refused
        } else if self.segments_sent == 0 {
            // No free local port, no route after source selection: connect() failed before a packet left.
            Outcome::Unreachable
        } else if matches!(
            self.error,
            0 | errno::ETIMEDOUT | errno::ECONNRESET | errno::ECONNABORTED
        ) {
            Outcome::Unanswered
        } else {
            Outcome::Unreachable
        }
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::collections::BTreeSet;

    use super::{Ending, Outcome, Role, Role::Client, Role::Server, errno, state::*};

    const ECONNREFUSED: u32 = 111;
    const EHOSTUNREACH: u32 = 113;
    const ENETUNREACH: u32 = 101;

    fn ending(role: Role, last_state: u8) -> Ending {
        Ending {
            role,
            last_state,
            reset_received: false,
            error: 0,
            segments_sent: 2,
            client_payload: false,
            server_payload: false,
        }
    }

    fn received(e: Ending) -> Ending {
        Ending {
            reset_received: true,
            error: errno::ECONNRESET,
            ..e
        }
    }

    fn error(e: Ending, error: u32) -> Ending {
        Ending { error, ..e }
    }

    fn asked(e: Ending) -> Ending {
        Ending {
            client_payload: true,
            ..e
        }
    }

    fn greeted(e: Ending) -> Ending {
        Ending {
            server_payload: true,
            ..e
        }
    }

    fn both(e: Ending) -> Ending {
        Ending {
            client_payload: true,
            server_payload: true,
            ..e
        }
    }

    #[test]
    fn outcome_table() {
        #[rustfmt::skip]
        let table = [
            // the incident, from both ends, with and without the server's own FIN in time
            ("client closes, FIN acknowledged", ending(Client, FIN_WAIT2), Outcome::HalfOpen),
            ("both close at once", ending(Client, CLOSING), Outcome::HalfOpen),
            ("server sees FIN, closes", ending(Server, LAST_ACK), Outcome::HalfOpen),
            ("server sees FIN, answers RST", ending(Server, CLOSE_WAIT), Outcome::HalfOpen),
            ("client closes, server answers RST", received(ending(Client, FIN_WAIT1)), Outcome::HalfOpen),
            ("client lingers 0", ending(Client, ESTABLISHED), Outcome::HalfOpenReset),
            ("server sees RST", received(ending(Server, ESTABLISHED)), Outcome::HalfOpenReset),
            ("client killed by ss -K", error(ending(Client, ESTABLISHED), errno::ECONNABORTED), Outcome::HalfOpenReset),
            ("server resets, nothing said", ending(Server, ESTABLISHED), Outcome::ResetByServer),
            ("client sees that", received(ending(Client, ESTABLISHED)), Outcome::ResetByServer),
            ("server closes first, nothing said", ending(Server, FIN_WAIT2), Outcome::ServerGaveUp),
            ("client sees that", ending(Client, LAST_ACK), Outcome::ServerGaveUp),
            ("client sees that, is killed", ending(Client, CLOSE_WAIT), Outcome::HalfOpenReset),
            ("server sees both close at once", ending(Server, CLOSING), Outcome::HalfOpen),
            ("client answers SYN-ACK with RST", Ending { segments_sent: 1, ..ending(Client, ESTABLISHED) }, Outcome::HandshakeReset),
            ("the same, the SYN sent twice", Ending { segments_sent: 2, ..ending(Client, ESTABLISHED) }, Outcome::HalfOpenReset),
            ("server that sent only its SYN-ACK sees RST", Ending { segments_sent: 1, ..received(ending(Server, ESTABLISHED)) }, Outcome::HalfOpenReset),
            // never established
            ("RST to SYN", Ending { error: ECONNREFUSED, ..received(ending(Client, SYN_SENT)) }, Outcome::Refused),
            ("SYN timed out", error(ending(Client, SYN_SENT), errno::ETIMEDOUT), Outcome::Unanswered),
            ("SYN given up", ending(Client, SYN_SENT), Outcome::Unanswered),
            ("ICMP port unreachable", error(ending(Client, SYN_SENT), ECONNREFUSED), Outcome::Unreachable),
            ("ICMP host unreachable", error(ending(Client, SYN_SENT), EHOSTUNREACH), Outcome::Unreachable),
            ("ICMP net unreachable", error(ending(Client, SYN_SENT), ENETUNREACH), Outcome::Unreachable),
            ("no local port", Ending { segments_sent: 0, ..ending(Client, SYN_SENT) }, Outcome::Unreachable),
            // payload one way
            ("asked, no answer, client closes", asked(ending(Client, FIN_WAIT2)), Outcome::NoReply),
            ("asked, no answer, server closes", asked(ending(Server, FIN_WAIT2)), Outcome::NoReply),
            ("banner, server closes", greeted(ending(Client, LAST_ACK)), Outcome::Closed),
            ("banner, server resets", greeted(ending(Server, ESTABLISHED)), Outcome::ResetByServer),
            ("banner, client closes", greeted(ending(Client, FIN_WAIT2)), Outcome::GreetingOnly),
            ("server sees that", greeted(ending(Server, LAST_ACK)), Outcome::GreetingOnly),
            ("banner unread, client resets", greeted(ending(Client, ESTABLISHED)), Outcome::GreetingOnly),
            ("server sees that", received(greeted(ending(Server, ESTABLISHED))), Outcome::GreetingOnly),
            // payload, then RST
            ("client resets", both(ending(Client, ESTABLISHED)), Outcome::ResetByClient),
            ("server sees it", received(both(ending(Server, ESTABLISHED))), Outcome::ResetByClient),
            ("server sees it after FIN", received(both(ending(Server, CLOSE_WAIT))), Outcome::ResetByClient),
            ("server resets", asked(ending(Server, ESTABLISHED)), Outcome::ResetByServer),
            ("client sees it", received(asked(ending(Client, ESTABLISHED))), Outcome::ResetByServer),
            ("client sees it after FIN", received(both(ending(Client, CLOSE_WAIT))), Outcome::ResetByServer),
            // retransmissions ran out
            ("no ACK for data", error(asked(ending(Client, ESTABLISHED)), errno::ETIMEDOUT), Outcome::TimedOut),
            ("the same, last error ICMP", error(both(ending(Server, ESTABLISHED)), EHOSTUNREACH), Outcome::TimedOut),
            ("no ACK for FIN", error(ending(Client, FIN_WAIT1), errno::ETIMEDOUT), Outcome::TimedOut),
            // orderly
            ("orderly, client first", both(ending(Client, FIN_WAIT2)), Outcome::Closed),
            ("orderly, server first", both(ending(Server, CLOSING)), Outcome::Closed),
            ("orderly, as the server sees it", both(ending(Server, LAST_ACK)), Outcome::Closed),
        ];
        for (what, ending, expected) in table {
            assert_eq!(ending.outcome(), expected, "{what}: {ending:?}");
        }
    }

    /// Whatever a kernel hands us, the rule answers, and never with what only user space can say.
    #[test]
    fn outcome_is_total() {
        for role in Role::ALL {
            for last_state in 0..=255 {
                for error in [0, 1, 32, 103, 104, 110, 111, 113, u32::MAX] {
                    for bits in 0..32_u8 {
                        let outcome = Ending {
                            role,
                            last_state,
                            reset_received: bits & 1 != 0,
                            error,
                            segments_sent: u32::from(bits >> 4) + u32::from(bits & 2),
                            client_payload: bits & 4 != 0,
                            server_payload: bits & 8 != 0,
                        }
                        .outcome();
                        assert!(!matches!(outcome, Outcome::Open | Outcome::SynOnly));
                    }
                }
            }
        }
    }

    #[test]
    fn names_and_numbers_are_distinct_and_invert() {
        let names: BTreeSet<_> = Outcome::ALL.iter().map(|o| o.name()).collect();
        assert_eq!(names.len(), Outcome::ALL.len());
        for outcome in Outcome::ALL {
            assert_eq!(Outcome::from_u8(outcome as u8), Some(outcome));
        }
        assert_eq!(Outcome::from_u8(15), None);
        for role in Role::ALL {
            assert_eq!(Role::from_u8(role as u8), Some(role));
        }
        assert_eq!(Role::from_u8(2), None);
    }
}
