//! How often the same thing happens.

use std::{hash::BuildHasher, net::IpAddr, num::NonZeroUsize, time::Duration};

use lru::{DefaultHasher, LruCache};

use super::{Connection, Outcome, summary::Row};

mod periods;
pub mod phase;
mod tracker;

pub use self::tracker::Tracker;

/// What the latest times of occurrences say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cadence {
    /// Occurrences seen since the start, this one included.
    pub count: u64,
    /// The interval; `None` if they are irregular. Of several, the one that explains most of them.
    pub every: Option<Duration>,
    /// Nine of ten of the latest intervals differ from `every`, or from the multiple of it that a missed
    /// one leaves, by no more. Zero where `every` is `None`.
    pub spread: Duration,
    /// Occurrences in each interval where there are several: 2 of a source that connects twice every 10 s, or of two sources.
    pub per_interval: Option<u8>,
    /// A second interval, of the same source or of another behind the same address.
    pub also: Option<Duration>,
}

impl Cadence {
    /// Interval and spread, in milliseconds, where there is one.
    pub fn milliseconds(&self) -> Option<(u64, u64)> {
        self.every
            .map(|every| (milliseconds(every), milliseconds(self.spread)))
    }

    /// The second interval, in milliseconds.
    pub fn also_milliseconds(&self) -> Option<u64> {
        self.also.map(milliseconds)
    }
}

fn milliseconds(duration: Duration) -> u64 {
    let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
    micros.saturating_add(500) / 1000
}

/// Sources that [`Cadences`] follows by default.
pub const SOURCES: NonZeroUsize = match NonZeroUsize::new(8192) {
    Some(sources) => sources,
    None => NonZeroUsize::MIN,
};

/// Who it is that a cadence belongs to. Not the pid: what forks a new process each time keeps its cadence.
#[derive(Hash)]
enum Actor<'a> {
    Container {
        pod: Option<&'a str>,
        container: Option<&'a str>,
    },
    Process {
        netns: u32,
        uid: Option<u32>,
        name: &'a str,
    },
    Address(IpAddr),
}

impl<'a> Actor<'a> {
    fn of(connection: &'a Connection) -> Self {
        let Some(owner) = connection.actor().filter(|owner| owner.node.is_none()) else {
            return Self::Address(connection.source.ip());
        };
        let (pod, container) = (owner.pod.as_ref(), owner.container.as_ref());
        match &owner.process {
            Some(process) if pod.is_none() && container.is_none() => Self::Process {
                netns: connection.netns,
                uid: process.uid,
                name: &process.name,
            },
            Some(_) | None => Self::Container {
                pod: pod.map(|pod| pod.uid.as_str()),
                container: container.map(|container| container.id.as_str()),
            },
        }
    }
}

/// One source: the same owner, destination, outcome and role. What connects with changing outcomes is several, with one interval.
struct Source {
    tracker: Tracker,
    row: Row,
}

/// The cadence of every source, bounded: the one unseen for longest makes room.
pub struct Cadences {
    /// By a hash of the source, random in each run, so that nothing of it is copied: among 8192 of 64 bits one collision in
    /// half a million million runs.
    sources: LruCache<u64, Source>,
    /// The same whatever the outcome.
    whole: LruCache<u64, Tracker>,
    hasher: DefaultHasher,
    fell_out: u64,
}

impl Cadences {
    pub fn new(capacity: NonZeroUsize) -> Self {
        Self {
            sources: LruCache::sparse(capacity),
            whole: LruCache::sparse(capacity),
            hasher: DefaultHasher::default(),
            fell_out: 0,
        }
    }

    /// Takes one connection; the caller keeps the answer in [`Connection::cadence`].
    pub fn seen(&mut self, connection: &Connection) -> Cadence {
        let whole_key = self.key(connection);
        let whole = self.note_key(whole_key, connection);
        let key = of_outcome(whole_key, connection.outcome);
        let Some(source) = self.sources.get_mut(&key) else {
            let mut tracker = Tracker::default();
            let cadence = with_whole(tracker.seen(connection.time), whole);
            let row = Row::new(connection, cadence);
            let full = self.sources.push(key, Source { tracker, row }).is_some();
            self.fell_out += u64::from(full);
            return cadence;
        };
        let cadence = with_whole(source.tracker.seen(connection.time), whole);
        source.row.seen(connection, cadence);
        cadence
    }

    /// Takes one that is not shown: it belongs to the interval of its source all the same.
    pub fn note(&mut self, connection: &Connection) -> Cadence {
        self.note_key(self.key(connection), connection)
    }

    /// Who does what, whatever the outcome.
    fn key(&self, connection: &Connection) -> u64 {
        self.hasher
            .hash_one((Actor::of(connection), connection.asked(), connection.role))
    }

    fn note_key(&mut self, key: u64, connection: &Connection) -> Cadence {
        if let Some(tracker) = self.whole.get_mut(&key) {
            return tracker.seen(connection.time);
        }
        let mut tracker = Tracker::default();
        let cadence = tracker.seen(connection.time);
        self.whole.push(key, tracker);
        cadence
    }

    /// Sources that made room for others: should they come again, they count from one.
    pub fn fell_out(&self) -> u64 {
        self.fell_out
    }

    /// All sources followed, the latest seen first.
    pub fn rows(&self) -> impl Iterator<Item = &Row> {
        self.sources.iter().map(|(_, source)| &source.row)
    }
}

/// The key of one outcome of a source: another for each, and as random as the source's.
const fn of_outcome(key: u64, outcome: Outcome) -> u64 {
    const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
    key ^ (outcome as u64 + 1).wrapping_mul(ODD)
}

/// The interval of one outcome of a source, or that of the whole source: a check every 10 s whose outcome changes has each outcome
/// every 20 s, or irregularly.
fn with_whole(own: Cadence, whole: Cadence) -> Cadence {
    let is_simple = whole.per_interval.is_none() && whole.also.is_none();
    if whole.every.is_none() || (own.every.is_some() && !is_simple) {
        return own;
    }
    Cadence {
        count: own.count,
        ..whole
    }
}

impl Default for Cadences {
    fn default() -> Self {
        Self::new(SOURCES)
    }
}

#[cfg(test)]
mod generated_tests;
#[cfg(test)]
#[path = "cadence_tests.rs"]
mod tests;
