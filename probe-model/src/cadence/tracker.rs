//! The latest times of one source.

use std::time::Duration;

use jiff::Timestamp;

use super::{
    Cadence,
    periods::{Periods, periods, regular},
};

/// Times that a [`Tracker`] keeps: enough for five minutes of one check a minute beside one every ten seconds.
pub(super) const TIMES: usize = 33;
/// Times that have to be regular where there is one interval. Fewer, so that a change shows soon.
const LATEST: usize = 17;
/// The search for several intervals is dear: once in so many occurrences.
const SEARCH: u64 = 8;

/// Follows the occurrences of one thing.
///
/// `every` is the median of the latest 16 intervals, and is reported if all of this holds:
/// - three occurrences were seen, and the median is 100 ms or more;
/// - nine of ten intervals are within a fifth of the median (a tenth while fewer than five are known: of two
///   random intervals one pair in five would pass the wider test), or within as much of two or three medians;
/// - at most a quarter of the intervals are such missed occurrences.
///
/// Else several intervals are looked for in the latest 33 times, by [`periods`].
///
/// The latest times are kept in order, so records that arrive late fall into their place.
#[derive(Clone, Debug, Default)]
pub struct Tracker {
    count: u64,
    kept: usize,
    times: Times,
    /// The latest search's.
    found: Option<Periods>,
}

/// Microseconds since 1970, oldest first.
#[derive(Clone, Debug)]
struct Times([i64; TIMES]);

impl Default for Times {
    fn default() -> Self {
        Self([0; TIMES])
    }
}

impl Tracker {
    /// Takes one occurrence; times may be slightly out of order.
    pub fn seen(&mut self, at: Timestamp) -> Cadence {
        self.count += 1;
        self.keep(at.as_microsecond());
        if self.count <= SEARCH || self.count.is_multiple_of(SEARCH) {
            self.found = self.search();
        }
        self.cadence()
    }

    fn keep(&mut self, at: i64) {
        let times = &mut self.times.0;
        let known = times.get(..self.kept).unwrap_or_default();
        let place = self.kept - known.iter().rev().take_while(|time| **time > at).count();
        if self.kept < times.len() {
            times.copy_within(place..self.kept, place + 1);
            self.kept += 1;
            times[place] = at;
        } else if let Some(place) = place.checked_sub(1) {
            times.copy_within(1..=place, 0);
            times[place] = at;
        }
        // Otherwise it is older than all that is kept: counted, and that is all.
    }

    fn known(&self) -> &[i64] {
        self.times.0.get(..self.kept).unwrap_or_default()
    }

    fn one(&self) -> Option<(Duration, Duration)> {
        let known = self.known();
        regular(
            known
                .get(known.len().saturating_sub(LATEST)..)
                .unwrap_or_default(),
        )
    }

    fn search(&self) -> Option<Periods> {
        match self.one() {
            Some(_) => None,
            None => periods(self.known()),
        }
    }

    /// What the occurrences so far say.
    pub fn cadence(&self) -> Cadence {
        let count = self.count;
        if let Some((every, spread)) = self.one() {
            return Cadence {
                count,
                every: Some(every),
                spread,
                ..Cadence::default()
            };
        }
        let Some(found) = self.found else {
            return Cadence {
                count,
                ..Cadence::default()
            };
        };
        Cadence {
            count,
            every: Some(found.every),
            spread: found.spread,
            per_interval: (found.per_interval > 1).then_some(found.per_interval),
            also: found.also,
        }
    }
}
