//! Connection records, entries and counters of the kernel side.

use std::{net::SocketAddr, sync::Arc};

use probe_ebpf::contract::{
    connection::{Connection as Raw, Handshake, HandshakeKey, Record, Task},
    outcome::{Outcome, Role},
};

use super::clock::Clock;
use crate::model::{
    Connection, Owner,
    connection::socket_address,
    pairing::{Pair, has_closed_first},
};

/// A record that this probe did not write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the kernel program wrote an invalid record: {what} is {value}")]
pub struct Malformed {
    pub what: &'static str,
    pub value: usize,
}

/// The side that an entry describes.
///
/// # Errors
/// When it is none.
pub fn role(raw: &Raw) -> Result<Role, Malformed> {
    Role::from_u8(raw.role).ok_or(Malformed {
        what: "role",
        value: raw.role.into(),
    })
}

/// One side of a connection: what the kernel has of it, and valid.
#[derive(Clone, Copy, Debug)]
pub struct Side {
    pub role: Role,
    pub state: SideState,
}

/// How far a side of a connection is.
#[derive(Clone, Copy, Debug)]
pub enum SideState {
    /// Out of the ring.
    Ended(Record, Outcome),
    Open(Raw),
    /// The client has not finished the handshake.
    Unfinished(HandshakeKey, Handshake),
}

impl Side {
    /// One that ended, as the ring has it.
    ///
    /// # Errors
    /// When the bytes are no record, or one with a role or an outcome that is none.
    pub fn ended(bytes: &[u8]) -> Result<Self, Malformed> {
        let record: Record = bytemuck::try_pod_read_unaligned(bytes).map_err(|_| Malformed {
            what: "length",
            value: bytes.len(),
        })?;
        let outcome = Outcome::from_u8(record.outcome).ok_or(Malformed {
            what: "outcome",
            value: record.outcome.into(),
        })?;
        Ok(Self {
            role: role(&record.connection)?,
            state: SideState::Ended(record, outcome),
        })
    }

    /// One that is still open.
    ///
    /// # Errors
    /// When the entry holds a role that is none.
    pub fn open(raw: &Raw) -> Result<Self, Malformed> {
        Ok(Self {
            role: role(raw)?,
            state: SideState::Open(*raw),
        })
    }

    /// The server's side of a handshake that never finished.
    pub fn unfinished(key: HandshakeKey, handshake: Handshake) -> Self {
        Self {
            role: Role::Server,
            state: SideState::Unfinished(key, handshake),
        }
    }

    /// What the peer's side has, too.
    pub fn pair(&self) -> Pair {
        match &self.state {
            SideState::Ended(Record { connection: raw, .. }, _) | SideState::Open(raw) => Pair::of(raw),
            SideState::Unfinished(key, _) => Pair::of_handshake(key),
        }
    }

    /// Inode of its network namespace.
    pub fn netns(&self) -> u32 {
        match &self.state {
            SideState::Ended(Record { connection: raw, .. }, _) | SideState::Open(raw) => raw.netns,
            SideState::Unfinished(key, _) => key.netns,
        }
    }

    /// The process that has it, where the kernel saw one.
    pub fn task(&self) -> Option<&Task> {
        match &self.state {
            SideState::Ended(Record { connection: raw, .. }, _) | SideState::Open(raw) => {
                (raw.task.pid != 0 || self.role == Role::Client).then_some(&raw.task)
            }
            SideState::Unfinished(..) => None,
        }
    }

    /// The server's address.
    pub fn server(&self) -> SocketAddr {
        match &self.state {
            SideState::Ended(Record { connection: raw, .. }, _) | SideState::Open(raw) => {
                socket_address(raw.server, raw.server_port)
            }
            SideState::Unfinished(key, _) => socket_address(key.server, key.server_port),
        }
    }

    /// When it began, `CLOCK_MONOTONIC` nanoseconds.
    pub fn start_ns(&self) -> u64 {
        match &self.state {
            SideState::Ended(Record { connection: raw, .. }, _) | SideState::Open(raw) => raw.start_ns,
            SideState::Unfinished(_, handshake) => handshake.first_ns,
        }
    }

    /// Whether it ended, and closed before its peer did.
    pub fn has_closed_first(&self) -> bool {
        match &self.state {
            SideState::Ended(record, _) => has_closed_first(record.last_state),
            SideState::Open(_) | SideState::Unfinished(..) => false,
        }
    }

