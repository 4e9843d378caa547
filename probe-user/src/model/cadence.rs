//! How often the same thing happens.

use std::time::Duration;

/// What the latest intervals between occurrences say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cadence {
    /// Occurrences seen since the start, this one included.
    pub count: u64,
    /// The median of the latest intervals; `None` when they are too irregular to speak of one.
    pub every: Option<Duration>,
    /// Nine of ten of the latest intervals differ from `every` by no more.
    pub spread: Duration,
}
