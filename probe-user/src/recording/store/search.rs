//! Reads the files of a store.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read as _},
    ops::ControlFlow,
    path::Path,
    time::{Duration, SystemTime},
};

use flate2::read::MultiGzDecoder;
use jiff::Timestamp;

use super::files::{StoredFile, list};
use crate::recording::history::{Ends, Filter};

/// A longer line is none of ours.
const LONGEST: u64 = 1 << 20;
/// A file is written up to a second after its last connection ended, and clocks are set.
const SLACK: Duration = Duration::from_secs(60);

/// What a search found besides lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Searched {
    /// When the first connection of the oldest file ended.
    pub oldest: Option<Timestamp>,
    /// Files that can't be read to where they end, and are not cut off.
    pub damaged: u64,
}

/// Hands each line that is asked for to `each`, until it breaks; those of the oldest file first.
///
/// # Errors
/// When the directory can't be read. Without one there is nothing.
pub fn search(
    directory: &Path,
    filter: &Filter,
    mut each: impl FnMut(&[u8]) -> ControlFlow<()>,
) -> io::Result<Searched> {
    let files = match list(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        listed => listed?,
    };
    let mut searched = Searched {
        oldest: files.first().map(|file| file.first),
        damaged: 0,
    };
    for file in files.iter().filter(|file| may_hold(file, filter)) {
        match lines(file, filter, &mut each) {
            Ok(ControlFlow::Continue(())) => {}
            Ok(ControlFlow::Break(())) => break,
            // Removed for room meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(_) => searched.damaged += 1,
        }
    }
    Ok(searched)
}

/// Whether a connection that ended as late as asked can be in it.
fn may_hold(file: &StoredFile, filter: &Filter) -> bool {
    filter.since.is_none_or(|since| {
        let since = SystemTime::from(since);
        file.written + SLACK >= since
    })
}

fn lines(
    file: &StoredFile,
    filter: &Filter,
    each: &mut impl FnMut(&[u8]) -> ControlFlow<()>,
) -> io::Result<ControlFlow<()>> {
    let mut reader = BufReader::with_capacity(1 << 16, MultiGzDecoder::new(File::open(&file.path)?));
    let mut line = Vec::new();
    loop {
        line.clear();
        match reader.by_ref().take(LONGEST).read_until(b'\n', &mut line) {
            // It is still written, or its process was killed: what is complete was read.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return Ok(ControlFlow::Continue(()));
            }
            Err(error) => return Err(error),
            Ok(_) if line.last() != Some(&b'\n') => return Ok(ControlFlow::Continue(())),
            Ok(_) => {}
        }
        let wanted = Ends::of_line(&line).is_some_and(|ends| filter.wants(&ends));
        if wanted && each(&line).is_break() {
            return Ok(ControlFlow::Break(()));
        }
    }
}
