//! Waiting for the thing itself.

use std::{
    thread::park_timeout,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(5);

/// Looks until `found` has something; fails with `what` when it has not within `timeout`.
pub fn wait_until<T>(what: &str, timeout: Duration, mut found: impl FnMut() -> Option<T>) -> Result<T> {
    let start = Instant::now();
    loop {
        if let Some(found) = found() {
            return Ok(found);
        }
        if start.elapsed() > timeout {
            bail!("{what}: not within {timeout:?}");
        }
        park_timeout(PAUSE);
    }
}
