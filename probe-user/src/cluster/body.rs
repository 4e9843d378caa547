//! The body of an answer, within bounds.

use std::time::Duration;

use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::time::timeout;

use super::AgentError;
use crate::error::chain;

/// A line longer than this is none of an agent's.
pub const LONGEST_LINE: usize = 1 << 20;

/// Reads piece by piece; a body that says nothing for `idle` has ended.
#[derive(Debug)]
pub struct Body {
    incoming: Incoming,
    idle: Duration,
}

impl Body {
    pub fn new(incoming: Incoming, idle: Duration) -> Self {
        Self { incoming, idle }
    }

    /// The next piece; `None` at the end.
    async fn piece(&mut self) -> Result<Option<hyper::body::Bytes>, AgentError> {
        loop {
            let frame = timeout(self.idle, self.incoming.frame())
                .await
                .map_err(|_| AgentError::Silent(self.idle.as_secs()))?;
            match frame {
                None => return Ok(None),
                Some(Err(error)) => return Err(broken(&error)),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        return Ok(Some(data));
                    }
                }
            }
        }
    }

    /// All of it.
    ///
    /// # Errors
    /// When it is longer than `most`, or breaks off.
    pub async fn whole(mut self, most: usize) -> Result<Vec<u8>, AgentError> {
        let mut whole = Vec::new();
        while let Some(piece) = self.piece().await? {
            if whole.len() + piece.len() > most {
                return Err(AgentError::TooLong(most as u64));
            }
            whole.extend_from_slice(&piece);
        }
        Ok(whole)
    }
}

fn broken(error: &hyper::Error) -> AgentError {
    let mut causes = std::iter::successors(std::error::Error::source(error), |error| error.source());
    let ended = causes.any(|cause| {
        let cause = cause.downcast_ref::<std::io::Error>();
        cause.is_some_and(|cause| cause.kind() == std::io::ErrorKind::UnexpectedEof)
    });
    if ended || error.is_incomplete_message() {
        AgentError::CutOff
    } else {
        AgentError::Http(chain(error))
    }
}

/// A line, without its end.
#[derive(Debug, PartialEq, Eq)]
pub enum Line {
    Whole(Vec<u8>),
    /// Its bytes were thrown away.
    TooLong,
}

/// A body line by line.
#[derive(Debug)]
pub struct Lines {
    body: Body,
    splitter: Splitter,
    /// Bytes so far.
    pub bytes: u64,
}

impl Lines {
    pub fn new(body: Body) -> Self {
        Self {
            body,
            splitter: Splitter::default(),
            bytes: 0,
        }
    }

    /// The next line; `None` at the end. What stands after the last end of a line is none.
    ///
    /// # Errors
    /// When the answer breaks off, or says nothing for too long.
    pub async fn next(&mut self) -> Result<Option<Line>, AgentError> {
        loop {
            if let Some(line) = self.splitter.next() {
                return Ok(Some(line));
            }
            let Some(piece) = self.body.piece().await? else {
                return Ok(None);
            };
            self.bytes += piece.len() as u64;
            self.splitter.push(&piece);
        }
    }
}

/// Pieces → lines. Keeps no more than the longest line and one piece.
#[derive(Debug, Default)]
struct Splitter {
    waiting: Vec<u8>,
    /// Where in `waiting` the next line begins, and up to where there is no end of it.
    from: usize,
    searched: usize,
    /// The rest of a line that is too long is on its way.
    skipping: bool,
}

impl Splitter {
    fn push(&mut self, piece: &[u8]) {
        self.waiting.drain(..self.from);
        (self.from, self.searched) = (0, self.searched - self.from);
        self.waiting.extend_from_slice(piece);
    }

    fn next(&mut self) -> Option<Line> {
        let unread = self.waiting.get(self.searched..).unwrap_or_default();
        let Some(end) = memchr::memchr(b'\n', unread) else {
            self.searched = self.waiting.len();
            self.skipping |= self.searched - self.from > LONGEST_LINE;
            if self.skipping {
                self.from = self.searched;
            }
            return None;
        };
        let end = self.searched + end;
        let line = self.waiting.get(self.from..end).unwrap_or_default();
        let line = if std::mem::take(&mut self.skipping) || line.len() > LONGEST_LINE {
            Line::TooLong
        } else {
            Line::Whole(line.to_vec())
        };
        (self.from, self.searched) = (end + 1, end + 1);
        Some(line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(splitter: &mut Splitter, piece: &[u8]) -> Vec<String> {
        splitter.push(piece);
        std::iter::from_fn(|| splitter.next())
            .map(|line| match line {
                Line::Whole(line) => String::from_utf8(line).unwrap(),
                Line::TooLong => "too long".to_owned(),
            })
            .collect()
    }

    #[test]
    fn lines_come_in_any_pieces() {
        let mut splitter = Splitter::default();
        for (piece, lines) in [
            ("", &[][..]),
            ("a", &[]),
            ("b\n", &["ab"]),
            ("c\n\nd\ne", &["c", "", "d"]),
            ("f", &[]),
            ("\n", &["ef"]),
        ] {
            assert_eq!(split(&mut splitter, piece.as_bytes()), lines, "{piece}");
        }
    }

    #[test]
    fn a_line_without_end_takes_no_memory() {
        let mut splitter = Splitter::default();
        let piece = [b'x'; 1 << 16];
        for _ in 0..1000 {
            assert!(split(&mut splitter, &piece).is_empty());
            assert!(splitter.waiting.len() <= LONGEST_LINE + 2 * piece.len());
        }
        assert_eq!(split(&mut splitter, b"x\ny\n"), ["too long", "y"]);
        let longest = vec![b'x'; LONGEST_LINE];
        assert!(split(&mut splitter, &longest).is_empty());
        assert_eq!(split(&mut splitter, b"\n")[0].len(), LONGEST_LINE);
        assert!(split(&mut splitter, &longest).is_empty());
        assert_eq!(split(&mut splitter, b"x\n"), ["too long"]);
    }
}