    /// The model of it.
    pub fn connection(&self, clock: &Clock, owner: Arc<Owner>, peer: Option<Arc<Owner>>) -> Connection {
        let mut connection = match &self.state {
            SideState::Ended(record, outcome) => {
                Connection::ended(clock.time(record.end_ns), self.role, *outcome, record)
            }
            SideState::Open(raw) => Connection {
                duration: clock.since(raw.start_ns),
                ..Connection::open(clock.time(clock.now_ns()), self.role, raw)
            },
            SideState::Unfinished(key, handshake) => {
                Connection::unfinished(clock.time(handshake.last_ns), key, handshake)
            }
        };
        connection.owner = owner;
        connection.peer = peer;
        connection
    }
}

#[cfg(test)]
mod tests {
    use std::{net::Ipv6Addr, time::Duration};

    use bytemuck::Zeroable;
    use probe_ebpf::contract::connection::Address;

    use super::*;
    use crate::model::connection::Payload;

    fn mapped(octets: [u8; 4]) -> Address {
        std::net::Ipv4Addr::from(octets).to_ipv6_mapped().octets()
    }

    fn sample() -> Record {
        let mut record = Record::zeroed();
        record.connection.client = mapped([10, 244, 2, 2]);
        record.connection.client_port = 41234;
        record.connection.server = mapped([192, 168, 88, 11]);
        record.connection.server_port = 2379;
        record.connection.start_ns = 1_000;
        record.end_ns = 413_000;
        record.client_bytes = 7;
        record
    }

    #[test]
    fn a_record_becomes_a_connection() {
        let clock = Clock::new(1_700_000_000_000_000_000, 500_000);
        let side = Side::ended(bytemuck::bytes_of(&sample())).unwrap();
        let connection = side.connection(&clock, Arc::default(), None);
        assert_eq!(connection.source, "10.244.2.2:41234".parse().unwrap());
        assert_eq!(connection.destination, "192.168.88.11:2379".parse().unwrap());
        assert_eq!(connection.outcome, Outcome::HalfOpen);
        assert_eq!(connection.role, Role::Client);
        assert_eq!(connection.duration, Duration::from_micros(412));
        assert_eq!(connection.payload, Some(Payload { sent: 7, received: 0 }));
        assert_eq!(connection.time, clock.time(413_000));
        let open = Side::open(&sample().connection).unwrap();
        let open = open.connection(&clock, Arc::default(), None);
        assert_eq!((open.outcome, open.payload), (Outcome::Open, None));
        assert_eq!(open.duration, Duration::from_micros(499));
    }

    #[test]
    fn ipv6_stays_ipv6() {
        let address = "fd00::1".parse::<Ipv6Addr>().unwrap().octets();
        assert_eq!(socket_address(address, 1).to_string(), "[fd00::1]:1");
    }

    #[test]
    fn what_is_no_record_is_refused() {
        let refused = |record: &Record| Side::ended(bytemuck::bytes_of(record)).unwrap_err();
        let bytes = bytemuck::bytes_of(&sample()).to_vec();
        assert!(Side::ended(&bytes[1..]).is_err());
        assert!(Side::ended(&[]).is_err());
        let wrong = Record {
            outcome: 99,
            ..sample()
        };
        assert_eq!(
            refused(&wrong),
            Malformed {
                what: "outcome",
                value: 99
            }
        );
        let mut wrong = sample();
        wrong.connection.role = 7;
        assert_eq!(
            refused(&wrong),
            Malformed {
                what: "role",
                value: 7
            }
        );
        assert!(Side::open(&wrong.connection).is_err());
    }

    /// The owner of a server's side is its process, or else the listener; a client's is never searched for.
    #[test]
    fn the_task_that_names_a_side() {
        let mut server = sample().connection;
        server.role = Role::Server as u8;
        let mut client = sample().connection;
        client.role = Role::Client as u8;
        let has_task = |raw: &Raw| Side::open(raw).unwrap().task().is_some();
        assert!(has_task(&client));
        assert!(!has_task(&server));
        server.task.pid = 7;
        assert!(has_task(&server));
        let handshake = Side::unfinished(HandshakeKey::zeroed(), Handshake::zeroed());
        assert!(handshake.task().is_none());
    }
}
