//! Keeps a run to its share of a core: measures what it uses, and has the kernel side hand over less, or more again.

use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use probe_ebpf::contract::connection::StormLimit;

use crate::{
    cli::rate_of,
    host::cpu,
    model::{
        throttle::{Measured, Throttle},
        unlisted_time::UnlistedTime,
    },
    report::say,
};

/// As long as the kernel side counts a second.
const EVERY: Duration = Duration::from_millis(1074);
/// Of each source beyond, in a second: fewer than usual, so that there is room for more sources.
const SAMPLES: u64 = 2;
/// Changes are said no more often.
const SAY: Duration = Duration::from_secs(10);

/// What a run may use, and how it keeps to it.
pub struct Shedding {
    percent: f64,
    throttle: Throttle,
    /// As it was asked for.
    limit: StormLimit,
    since: Instant,
    cpu: Duration,
    listed: u64,
    /// What was said last, and when.
    said: Option<(bool, Instant)>,
}

impl Shedding {
    /// `percent` of a core; `limit`: what the kernel side hands over as long as that is enough.
    pub fn new(percent: f64, limit: StormLimit) -> Self {
        let most = rate_of(limit);
        Self {
            percent,
            throttle: Throttle::new(percent / 100.0, most),
            limit,
            since: Instant::now(),
            cpu: cpu::of_process(),
            listed: 0,
            said: None,
        }
    }

    /// The limit from now on, if it is another. `listed`: connections that were, since the run began.
    pub fn next(&mut self, listed: u64) -> Option<StormLimit> {
        let elapsed = self.since.elapsed();
        if elapsed < EVERY {
            return None;
        }
        let cpu = cpu::of_process();
        let changed = self.throttle.measured(&Measured {
            elapsed,
            cpu: cpu.saturating_sub(self.cpu),
            listed: listed - self.listed,
        });
        (self.since, self.cpu, self.listed) = (Instant::now(), cpu, listed);
        if !changed {
            return None;
        }
        self.say();
        Some(match self.throttle.rate() {
            // Half of it is for sources that come after the first half of a second's connections.
            Some(rate) if self.throttle.is_on() => StormLimit::of(rate / 2, SAMPLES),
            _ => self.limit,
        })
    }

    /// That less is listed, and that all is again.
    fn say(&mut self) {
        let is_on = self.throttle.is_on();
        let was_on = self.said.is_some_and(|(said, _)| said);
        let is_early = self.said.is_some_and(|(_, at)| at.elapsed() < SAY);
        if is_on == was_on || is_early {
            return;
        }
        self.said = Some((is_on, Instant::now()));
        match self.throttle.rate() {
            Some(rate) if is_on => say(format_args!(
                "probe: using more than {} % of a core (--max-cpu): lists {rate} connections a second from now on and counts the others \
                 by source",
                self.percent
            )),
            _ => say(format_args!(
                "probe: using less than {} % of a core again (--max-cpu): lists connections as before",
                self.percent
            )),
        }
    }
}

/// Says what was only counted, while it happens, and when it was.
pub struct Storms {
    counted: u64,
    said: Instant,
    is_on: bool,
    /// What was not handed over one by one, and when that was read last.
    missing: Missing,
    read: Timestamp,
}

/// Connections without a record, since the run began.
#[derive(Clone, Copy, Debug, Default)]
pub struct Missing {
    /// Counted by source.
    pub aggregated: u64,
    /// The ring was full.
    pub lost: u64,
}

impl Storms {
    pub fn new() -> Self {
        Self {
            counted: 0,
            said: Instant::now(),
            is_on: false,
            missing: Missing::default(),
            read: Timestamp::now(),
        }
    }

    /// When connections were not handed over since the last time; nothing for less than a second, but for the `end`.
    pub fn unlisted(&mut self, now: Missing, time: Timestamp, end: bool) -> Option<UnlistedTime> {
        // A clock that was set back must not stop it.
        let elapsed = time.duration_since(self.read).abs();
        if !end && elapsed < SignedDuration::from_secs(1) {
            return None;
        }
        let since = self.read.min(time);
        let before = std::mem::replace(&mut self.missing, now);
        self.read = time;
        let (aggregated, lost) = (now.aggregated - before.aggregated, now.lost - before.lost);
        (aggregated > 0 || lost > 0).then_some(UnlistedTime {
            since,
            until: time,
            aggregated,
            lost,
        })
    }

    /// `counted`: connections that were only counted, since the run began. The first are said at once, more every ten seconds.
    pub fn report(&mut self, counted: u64) {
        if counted == self.counted || self.is_on && self.said.elapsed() < SAY {
            self.is_on &= self.said.elapsed() < SAY;
            return;
        }
        let more = counted - self.counted;
        let since = if self.is_on {
            format!(" in {} s", self.said.elapsed().as_secs())
        } else {
            String::new()
        };
        say(format_args!(
            "probe: too many connections a second to list them all (--max-rate): {more} counted by source only{since}; the summary has them"
        ));
        (self.counted, self.said, self.is_on) = (counted, Instant::now(), true);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn when_connections_were_not_handed_over() {
        let mut storms = Storms::new();
        let begun = storms.read;
        let at = |milliseconds| begun + SignedDuration::from_millis(milliseconds);
        let missing = |aggregated, lost| Missing { aggregated, lost };
        let time = |since, until, aggregated, lost| {
            Some(UnlistedTime {
                since: at(since),
                until: at(until),
                aggregated,
                lost,
            })
        };
        for (milliseconds, now, end, expected) in [
            (1000, missing(0, 0), false, None),
            // It is read once a second.
            (1500, missing(7, 0), false, None),
            (2000, missing(9, 0), false, time(1000, 2000, 9, 0)),
            (3000, missing(9, 0), false, None),
            (4000, missing(9, 2), false, time(3000, 4000, 0, 2)),
            // The last part of a second, too.
            (4200, missing(10, 3), true, time(4000, 4200, 1, 1)),
            // The clock was set back by an hour.
            (
                -3_600_000,
                missing(12, 3),
                false,
                time(-3_600_000, -3_600_000, 2, 0),
            ),
            (
                -3_599_000,
                missing(13, 3),
                false,
                time(-3_600_000, -3_599_000, 1, 0),
            ),
        ] {
            assert_eq!(
                storms.unlisted(now, at(milliseconds), end),
                expected,
                "{milliseconds}"
            );
        }
    }
}
