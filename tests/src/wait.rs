//! Waiting for the thing itself.

use std::{
    sync::LazyLock,
    thread::park_timeout,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(5);

/// Looks until `found` has something; fails with `what` when it has not within `timeout`.
pub fn wait_until<T>(what: &str, timeout: Duration, mut found: impl FnMut() -> Option<T>) -> Result<T> {
    let (start, timeout) = (Instant::now(), timeout * patience());
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

/// `PROBE_LAB_PATIENCE`: how many times slower this machine may be than a real one, as emulated ones are.
pub fn patience() -> u32 {
    static PATIENCE: LazyLock<u32> = LazyLock::new(|| {
        let text = std::env::var("PROBE_LAB_PATIENCE").ok();
        text.and_then(|text| text.parse().ok()).unwrap_or(1)
    });
    *PATIENCE
}
