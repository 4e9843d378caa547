//! One direction of a connection: segments as they came, put in order.

use std::mem;

/// Bytes of a direction that are kept: what the kernel program sends (`contract/tls.rs`), and a segment more.
const MOST_BYTES: usize = 24 << 10;
/// Pieces that don't follow one another.
const MOST_PIECES: usize = 64;
/// Guesses at the first sequence number: mostly there is one.
const MOST_FIRSTS: usize = 8;
/// A segment further away than this is another connection's.
const FAR: u32 = 1 << 20;

/// Payload of one direction. Bounded.
#[derive(Debug, Default)]
pub struct Stream {
    pieces: Vec<Piece>,
    bytes: usize,
    firsts: Vec<u32>,
}

#[derive(Debug)]
struct Piece {
    /// Of its first byte.
    sequence: u32,
    bytes: Vec<u8>,
    /// It goes on, which was not captured.
    cut: bool,
}

/// Payload without a gap.
#[derive(Debug, PartialEq, Eq)]
pub struct Chunk {
    /// Bytes before it, since the connection began.
    pub at: usize,
    pub bytes: Vec<u8>,
}

impl Stream {
    /// Takes a segment of `length` bytes, of which `bytes` were captured; `first` is a guess at the sequence number of the
    /// connection's first byte. Returns how many bytes more are kept.
    pub fn push(&mut self, sequence: u32, first: u32, length: u32, bytes: &[u8]) -> usize {
        if !self.firsts.contains(&first) && self.firsts.len() < MOST_FIRSTS {
            self.firsts.push(first);
        }
        let room = MOST_BYTES.saturating_sub(self.bytes);
        let kept = bytes.get(..room).unwrap_or(bytes);
        let cut = kept.len() < length as usize;
        if kept.is_empty() || self.has(sequence, kept) {
            return 0;
        }
        let is_full = self.pieces.len() >= MOST_PIECES;
        match self.pieces.last_mut() {
            Some(last) if !last.cut && last.end() == sequence => {
                last.bytes.extend_from_slice(kept);
                last.cut = cut;
            }
            Some(_) if is_full => return 0,
            Some(_) | None => self.pieces.push(Piece {
                sequence,
                bytes: kept.to_vec(),
                cut,
            }),
        }
        self.bytes += kept.len();
        kept.len()
    }

    /// Whether these bytes came before: sent again, or seen at a second device.
    fn has(&self, sequence: u32, bytes: &[u8]) -> bool {
        self.pieces.iter().any(|piece| {
            let at = sequence.wrapping_sub(piece.sequence) as usize;
            at + bytes.len() <= piece.bytes.len()
        })
    }

    /// Whether a segment may be of the same connection as those before.
    pub fn is_near(&self, sequence: u32) -> bool {
        self.pieces.first().is_none_or(|piece| {
            let ahead = sequence.wrapping_sub(piece.sequence);
            ahead < FAR || ahead.wrapping_neg() < FAR
        })
    }

    pub const fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// What came, in order, and whether the first of it is the connection's first.
    pub fn chunks(mut self) -> (Vec<Chunk>, bool) {
        let Some(lowest) = self.lowest() else {
            return (Vec::new(), false);
        };
        let begins = self.firsts.contains(&lowest);
        self.pieces
            .sort_by_key(|piece| piece.sequence.wrapping_sub(lowest));
        let mut chunks: Vec<Chunk> = Vec::new();
        for mut piece in self.pieces {
            let at = piece.sequence.wrapping_sub(lowest) as usize;
            match chunks.last_mut() {
                Some(last) if at <= last.at + last.bytes.len() => {
                    let known = last.at + last.bytes.len() - at;
                    if let Some(new) = piece.bytes.get(known..) {
                        last.bytes.extend_from_slice(new);
                    }
                }
                Some(_) | None => chunks.push(Chunk {
                    at,
                    bytes: mem::take(&mut piece.bytes),
                }),
            }
        }
        (chunks, begins)
    }

    /// The lowest sequence number; they go round.
    fn lowest(&self) -> Option<u32> {
        let some = self.pieces.first()?.sequence;
        let ahead = |piece: &Piece| piece.sequence.wrapping_sub(some).cast_signed();
        let lowest = self.pieces.iter().map(ahead).min()?;
        Some(some.wrapping_add_signed(lowest))
    }
}

impl Piece {
    fn end(&self) -> u32 {
        self.sequence.wrapping_add(self.bytes.len() as u32)
    }
}
