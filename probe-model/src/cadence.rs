//! How often the same thing happens.

use std::{
    hash::{BuildHasher, RandomState},
    net::IpAddr,
    num::NonZeroUsize,
    time::Duration,
};

use jiff::Timestamp;
use lru::LruCache;

use super::{Connection, summary::Row};

/// What the latest intervals between occurrences say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cadence {
    /// Occurrences seen since the start, this one included.
    pub count: u64,
    /// The median of the latest intervals; `None` when they are too irregular to speak of one.
    pub every: Option<Duration>,
    /// Nine of ten of the latest intervals differ from `every`, or from the multiple of it that a missed
    /// beat leaves, by no more. Zero where `every` is `None`.
    pub spread: Duration,
}

impl Cadence {
    /// Interval and spread, in milliseconds, where there is one.
    pub fn milliseconds(&self) -> Option<(u64, u64)> {
        let milliseconds = |duration: Duration| {
            let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
            micros.saturating_add(500) / 1000
        };
        self.every
            .map(|every| (milliseconds(every), milliseconds(self.spread)))
    }
}

/// Intervals that a [`Tracker`] keeps.
const INTERVALS: usize = 16;
/// A median below this is a stream of connections, not a beat. Microseconds.
const SHORTEST: u64 = 100_000;
/// An interval of up to so many medians may be missed beats.
const MULTIPLES: u64 = 3;

/// Follows the occurrences of one thing.
///
/// `every` is the median of the latest 16 intervals, and is told when all of this holds:
/// - three occurrences were seen, and the median is 100 ms or more;
/// - nine of ten intervals are within a fifth of the median (a tenth while fewer than five are known: of two
///   random intervals one pair in five would pass the wider test), or within as much of two or three medians;
/// - at most a quarter of the intervals are such missed beats.
///
/// The latest times are kept in order, so records that arrive late fall into their place.
#[derive(Clone, Debug, Default)]
pub struct Tracker {
    count: u64,
    /// Microseconds since 1970, oldest first.
    times: [i64; INTERVALS + 1],
    kept: usize,
}

impl Tracker {
    /// Takes one occurrence; times may be slightly out of order.
    pub fn seen(&mut self, at: Timestamp) -> Cadence {
        self.count += 1;
        self.keep(at.as_microsecond());
        self.cadence()
    }

    fn keep(&mut self, at: i64) {
        let known = self.times.get(..self.kept).unwrap_or_default();
        let place = self.kept - known.iter().rev().take_while(|time| **time > at).count();
        if self.kept < self.times.len() {
            self.times.copy_within(place..self.kept, place + 1);
            self.kept += 1;
            self.times[place] = at;
        } else if let Some(place) = place.checked_sub(1) {
            self.times.copy_within(1..=place, 0);
            self.times[place] = at;
        }
        // Otherwise it is older than all that is kept: counted, and that is all.
    }

    /// What the occurrences so far say.
    pub fn cadence(&self) -> Cadence {
        let (every, spread) = self.beat().unzip();
        Cadence {
            count: self.count,
            every,
            spread: spread.unwrap_or_default(),
        }
    }

    fn beat(&self) -> Option<(Duration, Duration)> {
        let known = self.kept.checked_sub(1).filter(|known| *known >= 2)?;
        let mut buffer = [0; INTERVALS];
        for (interval, pair) in buffer.iter_mut().zip(self.times.windows(2)) {
            *interval = pair[1].abs_diff(pair[0]);
        }
        let intervals = buffer.get_mut(..known)?;
        intervals.sort_unstable();
        let median = intervals[(known - 1) / 2].midpoint(intervals[known / 2]);
        if median < SHORTEST {
            return None;
        }
        let tolerance = if known < 5 { median / 10 } else { median / 5 };
        let mut missed = 0;
        for interval in &mut *intervals {
            let multiple = ((*interval + median / 2) / median).clamp(1, MULTIPLES);
            *interval = interval.abs_diff(multiple * median);
            missed += usize::from(multiple > 1 && *interval <= tolerance);
        }
        intervals.sort_unstable();
        let spread = intervals[known - 1 - known / 10];
        (spread <= tolerance && missed * 4 <= known)
            .then(|| (Duration::from_micros(median), Duration::from_micros(spread)))
    }
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

/// One source: the same owner, destination, outcome and role.
struct Source {
    tracker: Tracker,
    row: Row,
}

/// The cadence of every source, bounded: the one unseen for longest makes room.
pub struct Cadences {
    /// By a keyed hash of the source, so that nothing of it is copied: among 8192 of 64 bits one collision in
    /// half a million million runs.
    sources: LruCache<u64, Source>,
    hasher: RandomState,
    fell_out: u64,
}

impl Cadences {
    pub fn new(capacity: NonZeroUsize) -> Self {
        Self {
            sources: LruCache::sparse(capacity),
            hasher: RandomState::new(),
            fell_out: 0,
        }
    }

    /// Takes one connection; the caller keeps the answer in [`Connection::cadence`].
    pub fn seen(&mut self, connection: &Connection) -> Cadence {
        let Connection { role, outcome, .. } = *connection;
        let destination = connection.asked();
        let key = self
            .hasher
            .hash_one((Actor::of(connection), destination, outcome, role));
        let Some(source) = self.sources.get_mut(&key) else {
            let mut tracker = Tracker::default();
            let cadence = tracker.seen(connection.time);
            let row = Row::new(connection, cadence);
            let full = self.sources.push(key, Source { tracker, row }).is_some();
            self.fell_out += u64::from(full);
            return cadence;
        };
        let cadence = source.tracker.seen(connection.time);
        source.row.seen(connection, cadence);
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

impl Default for Cadences {
    fn default() -> Self {
        Self::new(SOURCES)
    }
}

#[cfg(test)]
#[path = "cadence_tests.rs"]
mod tests;
