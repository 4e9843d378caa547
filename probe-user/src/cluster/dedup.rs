//! What was heard of a node, so that one who has to ask again asks for what is missing, and takes nothing twice.

use std::{
    collections::{BTreeSet, HashSet},
    hash::{BuildHasher, RandomState},
};

use jiff::{SignedDuration, Timestamp};

use crate::model::Connection;

/// A node reports connections not quite in the order of their ends: names and causes are waited for. It is queried again for
/// what ended since so long before the latest.
const OVERLAP: SignedDuration = SignedDuration::from_secs(5);
/// Connections remembered, of those within the overlap.
const MOST: usize = 65_536;

#[derive(Debug)]
pub struct Dedup {
    /// The first and the latest that it spoke of.
    between: Option<(Timestamp, Timestamp)>,
    /// Keyed hashes of the latest, with their times.
    latest: BTreeSet<(Timestamp, u64)>,
    known: HashSet<u64>,
    hasher: RandomState,
}

impl Dedup {
    pub fn new() -> Self {
        Self {
            between: None,
            latest: BTreeSet::new(),
            known: HashSet::new(),
            hasher: RandomState::new(),
        }
    }

    /// The node's clock is so far.
    pub fn clock(&mut self, time: Timestamp) {
        let (first, last) = self.between.get_or_insert((time, time));
        (*first, *last) = (time.min(*first), time.max(*last));
    }

    /// Whether this connection was not there before.
    pub fn is_new(&mut self, connection: &Connection) -> bool {
        let Connection {
            time, role, netns, ..
        } = *connection;
        let ends = (connection.source, connection.destination);
        let key = self.hasher.hash_one((time, role, netns, ends));
        if !self.known.insert(key) {
            return false;
        }
        self.latest.insert((time, key));
        self.clock(time);
        let since = self.since();
        let over = |oldest, known| known > MOST || since.is_some_and(|since| oldest < since);
        while let Some((oldest, key)) = self.latest.first().copied() {
            if !over(oldest, self.latest.len()) {
                break;
            }
            self.latest.pop_first();
            self.known.remove(&key);
        }
        true
    }

    /// From when on it has to be asked again; `None` where nothing was heard of it.
    pub fn since(&self) -> Option<Timestamp> {
        let (first, last) = self.between?;
        Some(last.checked_sub(OVERLAP).unwrap_or(last).max(first))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::report::samples;

    fn at(milliseconds: u64) -> Connection {
        Connection {
            time: samples::time() + Duration::from_millis(milliseconds),
            ..samples::incident()
        }
    }

    #[test]
    fn nothing_twice() {
        let mut seen = Dedup::new();
        assert!(seen.is_new(&at(0)) && seen.is_new(&at(1)));
        assert!(!seen.is_new(&at(0)) && !seen.is_new(&at(1)));
        // The other side of the same, or another client at the same time.
        assert!(seen.is_new(&samples::both_ends()));
        let mut other = at(0);
        other.source.set_port(1);
        assert!(seen.is_new(&other));
    }

    #[test]
    fn from_when_on() {
        let mut seen = Dedup::new();
        assert_eq!(seen.since(), None);
        seen.is_new(&at(10_000));
        assert_eq!(seen.since(), Some(at(10_000).time));
        seen.clock(at(12_000).time);
        assert_eq!(seen.since(), Some(at(10_000).time));
        seen.clock(at(20_000).time);
        seen.is_new(&at(19_000));
        assert_eq!(seen.since(), Some(at(15_000).time));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut seen = Dedup::new();
        for second in 0..100 {
            seen.is_new(&at(second * 1000));
        }
        assert_eq!((seen.known.len(), seen.latest.len()), (6, 6));
        for number in 0..MOST as u64 + 100 {
            let mut connection = at(99_000);
            connection.netns = number as u32;
            seen.is_new(&connection);
        }
        assert_eq!((seen.known.len(), seen.latest.len()), (MOST, MOST));
    }
}
