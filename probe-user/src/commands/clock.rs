//! The kernel side's clock and the time of day.

use nix::time::{ClockId, clock_gettime};

use crate::capture::clock::Clock;

/// Both clocks at one moment: the reads may be interrupted in between, so the closest of some tries.
pub fn now() -> Clock {
    const TRIES: u8 = 5;
    const CLOSE_NS: i128 = 20_000;
    let nanoseconds = |clock| {
        // These two clocks are always there.
        clock_gettime(clock)
            .map(|time| i128::from(time.tv_sec()) * 1_000_000_000 + i128::from(time.tv_nsec()))
            .unwrap_or_default()
    };
    let mut best = (i128::MAX, 0, 0);
    for _ in 0..TRIES {
        let before = nanoseconds(ClockId::CLOCK_MONOTONIC);
        let time_of_day = nanoseconds(ClockId::CLOCK_REALTIME);
        let between = nanoseconds(ClockId::CLOCK_MONOTONIC) - before;
        best = best.min((between, time_of_day, before + between / 2));
        if between < CLOSE_NS {
            break;
        }
    }
    let (_, time_of_day, monotonic) = best;
    Clock::new(time_of_day, u64::try_from(monotonic).unwrap_or_default())
}
