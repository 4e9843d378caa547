//! How many connections a second are listed one by one, so that a run keeps to its share of a core.
//!
//! What a run costs grows with the connections that it lists: each is named, explained, stored and written. What is not listed is
//! counted by source in the kernel. So the rate of listed ones is what a run gives up, and takes back.

use std::time::Duration;

/// Listed in any case, a second: so that there is room for every source, also for a quiet one while hundreds storm. It is 0.2 to 2 % of a
/// core.
pub const LEAST: u64 = 2000;
/// No machine ends as many in a second.
const UNREACHED: u64 = 2_000_000;

/// What was measured over a time.
#[derive(Clone, Copy, Debug)]
pub struct Measured {
    pub elapsed: Duration,
    /// CPU time of the process, its threads and its children.
    pub cpu: Duration,
    /// Connections that were listed.
    pub listed: u64,
}

/// Keeps a rate below what costs more than a share.
#[derive(Clone, Debug)]
pub struct Throttle {
    /// Of a core.
    share: f64,
    /// Connections a second; `None`: all.
    most: Option<u64>,
    now: Option<u64>,
    /// The share that is used, smoothed: what happens once, as a start or rules that are read, is no reason.
    used: f64,
}

impl Throttle {
    /// `share` of a core, and at most so many connections a second; `None`: all.
    pub fn new(share: f64, most: Option<u64>) -> Self {
        Self {
            share,
            most,
            now: most,
            used: 0.0,
        }
    }

    /// Whether less is listed than without it.
    pub fn is_on(&self) -> bool {
        self.now != self.most
    }

    /// Connections a second that are listed; `None`: all.
    pub fn rate(&self) -> Option<u64> {
        self.now
    }

    /// Takes what was measured since the last time; whether the rate is another now.
    pub fn measured(&mut self, measured: &Measured) -> bool {
        let seconds = measured.elapsed.as_secs_f64().max(1e-3);
        let used = measured.cpu.as_secs_f64() / seconds;
        // Half of it is the latest: a storm shows at once, a start is forgotten after seconds.
        self.used = f64::midpoint(self.used, used);
        let listed = measured.listed as f64 / seconds;
        let before = self.now;
        if self.used > self.share && used > self.share {
            // What one of them costs, as if all that is used were theirs, and a tenth for what is not.
            let affordable = (listed * self.share / used * 0.9) as u64;
            let rate = affordable.max(LEAST);
            // A rate that was not reached is not what costs so much.
            if self.now.is_none_or(|now| rate < now) && listed > LEAST as f64 {
                self.now = Some(rate);
            }
        } else if self.used < self.share * 0.8
            && let Some(now) = self.now.filter(|_| self.is_on())
        {
            let more = now + now / 4;
            self.now = match self.most {
                Some(most) => Some(more.min(most)),
                None => (more < UNREACHED).then_some(more),
            };
        }
        self.now != before
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Runs where `offered` connections end in a second and each that is listed costs `each`, besides `idle`.
    fn run(throttle: &mut Throttle, seconds: u32, offered: u64, each: Duration, idle: Duration) -> f64 {
        let mut last = 0.0;
        for _ in 0..seconds {
            let listed = throttle.rate().map_or(offered, |rate| rate.min(offered));
            let cpu = each * u32::try_from(listed).unwrap() + idle;
            throttle.measured(&Measured {
                elapsed: SECOND,
                cpu,
                listed,
            });
            last = cpu.as_secs_f64();
        }
        last
    }

    #[test]
    fn a_storm_is_held_to_the_share() {
        for (each_us, idle_ms) in [(3, 2), (3, 20), (12, 2), (20, 0)] {
            for most in [Some(20_000), None] {
                let mut throttle = Throttle::new(0.05, most);
                let each = Duration::from_micros(each_us);
                let used = run(&mut throttle, 30, 54_000, each, Duration::from_millis(idle_ms));
                let what = format!("{each_us} us each, {idle_ms} ms besides, at most {most:?}: {used}");
                assert!(used <= 0.06, "{what}");
                assert!(used >= 0.03, "{what}");
                assert!(throttle.is_on());
                // And afterwards all are listed again.
                run(&mut throttle, 120, 100, each, Duration::ZERO);
                assert_eq!(throttle.rate(), most, "{what}");
            }
        }
    }

    #[test]
    fn what_is_not_the_connections_is_no_reason() {
        let mut throttle = Throttle::new(0.05, Some(20_000));
        // A start, or a child that reads rules.
        let busy = |listed| Measured {
            elapsed: SECOND,
            cpu: SECOND / 2,
            listed,
        };
        assert!(!throttle.measured(&busy(0)));
        for _ in 0..10 {
            assert!(!throttle.measured(&busy(LEAST)));
        }
        assert!(!throttle.is_on());
        // One second of many is none either, after a quiet time.
        let mut throttle = Throttle::new(0.05, Some(20_000));
        run(&mut throttle, 5, 0, Duration::ZERO, Duration::ZERO);
        throttle.measured(&Measured {
            elapsed: SECOND,
            cpu: SECOND / 12,
            listed: 5000,
        });
        assert!(!throttle.is_on());
    }

    #[test]
    fn a_floor_is_always_listed() {
        let mut throttle = Throttle::new(0.001, None);
        run(
            &mut throttle,
            30,
            54_000,
            Duration::from_micros(50),
            Duration::ZERO,
        );
        assert_eq!(throttle.rate(), Some(LEAST));
    }
}
