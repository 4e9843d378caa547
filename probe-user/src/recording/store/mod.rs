//! An agent's history on disk: connections as lines, in files that are only appended to.
//!
//! A thread of its own writes. Each second it makes what came complete in the file, so that a process that is killed loses at
//! most the last second. A file ends at a part of the room for all, or with the process that began it; the oldest are removed
//! for room and for age. Files are gzip, which reads as far as it was written, whatever ended it: nothing is repaired at a start,
//! and nothing can keep an agent from starting.

mod files;
mod search;
mod writer;

use std::{
    io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
        mpsc::{SyncSender, TrySendError, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use jiff::Timestamp;

pub use self::search::{Searched, search};
use self::writer::Writer;
use crate::model::settings::StoreBounds;

/// Lines on their way to the thread that writes: some seconds of a storm.
const WAITING: usize = 16_384;
/// How long a question, or the end, waits for what came before it to be in the files.
const COMPLETE_WITHIN: Duration = Duration::from_secs(2);
/// How long until it is looked again whether the thread has room.
const FULL: Duration = Duration::from_millis(10);

/// How it is doing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoreState {
    /// Bytes of all files, as of the latest change of files.
    pub size: u64,
    /// Why nothing is written.
    pub error: Option<String>,
}

/// Why connections are in no file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unstored {
    /// They could not be written.
    pub write: u64,
    /// One source had too many.
    pub source: u64,
}

impl Unstored {
    /// By their names in metrics.
    pub fn named(self) -> [(&'static str, u64); 2] {
        [("write", self.write), ("source", self.source)]
    }

    pub fn total(self) -> u64 {
        self.write + self.source
    }
}

enum Message {
    /// Of a connection that ended then.
    Line(Timestamp, Bytes),
    /// Everything before it is to be in the files.
    Complete(SyncSender<()>),
    /// The same, and nothing follows.
    End(SyncSender<()>),
}

/// What the writing thread shares.
#[derive(Debug, Default)]
struct Progress {
    state: Mutex<StoreState>,
    /// Lines that could not be written.
    unstored: AtomicU64,
    /// Lines that were not to be.
    left_out: AtomicU64,
}

impl Progress {
    fn state(&self) -> MutexGuard<'_, StoreState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes lines. Dropping the last clone waits until they are in the files.
#[derive(Clone, Debug)]
pub struct Store(Arc<Thread>);

/// The thread that writes.
#[derive(Debug)]
struct Thread {
    messages: SyncSender<Message>,
    progress: Arc<Progress>,
    bounds: StoreBounds,
}

impl Thread {
    /// Sends a message, and waits until it is done, but not for long: a disk that hangs must hang nobody else.
    fn wait(&self, message: impl Fn(SyncSender<()>) -> Message) {
        let begun = Instant::now();
        let (done, wait) = sync_channel(1);
        while let Err(TrySendError::Full(_)) = self.messages.try_send(message(done.clone())) {
            if begun.elapsed() >= COMPLETE_WITHIN {
                return;
            }
            thread::sleep(FULL);
        }
        drop(done);
        let _ = wait.recv_timeout(COMPLETE_WITHIN.saturating_sub(begun.elapsed()));
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        self.wait(Message::End);
    }
}

impl Store {
    /// Starts the thread. What is wrong with the directory is no error: `tell` gets it in a sentence, it may be right later, and is
    /// tried again.
    ///
    /// # Errors
    /// When this process may not have another thread.
    pub fn start(bounds: StoreBounds, tell: fn(&str)) -> io::Result<Self> {
        let (messages, waiting) = sync_channel(WAITING);
        let progress = Arc::new(Progress::default());
        let mut writer = Writer::new(bounds.clone(), Arc::clone(&progress), tell);
        thread::Builder::new()
            .name("history".to_owned())
            .spawn(move || writer.run(&waiting))?;
        Ok(Self(Arc::new(Thread {
            messages,
            progress,
            bounds,
        })))
    }

