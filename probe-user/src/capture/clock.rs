//! The kernel side's clock, `CLOCK_MONOTONIC`, as time of day.

use std::time::Duration;

use jiff::Timestamp;

/// How far the two clocks are apart at one moment. Read it again now and then: the time of day may be set.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// Time of day less monotonic time, nanoseconds.
    ahead_ns: i128,
    /// `CLOCK_MONOTONIC` when this was read, nanoseconds.
    now_ns: u64,
}

impl Clock {
    /// From both clocks read at one moment, nanoseconds each.
    pub fn new(time_of_day_ns: i128, monotonic_ns: u64) -> Self {
        Self {
            ahead_ns: time_of_day_ns - i128::from(monotonic_ns),
            now_ns: monotonic_ns,
        }
    }

    /// Time of day of a monotonic time; the limits of the calendar where it is absurd.
    pub fn time(&self, monotonic_ns: u64) -> Timestamp {
        const SECOND: i64 = 1_000_000_000;
        let time_ns = self.ahead_ns + i128::from(monotonic_ns);
        // Until 2262, without a division of 128 bits for each record.
        let time = match i64::try_from(time_ns) {
            Ok(ns) => Timestamp::new(ns.div_euclid(SECOND), ns.rem_euclid(SECOND) as i32),
            Err(_) => Timestamp::from_nanosecond(time_ns),
        };
        time.unwrap_or(Timestamp::MAX)
    }

    /// `CLOCK_MONOTONIC` when this was read, nanoseconds.
    pub fn now_ns(&self) -> u64 {
        self.now_ns
    }

    /// Time from `start_ns` until this was read.
    pub fn since(&self, start_ns: u64) -> Duration {
        Duration::from_nanos(self.now_ns.saturating_sub(start_ns))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn monotonic_to_time_of_day() {
        let clock = Clock::new(1_700_000_000_000_000_000, 5_000);
        assert_eq!(clock.time(5_000).as_nanosecond(), 1_700_000_000_000_000_000);
        assert_eq!(clock.time(4_000).as_nanosecond(), 1_699_999_999_999_999_000);
        assert_eq!(clock.since(6_000), Duration::ZERO);
        for time_ns in [-1, i128::from(i64::MAX), i128::from(i64::MAX) + 1] {
            assert_eq!(Clock::new(time_ns, 0).time(0).as_nanosecond(), time_ns);
        }
        // Whatever the kernel side says, there is an answer.
        clock.time(u64::MAX);
        assert_eq!(Clock::new(i128::MAX / 2, 0).time(u64::MAX), Timestamp::MAX);
    }
}
