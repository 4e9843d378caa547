//! TLS records of one side, as far as they are in the clear.

use super::{
    Alert, FirstMessage, Incomplete, Protocol, Why,
    stream::{Chunk, Stream},
};
use crate::Role;

/// Bytes of a record's header: type, version, length.
const HEADER: usize = 5;
/// Bytes of a handshake message's header: type, length.
const MESSAGE: usize = 4;
/// The longest record, with what encryption may add to it.
const LONGEST_RECORD: usize = (16 << 10) + 2048;
/// The longest hello that is waited for.
const LONGEST_HELLO: usize = 16 << 10;
/// Alerts of a side that are kept.
const MOST_ALERTS: usize = 2;

/// Types of records.
mod kind {
    pub const CHANGE_CIPHER_SPEC: u8 = 20;
    pub const ALERT: u8 = 21;
    pub const HANDSHAKE: u8 = 22;
    pub const APPLICATION_DATA: u8 = 23;
}

/// What was read of a side.
pub struct Side<H> {
    pub said: FirstMessage<H>,
    pub alerts: Vec<Alert>,
}

/// How a hello is distinguished from other handshake messages, and read.
pub struct Hello<H> {
    pub from: Role,
    /// The type of its handshake message.
    pub kind: u8,
    pub read: fn(&[u8]) -> Option<H>,
}

/// Reads a side that sent `total` bytes of payload in all, where that is known.
pub fn read<H>(stream: Stream, total: Option<u64>, hello: &Hello<H>) -> Side<H> {
    if stream.is_empty() {
        let unseen = Incomplete {
            seen: 0,
            of: None,
            why: Why::Unseen,
        };
        return Side {
            said: if total.unwrap_or(0) > 0 {
                FirstMessage::Incomplete(unseen)
            } else {
                FirstMessage::Nothing
            },
            alerts: Vec::new(),
        };
    }
    let (chunks, begins) = stream.chunks();
    let seen = match chunks.as_slice() {
        [only] => only.bytes.len(),
        _ => 0,
    };
    let all = begins && chunks.len() == 1 && total.is_none_or(|total| seen as u64 >= total);
    Reader {
        chunks: &chunks,
        at: 0,
        why: if all { Why::Cut } else { Why::Unseen },
        begins,
        alerts: Vec::new(),
        encrypted: false,
    }
    .side(hello)
}

/// A walk over the records.
struct Reader<'a> {
    chunks: &'a [Chunk],
    at: usize,
    /// Why something is missing, where it is.
    why: Why,
    /// The first chunk is what the connection began with.
    begins: bool,
    alerts: Vec<Alert>,
    encrypted: bool,
}

/// A record's header.
struct Record {
    kind: u8,
    length: usize,
}

impl Record {
    fn read(header: &[u8]) -> Option<Self> {
        let &[kind @ 20..=24, 3, 0..=4, high, low] = header else {
            return None;
        };
        let length = usize::from(u16::from_be_bytes([high, low]));
        (1..=LONGEST_RECORD)
            .contains(&length)
            .then_some(Self { kind, length })
    }

    /// Whether a record may begin so, as far as these bytes go.
    fn may_begin(bytes: &[u8]) -> bool {
        let begins = [
            |byte: u8| matches!(byte, kind::HANDSHAKE | kind::ALERT),
            |byte| byte == 3,
            |byte| byte <= 4,
        ];
        bytes.iter().zip(begins).all(|(byte, is)| is(*byte))
    }
}

impl<'a> Reader<'a> {
    fn side<H>(mut self, hello: &Hello<H>) -> Side<H> {
        let said = self.said(hello);
        self.stray_alerts(hello.from);
        Side {
            said,
            alerts: self.alerts,
        }
    }

