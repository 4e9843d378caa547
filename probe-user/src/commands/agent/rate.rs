//! How many of something may come.

use std::time::{Duration, Instant};

/// So many a second, and more after a while of silence.
#[derive(Debug)]
pub struct Rate {
    a_second: f64,
    /// The most that may come at once.
    burst: f64,
    left: f64,
    at: Instant,
}

impl Rate {
    /// `burst` is what may come at once, as the time in which it comes at this rate.
    pub fn new(a_second: f64, burst: Duration, now: Instant) -> Self {
        let burst = a_second * burst.as_secs_f64();
        Self {
            a_second,
            burst,
            left: burst,
            at: now,
        }
    }

    /// Whether one more is within it.
    pub fn takes(&mut self, now: Instant) -> bool {
        let passed = now.duration_since(self.at).as_secs_f64();
        self.at = now;
        self.left = (self.left + passed * self.a_second).min(self.burst);
        let takes = self.left >= 1.0;
        if takes {
            self.left -= 1.0;
        }
        takes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_and_then_the_rate() {
        let start = Instant::now();
        let mut rate = Rate::new(5.0, Duration::from_secs(10), start);
        let taken = |rate: &mut Rate, at: u64| {
            let now = start + Duration::from_secs(at);
            (0..1000).filter(|_| rate.takes(now)).count()
        };
        assert_eq!(taken(&mut rate, 0), 50);
        assert_eq!(taken(&mut rate, 1), 5);
        assert_eq!(taken(&mut rate, 3), 10);
        assert_eq!(taken(&mut rate, 1000), 50);
        assert_eq!(
            taken(&mut Rate::new(0.0, Duration::from_secs(10), start), 1000),
            0
        );
    }
}
