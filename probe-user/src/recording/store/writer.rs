//! The thread that writes.

use std::{
    fs::File,
    io::{self, Write as _},
    path::PathBuf,
    sync::{
        Arc,
        atomic::Ordering,
        mpsc::{Receiver, RecvTimeoutError},
    },
    time::{Duration, Instant},
};

use flate2::{Compression, write::GzEncoder};
use jiff::Timestamp;

use super::{Message, Progress, files};
use crate::model::settings::StoreBounds;

/// How long a line may be in the process alone.
const COMPLETE_EVERY: Duration = Duration::from_secs(1);
/// How long until a directory that could not be written is tried again.
const RETRY: Duration = Duration::from_secs(10);
/// How often age is looked at, where nothing else changes the files.
const TIDY_EVERY: Duration = Duration::from_secs(60);
/// A file has this part of the room.
const PARTS: u64 = 32;
/// Bytes of a file: small ones compress badly, large ones are removed at once.
const FILE: (u64, u64) = (64 << 10, 8 << 20);

/// The file that is written.
struct Current {
    path: PathBuf,
    encoder: GzEncoder<Counted>,
    /// Lines since it was complete.
    waiting: u64,
}

/// A file, and how much was written to it.
struct Counted {
    file: File,
    size: u64,
}

impl io::Write for Counted {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.size += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

pub struct Writer {
    bounds: StoreBounds,
    progress: Arc<Progress>,
    current: Option<Current>,
    tell: fn(&str),
    /// Nothing is tried before.
    retry: Option<Instant>,
}

impl Writer {
    pub fn new(bounds: StoreBounds, progress: Arc<Progress>, tell: fn(&str)) -> Self {
        Self {
            bounds,
            progress,
            tell,
            current: None,
            retry: None,
        }
    }

    /// Until nobody can send any more.
    pub fn run(&mut self, messages: &Receiver<Message>) {
        self.tidy();
        let mut tidied = Instant::now();
        // When what came is to be complete.
        let mut due: Option<Instant> = None;
        loop {
            let now = Instant::now();
            let next = due.unwrap_or(tidied + TIDY_EVERY);
            match messages.recv_timeout(next.saturating_duration_since(now)) {
                Ok(Message::Line(ended, line)) => {
                    self.line(ended, &line);
                    due.get_or_insert(now + COMPLETE_EVERY);
                }
                Ok(Message::Complete(done)) => {
                    self.complete();
                    due = None;
                    // Who asked may be gone.
                    let _ = done.send(());
                }
                Ok(Message::End(done)) => {
                    self.end();
                    let _ = done.send(());
                    return;
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return self.end(),
            }
            let now = Instant::now();
            // Lines that come without a pause must not delay it.
            if due.is_some_and(|due| due <= now) {
                self.complete();
                due = None;
            }
            if now.duration_since(tidied) >= TIDY_EVERY {
                self.tidy();
                tidied = now;
            }
        }
    }

    fn line(&mut self, ended: Timestamp, line: &[u8]) {
        if self.retry.is_some_and(|retry| Instant::now() < retry) {
            self.progress.unstored.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let written = self.current(ended).and_then(|current| {
            current.waiting += 1;
            current.encoder.write_all(line)
        });
        if let Err(error) = written {
            // The line itself is among those that wait, unless there is no file.
            let lost = self.current.as_ref().map_or(1, |current| current.waiting);
            self.fail(&error, lost);
        }
    }

    /// The file that is written; a new one, if there is none.
    fn current(&mut self, ended: Timestamp) -> io::Result<&mut Current> {
        let current = match self.current.take() {
            Some(current) => current,
            None => {
                files::prepare(&self.bounds.directory)?;
                let (path, file) = files::create(&self.bounds.directory, ended)?;
                let file = Counted { file, size: 0 };
                Current {
                    path,
                    encoder: GzEncoder::new(file, Compression::fast()),
                    waiting: 0,
                }
            }
        };
        Ok(self.current.insert(current))
    }

    /// Makes all that came readable in the file; ends a file that is large enough.
    fn complete(&mut self) {
        let Some(current) = &mut self.current else { return };
        if let Err(error) = current.encoder.flush() {
            let lost = current.waiting;
            return self.fail(&error, lost);
        }
        current.waiting = 0;
        self.works();
        let part = (self.bounds.size / PARTS).clamp(FILE.0, FILE.1);
        if self
            .current
            .as_ref()
            .is_some_and(|current| current.encoder.get_ref().size >= part)
        {
            self.end();
            self.tidy();
        }
    }

    /// Ends the file.
    fn end(&mut self) {
        let Some(current) = self.current.take() else {
            return;
        };
        let lost = current.waiting;
        // Whatever happens to the machine from now on, this file is whole.
        let ended = current.encoder.finish().and_then(|file| file.file.sync_data());
        if let Err(error) = ended {
            self.fail(&error, lost);
        }
    }

    fn tidy(&mut self) {
        if !self.bounds.directory.exists() {
            return;
        }
        let StoreBounds { directory, size, age } = &self.bounds;
        let current = self.current.as_ref().map(|current| current.path.as_path());
        match files::tidy(directory, *size, *age, current) {
            Ok(size) => self.progress.state().size = size,
            Err(error) => self.fail(&error, 0),
        }
    }

    fn works(&mut self) {
        self.retry = None;
        if self.progress.state().error.take().is_some() {
            (self.tell)(&format!(
                "the history in {} is written again",
                self.bounds.directory.display()
            ));
        }
    }

    /// What is wrong is said once, and counted for as long as it is.
    fn fail(&mut self, error: &io::Error, lost: u64) {
        self.current = None;
        self.retry = Some(Instant::now() + RETRY);
        self.progress.unstored.fetch_add(lost, Ordering::Relaxed);
        let error = format!("can't write {}: {error}", self.bounds.directory.display());
        let mut state = self.progress.state();
        if state.error.as_ref() != Some(&error) {
            (self.tell)(&format!(
                "the history is in memory only: {error}; tried again every {} s",
                RETRY.as_secs()
            ));
            state.error = Some(error);
        }
    }
}
