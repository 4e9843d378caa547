//! Answers from the history on disk and in memory together.

use std::{
    collections::HashSet,
    hash::{BuildHasher as _, RandomState},
    ops::ControlFlow,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use futures_util::{Stream, stream};
use tokio::{sync::mpsc, task::spawn_blocking};

use super::answers::{CHUNK, chunks};
use crate::{
    model::history::HistoryEnd,
    recording::{
        history::{Filter, Kept},
        store::{Store, search},
    },
    report::{events::Lines, say},
};

/// Chunks on their way to who asked: a slow reader has the disk wait.
const WAITING: usize = 4;

/// One question at a time reads files: many at once would take the node's disk and CPU.
static READS: Mutex<()> = Mutex::new(());

/// Those on disk, those in memory that are not there, and the end.
pub fn answer(
    store: Store,
    filter: Filter,
    found: Vec<Arc<Kept>>,
    end: HistoryEnd,
    lines: Lines,
) -> impl Stream<Item = Bytes> + Send {
    let (sender, receiver) = mpsc::channel(WAITING);
    spawn_blocking(move || {
        // Who asked may have gone; then nothing is left to do.
        let _ = send(&store, &filter, found, end, lines, |chunk| {
            sender.blocking_send(chunk).map_err(drop)
        });
    });
    stream::unfold(receiver, |mut receiver: mpsc::Receiver<Bytes>| async {
        let chunk = receiver.recv().await?;
        Some((chunk, receiver))
    })
}

fn send(
    store: &Store,
    filter: &Filter,
    found: Vec<Arc<Kept>>,
    mut end: HistoryEnd,
    mut lines: Lines,
    mut sender: impl FnMut(Bytes) -> Result<(), ()>,
) -> Result<(), ()> {
    let _one = READS.lock().unwrap_or_else(PoisonError::into_inner);
    store.complete();
    // Memory has what no file has: what could not be written. Lines are told apart by their bytes.
    let hasher = RandomState::new();
    let known: HashSet<u64> = found.iter().map(|kept| hasher.hash_one(&*kept.line)).collect();
    let mut chunk = Vec::with_capacity(CHUNK);
    let mut gone = false;
    let searched = search(&store.bounds().directory, filter, |line| {
        if known.contains(&hasher.hash_one(line)) {
            return ControlFlow::Continue(());
        }
        if !chunk.is_empty() && chunk.len() + line.len() > CHUNK {
            gone = sender(Bytes::from(std::mem::take(&mut chunk))).is_err();
        }
        chunk.extend_from_slice(line);
        if gone {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    });
    if gone {
        return Err(());
    }
    if !chunk.is_empty() {
        sender(Bytes::from(chunk))?;
    }
    match searched {
        Ok(searched) => {
            end.oldest = [end.oldest, searched.oldest].into_iter().flatten().min();
            // What left the memory is on disk.
            end.forgotten = store.unstored().total();
            if searched.damaged > 0 {
                say(format_args!(
                    "probe: {} files of the history in {} are damaged: read as far as possible",
                    searched.damaged,
                    store.bounds().directory.display()
                ));
            }
        }
        Err(error) => say(format_args!(
            "probe: answered from memory alone: can't read the history in {}: {error}",
            store.bounds().directory.display()
        )),
    }
    chunks(found).try_for_each(&mut sender)?;
    sender(Bytes::from(lines.event("end", end)))
}
