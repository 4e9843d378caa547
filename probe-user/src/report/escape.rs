//! Text from outside (names of processes, command lines, names of containers and pods) made safe for a
//! terminal: it can neither move the cursor, nor colour, nor hide or reorder what stands beside it.

use std::io::Write as _;

use unicode_width::UnicodeWidthChar;

/// Appends `text`, at most `limit` columns of it, and returns the columns it takes. What is cut off shows as `…`.
///
/// A character that takes no column of its own (control, zero width, combining, reordering) shows as `\n`,
/// `\x1b` or `\u{202e}`. The backslash itself stays as it is: paths and patterns stay readable, and who needs
/// to tell a name that spells an escape from one that holds the character reads the JSON.
pub fn push(out: &mut Vec<u8>, text: &str, limit: usize) -> usize {
    if text.len() <= limit && text.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
        out.extend_from_slice(text.as_bytes());
        return text.len();
    }
    let start = out.len();
    let mut width = 0;
    // Where the ellipsis goes, should one be needed.
    let mut cut = (start, 0);
    for character in text.chars() {
        let end = out.len();
        let columns = character_into(out, character);
        if width + columns > limit {
            out.truncate(end.min(cut.0));
            out.extend_from_slice("…".as_bytes());
            return cut.1 + 1;
        }
        width += columns;
        if width < limit {
            cut = (out.len(), width);
        }
    }
    width
}

fn character_into(out: &mut Vec<u8>, character: char) -> usize {
    let start = out.len();
    match character {
        '\n' => out.extend_from_slice(b"\\n"),
        '\r' => out.extend_from_slice(b"\\r"),
        '\t' => out.extend_from_slice(b"\\t"),
        // Writing to memory does not fail.
        '\0'..='\x1f' | '\x7f' => drop(write!(out, "\\x{:02x}", u32::from(character))),
        _ => match columns(character) {
            Some(width) => {
                out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
                return width;
            }
            None => drop(write!(out, "\\u{{{:x}}}", u32::from(character))),
        },
    }
    out.len() - start
}

/// How many columns a character takes; `None`: it has none of its own.
pub fn columns(character: char) -> Option<usize> {
    character
        .width()
        .filter(|width| *width > 0 && !is_invisible(character))
}

/// What moves, joins or hides its neighbours, whatever width a table gives it.
fn is_invisible(character: char) -> bool {
    matches!(character,
        '\u{ad}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{180e}' | '\u{200b}'..='\u{200f}'
        | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{feff}' | '\u{ffa0}'
        | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}')
}

/// The same as a text of its own.
pub fn text(text: &str, limit: usize) -> String {
    let mut out = Vec::new();
    push(&mut out, text, limit);
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use unicode_width::UnicodeWidthStr;

    use super::*;
    use crate::model::finding::prints_itself;

    fn escaped(text: &str, limit: usize) -> String {
        let mut out = b">".to_vec();
        let width = push(&mut out, text, limit);
        let out = String::from_utf8(out).unwrap();
        assert_eq!(out[1..].width(), width, "{text:?}");
        assert!(width <= limit, "{text:?}");
        out[1..].to_owned()
    }

    #[test]
    fn escape_table() {
        let table = [
            ("", ""),
            ("python3.11", "python3.11"),
            ("kworker/0:1 (x)", "kworker/0:1 (x)"),
            ("café", "café"),
            ("监控", "监控"),
            ("a\nb\r\tc", "a\\nb\\r\\tc"),
            ("\x1b[31mred\x1b[0m", "\\x1b[31mred\\x1b[0m"),
            ("\x1b]0;title\x07", "\\x1b]0;title\\x07"),
            ("\u{9b}2J", "\\u{9b}2J"),
            ("\u{7f}\0", "\\x7f\\x00"),
            ("a\u{202e}b\u{2066}c", "a\\u{202e}b\\u{2066}c"),
            ("z\u{200b}w\u{feff}", "z\\u{200b}w\\u{feff}"),
            ("z\u{200d}j\u{2060}", "z\\u{200d}j\\u{2060}"),
            ("o\u{301}", "o\\u{301}"),
            ("soft\u{ad}", "soft\\u{ad}"),
            ("tag\u{e0041}", "tag\\u{e0041}"),
            ("\u{2028}", "\\u{2028}"),
            ("\u{3164}", "\\u{3164}"),
            ("\u{fffd}", "\u{fffd}"),
            ("back\\slash", "back\\slash"),
        ];
        for (raw, expected) in table {
            assert_eq!(escaped(raw, 100), expected, "{raw:?}");
        }
    }

    #[test]
    fn length_is_bounded_whatever_it_holds() {
        assert_eq!(escaped("0123456789", 10), "0123456789");
        assert_eq!(escaped("0123456789a", 10), "012345678…");
        assert_eq!(escaped("监控监控监控", 10), "监控监控…");
        assert_eq!(escaped("\u{202e}\u{202e}", 10), "\\u{202e}…");
        assert_eq!(escaped("\u{202e}", 4), "…");
        assert_eq!(escaped(&"\x1b".repeat(1000), 20), "\\x1b\\x1b\\x1b\\x1b…");
    }

    /// What a fix takes for printable is printed as it is: a command that is pasted is the one in `argv`.
    #[test]
    fn commands_are_printed_as_they_are() {
        let mut count = 0;
        for character in ('\0'..=char::MAX).filter(|character| prints_itself(*character)) {
            assert_eq!(escaped(&character.to_string(), 20), character.to_string());
            count += 1;
        }
        assert!(count > 30_000, "{count}");
    }

    /// No character of Unicode reaches the terminal without a column of its own.
    #[test]
    fn every_character_is_visible_or_escaped() {
        for character in '\0'..=char::MAX {
            let shown = escaped(&character.to_string(), 20);
            assert!(
                shown
                    .chars()
                    .all(|c| !c.is_control() && c.width().is_some_and(|width| width > 0))
            );
            assert!(!shown.is_empty());
        }
    }
}