    /// Takes a connection's line. Where the thread is behind it is counted instead.
    pub fn keep(&self, ended: Timestamp, line: Bytes) {
        if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) =
            self.0.messages.try_send(Message::Line(ended, line))
        {
            self.0.progress.unstored.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Waits until what was kept before is in the files, but not for long.
    pub fn complete(&self) {
        self.0.wait(Message::Complete);
    }

    pub fn bounds(&self) -> &StoreBounds {
        &self.0.bounds
    }

    pub fn state(&self) -> StoreState {
        self.0.progress.state().clone()
    }

    /// Counts a line that shall not be kept, since its source has too many.
    pub fn leave_out(&self) {
        self.0.progress.left_out.fetch_add(1, Ordering::Relaxed);
    }

    /// What is in no file, since this began.
    pub fn unstored(&self) -> Unstored {
        Unstored {
            write: self.0.progress.unstored.load(Ordering::Relaxed),
            source: self.0.progress.left_out.load(Ordering::Relaxed),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, ops::ControlFlow, path::Path};

    use super::*;
    use crate::{
        model::{Connection, Outcome},
        recording::history::Filter,
        report::{json_line, samples},
    };

    const SECOND: i64 = 1_000;

    fn silent(_: &str) {}

    fn bounds(directory: &Path, size: u64) -> StoreBounds {
        StoreBounds {
            directory: directory.to_owned(),
            size,
            age: Duration::from_secs(3600),
        }
    }

    /// A connection that ended so many seconds after another, with a port of its own.
    fn connection(number: u16) -> Connection {
        let incident = samples::incident();
        let time = incident.time.as_millisecond() + i64::from(number) * SECOND;
        let mut source = incident.source;
        source.set_port(1000 + number);
        Connection {
            time: Timestamp::from_millisecond(time).unwrap(),
            source,
            ..incident
        }
    }

    fn keep(store: &Store, numbers: impl Iterator<Item = u16>) {
        for number in numbers {
            let connection = connection(number);
            let mut line = Vec::new();
            json_line(&mut line, "beta", &connection).unwrap();
            store.keep(connection.time, line.into());
        }
    }

    /// The numbers of the connections that are found.
    fn found(directory: &Path, filter: &Filter) -> (Vec<u16>, Searched) {
        let mut ports = Vec::new();
        let searched = search(directory, filter, |line| {
            let connection = crate::recording::connection::read(line).unwrap();
            ports.push(connection.source.port() - 1000);
            ControlFlow::Continue(())
        });
        (ports, searched.unwrap())
    }

    #[test]
    fn what_was_kept_is_found_by_the_next_agent_too() {
        let dir = tempfile::tempdir().unwrap();
        let directory = dir.path().join("probe/history");
        let all = Filter::default();
        assert_eq!(found(&directory, &all), (vec![], Searched::default()));

        let store = Store::start(bounds(&directory, 1 << 20), silent).unwrap();
        keep(&store, 0..5);
        store.complete();
        assert_eq!(found(&directory, &all).0, [0, 1, 2, 3, 4]);
        drop(store);

        let store = Store::start(bounds(&directory, 1 << 20), silent).unwrap();
        keep(&store, 5..8);
        store.complete();
        let (numbers, searched) = found(&directory, &all);
        assert_eq!(numbers, (0..8).collect::<Vec<_>>());
        assert_eq!(searched.oldest, Some(connection(0).time));
        assert_eq!((store.state().error, store.unstored().total()), (None, 0));
        for (filter, expected) in [
            (
                Filter {
                    since: Some(connection(6).time),
                    ..Filter::default()
                },
                vec![6, 7],
            ),
            (
                Filter {
                    address: Some(connection(3).source),
                    ..Filter::default()
                },
                vec![3],
            ),
            (
                Filter {
                    outcomes: vec![Outcome::Refused],
                    ..Filter::default()
                },
                vec![],
            ),
        ] {
            assert_eq!(found(&directory, &filter).0, expected, "{filter:?}");
        }
    }

    /// The files of a process that was killed are as they were at that moment: whatever of the last bytes is missing, all lines
    /// before are read.
    #[test]
    fn a_file_that_ends_anywhere_is_read_so_far() {
        let dir = tempfile::tempdir().unwrap();
        let directory = dir.path().join("history");
        let store = Store::start(bounds(&directory, 1 << 20), silent).unwrap();
        keep(&store, 0..3);
        store.complete();
        let path = || fs::read_dir(&directory).unwrap().next().unwrap().unwrap().path();
        let complete = fs::read(path()).unwrap();
        keep(&store, 3..6);
        store.complete();
        let whole = fs::read(path()).unwrap();
        let killed = dir.path().join("killed");
        fs::create_dir(&killed).unwrap();
        for length in 0..=whole.len() {
            fs::write(killed.join("0000000000007.jsonl.gz"), &whole[..length]).unwrap();
            let (numbers, searched) = found(&killed, &Filter::default());
            assert!((0..6).collect::<Vec<_>>().starts_with(&numbers), "{numbers:?}");
            assert!(
                length < complete.len() || numbers.len() >= 3,
                "{length}: {numbers:?}"
            );
            assert_eq!(searched.damaged, 0, "{length}");
        }
    }

    #[test]
    fn a_damaged_file_hides_no_other() {
        let dir = tempfile::tempdir().unwrap();
        for numbers in [0..3, 3..6] {
            let store = Store::start(bounds(dir.path(), 1 << 20), silent).unwrap();
            keep(&store, numbers);
            store.complete();
            drop(store);
        }
        let mut paths: Vec<_> = fs::read_dir(dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        paths.sort();
        let mut bytes = fs::read(&paths[0]).unwrap();
        // Of its checksum.
        let last = bytes.len() - 8;
        bytes[last] ^= 1;
        fs::write(&paths[0], bytes).unwrap();
        let (numbers, searched) = found(dir.path(), &Filter::default());
        assert!(numbers.ends_with(&[3, 4, 5]), "{numbers:?}");
        assert_eq!(searched.damaged, 1);
    }

    #[test]
    fn files_take_no_more_than_they_may() {
        let dir = tempfile::tempdir().unwrap();
        let size = 4 << 16;
        let store = Store::start(bounds(dir.path(), size), silent).unwrap();
        // What does not compress: hexadecimal digits of a generator, in lines that are no connections.
        let mut state = 1_u64;
        for number in 0..400_i64 {
            let mut line = Vec::new();
            for _ in 0..256 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                line.extend_from_slice(format!("{:016x}", state ^ (state >> 33)).as_bytes());
            }
            line.push(b'\n');
            store.keep(Timestamp::from_millisecond(number).unwrap(), line.into());
            if number % 20 == 0 {
                store.complete();
            }
        }
        store.complete();
        let taken: u64 = fs::read_dir(dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().metadata().unwrap().len())
            .sum();
        // The file that is written comes on top until it ends.
        assert!(taken > size / 2 && taken <= size + (2 << 16), "{taken}");
        assert_eq!(store.unstored().total(), 0);
    }

    #[test]
    fn a_directory_that_cant_be_written_is_said_and_counted() {
        let dir = tempfile::tempdir().unwrap();
        let directory = dir.path().join("file");
        fs::write(&directory, "").unwrap();
        let store = Store::start(bounds(&directory, 1 << 20), silent).unwrap();
        keep(&store, 0..5);
        store.complete();
        assert_eq!(store.unstored(), Unstored { write: 5, source: 0 });
        let error = store.state().error.unwrap();
        assert!(error.starts_with("can't write /"), "{error}");
    }
}
