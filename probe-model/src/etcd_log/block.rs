//! What takes several lines: entries of `journalctl -o verbose` and `export`, printed or wrapped JSON, wrapped text.

use std::borrow::Cow;

use super::{
    Excerpt, Extent, Line, Reader,
    json::{self, NoJson},
    time::{self, Reading},
    wrappers,
};

/// Bytes before and after a line that are looked at.
pub const CONTEXT: usize = 16 << 10;
/// Lines before a line that are looked at.
const LINES: usize = 256;
/// Starts of objects that are tried.
const TRIES: usize = 8;

/// The time of the journal's entry that a line `MESSAGE=…` is in.
pub fn journal_time(reader: &Reader, excerpt: &Excerpt<'_>) -> Option<Reading> {
    let previous = lines_backwards(excerpt.before);
    let is_message = excerpt.line.trim_start().starts_with("MESSAGE=")
        // With bytes that are not printable, export writes the length and the message in the next line.
        || previous.clone().next().is_some_and(|line| line == b"MESSAGE");
    if !is_message {
        return None;
    }
    for line in previous.take(LINES) {
        let line = String::from_utf8_lossy(line);
        if line.trim().is_empty() {
            return None;
        }
        if let Some(time) = line.trim_start().strip_prefix("__REALTIME_TIMESTAMP=") {
            return time::of_text(time, &reader.zone, reader.now);
        }
        let is_field = |line: &str| {
            line.split_once('=').is_some_and(|(key, _)| {
                key.bytes()
                    .all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_')
            })
        };
        let is_indented = line.starts_with([' ', '\t']);
        if !is_indented && !is_field(&line) && line != "MESSAGE" {
            return time::before(&line, &reader.zone, reader.now);
        }
    }
    None
}

/// Reads a line with those around it.
pub fn read(reader: &Reader, excerpt: &Excerpt<'_>, out: &mut Vec<Line>) -> Extent {
    let extent = json_over_lines(reader, excerpt, out);
    if !out.is_empty() || extent.wants_more {
        return extent;
    }
    wrapped_text(reader, excerpt, out)
}

/// The innermost object around the line that says who it was.
fn json_over_lines(reader: &Reader, excerpt: &Excerpt<'_>, out: &mut Vec<Line>) -> Extent {
    let is_start = |line: &str| line.starts_with('{') || line.ends_with('{') || line.contains("{\"");
    let before = tail(excerpt.before);
    let mut at = before.len();
    let mut starts = Vec::new();
    if excerpt.line.contains('{') {
        starts.push(at);
    }
    for line in lines_backwards(before).take(LINES) {
        at = at.saturating_sub(line.len() + 1);
        if is_start(String::from_utf8_lossy(line).trim()) {
            starts.push(at);
        }
        if starts.len() >= TRIES {
            break;
        }
    }
    if starts.is_empty() {
        return Extent::default();
    }
    let after = String::from_utf8_lossy(&excerpt.after[..excerpt.after.len().min(CONTEXT)]);
    let mut wants_more = false;
    for start in starts {
        let head = String::from_utf8_lossy(&before[start..]);
        let whole = format!("{head}{}\n{after}", excerpt.line);
        // A viewer wraps in the middle of a word.
        for joined in [Cow::Borrowed(&whole), Cow::Owned(whole.replace(['\n', '\r'], ""))] {
            let Some(brace) = joined.find('{') else { continue };
            let is_wrapped = matches!(joined, Cow::Owned(_));
            match json::first(&joined[brace..]) {
                Ok((object, used)) => {
                    let prefix = time::before(&joined[..brace], &reader.zone, reader.now);
                    wrappers::object(reader, excerpt, &object, prefix, out);
                    if out.iter().any(|line| matches!(line, Line::Rejected(_))) {
                        return Extent {
                            lines: lines_used(&head, excerpt.line, &after, brace + used, is_wrapped),
                            wants_more: false,
                        };
                    }
                    out.clear();
                }
                Err(NoJson::CutOff) => wants_more |= excerpt.more && excerpt.after.len() < CONTEXT,
                Err(NoJson::Broken) => {}
            }
        }
    }
    Extent { lines: 0, wants_more }
}

/// The lines of `after` in which an object ends that takes `used` bytes of all.
fn lines_used(head: &str, line: &str, after: &str, used: usize, is_wrapped: bool) -> usize {
    let mut left = used;
    let mut lines = 0;
    let own = head
        .split_inclusive('\n')
        .chain([line])
        .chain(after.split_inclusive('\n'));
    let of_head = head.split_inclusive('\n').count() + 1;
    for (at, text) in own.enumerate() {
        let length = if is_wrapped {
            text.bytes().filter(|byte| !matches!(byte, b'\n' | b'\r')).count()
        } else {
            // `line` is without its line feed.
            text.len() + usize::from(at + 1 == of_head)
        };
        if at >= of_head {
            lines += 1;
        }
        if left <= length {
            return lines;
        }
        left -= length;
    }
    lines
}

/// A line of text that a viewer cut in two.
fn wrapped_text(reader: &Reader, excerpt: &Excerpt<'_>, out: &mut Vec<Line>) -> Extent {
    let end = excerpt.after.iter().position(|byte| *byte == b'\n');
    let next = &excerpt.after[..end.unwrap_or(excerpt.after.len()).min(CONTEXT)];
    let next = String::from_utf8_lossy(next);
    let is_own = reader.patterns().iter().any(|pattern| next.contains(pattern))
        || next.contains('{')
        || time::before(&next, &reader.zone, reader.now).is_some();
    if next.trim().is_empty() || is_own {
        return Extent {
            lines: 0,
            wants_more: end.is_none() && excerpt.more && excerpt.after.is_empty(),
        };
    }
    let joined = format!(
        "{}{}",
        excerpt.line.trim_end_matches(['\n', '\r']),
        next.trim_end_matches('\r')
    );
    let joined = Excerpt {
        line: &joined,
        ..*excerpt
    };
    wrappers::text(reader, &joined, None, out);
    if out.iter().any(|line| matches!(line, Line::Rejected(_))) {
        return Extent {
            lines: 1,
            wants_more: false,
        };
    }
    out.clear();
    Extent::default()
}

fn tail(bytes: &[u8]) -> &[u8] {
    &bytes[bytes.len().saturating_sub(CONTEXT)..]
}

/// The lines before, the nearest first, without their ends.
pub fn lines_backwards(bytes: &[u8]) -> impl Iterator<Item = &[u8]> + Clone {
    let bytes = tail(bytes);
    let bytes = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    bytes
        .rsplit(|byte| *byte == b'\n')
        .filter(move |_| !bytes.is_empty())
}
