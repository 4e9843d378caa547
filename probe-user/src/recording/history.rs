//! Connections remembered in memory, for questions: bounded by count and age, and by source, so that one that connects ten
//! thousand times a second does not push all others out.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap, VecDeque},
    net::SocketAddr,
    sync::Arc,
    time::Instant,
};

use bytes::Bytes;
use jiff::Timestamp;
use serde::Deserialize;

use crate::model::{
    Connection, Outcome, Role, address::AddressPort, names::Named, outcome::is_healthy,
    settings::HistoryBounds,
};

/// A source has at most this part of the room.
const SHARE: usize = 8;
/// Healthy connections have at most this part of it, and it is theirs: without it they would push out those that failed, or these
/// them.
const HEALTHY: usize = 4;

/// Why connections are no longer remembered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Forgotten {
    pub age: u64,
    pub count: u64,
    /// One source had too many.
    pub source: u64,
}

impl Forgotten {
    /// By their names in metrics.
    pub fn named(self) -> [(&'static str, u64); 3] {
        [("age", self.age), ("count", self.count), ("source", self.source)]
    }

    pub fn total(self) -> u64 {
        self.age + self.count + self.source
    }
}

/// By what a connection is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    /// When it ended.
    pub time: Timestamp,
    pub role: Role,
    pub outcome: Outcome,
    source: SocketAddr,
    seen_as: Option<SocketAddr>,
    destination: SocketAddr,
    dialled: Option<SocketAddr>,
}

impl From<&Connection> for Ends {
    fn from(connection: &Connection) -> Self {
        Self {
            time: connection.time,
            role: connection.role,
            outcome: connection.outcome,
            source: connection.source,
            seen_as: connection.seen_as,
            destination: connection.destination,
            dialled: connection.dialled,
        }
    }
}

impl Ends {
    /// Of a line that was kept; the owners in it are passed over. [`None`]: it is no connection of probe's.
    pub fn of_line(line: &[u8]) -> Option<Self> {
        #[derive(Deserialize)]
        struct StoredLine<'a> {
            #[serde(borrow)]
            event: Cow<'a, str>,
            time: Timestamp,
            role: Named<Role>,
            outcome: Named<Outcome>,
            source: Option<AddressPort>,
            seen_as: Option<AddressPort>,
            destination: AddressPort,
            dialled: Option<AddressPort>,
        }
        let line: StoredLine<'_> = serde_json::from_slice(line).ok()?;
        (line.event == "connection").then(|| Self {
            time: line.time,
            role: line.role.0,
            outcome: line.outcome.0,
            source: line.source.unwrap_or_default().socket(),
            seen_as: line.seen_as.map(AddressPort::socket),
            destination: line.destination.socket(),
            dialled: line.dialled.map(AddressPort::socket),
        })
    }
}

/// A connection, as it was reported.
#[derive(Debug)]
pub struct Kept {
    pub ends: Ends,
    /// With the line's end; shared with its senders.
    pub line: Bytes,
}

impl Kept {
    pub fn new(connection: &Connection, line: Bytes) -> Self {
        Self {
            ends: Ends::from(connection),
            line,
        }
    }

    /// Bytes that it takes, with its places in the memory's tables.
    fn size(&self) -> usize {
        const PLACES: usize = 64;
        size_of::<Self>() + self.line.len() + PLACES
    }
}

/// What is asked for; nothing set: all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Ended then or later.
    pub since: Option<Timestamp>,
    /// Of the server, as it is or as it was dialled.
    pub ports: Vec<u16>,
    pub role: Option<Role>,
    pub outcomes: Vec<Outcome>,
    /// Of the client, as it is or as its server saw it.
    pub address: Option<SocketAddr>,
}

impl Filter {
    pub fn wants(&self, kept: &Ends) -> bool {
        let is_port = |address: SocketAddr| self.ports.contains(&address.port());
        self.since.is_none_or(|since| kept.time >= since)
            && (self.ports.is_empty() || is_port(kept.destination) || kept.dialled.is_some_and(is_port))
            && self.role.is_none_or(|role| role == kept.role)
            && (self.outcomes.is_empty() || self.outcomes.contains(&kept.outcome))
            && self
                .address
                .is_none_or(|address| kept.source == address || kept.seen_as == Some(address))
    }
}

