//! Connection records, entries and counters of the kernel side.

use std::{
    net::{Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use probe_ebpf::contract::{
    connection::{Address, Connection as Raw, HandshakeKey, Record},
    outcome::{Outcome, Role},
};

use super::clock::Clock;
use crate::model::{Connection, Owner, connection::Payload};

/// A record that this probe did not write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the kernel side wrote a record this probe can't read: {what} is {value}")]
pub struct Malformed {
    pub what: &'static str,
    pub value: usize,
}

/// A finished connection out of the ring.
///
/// # Errors
/// When the bytes are no record.
pub fn record(bytes: &[u8]) -> Result<Record, Malformed> {
    bytemuck::try_pod_read_unaligned(bytes).map_err(|_| Malformed {
        what: "length",
        value: bytes.len(),
    })
}

/// An address and port as the kernel has them; IPv4 mapped into IPv6 becomes IPv4.
pub fn socket_address(address: Address, port: u16) -> SocketAddr {
    SocketAddr::new(Ipv6Addr::from(address).to_canonical(), port)
}

/// Which end an entry speaks of.
///
/// # Errors
/// When it is none.
pub fn role(raw: &Raw) -> Result<Role, Malformed> {
    Role::from_u8(raw.role).ok_or(Malformed {
        what: "role",
        value: raw.role.into(),
    })
}

/// The model of a finished connection.
///
/// # Errors
/// When the record holds a role or outcome that is none.
pub fn finished(
    record: &Record,
    clock: &Clock,
    owner: Arc<Owner>,
    peer: Option<Arc<Owner>>,
) -> Result<Connection, Malformed> {
    let outcome = Outcome::from_u8(record.outcome).ok_or(Malformed {
        what: "outcome",
        value: record.outcome.into(),
    })?;
    let raw = &record.connection;
    Ok(Connection {
        time: clock.time(record.end_ns),
        duration: Duration::from_nanos(record.end_ns.saturating_sub(raw.start_ns)),
        outcome,
        payload: Some(Payload {
            sent: record.client_bytes,
            received: record.server_bytes,
        }),
        ..open(raw, clock, owner, peer)?
    })
}

/// The model of a connection still under way.
///
/// # Errors
/// When the entry holds a role that is none.
pub fn open(
    raw: &Raw,
    clock: &Clock,
    owner: Arc<Owner>,
    peer: Option<Arc<Owner>>,
) -> Result<Connection, Malformed> {
    Ok(Connection {
        time: clock.time(clock.now_ns()),
        duration: clock.since(raw.start_ns),
        role: role(raw)?,
        outcome: Outcome::Open,
        source: socket_address(raw.client, raw.client_port),
        destination: socket_address(raw.server, raw.server_port),
        dialled: None,
        seen_as: None,
        untranslated: None,
        cause: None,
        tls: None,
        payload: None,
        netns: raw.netns,
        owner,
        peer,
        cadence: None,
    })
}

/// The model of a handshake that never finished: `since_ns` is its first repeated SYN-ACK, `until_ns` its last.
pub fn syn_only(
    key: &HandshakeKey,
    (since_ns, until_ns): (u64, u64),
    clock: &Clock,
    owner: Arc<Owner>,
    peer: Option<Arc<Owner>>,
) -> Connection {
    Connection {
        time: clock.time(until_ns),
        duration: Duration::from_nanos(until_ns.saturating_sub(since_ns)),
        role: Role::Server,
        outcome: Outcome::SynOnly,
        source: socket_address(key.client, key.client_port),
        destination: socket_address(key.server, key.server_port),
        dialled: None,
        seen_as: None,
        untranslated: None,
        cause: None,
        tls: None,
        payload: Some(Payload { sent: 0, received: 0 }),
        netns: key.netns,
        owner,
        peer,
        cadence: None,
    }
}

#[cfg(test)]
mod tests {
    use bytemuck::Zeroable;

    use super::*;

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
        let record = record(bytemuck::bytes_of(&sample())).unwrap();
        let connection = finished(&record, &clock, Arc::default(), None).unwrap();
        assert_eq!(connection.source, "10.244.2.2:41234".parse().unwrap());
        assert_eq!(connection.destination, "192.168.88.11:2379".parse().unwrap());
        assert_eq!(connection.outcome, Outcome::HalfOpen);
        assert_eq!(connection.role, Role::Client);
        assert_eq!(connection.duration, Duration::from_micros(412));
        assert_eq!(connection.payload, Some(Payload { sent: 7, received: 0 }));
        assert_eq!(connection.time, clock.time(413_000));
        let open = open(&record.connection, &clock, Arc::default(), None).unwrap();
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
        let bytes = bytemuck::bytes_of(&sample()).to_vec();
        assert!(record(&bytes[1..]).is_err());
        assert!(record(&[]).is_err());
        let clock = Clock::new(0, 0);
        let wrong = Record {
            outcome: 99,
            ..sample()
        };
        let error = finished(&wrong, &clock, Arc::default(), None).unwrap_err();
        assert_eq!(
            error,
            Malformed {
                what: "outcome",
                value: 99
            }
        );
        let mut wrong = sample();
        wrong.connection.role = 7;
        assert!(finished(&wrong, &clock, Arc::default(), None).is_err());
    }
}
