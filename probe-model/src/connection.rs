//! One end of a connection, with all that is known of it. What is not known is `None`, never empty.

mod event;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use jiff::{SignedDuration, Timestamp};

pub use self::event::ConnectionEvent;

use super::{
    Cadence, Cause, Outcome, Owner, Role,
    tls::Tls,
    translation::{Translation, Untranslated},
};

#[derive(Clone, Debug)]
pub struct Connection {
    /// When it ended, or, still open, when it was reported.
    pub time: Timestamp,
    /// From SYN (client) or finished handshake (server) to the end.
    pub duration: Duration,
    pub role: Role,
    pub outcome: Outcome,
    /// The client's end. The port is 0 where no SYN left. IPv4 mapped into IPv6 is shown as IPv4.
    pub source: SocketAddr,
    /// The server's end: that of a Service is the one that answered.
    pub destination: SocketAddr,
    /// What the client dialled, where that is not the server's own address.
    pub dialled: Option<SocketAddr>,
    /// The client's end as the server sees it, where the node translates it.
    pub seen_as: Option<SocketAddr>,
    /// Why that is not known, for a client's end that was asked for.
    pub untranslated: Option<Untranslated>,
    /// `None` while it is open.
    pub payload: Option<Payload>,
    /// Inode of the network namespace of this end.
    pub netns: u32,
    /// Who owns this end.
    pub owner: Arc<Owner>,
    /// Who owns the other end, where that is a process of this kernel.
    pub peer: Option<Arc<Owner>>,
    /// Why it failed, where that was seen.
    pub cause: Option<Box<Cause>>,
    /// What it began with, where that was looked at.
    pub tls: Option<Box<Tls>>,
    /// How often this owner does this; `None` until a [`Cadences`](super::Cadences) was asked.
    pub cadence: Option<Cadence>,
}

/// Payload bytes, retransmissions left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Payload {
    /// From source to destination.
    pub sent: u64,
    /// From destination to source.
    pub received: u64,
}

impl Connection {
    /// When it began.
    pub fn began(&self) -> Timestamp {
        let duration = SignedDuration::try_from(self.duration).unwrap_or_default();
        self.time.checked_sub(duration).unwrap_or(self.time)
    }

    /// The address that the client asked for.
    pub fn asked(&self) -> SocketAddr {
        self.dialled.unwrap_or(self.destination)
    }

    /// Takes what the node did to its addresses.
    pub fn translate(&mut self, translation: Result<Translation, Untranslated>) {
        match translation {
            Ok(Translation { seen_as, backend }) => {
                self.seen_as = Some(seen_as).filter(|seen| *seen != self.source);
                if backend != self.destination {
                    self.dialled = Some(std::mem::replace(&mut self.destination, backend));
                }
            }
            Err(reason) => self.untranslated = Some(reason),
        }
    }

    /// Who owns the client's end, and so is behind the connection, where anything is known of it.
    pub fn actor(&self) -> Option<&Owner> {
        actor(self.role, &self.owner, self.peer.as_deref())
    }

    /// Who owns the server's end, where anything is known of it.
    pub fn server(&self) -> Option<&Owner> {
        server(self.role, &self.owner, self.peer.as_deref())
    }
}

pub(super) fn actor<'a>(role: Role, owner: &'a Owner, peer: Option<&'a Owner>) -> Option<&'a Owner> {
    match role {
        Role::Client => Some(owner),
        Role::Server => peer,
    }
    .filter(|owner| owner.is_known())
}

pub(super) fn server<'a>(role: Role, owner: &'a Owner, peer: Option<&'a Owner>) -> Option<&'a Owner> {
    match role {
        Role::Client => peer,
        Role::Server => Some(owner),
    }
    .filter(|owner| owner.is_known())
}