/// When it came, and whose it is.
type Entry = (Instant, u64, Arc<Kept>);

/// The memory.
#[derive(Debug)]
pub struct History {
    bounds: HistoryBounds,
    /// Bytes taken.
    size: usize,
    next: u64,
    /// By their number: those that are not healthy.
    all: BTreeMap<u64, Entry>,
    healthy: BTreeMap<u64, Entry>,
    /// Bytes that these take.
    healthy_size: usize,
    /// Numbers of each source's, healthy or not.
    sources: HashMap<(u64, bool), VecDeque<u64>>,
    forgotten: Forgotten,
}

impl History {
    pub fn new(bounds: HistoryBounds) -> Self {
        Self {
            bounds,
            size: 0,
            next: 0,
            all: BTreeMap::new(),
            healthy: BTreeMap::new(),
            healthy_size: 0,
            sources: HashMap::new(),
            forgotten: Forgotten::default(),
        }
    }

    /// Other bounds; what is too much goes.
    pub fn bound(&mut self, bounds: HistoryBounds) {
        self.bounds = bounds;
        self.tidy(Instant::now());
    }

    /// Adds one; `source` identifies its owner.
    pub fn keep(&mut self, kept: Arc<Kept>, source: u64, now: Instant) {
        if self.bounds.connections == 0 {
            return;
        }
        let is_healthy = is_healthy(kept.ends.outcome);
        let room = self.bounds.connections / if is_healthy { HEALTHY } else { 1 };
        let share = (room / SHARE).max(1);
        let theirs = self.sources.get(&(source, is_healthy));
        let crowded = theirs.filter(|theirs| theirs.len() >= share);
        if let Some(oldest) = crowded.and_then(|theirs| theirs.front().copied()) {
            self.forget(oldest, is_healthy);
            self.forgotten.source += 1;
        }
        let size = kept.size();
        self.size += size;
        let entry = (now, source, kept);
        if is_healthy {
            self.healthy_size += size;
            self.healthy.insert(self.next, entry);
        } else {
            self.all.insert(self.next, entry);
        }
        self.sources
            .entry((source, is_healthy))
            .or_default()
            .push_back(self.next);
        self.next += 1;
        self.tidy(now);
    }

    /// Forgets what is too old, or too much.
    pub fn tidy(&mut self, now: Instant) {
        let HistoryBounds {
            connections,
            size,
            age,
        } = self.bounds;
        for is_healthy in [true, false] {
            while let Some((number, (came, ..))) = self.part(is_healthy).first_key_value() {
                let number = *number;
                let too_many = if is_healthy {
                    self.healthy.len() > connections / HEALTHY || self.healthy_size > size / HEALTHY
                } else {
                    self.count() > connections || self.size > size
                };
                if now.duration_since(*came) > age {
                    self.forgotten.age += 1;
                } else if too_many {
                    self.forgotten.count += 1;
                } else {
                    break;
                }
                self.forget(number, is_healthy);
            }
        }
    }

    fn part(&self, is_healthy: bool) -> &BTreeMap<u64, Entry> {
        if is_healthy { &self.healthy } else { &self.all }
    }

    fn forget(&mut self, number: u64, is_healthy: bool) {
        let part = if is_healthy {
            &mut self.healthy
        } else {
            &mut self.all
        };
        let Some((_, source, kept)) = part.remove(&number) else {
            return;
        };
        self.size -= kept.size();
        if is_healthy {
            self.healthy_size -= kept.size();
        }
        if let Some(theirs) = self.sources.get_mut(&(source, is_healthy)) {
            // Always their oldest, as all are in order.
            theirs.pop_front();
            if theirs.is_empty() {
                self.sources.remove(&(source, is_healthy));
            }
        }
    }

