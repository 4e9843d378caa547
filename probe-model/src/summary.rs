//! The summary of a run.

use std::{
    collections::HashMap,
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
    /// Of those that were reported one by one.
    pub cadence: Cadence,
    /// Those that the kernel only counted.
    pub unlisted: Unlisted,
    pub first: Timestamp,
    pub last: Timestamp,
}

/// Connections without a record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unlisted {
    pub connections: u64,
    /// Payload from clients to servers.
    pub client_bytes: u64,
    /// Payload from servers to clients.
    pub server_bytes: u64,
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
            unlisted: Unlisted::default(),
            first: connection.time,
            last: connection.time,
        }
    }

    /// For connections that the kernel only counted: of their processes nothing is known.
    pub fn counted(
        (role, outcome): (Role, Outcome),
        (client, destination): (IpAddr, SocketAddr),
        owner: Arc<Owner>,
        unlisted: Unlisted,
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
            cadence: Cadence::default(),
            unlisted,
            first,
            last,
        }
    }

    /// All of its connections.
    pub const fn count(&self) -> u64 {
        self.cadence.count + self.unlisted.connections
    }

    /// What is the same of a source's row and of what was only counted of it.
    fn ends(&self) -> (Role, Outcome, IpAddr, SocketAddr) {
        (self.role, self.outcome, self.client, self.destination)
    }

    /// Whether what was only counted, of whose process nothing is known, may be of this row's owner.
    fn may_own(&self, counted: &Self) -> bool {
        self.owner.pod == counted.owner.pod && self.owner.container == counted.owner.container
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

/// Adds what the kernel only counted to the rows of its sources. Where two rows may be its source's, it is a row of its own.
pub fn add_counted(rows: &mut Vec<Row>, counted: Vec<Row>) {
    let mut by_ends: HashMap<_, Vec<usize>> = HashMap::new();
    for (index, row) in rows.iter().enumerate() {
        by_ends.entry(row.ends()).or_default().push(index);
    }
    for counted in counted {
        let same = by_ends.get(&counted.ends()).map_or(&[][..], Vec::as_slice);
        let mut owners = same
            .iter()
            .filter(|index| rows.get(**index).is_some_and(|row| row.may_own(&counted)));
        let only = match (owners.next(), owners.next()) {
            (Some(index), None) => rows.get_mut(*index),
            _ => None,
        };
        match only {
            Some(row) => {
                row.unlisted.connections += counted.unlisted.connections;
                row.unlisted.client_bytes += counted.unlisted.client_bytes;
                row.unlisted.server_bytes += counted.unlisted.server_bytes;
                row.first = row.first.min(counted.first);
                row.last = row.last.max(counted.last);
            }
            None => rows.push(counted),
        }
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

    fn counted(role: Role, client: &str, connections: u64) -> Row {
        let unlisted = Unlisted {
            connections,
            client_bytes: 10 * connections,
            server_bytes: 0,
        };
        let ends = (client.parse().unwrap(), "10.0.0.2:2379".parse().unwrap());
        let times = (
            Timestamp::from_second(100).unwrap(),
            Timestamp::from_second(200).unwrap(),
        );
        Row::counted((role, Outcome::HalfOpen), ends, Arc::default(), unlisted, times)
    }

    /// One that was reported, of a process.
    fn listed(client: &str, pid: u32) -> Row {
        let owner = Owner {
            process: Some(
                serde_json::from_value(serde_json::json!({"pid": pid, "name": "curl", "source": "kernel"}))
                    .unwrap(),
            ),
            ..Owner::default()
        };
        let cadence = Cadence {
            count: 12,
            ..Cadence::default()
        };
        Row {
            owner: Arc::new(owner),
            cadence,
            unlisted: Unlisted::default(),
            first: Timestamp::from_second(150).unwrap(),
            last: Timestamp::from_second(151).unwrap(),
            ..counted(Role::Server, client, 0)
        }
    }

    #[test]
    fn what_was_only_counted_is_its_sources() {
        let mut rows = vec![
            listed("10.0.0.1", 1),
            listed("10.0.0.3", 2),
            listed("10.0.0.3", 3),
        ];
        let all = vec![
            counted(Role::Server, "10.0.0.1", 7),
            counted(Role::Server, "10.0.0.1", 5),
            // Of another side.
            counted(Role::Client, "10.0.0.1", 1),
            // Of one of two.
            counted(Role::Server, "10.0.0.3", 2),
        ];
        add_counted(&mut rows, all);
        let counts: Vec<_> = rows.iter().map(Row::count).collect();
        assert_eq!(counts, [24, 12, 12, 1, 2]);
        let first = &rows[0];
        assert_eq!((first.cadence.count, first.unlisted.client_bytes), (12, 120));
        assert_eq!((first.first.as_second(), first.last.as_second()), (100, 200));
        assert!(rows[0].owner.process.is_some());
    }

    #[test]
    fn of_another_pod_it_is_not() {
        let mut rows = vec![listed("10.0.0.1", 1)];
        let pod = serde_json::from_value(serde_json::json!({"uid": "u", "source": "cgroup"})).unwrap();
        let other = Row {
            owner: Arc::new(Owner {
                pod: Some(pod),
                ..Owner::default()
            }),
            ..counted(Role::Server, "10.0.0.1", 7)
        };
        add_counted(&mut rows, vec![other]);
        assert_eq!(rows.len(), 2);
    }
}
