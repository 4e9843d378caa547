//! Finds lines by words in them, in blocks: a line without them costs next to nothing.

use std::io::{self, Read};

use aho_corasick::{AhoCorasick, BuildError, packed};
use memchr::{memchr, memchr_iter, memmem, memrchr};

use crate::model::etcd_log::{CONTEXT, Extent};

/// A line longer than this is cut: those about rejected connections are shorter.
const LONGEST: usize = 1 << 20;
/// Read at once.
const BLOCK: usize = 256 << 10;

/// A line that has one of the words in it, and what is around it.
#[derive(Clone, Copy, Debug)]
pub struct Hit<'a> {
    /// From 1.
    pub number: u64,
    pub before: &'a [u8],
    /// Without its line feed.
    pub line: &'a [u8],
    pub after: &'a [u8],
    /// Whether more than `after` may follow. If that is wanted ([`Extent::wants_more`]), the line comes again with more.
    pub more: bool,
}

/// What was in a log.
#[derive(Debug, Default)]
pub struct Scanned {
    pub lines: u64,
    /// Why it was not read to its end.
    pub error: Option<io::Error>,
}

/// Finds the words.
#[derive(Debug)]
pub struct Scanner(Finder);

#[derive(Debug)]
enum Finder {
    One(Box<memmem::Finder<'static>>),
    /// With the vector instructions of this machine.
    Packed(Box<packed::Searcher>),
    Automaton(Box<AhoCorasick>),
}

impl Scanner {
    /// # Errors
    /// When there are too many patterns: not those of the servers known here.
    pub fn new(patterns: &[&str]) -> Result<Self, BuildError> {
        if let [one] = patterns {
            let finder = memmem::Finder::new(one.as_bytes()).into_owned();
            return Ok(Self(Finder::One(Box::new(finder))));
        }
        Ok(Self(match packed::Searcher::new(patterns) {
            Some(searcher) => Finder::Packed(Box::new(searcher)),
            None => Finder::Automaton(Box::new(AhoCorasick::new(patterns)?)),
        }))
    }

    fn find(&self, bytes: &[u8]) -> Option<usize> {
        match &self.0 {
            Finder::One(finder) => finder.find(bytes),
            Finder::Packed(searcher) => searcher.find(bytes).map(|found| found.start()),
            Finder::Automaton(automaton) => automaton.find(bytes).map(|found| found.start()),
        }
    }

    /// Hands every line that has one of the words to `each`, and how many bytes were read to `progress`.
    ///
    /// # Errors
    /// Those of `each`. That the input can't be read is part of what comes back: what was read of it counts.
    pub fn scan<E>(
        &self,
        mut input: impl Read,
        mut each: impl FnMut(&Hit<'_>) -> Result<Extent, E>,
        mut progress: impl FnMut(usize),
    ) -> Result<Scanned, E> {
        let mut buffer = vec![0; CONTEXT + LONGEST + 2 * BLOCK];
        let mut scanned = Scanned::default();
        // What is before `start` is context. `counted`: lines up to here are in `scanned.lines`.
        let (mut start, mut counted, mut filled) = (0_usize, 0, 0);
        let mut ended = false;
        // The rest of a line that was too long.
        let mut skips = false;
        while !ended {
            if buffer.len() - filled < BLOCK {
                let keep = start.saturating_sub(CONTEXT);
                // Lines before a place that is given up are counted first.
                scanned.lines += newlines(&buffer[counted..counted.max(keep)]);
                counted = counted.max(keep);
                buffer.copy_within(keep..filled, 0);
                (start, counted, filled) = (start - keep, counted - keep, filled - keep);
            }
            match input.read(&mut buffer[filled..filled + BLOCK]) {
                Ok(0) => ended = true,
                Ok(read) => {
                    filled += read;
                    progress(read);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    scanned.error = Some(error);
                    ended = true;
                }
            }
            if skips {
                match memchr(b'\n', &buffer[start..filled]) {
                    Some(end) => {
                        start += end + 1;
                        skips = false;
                    }
                    None => {
                        start = filled;
                        continue;
                    }
                }
            }
            let is_full = filled - start >= LONGEST;
            let end = match memrchr(b'\n', &buffer[start..filled]) {
                _ if ended => filled,
                Some(end) => start + end + 1,
                None if is_full => {
                    skips = true;
                    filled
                }
                None => continue,
            };
            let more = !ended && !is_full;
            let mut is_deferred = false;
            while let Some(hit) = self.find(&buffer[start..end]).map(|at| start + at) {
                let from = memrchr(b'\n', &buffer[start..hit]).map_or(start, |at| start + at + 1);
                let to = memchr(b'\n', &buffer[hit..end]).map_or(end, |at| hit + at);
                let next = (to + 1).min(end);
                if from > counted {
                    scanned.lines += newlines(&buffer[counted..from]);
                    counted = from;
                }
                let extent = each(&Hit {
                    number: scanned.lines + 1,
                    before: &buffer[from.saturating_sub(CONTEXT)..from],
                    line: &buffer[from..to],
                    after: &buffer[next..end.min(next + CONTEXT)],
                    more,
                })?;
                if extent.wants_more && more {
                    start = from;
                    is_deferred = true;
                    break;
                }
                start = next;
                for _ in 0..extent.lines {
                    start = memchr(b'\n', &buffer[start..end]).map_or(end, |at| start + at + 1);
                }
            }
            if !is_deferred {
                start = end;
            }
        }
        let rest = &buffer[counted..filled];
        scanned.lines += newlines(rest) + u64::from(rest.last().is_some_and(|last| *last != b'\n'));
        Ok(scanned)
    }
}

fn newlines(bytes: &[u8]) -> u64 {
    memchr_iter(b'\n', bytes).count() as u64
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    /// As many bytes at a time.
    struct Parts(Cursor<Vec<u8>>, usize);

    impl Read for Parts {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let length = buffer.len().min(self.1);
            self.0.read(&mut buffer[..length])
        }
    }

