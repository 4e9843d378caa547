//! One side of a connection, with all that is known of it. What is not known is `None`, never empty.
//!
//! All that a new field needs outside the kernel is here, and each place names every field, so that a forgotten one does not
//! compile: the model, the decoding of the kernel's records, and the JSON object in both directions.

use std::{
    borrow::Cow,
    net::{Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use probe_ebpf::contract::connection::{
    Address, Connection as Raw, Handshake, HandshakeKey, Record, Unacknowledged as RawUnacknowledged,
};
use serde::{Deserialize, Serialize};

use super::{
    Cadence, Cause, Container, Outcome, Owner, Pod, Process, Role,
    address::AddressPort,
    names::Named,
    tls::Tls,
    translation::{Translation, Untranslated},
};

#[derive(Clone, Debug)]
pub struct Connection {
    /// When it ended or, if still open, when it was reported.
    pub time: Timestamp,
    /// From SYN (client) or finished handshake (server) to the end.
    pub duration: Duration,
    pub role: Role,
    pub outcome: Outcome,
    /// The client's address. The port is 0 if no SYN left. IPv4 mapped into IPv6 is shown as IPv4.
    pub source: SocketAddr,
    /// The server's address: of a Service, the endpoint that answered.
    pub destination: SocketAddr,
    /// What the client dialled, where that is not the server's own address.
    pub dialled: Option<SocketAddr>,
    /// The client's address as the server sees it, if the node translates it.
    pub seen_as: Option<SocketAddr>,
    /// Why that is unknown, for a client's side that was looked up.
    pub untranslated: Option<Untranslated>,
    /// `None` while it is open.
    pub payload: Option<Payload>,
    /// What this side was still sending again at the end.
    pub unacknowledged: Option<Unacknowledged>,
    /// Inode of the network namespace of this end.
    pub netns: u32,
    /// The owner of this side.
    pub owner: Arc<Owner>,
    /// The owner of the peer's side, if that is a process of this kernel.
    pub peer: Option<Arc<Owner>>,
    /// Why it failed, if there is evidence.
    pub cause: Option<Box<Cause>>,
    /// Its first messages, if TLS is captured.
    pub tls: Option<Box<Tls>>,
    /// How often this owner does this; `None` until [`Cadences`](super::Cadences) counted it.
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

/// What one side was still sending again when the connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Unacknowledged {
    /// Bytes sent and not acknowledged: payload, and one for a FIN.
    pub bytes: u32,
    /// TCP header and payload of a full-size segment, bytes.
    pub segment_bytes: u16,
    /// Retransmission time-outs in a row, at most 255.
    pub timeouts: u8,
    /// Segments behind the missing one that arrived, by the peer's selective acknowledgments; at most 255.
    pub sacked_segments: u8,
}

impl Unacknowledged {
    fn recorded(raw: RawUnacknowledged) -> Option<Self> {
        let RawUnacknowledged {
            bytes,
            segment,
            timeouts,
            sacked,
        } = raw;
        (timeouts != 0 && bytes != 0).then_some(Self {
            bytes,
            segment_bytes: segment,
            timeouts,
            sacked_segments: sacked,
        })
    }
}

/// An address and port as the kernel has them; IPv4 mapped into IPv6 becomes IPv4.
pub fn socket_address(address: Address, port: u16) -> SocketAddr {
    SocketAddr::new(Ipv6Addr::from(address).to_canonical(), port)
}

impl Connection {
    /// One of which no more is known.
    pub fn new(
        time: Timestamp,
        role: Role,
        outcome: Outcome,
        source: SocketAddr,
        destination: SocketAddr,
    ) -> Self {
        Self {
            time,
            duration: Duration::ZERO,
            role,
            outcome,
            source,
            destination,
            dialled: None,
            seen_as: None,
            untranslated: None,
            payload: None,
            unacknowledged: None,
            netns: 0,
            owner: Owner::unknown(),
            peer: None,
            cause: None,
            tls: None,
            cadence: None,
        }
    }

    /// A side that ended at `time`, as the kernel program recorded it.
    pub fn ended(time: Timestamp, role: Role, outcome: Outcome, record: &Record) -> Self {
        let Record {
            connection,
            end_ns,
            client_bytes: sent,
            server_bytes: received,
            // The outcome follows from these.
            error: _,
            last_state: _,
            outcome: _,
            zero: _,
            unacknowledged,
        } = *record;
        Self {
            outcome,
            duration: Duration::from_nanos(end_ns.saturating_sub(connection.start_ns)),
            payload: Some(Payload { sent, received }),
            unacknowledged: Unacknowledged::recorded(unacknowledged),
            ..Self::open(time, role, &connection)
        }
    }

    /// A side that is still open at `time`. Its duration is the caller's, who has the clock.
    pub fn open(time: Timestamp, role: Role, connection: &Raw) -> Self {
        let Raw {
            client,
            server,
            client_port,
            server_port,
            netns,
            // For the owner and the duration.
            task: _,
            start_ns: _,
            // For the outcome.
            segments_at_fin: _,
            role: _,
            established: _,
            fin_sent: _,
            state: _,
        } = *connection;
        Self {
            netns,
            ..Self::new(
                time,
                role,
                Outcome::Open,
                socket_address(client, client_port),
                socket_address(server, server_port),
            )
        }
    }

    /// The server's side of a handshake that never finished: from the first SYN-ACK that was sent again to the last, at `time`.
    pub fn unfinished(time: Timestamp, key: &HandshakeKey, handshake: &Handshake) -> Self {
        let HandshakeKey {
            client,
            server,
            client_port,
            server_port,
            netns,
        } = *key;
        let Handshake {
            first_ns,
            last_ns,
            retransmits: _,
        } = *handshake;
        Self {
            duration: Duration::from_nanos(last_ns.saturating_sub(first_ns)),
            payload: Some(Payload { sent: 0, received: 0 }),
            netns,
            ..Self::new(
                time,
                Role::Server,
                Outcome::SynOnly,
                socket_address(client, client_port),
                socket_address(server, server_port),
            )
        }
    }

    /// When it began.
    pub fn began(&self) -> Timestamp {
        let duration = SignedDuration::try_from(self.duration).unwrap_or_default();
        self.time.checked_sub(duration).unwrap_or(self.time)
    }

    /// The address that the client asked for.
    pub fn asked(&self) -> SocketAddr {
        self.dialled.unwrap_or(self.destination)
    }

    /// Applies the node's translation of its addresses.
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

    /// The owner of the client's side, who opened the connection, if anything is known of it.
    pub fn actor(&self) -> Option<&Owner> {
        actor(self.role, &self.owner, self.peer.as_deref())
    }

    /// The owner of the server's side, if anything is known of it.
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

/// One endpoint of a TCP connection, with all that is known of it.
#[derive(Serialize, Deserialize)]
#[cfg_attr(
    feature = "schema",
    derive(schemars::JsonSchema),
    schemars(rename = "Connection")
)]
pub struct ConnectionEvent<'a> {
    /// Always `connection`.
    event: Cow<'a, str>,
    /// When the connection ended (`open`: when it was reported), RFC 3339, UTC, microseconds.
    #[cfg_attr(feature = "schema", schemars(extend("format" = "date-time")))]
    time: Cow<'a, str>,
    /// The side that this record describes.
    role: Named<Role>,
    /// What became of the connection: see [outcomes](outcomes.md).
    outcome: Named<Outcome>,
    /// Always the client's address and port. Absent if the kernel never chose one.
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<AddressPort>,
    /// Always the server's address and port.
    destination: AddressPort,
    /// Payload from source to destination, as this side counted it. Absent for `open`.
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes_sent: Option<u64>,
    /// Payload from destination to source.
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes_received: Option<u64>,
    /// From SYN (client) or finished handshake (server) to the end.
    duration_us: u64,
    /// The process of this side.
    #[serde(skip_serializing_if = "Option::is_none")]
    process: Option<Cow<'a, Process>>,
    /// The container of this side.
    #[serde(skip_serializing_if = "Option::is_none")]
    container: Option<Cow<'a, Container>>,
    /// The pod of this side.
    #[serde(skip_serializing_if = "Option::is_none")]
    pod: Option<Cow<'a, Pod>>,
    /// The interval of this owner and destination, whatever the outcome, once three were seen and they are regular; of several the
    /// one of most connections.
    #[serde(skip_serializing_if = "Option::is_none")]
    every_ms: Option<u64>,
    // Fields are printed in this order: those that came later, later.
    /// Inode of this side's network namespace.
    #[serde(skip_serializing_if = "is_zero", default)]
    netns: u32,
    /// The owner of the other side, if it is on this kernel or its address is a node's.
    #[serde(skip_serializing_if = "Option::is_none")]
    peer: Option<Cow<'a, Owner>>,
    /// Nine of ten intervals differ from `every_ms` by no more.
    #[serde(skip_serializing_if = "Option::is_none")]
    every_spread_ms: Option<u64>,
    /// Connections in each interval, where there are several: 2 of a check that connects twice, or of two sources behind one
    /// address.
    #[serde(skip_serializing_if = "Option::is_none")]
    per_interval: Option<u8>,
    /// A second interval.
    #[serde(skip_serializing_if = "Option::is_none")]
    also_every_ms: Option<u64>,
    /// How many of these were seen, this one included.
    #[serde(skip_serializing_if = "Option::is_none")]
    count: Option<u64>,
    /// The client's address and port as the server sees them, if the node translates them.
    #[serde(skip_serializing_if = "Option::is_none")]
    seen_as: Option<AddressPort>,
    /// The address that the client dialled, if that is a Service; `destination` is then the server that answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    dialled: Option<AddressPort>,
    /// Why neither is known, on the client side: `no-entry` (conntrack has no entry for the connection), `reused` (the entry
    /// belongs to a later one from the same port), `busy` (too many lookups), `unavailable` (conntrack is unavailable).
    #[serde(skip_serializing_if = "Option::is_none")]
    untranslated: Option<Untranslated>,
    /// Why it failed, if there is evidence ([how](outcomes.md#why-it-failed)).
    #[serde(skip_serializing_if = "Option::is_none")]
    cause: Option<Cow<'a, Cause>>,
    /// What this side was still sending again at the end. Absent if the peer had acknowledged all that was sent again.
    #[serde(skip_serializing_if = "Option::is_none")]
    unacknowledged: Option<Unacknowledged>,
    /// The first messages, with `watch --tls`. Absent if there were none.
    #[serde(skip_serializing_if = "Option::is_none")]
    tls: Option<Cow<'a, Tls>>,
    /// The name of the node: the host's, or `--node-name`.
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<Cow<'a, str>>,
}

