//! The summary of a run.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use jiff::Timestamp;

use super::{Cadence, Connection, Outcome, Owner, Role, cause::causes::Counted, connection};

#[derive(Clone, Debug)]
pub struct Summary {
    pub started: Timestamp,
    pub ended: Timestamp,
    /// What was watched, in words that follow "watched": `server port 2379, both roles`.
    pub watched: String,
    /// Connections that the kernel counted, exactly, of what was asked for.
    pub counted: u64,
    /// Records shown.
    pub reported: u64,
    /// Connections counted by source and not handed over, as too many ended in a second.
    pub aggregated: u64,
    /// In any order.
    pub rows: Vec<Row>,
    /// Why connections failed, the most frequent first.
    pub causes: Vec<Counted>,
    /// What could not be kept; entries of 0 are welcome, JSON shows them.
    pub losses: Vec<Tally>,
    /// What could not be named.
    pub misses: Vec<Tally>,
}

/// A number of things that went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tally {
    /// The field in JSON: `records`.
    pub name: &'static str,
    /// For people, after the number: `records lost, the ring was full (--ring-size)`.
    pub what: &'static str,
    pub count: u64,
}

/// One source: the same owner, destination, outcome and role.
#[derive(Clone, Debug)]
pub struct Row {
    /// The node whose record it is, where several are shown.
    pub node: Option<Arc<str>>,
    pub role: Role,
    pub outcome: Outcome,
    /// The server's end.
    pub destination: SocketAddr,
    /// The client's address; without a known owner, sources are distinguished by it.
    pub client: IpAddr,
    /// Who owns this end, as last seen.
    pub owner: Arc<Owner>,
    /// The owner of the peer's side, as last seen.
    pub peer: Option<Arc<Owner>>,
    pub cadence: Cadence,
    pub first: Timestamp,
    pub last: Timestamp,
}

impl Row {
    pub fn new(connection: &Connection, cadence: Cadence) -> Self {
        Self {
            node: None,
            role: connection.role,
            outcome: connection.outcome,
            destination: connection.asked(),
            client: connection.source.ip(),
            owner: Arc::clone(&connection.owner),
            peer: connection.peer.clone(),
            cadence,
            first: connection.time,
            last: connection.time,
        }
    }

    /// For connections that the kernel only counted: of their processes nothing is known.
    pub fn counted(
        (role, outcome): (Role, Outcome),
        (client, destination): (IpAddr, SocketAddr),
        owner: Arc<Owner>,
        count: u64,
        (first, last): (Timestamp, Timestamp),
    ) -> Self {
        Self {
            node: None,
            role,
            outcome,
            destination,
            client,
            owner,
            peer: None,
            cadence: Cadence {
                count,
                ..Cadence::default()
            },
            first,
            last,
        }
    }

    /// Takes another connection of the same source.
    pub fn seen(&mut self, connection: &Connection, cadence: Cadence) {
        // A pod's name may be learnt late, and a process that forks has a new pid each time: the latest counts.
        renew(&mut self.owner, &connection.owner);
        match (&mut self.peer, &connection.peer) {
            (Some(kept), Some(now)) => renew(kept, now),
            (kept, Some(now)) => *kept = Some(Arc::clone(now)),
            (_, None) => {}
        }
        self.cadence = cadence;
        self.first = self.first.min(connection.time);
        self.last = self.last.max(connection.time);
    }

    /// Who owns the client's end, where anything is known of it.
    pub fn actor(&self) -> Option<&Owner> {
        connection::actor(self.role, &self.owner, self.peer.as_deref())
    }

    /// Who owns the server's end, where anything is known of it.
    pub fn server(&self) -> Option<&Owner> {
        connection::server(self.role, &self.owner, self.peer.as_deref())
    }
}

/// Points `kept` at what is known now, if that is another.
fn renew(kept: &mut Arc<Owner>, now: &Arc<Owner>) {
    if !Arc::ptr_eq(kept, now) {
        *kept = Arc::clone(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counted_connection_has_both_addresses() {
        let row = Row::counted(
            (Role::Server, Outcome::Refused),
            ("10.0.0.1".parse().unwrap(), "10.0.0.2:2379".parse().unwrap()),
            Arc::default(),
            7,
            (Timestamp::MIN, Timestamp::MAX),
        );
        assert_eq!(row.destination, "10.0.0.2:2379".parse().unwrap());
        assert_eq!(row.client, "10.0.0.1".parse::<IpAddr>().unwrap());
        assert_eq!(row.cadence.count, 7);
    }
}
