//! Waiting for the thing itself.

use std::{
    sync::LazyLock,
    thread::park_timeout,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

/// Between two polls, at first and at the most. A poll may cost as much as what it waits for, above all in an emulator.
const SHORTEST: Duration = Duration::from_millis(5);
const LONGEST: Duration = Duration::from_millis(50);

/// Polls until `found` has something; fails with `what` when it has not within `timeout`. The pause between two polls is an eighth of
/// the time waited so far.
pub fn wait_until<T>(what: &str, timeout: Duration, mut found: impl FnMut() -> Option<T>) -> Result<T> {
    let (start, timeout) = (Instant::now(), timeout * patience());
    loop {
        if let Some(found) = found() {
            return Ok(found);
        }
        let waited = start.elapsed();
        if waited > timeout {
            bail!("{what}: not within {timeout:?}");
        }
        park_timeout((waited / 8).clamp(SHORTEST, LONGEST * patience()));
    }
}

/// `PROBE_LAB_PATIENCE`: how many times slower this machine may be than a real one, as emulated ones are.
pub fn patience() -> u32 {
    static PATIENCE: LazyLock<u32> = LazyLock::new(|| {
        let text = std::env::var("PROBE_LAB_PATIENCE").ok();
        text.and_then(|text| text.parse().ok()).unwrap_or(1)
    });
    *PATIENCE
}
