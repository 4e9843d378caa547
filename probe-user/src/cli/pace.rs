//! Interval, duration and output format of the periodic commands.

use std::time::Duration;

use jiff::SignedDuration;

use super::settings;

/// The default interval.
const EVERY: SignedDuration = SignedDuration::from_secs(1);

#[derive(Clone, Debug)]
pub struct Pace {
    /// One report at the end.
    pub once: bool,
    pub duration: Option<Duration>,
    pub interval: Duration,
    pub json: bool,
    /// The node's name, for JSON; `None`: the host's.
    pub node: Option<String>,
}

impl Pace {
    /// Until stopped, without a report.
    pub fn endless() -> Self {
        Self {
            once: false,
            duration: None,
            interval: Duration::from_secs(1),
            json: false,
            node: None,
        }
    }

    /// One snapshot after this time.
    pub fn once(duration: Duration) -> Self {
        Self {
            once: true,
            duration: Some(duration),
            ..Self::endless()
        }
    }

    /// # Errors
    /// A time that is none.
    pub fn of(
        once: bool,
        duration: Option<Duration>,
        interval: Option<SignedDuration>,
        json: bool,
        node: Option<String>,
    ) -> Result<Self, clap::Error> {
        /// More often costs, and shows nothing more.
        const LEAST: Duration = Duration::from_millis(100);
        Ok(Self {
            once,
            duration: duration.or_else(|| once.then_some(Duration::from_secs(5))),
            interval: settings::positive("--interval", interval.unwrap_or(EVERY))?.max(LEAST),
            json,
            node,
        })
    }
}
