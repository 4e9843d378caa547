//! What ends a run: Ctrl-C, SIGTERM, the end of its time, or that enough was reported.

use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::{
    select,
    signal::unix::{Signal, SignalKind, signal},
    time::{Instant, sleep_until},
};

/// Waits for the end of a run.
pub struct Until {
    interrupt: Signal,
    terminate: Signal,
    end: Option<Instant>,
}

impl Until {
    /// From now on signals do not kill this process.
    ///
    /// # Errors
    /// When this process may not handle them.
    pub fn signals() -> Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt()).context("can't handle SIGINT")?,
            terminate: signal(SignalKind::terminate()).context("can't handle SIGTERM")?,
            end: None,
        })
    }

    /// The run ends after this time, too.
    #[must_use]
    pub fn or_after(mut self, duration: Option<Duration>) -> Self {
        // A time that no clock has does not come.
        self.end = duration.and_then(|duration| Instant::now().checked_add(duration));
        self
    }

    /// When the run ends. What waits for it can be dropped and called again.
    pub async fn over(&mut self) {
        let end = self.end;
        let time = async {
            match end {
                Some(end) => sleep_until(end).await,
                None => std::future::pending().await,
            }
        };
        select! {
            () = self.stopped() => {}
            () = time => {}
        }
    }

    /// When a signal ends it: what is to be completed at the end of the time waits for this alone.
    pub async fn stopped(&mut self) {
        select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// How many more are reported before the run ends.
#[derive(Clone, Copy, Debug)]
pub struct Remaining(Option<u64>);

impl Remaining {
    /// `None`: as many as there are.
    pub const fn of(count: Option<u64>) -> Self {
        Self(count)
    }

    /// One more was reported.
    pub fn report(&mut self) {
        self.0 = self.0.map(|left| left.saturating_sub(1));
    }

    /// Whether it ends at all.
    pub const fn is_limited(self) -> bool {
        self.0.is_some()
    }

    /// Whether that was the last one.
    pub fn is_over(self) -> bool {
        self.0 == Some(0)
    }
}

#[cfg(test)]
mod tests {
    use nix::sys::signal::{Signal, raise};

    use super::{Duration, Instant, Remaining, Until, select};

    /// One test: a signal reaches everybody in this process who waits for it.
    #[tokio::test]
    async fn time_and_signals() {
        let moment = Duration::from_millis(20);
        let mut until = Until::signals().unwrap().or_after(Some(moment * 20));
        let begun = Instant::now();
        // It is not begun again with each wait.
        for _ in 0..10 {
            select! {
                () = until.over() => panic!("after {:?}", begun.elapsed()),
                () = tokio::time::sleep(moment) => {}
            }
        }
        until.over().await;
        assert!(begun.elapsed() >= moment * 20 && begun.elapsed() < moment * 500);
        for signal in [Signal::SIGINT, Signal::SIGTERM] {
            for duration in [None, Some(Duration::MAX)] {
                let mut until = Until::signals().unwrap().or_after(duration);
                select! {
                    () = until.over() => panic!("{duration:?}"),
                    () = tokio::time::sleep(moment) => {}
                }
                raise(signal).unwrap();
                let ended = tokio::time::timeout(moment * 1000, until.over());
                assert!(ended.await.is_ok(), "{signal}");
            }
        }
    }

    #[test]
    fn enough_was_reported() {
        let mut two = Remaining::of(Some(2));
        let mut over = Vec::new();
        for _ in 0..3 {
            over.push(two.is_over());
            two.report();
        }
        assert_eq!((over, two.is_over()), (vec![false, false, true], true));
        let mut all = Remaining::of(None);
        all.report();
        assert!(!all.is_over());
    }
}
