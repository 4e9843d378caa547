//! Standard output, by a thread of its own: a slow reader delays no other thread.

use std::{
    io::{self, Write},
    sync::mpsc::{SyncSender, sync_channel},
    thread,
    time::Instant,
};

use bytes::Bytes;

/// Lines on their way.
const LINES: usize = 1024;
/// So many seconds' worth of lines may come at once.
const BURST: f64 = 10.0;

/// Takes lines.
#[derive(Clone, Debug)]
pub struct Log {
    lines: SyncSender<Bytes>,
}

impl Log {
    /// # Errors
    /// When this process may not have another thread.
    pub fn start() -> io::Result<Self> {
        let (lines, waiting) = sync_channel::<Bytes>(LINES);
        thread::Builder::new().name("log".to_owned()).spawn(move || {
            for line in waiting {
                let mut stdout = io::stdout().lock();
                // Nobody listens: the metrics and the memory have it all the same.
                let _ = stdout.write_all(&line).and_then(|()| stdout.flush());
            }
        })?;
        Ok(Self { lines })
    }

    /// Whether there was room for it.
    pub fn line(&self, line: Bytes) -> bool {
        self.lines.try_send(line).is_ok()
    }
}

/// So many a second, and more after a while of silence.
#[derive(Debug)]
pub struct Rate {
    a_second: f64,
    left: f64,
    at: Instant,
}

impl Rate {
    pub fn new(a_second: u32, now: Instant) -> Self {
        let a_second = f64::from(a_second);
        Self {
            a_second,
            left: a_second * BURST,
            at: now,
        }
    }

    /// Whether one more is within it.
    pub fn takes(&mut self, now: Instant) -> bool {
        let passed = now.duration_since(self.at).as_secs_f64();
        self.at = now;
        self.left = (self.left + passed * self.a_second).min(self.a_second * BURST);
        let takes = self.left >= 1.0;
        if takes {
            self.left -= 1.0;
        }
        takes
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_burst_and_then_the_rate() {
        let start = Instant::now();
        let mut rate = Rate::new(5, start);
        let taken = |rate: &mut Rate, at: u64| {
            let now = start + Duration::from_secs(at);
            (0..1000).filter(|_| rate.takes(now)).count()
        };
        assert_eq!(taken(&mut rate, 0), 50);
        assert_eq!(taken(&mut rate, 1), 5);
        assert_eq!(taken(&mut rate, 3), 10);
        assert_eq!(taken(&mut rate, 1000), 50);
        assert_eq!(taken(&mut Rate::new(0, start), 1000), 0);
    }
}