    /// What is there from here on without a gap.
    fn rest(&self) -> &'a [u8] {
        self.chunks
            .iter()
            .find_map(|chunk| chunk.bytes.get(self.at.checked_sub(chunk.at)?..))
            .unwrap_or_default()
    }

    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let taken = self.rest().get(..count)?;
        self.at += count;
        Some(taken)
    }

    fn said<H>(&mut self, hello: &Hello<H>) -> FirstMessage<H> {
        let beginning = self.rest();
        if !self.begins {
            return self.incomplete(0, None);
        }
        if !Record::may_begin(beginning) {
            return FirstMessage::Other(Protocol::of(beginning));
        }
        // The handshake messages of all records up to here, as far as the hello goes.
        let mut message: Vec<u8> = Vec::new();
        let mut said = None;
        while let Some(header) = self.take(HEADER) {
            let Some(record) = Record::read(header) else {
                if said.is_none() && message.is_empty() && self.alerts.is_empty() {
                    said = Some(FirstMessage::Other(Protocol::of(beginning)));
                }
                // Nothing behind it can be relied on.
                self.encrypted = true;
                break;
            };
            let end = self.at + record.length;
            match record.kind {
                kind::HANDSHAKE if said.is_none() => {
                    let body = self.rest();
                    let is_whole = body.len() >= record.length;
                    message.extend_from_slice(body.get(..record.length).unwrap_or(body));
                    said = self.hello(&message, hello);
                    if said.is_none() && !is_whole {
                        break;
                    }
                }
                kind::ALERT if !self.encrypted && record.length == 2 => {
                    self.alert(hello.from, self.rest());
                }
                kind::CHANGE_CIPHER_SPEC | kind::APPLICATION_DATA => self.encrypted = true,
                _ => {}
            }
            self.at = end;
        }
        match said {
            Some(said) => said,
            None if message.is_empty() && !self.alerts.is_empty() => FirstMessage::Nothing,
            None => {
                let length = length(&message).map(|length| length + MESSAGE);
                self.incomplete(message.len(), length)
            }
        }
    }

    /// The hello, once all of it is there.
    fn hello<H>(&self, message: &[u8], hello: &Hello<H>) -> Option<FirstMessage<H>> {
        let malformed = |of| {
            Some(FirstMessage::Incomplete(Incomplete {
                seen: message.len(),
                of,
                why: Why::Malformed,
            }))
        };
        if *message.first()? != hello.kind {
            return malformed(None);
        }
        let length = length(message)?;
        if length > LONGEST_HELLO {
            return malformed(Some(length + MESSAGE));
        }
        let contents = message.get(MESSAGE..MESSAGE + length)?;
        match (hello.read)(contents) {
            Some(hello) => Some(FirstMessage::Hello(hello)),
            None => malformed(Some(length + MESSAGE)),
        }
    }

    fn incomplete<H>(&self, seen: usize, of: Option<usize>) -> FirstMessage<H> {
        FirstMessage::Incomplete(Incomplete {
            seen,
            of,
            why: self.why,
        })
    }

    fn alert(&mut self, from: Role, contents: &[u8]) {
        if let &[level @ 1..=2, code, ..] = contents
            && self.alerts.len() < MOST_ALERTS
        {
            let fatal = level == 2;
            self.alerts.push(Alert { from, fatal, code });
        }
    }

    /// Alerts behind a gap: where records begin is not known there, but an alert is mostly a segment of its own.
    fn stray_alerts(&mut self, from: Role) {
        if self.encrypted {
            return;
        }
        let behind = self.chunks.iter().filter(|chunk| chunk.at > self.at);
        for chunk in behind.collect::<Vec<_>>() {
            if let [kind::ALERT, 3, 0..=4, 0, 2, contents @ ..] = chunk.bytes.as_slice()
                && contents.len() == 2
            {
                self.alert(from, contents);
            }
        }
    }
}

/// What a handshake message says its contents' length is.
fn length(message: &[u8]) -> Option<usize> {
    let &[_, high, middle, low, ..] = message else {
        return None;
    };
    Some(usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low))
}
