//! How much CPU time reading may take: so much at once, and a hundredth of the time since.

use std::time::Duration;

use nix::sys::{
    resource::{Usage, UsageWho, getrusage},
    time::TimeValLike as _,
};

/// One part in so many of a core.
pub const SHARE: u32 = 100;

/// CPU time that may be spent on something that repeats.
#[derive(Debug, PartialEq, Eq)]
pub struct CpuBudget {
    /// What may be spent at once, after a rest.
    burst: Duration,
    /// The longest time to wait, whatever was spent.
    longest: Duration,
    /// Spent, and not yet regained.
    debt: Duration,
    /// When that was so, `CLOCK_MONOTONIC` nanoseconds.
    at_ns: u64,
}

impl CpuBudget {
    pub const fn new(burst: Duration, longest: Duration) -> Self {
        Self {
            burst,
            longest,
            debt: Duration::ZERO,
            at_ns: 0,
        }
    }

    fn debt(&self, now_ns: u64) -> Duration {
        let since = Duration::from_nanos(now_ns.saturating_sub(self.at_ns));
        self.debt.saturating_sub(since / SHARE)
    }

    /// Whether something may be spent now.
    pub fn allows(&self, now_ns: u64) -> bool {
        self.debt(now_ns) <= self.burst
    }

    /// Takes what was spent.
    pub fn spend(&mut self, now_ns: u64, spent: Duration) {
        let most = self.burst + self.longest / SHARE;
        self.debt = (self.debt(now_ns) + spent).min(most);
        self.at_ns = now_ns;
    }
}

/// The CPU time that the calling thread spends from now on, with that of children that end meanwhile.
pub struct CpuMeter(Duration);

impl CpuMeter {
    pub fn start() -> Self {
        Self(used(UsageWho::RUSAGE_THREAD))
    }

    pub fn spent(&self) -> Duration {
        used(UsageWho::RUSAGE_THREAD).saturating_sub(self.0)
    }
}

/// The CPU time that this process, its threads and its children that have ended have used.
pub fn of_process() -> Duration {
    used(UsageWho::RUSAGE_SELF)
}

fn used(who: UsageWho) -> Duration {
    [who, UsageWho::RUSAGE_CHILDREN]
        .into_iter()
        .filter_map(|who| getrusage(who).ok())
        .map(|usage: Usage| {
            let microseconds = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
            Duration::from_micros(u64::try_from(microseconds).unwrap_or(0))
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use std::{process::Command, time::Instant};

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    /// How long after `spent`, one after the other, the next is allowed.
    fn wait(spent: &[f64]) -> u64 {
        let mut budget = CpuBudget::new(Duration::from_secs(1), Duration::from_secs(60));
        let begun = 1000 * SECOND;
        for spent in spent {
            assert!(budget.allows(begun), "{spent}");
            budget.spend(begun, Duration::from_secs_f64(*spent));
        }
        (0..1000)
            .find(|seconds| budget.allows(begun + seconds * SECOND))
            .unwrap()
    }

    #[test]
    fn what_was_spent_is_regained_at_one_percent() {
        for (spent, seconds) in [
            (&[][..], 0),
            (&[0.1], 0),
            (&[0.4, 0.4], 0),
            (&[0.6, 0.6], 20),
            (&[1.2], 20),
            (&[1.6], 60),
            // However much it was, a change is read some time.
            (&[60.0], 60),
        ] {
            assert_eq!(wait(spent), seconds, "{spent:?}");
        }
        let mut budget = CpuBudget::new(Duration::from_secs(1), Duration::from_secs(60));
        let spent: u32 = (0..3600_u64)
            .map(|second| {
                let allowed = budget.allows(second * SECOND);
                if allowed {
                    budget.spend(second * SECOND, Duration::from_millis(200));
                }
                u32::from(allowed)
            })
            .sum();
        // A second at once, then 36 of the hour's seconds.
        assert!((180..=188).contains(&spent), "{spent} times 0.2 s");
    }

    #[test]
    fn children_count() {
        let meter = CpuMeter::start();
        let begun = Instant::now();
        let mut loops = Command::new("sh");
        loops.args(["-c", "i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done"]);
        assert!(loops.status().unwrap().success());
        let spent = meter.spent();
        assert!(
            spent >= Duration::from_millis(5),
            "{spent:?} of {:?}",
            begun.elapsed()
        );
    }
}
