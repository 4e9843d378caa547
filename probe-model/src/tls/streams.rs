//! The first payload of connections, until it is decoded.

use std::{net::SocketAddr, num::NonZeroUsize};

use lru::LruCache;

use super::{
    ClientHello, ServerHello, Tls,
    records::{self, Hello, Side},
    stream::Stream,
};
use crate::{Role, tls::FirstMessage};

/// Connections at the most.
const TALKS: NonZeroUsize = NonZeroUsize::new(16_384).unwrap();
/// Payload of all of them, bytes.
const BYTES: usize = 16 << 20;

/// One end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    pub local: SocketAddr,
    pub peer: SocketAddr,
    /// Inode of its network namespace.
    pub netns: u32,
}

/// Which way a segment goes, for the end that it was seen at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    Sent,
    Received,
}

/// Payload that a socket sent or received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment<'a> {
    /// `CLOCK_MONOTONIC` nanoseconds.
    pub time_ns: u64,
    /// Distinguishes the socket from a later one with the same addresses.
    pub socket: u64,
    pub way: Way,
    /// Of its first byte.
    pub sequence: u32,
    /// A guess at that of the connection's first byte.
    pub first: u32,
    /// Bytes, captured or not.
    pub length: u32,
    pub captured: &'a [u8],
}

/// Payload bytes of a connection, `None` where they are not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    pub client: Option<u64>,
    pub server: Option<u64>,
}

#[derive(Debug, Default)]
struct Talk {
    socket: u64,
    last_ns: u64,
    sent: Stream,
    received: Stream,
    bytes: usize,
}

/// Connections under way, the oldest forgotten for new ones.
#[derive(Debug)]
pub struct TlsStreams {
    talks: LruCache<Key, Talk>,
    bytes: usize,
    most_bytes: usize,
}

impl Default for TlsStreams {
    fn default() -> Self {
        Self::bounded(TALKS, BYTES)
    }
}

impl TlsStreams {
    /// For so many connections with so many bytes of payload in all.
    pub fn bounded(talks: NonZeroUsize, bytes: usize) -> Self {
        Self {
            talks: LruCache::sparse(talks),
            bytes: 0,
            most_bytes: bytes,
        }
    }

    /// Takes a segment. Those of one connection and way come in the order of time, as good as always.
    pub fn push(&mut self, key: Key, segment: &Segment<'_>) {
        let mut talk = self.remove(&key).unwrap_or_default();
        let stream = match segment.way {
            Way::Sent => &talk.sent,
            Way::Received => &talk.received,
        };
        if talk.socket != segment.socket || !stream.is_near(segment.sequence) {
            talk = Talk {
                socket: segment.socket,
                ..Talk::default()
            };
        }
        let stream = match segment.way {
            Way::Sent => &mut talk.sent,
            Way::Received => &mut talk.received,
        };
        talk.bytes += stream.push(segment.sequence, segment.first, segment.length, segment.captured);
        talk.last_ns = talk.last_ns.max(segment.time_ns);
        self.bytes += talk.bytes;
        if let Some((_, oldest)) = self.talks.push(key, talk) {
            self.bytes -= oldest.bytes;
        }
        while self.bytes > self.most_bytes
            && let Some((_, oldest)) = self.talks.pop_lru()
        {
            self.bytes -= oldest.bytes;
        }
    }

    fn remove(&mut self, key: &Key) -> Option<Talk> {
        let talk = self.talks.pop(key)?;
        self.bytes -= talk.bytes;
        Some(talk)
    }

    /// What was said on a connection that began at `start_ns` (`CLOCK_MONOTONIC` nanoseconds), at its end `key`; it is
    /// forgotten then. `None` where nothing was.
    pub fn take(&mut self, key: &Key, start_ns: u64, role: Role, totals: Totals) -> Option<Tls> {
        // An older one is of an earlier connection, which was never queried.
        let talk = self.remove(key).filter(|talk| talk.last_ns >= start_ns);
        let talk = talk.unwrap_or_default();
        let (client, server) = match role {
            Role::Client => (talk.sent, talk.received),
            Role::Server => (talk.received, talk.sent),
        };
        let Side {
            said: client,
            mut alerts,
        } = records::read(
            client,
            totals.client,
            &Hello {
                from: Role::Client,
                kind: 1,
                read: ClientHello::read,
            },
        );
        let Side {
            said: server,
            alerts: more,
        } = records::read(
            server,
            totals.server,
            &Hello {
                from: Role::Server,
                kind: 2,
                read: ServerHello::read,
            },
        );
        alerts.extend(more);
        let nothing = client == FirstMessage::Nothing && server == FirstMessage::Nothing && alerts.is_empty();
        (!nothing).then_some(Tls {
            client,
            server,
            alerts,
        })
    }

    /// Payload that is kept, bytes.
    pub const fn bytes(&self) -> usize {
        self.bytes
    }
}
