//! When to try again what failed.

use std::time::{Duration, Instant};

/// Each time twice as long after the last.
pub struct Retry {
    at: Instant,
    wait: Duration,
}

impl Retry {
    const FIRST: Duration = Duration::from_secs(10);
    const LONGEST: Duration = Duration::from_secs(600);

    pub fn new() -> Self {
        Self {
            at: Instant::now() + Self::FIRST,
            wait: Self::FIRST,
        }
    }

    /// Whether it is time; the next time is twice as far away.
    pub fn is_due(&mut self) -> bool {
        let due = Instant::now() >= self.at;
        if due {
            self.wait = (self.wait * 2).min(Self::LONGEST);
            self.at = Instant::now() + self.wait;
        }
        due
    }
}
