//! Answers from the history on disk and in memory together.

use std::{
    collections::HashSet,
    hash::{BuildHasher as _, RandomState},
    ops::ControlFlow,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use futures_util::{Stream, stream};
use tokio::{
    runtime::Handle,
    sync::{Semaphore, mpsc},
    task::spawn_blocking,
    time::timeout,
};

use super::answers::{CHUNK, chunks};
use crate::{
    model::history::HistoryEnd,
    recording::{
        history::{Filter, Kept},
        store::{Searched, Store, search},
    },
    report::{events::Lines, say},
};

/// Chunks on their way to who asked: a slow reader has the disk wait.
const WAITING: usize = 4;
/// How long one who takes nothing is waited for.
const STALLED: Duration = Duration::from_secs(30);

/// So many read files at once: more would take the node's disk and CPU.
const AT_ONCE: usize = 4;
static READS: Semaphore = Semaphore::const_new(AT_ONCE);
/// How long others wait for their turn. Then they are answered from memory, and hear how far that reaches back.
const TURN: Duration = Duration::from_secs(8);

/// Those on disk, those in memory that are not there, and the end.
pub fn answer(
    store: Store,
    filter: Filter,
    found: Vec<Arc<Kept>>,
    end: HistoryEnd,
    lines: Lines,
) -> impl Stream<Item = Bytes> + Send {
    let (sender, receiver) = mpsc::channel(WAITING);
    tokio::spawn(async move {
        let turn = timeout(TURN, READS.acquire()).await;
        let answer = StoredAnswer {
            store,
            filter,
            found,
            end,
            lines,
            sender,
        };
        // Who asked may have gone; then nothing is left to do.
        spawn_blocking(move || drop(answer.send(turn.is_ok()))).await
    });
    stream::unfold(receiver, |mut receiver: mpsc::Receiver<Bytes>| async {
        let chunk = receiver.recv().await?;
        Some((chunk, receiver))
    })
}

struct StoredAnswer {
    store: Store,
    filter: Filter,
    found: Vec<Arc<Kept>>,
    end: HistoryEnd,
    lines: Lines,
    sender: mpsc::Sender<Bytes>,
}

/// Who asked is gone, or takes nothing.
struct Gone;

impl StoredAnswer {
    fn send(mut self, reads_files: bool) -> Result<(), Gone> {
        let directory = &self.store.bounds().directory;
        if reads_files {
            match self.stored()? {
                Ok(searched) => {
                    self.end.oldest = [self.end.oldest, searched.oldest].into_iter().flatten().min();
                    // What left the memory is on disk.
                    self.end.forgotten = self.store.unstored().total();
                    if searched.damaged > 0 {
                        say(format_args!(
                            "probe: {} files of the history in {} are damaged: read as far as possible",
                            searched.damaged,
                            directory.display()
                        ));
                    }
                }
                Err(error) => say(format_args!(
                    "probe: answered from memory alone: can't read the history in {}: {error}",
                    directory.display()
                )),
            }
        } else {
            say(format_args!(
                "probe: answered from memory alone: {AT_ONCE} queries read the history on disk already"
            ));
        }
        chunks(std::mem::take(&mut self.found)).try_for_each(|chunk| self.chunk(chunk))?;
        let end = self.lines.event("end", self.end.clone());
        self.chunk(Bytes::from(end))
    }

    /// Sends what is on disk, and is not in memory too.
    fn stored(&self) -> Result<std::io::Result<Searched>, Gone> {
        self.store.complete();
        // Memory has what could not be written. Lines are distinguished by their bytes.
        let hasher = RandomState::new();
        let known: HashSet<u64> = self
            .found
            .iter()
            .map(|kept| hasher.hash_one(&*kept.line))
            .collect();
        let mut chunk = Vec::with_capacity(CHUNK);
        let mut gone = false;
        let searched = search(&self.store.bounds().directory, &self.filter, |line| {
            if known.contains(&hasher.hash_one(line)) {
                return ControlFlow::Continue(());
            }
            if !chunk.is_empty() && chunk.len() + line.len() > CHUNK {
                let full = std::mem::replace(&mut chunk, Vec::with_capacity(CHUNK));
                gone = self.chunk(Bytes::from(full)).is_err();
            }
            chunk.extend_from_slice(line);
            if gone {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        });
        if gone {
            return Err(Gone);
        }
        if !chunk.is_empty() {
            self.chunk(Bytes::from(chunk))?;
        }
        Ok(searched)
    }

    fn chunk(&self, chunk: Bytes) -> Result<(), Gone> {
        let sent = Handle::current().block_on(timeout(STALLED, self.sender.send(chunk)));
        match sent {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(Gone),
        }
    }
}