    fn scan(patterns: &[&str], text: &[u8], part: usize) -> (u64, Vec<(u64, String)>) {
        let mut hits = Vec::new();
        let scanned = Scanner::new(patterns)
            .unwrap()
            .scan(
                Parts(Cursor::new(text.to_vec()), part),
                |hit| {
                    hits.push((hit.number, String::from_utf8_lossy(hit.line).into_owned()));
                    Ok::<_, ()>(Extent::default())
                },
                |_| {},
            )
            .unwrap();
        assert!(scanned.error.is_none());
        (scanned.lines, hits)
    }

    #[test]
    fn lines_and_their_numbers() {
        let text = b"one\ntwo wanted\n\nwanted and wanted\nfive\nother six";
        for part in [1, 2, 7, 1000] {
            let (lines, hits) = scan(&["wanted", "other"], text, part);
            let hits: Vec<_> = hits
                .iter()
                .map(|(number, line)| (*number, line.as_str()))
                .collect();
            assert_eq!(
                (lines, hits),
                (
                    6,
                    vec![(2, "two wanted"), (4, "wanted and wanted"), (6, "other six")]
                )
            );
            let (lines, hits) = scan(&["wanted"], text, part);
            assert_eq!((lines, hits.len()), (6, 2));
        }
        assert_eq!(scan(&["wanted"], b"", 1), (0, vec![]));
        assert_eq!(scan(&["wanted"], b"\n\n", 1), (2, vec![]));
    }

    /// Whatever the sizes of blocks and lines are, each line comes once, with its number.
    #[test]
    fn many_blocks() {
        let mut text = Vec::new();
        let mut expected = Vec::new();
        for number in 1..=60_000_u64 {
            if number % 97 == 0 {
                let line = format!("{number} wanted {}", "x".repeat((number % 1013) as usize));
                text.extend_from_slice(line.as_bytes());
                expected.push((number, line));
            } else {
                text.extend_from_slice("filler ".repeat((number % 13) as usize).as_bytes());
            }
            text.push(b'\n');
        }
        for part in [1 << 30, 100_003] {
            let (lines, hits) = scan(&["wanted", "other"], &text, part);
            assert_eq!(lines, 60_000);
            assert!(hits == expected, "{part}");
        }
    }

    #[test]
    fn a_line_that_is_too_long_is_cut() {
        let mut text = vec![b'x'; 3 * LONGEST];
        text[10..16].copy_from_slice(b"wanted");
        text.extend_from_slice(b" wanted at its end\nwanted\n");
        let (lines, hits) = scan(&["wanted"], &text, BLOCK);
        assert_eq!(lines, 2);
        assert_eq!(hits.iter().map(|(number, _)| *number).collect::<Vec<_>>(), [1, 2]);
        assert!(hits[0].1.len() <= LONGEST + 2 * BLOCK);
    }

    #[test]
    fn more_is_given_where_it_is_wanted() {
        let text = b"a wanted\nb\nc\nd wanted\ne\n".to_vec();
        let mut hits = Vec::new();
        let scanned = Scanner::new(&["wanted"])
            .unwrap()
            .scan(
                Parts(Cursor::new(text), 4),
                |hit| {
                    // The first takes two lines more.
                    let wants_more = hit.more && hit.after.iter().filter(|byte| **byte == b'\n').count() < 2;
                    if !wants_more {
                        hits.push((hit.number, hit.before.len(), hit.after.to_vec()));
                    }
                    Ok::<_, ()>(Extent { lines: 2, wants_more })
                },
                |_| {},
            )
            .unwrap();
        assert_eq!(scanned.lines, 5);
        assert_eq!(hits.len(), 2);
        assert_eq!((hits[0].0, hits[0].1), (1, 0));
        assert!(hits[0].2.starts_with(b"b\nc\n"));
        assert_eq!(
            (hits[1].0, hits[1].1, hits[1].2.as_slice()),
            (4, 13, b"e\n".as_slice())
        );
    }

    #[test]
    fn an_error_ends_it_with_what_was_read() {
        struct Broken(bool);
        impl Read for Broken {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                if std::mem::replace(&mut self.0, true) {
                    return Err(io::ErrorKind::InvalidData.into());
                }
                buffer[..9].copy_from_slice(b"a\nwanted ");
                Ok(9)
            }
        }
        let mut hits = 0;
        let each = |_: &Hit<'_>| {
            hits += 1;
            Ok::<_, ()>(Extent::default())
        };
        let scanned = Scanner::new(&["wanted"])
            .unwrap()
            .scan(Broken(false), each, |_| {})
            .unwrap();
        assert_eq!((scanned.lines, hits, scanned.error.is_some()), (2, 1, true));
    }
}