    /// Those asked for, oldest first.
    pub fn find(&self, filter: &Filter) -> Vec<Arc<Kept>> {
        let both = self.all.iter().chain(&self.healthy);
        let mut found: Vec<_> = both.filter(|(_, (.., kept))| filter.wants(&kept.ends)).collect();
        found.sort_unstable_by_key(|(number, _)| **number);
        found
            .into_iter()
            .map(|(_, (.., kept))| Arc::clone(kept))
            .collect()
    }

    /// How far back it reaches.
    pub fn oldest(&self) -> Option<Timestamp> {
        let first =
            |part: &BTreeMap<u64, Entry>| part.first_key_value().map(|(_, (.., kept))| kept.ends.time);
        [first(&self.all), first(&self.healthy)]
            .into_iter()
            .flatten()
            .min()
    }

    /// How many are remembered.
    pub fn count(&self) -> usize {
        self.all.len() + self.healthy.len()
    }

    pub fn forgotten(&self) -> Forgotten {
        self.forgotten
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        recording::connection,
        report::{json_line, samples},
    };

    fn kept(number: u64) -> Arc<Kept> {
        let connection = Connection {
            time: Timestamp::from_second(number as i64).unwrap(),
            ..samples::incident()
        };
        Arc::new(Kept::new(&connection, number.to_string().into()))
    }

    fn bounds(connections: usize) -> HistoryBounds {
        HistoryBounds {
            connections,
            size: usize::MAX,
            age: Duration::from_secs(3600),
        }
    }

    fn lines(held: &History) -> Vec<String> {
        let all = held.find(&Filter::default());
        all.iter()
            .map(|kept| String::from_utf8_lossy(&kept.line).into_owned())
            .collect()
    }

    #[test]
    fn the_oldest_goes_first() {
        let mut held = History::new(bounds(4));
        let now = Instant::now();
        for number in 0..10 {
            held.keep(kept(number), number, now);
        }
        assert_eq!(lines(&held), ["6", "7", "8", "9"]);
        assert_eq!((held.count(), held.forgotten().count), (4, 6));
        assert_eq!(held.oldest(), Timestamp::from_second(6).ok());
        held.bound(bounds(2));
        assert_eq!(lines(&held), ["8", "9"]);
        assert_eq!(held.sources.len(), 2);
    }

    #[test]
    fn what_is_old_goes_whether_or_not_there_is_room() {
        let mut held = History::new(HistoryBounds {
            age: Duration::from_secs(10),
            ..bounds(4)
        });
        let now = Instant::now();
        held.keep(kept(1), 1, now);
        held.keep(kept(2), 2, now + Duration::from_secs(9));
        held.tidy(now + Duration::from_secs(11));
        assert_eq!(lines(&held), ["2"]);
        assert_eq!(held.forgotten().age, 1);
    }

    #[test]
    fn long_lines_leave_room_for_fewer() {
        let mut held = History::new(HistoryBounds {
            size: 10_000,
            ..bounds(1000)
        });
        for number in 0..1000 {
            let kept = Kept::new(&samples::incident(), vec![b'x'; number as usize].into());
            held.keep(Arc::new(kept), number, Instant::now());
            assert!(held.size <= 10_000);
            assert_eq!(
                held.size,
                held.all.values().map(|(.., kept)| kept.size()).sum::<usize>()
            );
        }
        assert!((5..10).contains(&held.count()), "{}", held.count());
    }

    #[test]
    fn one_source_leaves_room_for_others() {
        let mut held = History::new(bounds(80));
        let now = Instant::now();
        held.keep(kept(0), 7, now);
        for number in 1..=10_000 {
            held.keep(kept(number), 666, now);
        }
        let lines = lines(&held);
        assert_eq!(lines.len(), 11);
        assert_eq!((&*lines[0], &*lines[1], &*lines[10]), ("0", "9991", "10000"));
        assert_eq!(held.forgotten().source, 9_990);
    }