impl<'a> ConnectionEvent<'a> {
    /// The value of `event`.
    pub const NAME: &'static str = "connection";

    /// The object of `connection`, which `node` recorded; `time` is its time as text.
    pub fn new(connection: &'a Connection, time: &'a str, node: Option<&'a str>) -> Self {
        let Connection {
            time: _,
            duration,
            role,
            outcome,
            source,
            destination,
            dialled,
            seen_as,
            untranslated,
            payload,
            unacknowledged,
            netns,
            owner,
            peer,
            cause,
            tls,
            cadence,
        } = connection;
        // Only of a peer can the node alone be known.
        let Owner {
            process,
            container,
            pod,
            node: _,
        } = &**owner;
        let (bytes_sent, bytes_received) = payload.map(|payload| (payload.sent, payload.received)).unzip();
        let (every_ms, every_spread_ms) = cadence.as_ref().and_then(Cadence::milliseconds).unzip();
        let peer = peer.as_deref().filter(|owner| owner.is_known());
        Self {
            event: Self::NAME.into(),
            time: time.into(),
            role: Named(*role),
            outcome: Named(*outcome),
            source: AddressPort::new(*source).known(),
            destination: AddressPort::new(*destination),
            bytes_sent,
            bytes_received,
            duration_us: u64::try_from(duration.as_micros()).unwrap_or(u64::MAX),
            process: process.as_ref().map(Cow::Borrowed),
            container: container.as_ref().map(Cow::Borrowed),
            pod: pod.as_ref().map(Cow::Borrowed),
            every_ms,
            netns: *netns,
            peer: peer.map(Cow::Borrowed),
            every_spread_ms,
            per_interval: cadence.and_then(|cadence| cadence.per_interval),
            also_every_ms: cadence.as_ref().and_then(Cadence::also_milliseconds),
            count: cadence.map(|cadence| cadence.count),
            seen_as: seen_as.map(AddressPort::new),
            dialled: dialled.map(AddressPort::new),
            untranslated: *untranslated,
            cause: cause.as_deref().map(Cow::Borrowed),
            unacknowledged: *unacknowledged,
            tls: tls.as_deref().map(Cow::Borrowed),
            node: node.map(Cow::Borrowed),
        }
    }

