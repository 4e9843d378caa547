//! The kernel's table of handshakes that no client has finished.

use std::time::{Duration, Instant};

use crate::{
    capture::{clock::Clock, connection::Side},
    kernel::{KernelError, connection::Tables},
    model::handshake::is_given_up,
};

/// How often the table is read.
const EVERY: Duration = Duration::from_secs(1);

/// A source of sides, read so often.
pub struct Handshakes {
    at: Instant,
}

impl Handshakes {
    pub fn new() -> Self {
        Self { at: Instant::now() }
    }

    pub fn is_due(&self) -> bool {
        self.at.elapsed() >= EVERY
    }

    /// Takes out those that the kernel gave up; at the end of the run all.
    ///
    /// # Errors
    /// When the kernel's map can't be read.
    pub fn take(&mut self, tables: &mut Tables, clock: &Clock, end: bool) -> Result<Vec<Side>, KernelError> {
        self.at = Instant::now();
        let mut over = Vec::new();
        tables.handshakes(|key, handshake| {
            if end || is_given_up(&handshake, clock.now_ns()) {
                over.push((key, handshake));
            }
        })?;
        let sides = over.into_iter().map(|(key, handshake)| {
            tables.forget_handshake(&key);
            Side::unfinished(key, handshake)
        });
        Ok(sides.collect())
    }
}