    #[test]
    fn healthy_ones_have_a_share_of_their_own() {
        let closed = |number: u64| {
            let connection = Connection {
                outcome: Outcome::Closed,
                ..samples::incident()
            };
            Arc::new(Kept::new(&connection, format!("h{number}").into()))
        };
        let now = Instant::now();
        let mut held = History::new(bounds(80));
        for number in 0..80 {
            held.keep(kept(number), number, now);
        }
        for number in 0..1000 {
            held.keep(closed(number), number, now);
        }
        // A quarter is theirs, and the rest stays.
        let is_healthy = |line: &String| line.starts_with('h');
        let all = lines(&held);
        assert_eq!(
            (all.len(), all.iter().filter(|line| is_healthy(line)).count()),
            (80, 20)
        );
        assert_eq!((&*all[0], &*all[79]), ("20", "h999"));
        // Nor do those that failed push these out.
        for number in 80..1000 {
            held.keep(kept(number), number, now);
        }
        let all = lines(&held);
        assert_eq!(
            (all.len(), all.iter().filter(|line| is_healthy(line)).count()),
            (80, 20)
        );
        // One source's healthy ones leave room for others' and for its own failures.
        let mut held = History::new(bounds(80));
        held.keep(kept(0), 7, now);
        for number in 0..1000 {
            held.keep(closed(number), 7, now);
        }
        assert_eq!(lines(&held), ["0", "h998", "h999"]);
        held.tidy(now + Duration::from_secs(7200));
        assert_eq!((held.count(), held.size, held.healthy_size), (0, 0, 0));
    }

    #[test]
    fn what_is_asked_for() {
        let seen = "192.168.88.12:62134".parse().unwrap();
        let connection = Connection {
            seen_as: Some(seen),
            ..samples::incident()
        };
        let incident = Ends::from(&connection);
        let all = Filter::default;
        for (filter, wanted) in [
            (all(), true),
            (
                Filter {
                    ports: vec![1, 2379],
                    ..all()
                },
                true,
            ),
            (
                Filter {
                    ports: vec![1],
                    ..all()
                },
                false,
            ),
            (
                Filter {
                    role: Some(Role::Client),
                    ..all()
                },
                true,
            ),
            (
                Filter {
                    role: Some(Role::Server),
                    ..all()
                },
                false,
            ),
            (
                Filter {
                    outcomes: vec![Outcome::HalfOpen],
                    ..all()
                },
                true,
            ),
            (
                Filter {
                    outcomes: vec![Outcome::Closed],
                    ..all()
                },
                false,
            ),
            (
                Filter {
                    address: Some(seen),
                    ..all()
                },
                true,
            ),
            (
                Filter {
                    address: Some(incident.source),
                    ..all()
                },
                true,
            ),
            (
                Filter {
                    address: Some(incident.destination),
                    ..all()
                },
                false,
            ),
            (
                Filter {
                    since: Some(incident.time),
                    ..all()
                },
                true,
            ),
            (
                Filter {
                    since: Some(Timestamp::MAX),
                    ..all()
                },
                false,
            ),
        ] {
            assert_eq!(filter.wants(&incident), wanted, "{filter:?}");
        }
    }

    /// What was kept on disk is asked for as what is in memory.
    #[test]
    fn ends_of_a_line_are_those_of_its_connection() {
        for connection in samples::every_field() {
            let mut line = Vec::new();
            json_line(&mut line, "beta", &connection).unwrap();
            let read = connection::read(&line).unwrap();
            assert_eq!(Ends::of_line(&line), Some(Ends::from(&read)));
        }
        // Refused before a port was chosen.
        let connection = Connection {
            source: "10.244.1.5:0".parse().unwrap(),
            ..samples::incident()
        };
        let mut line = Vec::new();
        json_line(&mut line, "beta", &connection).unwrap();
        assert_eq!(Ends::of_line(&line), Some(Ends::from(&connection)));
        for line in ["{}", "", "{\"event\":\"summary\"}"] {
            assert_eq!(Ends::of_line(line.as_bytes()), None, "{line}");
        }
    }
}