    /// The connection in the object; `None`: the object is another event's.
    ///
    /// # Errors
    /// When its time is none.
    pub fn into_connection(self) -> Result<Option<Connection>, jiff::Error> {
        let Self {
            event,
            time,
            role: Named(role),
            outcome: Named(outcome),
            source,
            destination,
            bytes_sent,
            bytes_received,
            duration_us,
            process,
            container,
            pod,
            every_ms,
            netns,
            peer,
            every_spread_ms,
            per_interval,
            also_every_ms,
            count,
            seen_as,
            dialled,
            untranslated,
            cause,
            unacknowledged,
            tls,
            // The node's record is its own, whatever it is called.
            node: _,
        } = self;
        if event != Self::NAME {
            return Ok(None);
        }
        let payload = bytes_sent.zip(bytes_received);
        Ok(Some(Connection {
            time: time.parse()?,
            duration: Duration::from_micros(duration_us),
            role,
            outcome,
            source: source.unwrap_or_default().socket(),
            destination: destination.socket(),
            dialled: dialled.map(AddressPort::socket),
            seen_as: seen_as.map(AddressPort::socket),
            untranslated,
            payload: payload.map(|(sent, received)| Payload { sent, received }),
            unacknowledged,
            netns,
            owner: Arc::new(Owner {
                process: process.map(Cow::into_owned),
                container: container.map(Cow::into_owned),
                pod: pod.map(Cow::into_owned),
                node: None,
            }),
            peer: peer.map(Cow::into_owned).map(Arc::new),
            cause: cause.map(|cause| Box::new(cause.into_owned())),
            tls: tls.map(|tls| Box::new(tls.into_owned())),
            cadence: count.map(|count| Cadence {
                count,
                every: every_ms.map(Duration::from_millis),
                spread: Duration::from_millis(every_spread_ms.unwrap_or_default()),
                per_interval,
                also: also_every_ms.map(Duration::from_millis),
            }),
        }))
    }
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}
