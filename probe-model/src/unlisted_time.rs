//! Times in which connections were not recorded one by one: a search for one of such a time may find nothing.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

/// More of them are joined: the two that are nearest to each other.
const MOST: usize = 256;
/// Those with less between them are one.
const NEAR: SignedDuration = SignedDuration::from_secs(2);

/// A time in which connections were counted by source only, or lost. Which ones is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct UnlistedTime {
    /// The first moment in which one may have ended.
    #[cfg_attr(feature = "schema", schemars(with = "String", extend("format" = "date-time")))]
    pub since: Timestamp,
    /// The last one.
    #[cfg_attr(feature = "schema", schemars(with = "String", extend("format" = "date-time")))]
    pub until: Timestamp,
    /// The number of connections counted by source and not reported one by one (`--max-rate`, `--max-cpu`).
    #[serde(default)]
    pub aggregated: u64,
    /// The number of connections whose record was lost: the ring was full.
    #[serde(default)]
    pub lost: u64,
}

impl UnlistedTime {
    fn join(&mut self, other: &Self) {
        self.since = self.since.min(other.since);
        self.until = self.until.max(other.until);
        self.aggregated = self.aggregated.saturating_add(other.aggregated);
        self.lost = self.lost.saturating_add(other.lost);
    }

    /// How many there were, in words that follow a time: "48000 connections were counted by source only (--max-rate)".
    pub fn describe(&self) -> String {
        let mut parts = Vec::new();
        if self.aggregated > 0 {
            parts.push(format!(
                "{} connections were counted by source only (--max-rate)",
                self.aggregated
            ));
        }
        if self.lost > 0 {
            parts.push(format!(
                "{} connections have no record (the ring was full)",
                self.lost
            ));
        }
        parts.join(", ")
    }
}

/// All of them, in the order of time, those that are near each other joined; bounded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UnlistedTimes(Vec<UnlistedTime>);

impl UnlistedTimes {
    /// Adds one; what is wrong about it, such as an end before its beginning, is left out.
    pub fn add(&mut self, time: UnlistedTime) {
        if time.until < time.since || time.aggregated == 0 && time.lost == 0 {
            return;
        }
        let place = self.0.partition_point(|known| known.since <= time.since);
        self.0.insert(place, time);
        self.join(NEAR);
        if self.0.len() > MOST {
            let gaps = self.0.windows(2).filter_map(|pair| match pair {
                [before, after] => Some(after.since.duration_since(before.until)),
                _ => None,
            });
            let nearest = gaps.min();
            nearest.into_iter().for_each(|nearest| self.join(nearest));
        }
    }

    /// Joins those with no more than this between them.
    fn join(&mut self, most: SignedDuration) {
        self.0.dedup_by(|after, before| {
            let is_near = after.since.duration_since(before.until) <= most;
            if is_near {
                before.join(after);
            }
            is_near
        });
    }

    /// Every one.
    pub fn all(&self) -> &[UnlistedTime] {
        &self.0
    }

    /// The one that a moment is in, or is so near to.
    pub fn at(&self, moment: Timestamp, within: Duration) -> Option<&UnlistedTime> {
        let within = SignedDuration::try_from(within).unwrap_or(SignedDuration::MAX);
        self.0.iter().find(|time| {
            time.since.duration_since(moment) <= within && moment.duration_since(time.until) <= within
        })
    }

    /// From the first to the last as one; `None`: there is none.
    pub fn whole(&self) -> Option<UnlistedTime> {
        let (first, others) = self.0.split_first()?;
        let mut whole = *first;
        others.iter().for_each(|other| whole.join(other));
        Some(whole)
    }
}

impl FromIterator<UnlistedTime> for UnlistedTimes {
    fn from_iter<T: IntoIterator<Item = UnlistedTime>>(times: T) -> Self {
        let mut all = Self::default();
        times.into_iter().for_each(|time| all.add(time));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moment(second: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + second).unwrap()
    }

    fn time(since: i64, until: i64, aggregated: u64, lost: u64) -> UnlistedTime {
        UnlistedTime {
            since: moment(since),
            until: moment(until),
            aggregated,
            lost,
        }
    }

    #[test]
    fn neighbours_are_one() {
        for (what, added, expected) in [
            ("none", vec![], vec![]),
            (
                "apart",
                vec![time(0, 1, 5, 0), time(9, 10, 1, 0)],
                vec![time(0, 1, 5, 0), time(9, 10, 1, 0)],
            ),
            (
                "one after the other",
                vec![time(0, 1, 5, 0), time(1, 2, 1, 2)],
                vec![time(0, 2, 6, 2)],
            ),
            (
                "near",
                vec![time(0, 1, 5, 0), time(3, 4, 1, 0)],
                vec![time(0, 4, 6, 0)],
            ),
            (
                "in another order",
                vec![time(9, 10, 1, 0), time(0, 1, 5, 0)],
                vec![time(0, 1, 5, 0), time(9, 10, 1, 0)],
            ),
            (
                "between",
                vec![time(0, 1, 1, 0), time(6, 7, 1, 0), time(3, 4, 1, 0)],
                vec![time(0, 7, 3, 0)],
            ),
            (
                "within",
                vec![time(0, 9, 1, 0), time(3, 4, 1, 0)],
                vec![time(0, 9, 2, 0)],
            ),
            ("wrong", vec![time(9, 0, 1, 0), time(0, 1, 0, 0)], vec![]),
        ] {
            assert_eq!(
                added.into_iter().collect::<UnlistedTimes>().all(),
                expected,
                "{what}"
            );
        }
    }

    #[test]
    fn so_many_are_kept_and_none_is_forgotten() {
        // Each is further from the one before than that was.
        let mut since = 0;
        let times = (0..1000).map(|number| {
            since += 10 + number;
            time(since, since + 1, 1, 1)
        });
        let times: UnlistedTimes = times.collect();
        assert_eq!(times.all().len(), MOST);
        let whole = times.whole().unwrap();
        assert_eq!((whole.aggregated, whole.lost), (1000, 1000));
        // The latest are the furthest apart.
        assert_eq!(times.all().last(), Some(&time(since, since + 1, 1, 1)));
    }

    #[test]
    fn the_time_of_a_moment() {
        let times: UnlistedTimes = [time(10, 20, 7, 0), time(40, 50, 8, 0)].into_iter().collect();
        for (at, within, expected) in [
            (15, 0, Some(7)),
            (10, 0, Some(7)),
            (21, 0, None),
            (21, 1, Some(7)),
            (39, 1, Some(8)),
            (38, 1, None),
            (60, 9, None),
        ] {
            let found = times.at(moment(at), Duration::from_secs(within));
            assert_eq!(
                found.map(|found| found.aggregated),
                expected,
                "{at} within {within}"
            );
        }
    }

    #[test]
    fn in_words() {
        for (time, expected) in [
            (
                time(0, 1, 48000, 0),
                "48000 connections were counted by source only (--max-rate)",
            ),
            (
                time(0, 1, 0, 3),
                "3 connections have no record (the ring was full)",
            ),
            (
                time(0, 1, 2, 3),
                "2 connections were counted by source only (--max-rate), 3 connections have no record (the ring was full)",
            ),
        ] {
            assert_eq!(time.describe(), expected);
        }
    }
}
