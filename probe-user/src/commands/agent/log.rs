//! Standard output, by a thread of its own: a slow reader delays no other thread.

use std::{
    io::{self, Write},
    sync::mpsc::{SyncSender, sync_channel},
    thread,
};

use bytes::Bytes;

/// Lines on their way.
const LINES: usize = 1024;

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
