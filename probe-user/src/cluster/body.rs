//! The body of an answer, within bounds.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::time::timeout;

use super::{
    AgentError,
    room::{Room, Taken},
};
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
    async fn piece(&mut self) -> Result<Option<Bytes>, AgentError> {
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

    /// All of it, as far as there is room.
    ///
    /// # Errors
    /// When it is longer than one answer may be, or breaks off.
    pub async fn within(mut self, room: &Room, taken: &mut Taken) -> Result<Vec<u8>, AgentError> {
        let mut whole = Vec::new();
        while let Some(piece) = self.piece().await? {
            room.take(taken, whole.len() + piece.len()).await?;
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
pub enum BodyLine {
    Whole(Bytes),
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
    pub async fn next(&mut self) -> Result<Option<BodyLine>, AgentError> {
        loop {
            if let Some(line) = self.splitter.next() {
                return Ok(Some(line));
            }
            let Some(piece) = self.body.piece().await? else {
                return Ok(None);
            };
            self.bytes += piece.len() as u64;
            self.splitter.push(piece);
        }
    }
}

/// Pieces → lines. Keeps no more than the longest line and one piece. A line within one piece is a part of it; one across
/// pieces is copied.
#[derive(Debug, Default)]
struct Splitter {
    /// The beginning of a line, of earlier pieces.
    begun: BytesMut,
    /// What of the latest piece is not split yet.
    piece: Bytes,
    /// The rest of a line that is too long is on its way.
    skipping: bool,
}

impl Splitter {
    /// Takes a piece after [`Self::next`] has found no further line in the one before.
    fn push(&mut self, piece: Bytes) {
        self.piece = piece;
    }

    fn next(&mut self) -> Option<BodyLine> {
        let Some(end) = memchr::memchr(b'\n', &self.piece) else {
            let rest = std::mem::take(&mut self.piece);
            self.skipping |= self.begun.len() + rest.len() > LONGEST_LINE;
            if self.skipping {
                self.begun = BytesMut::new();
            } else {
                self.begun.extend_from_slice(&rest);
            }
            return None;
        };
        let mut rest = self.piece.split_to(end + 1);
        rest.truncate(end);
        let mut line = std::mem::take(&mut self.begun);
        if std::mem::take(&mut self.skipping) || line.len() + rest.len() > LONGEST_LINE {
            return Some(BodyLine::TooLong);
        }
        if line.is_empty() {
            return Some(BodyLine::Whole(rest));
        }
        line.extend_from_slice(&rest);
        Some(BodyLine::Whole(line.freeze()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(splitter: &mut Splitter, piece: &[u8]) -> Vec<String> {
        splitter.push(Bytes::copy_from_slice(piece));
        std::iter::from_fn(|| splitter.next())
            .map(|line| match line {
                BodyLine::Whole(line) => String::from_utf8(line.into()).unwrap(),
                BodyLine::TooLong => "too long".to_owned(),
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
    fn a_line_within_a_piece_is_not_copied() {
        let piece = Bytes::from_static(b"one\ntwo\n");
        let mut splitter = Splitter::default();
        splitter.push(piece.clone());
        let Some(BodyLine::Whole(line)) = splitter.next() else {
            panic!("no line");
        };
        assert_eq!(line.as_ptr(), piece.as_ptr());
    }

    #[test]
    fn a_line_without_end_takes_no_memory() {
        let mut splitter = Splitter::default();
        let piece = vec![b'x'; 1 << 16];
        for _ in 0..1000 {
            assert!(split(&mut splitter, &piece).is_empty());
            assert!(splitter.begun.len() <= LONGEST_LINE && splitter.piece.is_empty());
        }
        assert_eq!(split(&mut splitter, b"x\ny\n"), ["too long", "y"]);
        let longest = vec![b'x'; LONGEST_LINE];
        assert!(split(&mut splitter, &longest).is_empty());
        assert_eq!(split(&mut splitter, b"\n")[0].len(), LONGEST_LINE);
        assert!(split(&mut splitter, &longest).is_empty());
        assert_eq!(split(&mut splitter, b"x\n"), ["too long"]);
    }
}
