//! JSON that can also be read on a terminal: what is no character of its own there (control, reordering, zero width)
//! is written as `\u009b`, which JSON takes for the same.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::{
    Result, Serializer,
    ser::{CompactFormatter, Formatter},
};

use super::escape::columns;

/// # Errors
/// When `value` can't be JSON, or the writer's.
pub fn to_writer(out: impl Write, value: &(impl Serialize + ?Sized)) -> Result<()> {
    value.serialize(&mut Serializer::with_formatter(out, Visible(CompactFormatter)))
}

/// # Errors
/// When `value` can't be JSON.
pub fn to_vec(value: &(impl Serialize + ?Sized)) -> Result<Vec<u8>> {
    let mut out = Vec::with_capacity(128);
    to_writer(&mut out, value)?;
    Ok(out)
}

/// The same as text.
///
/// # Errors
/// When `value` can't be JSON.
pub fn to_string(value: &(impl Serialize + ?Sized)) -> Result<String> {
    // What is JSON is text.
    to_vec(value).map(|json| String::from_utf8_lossy(&json).into_owned())
}

/// Appends a string with its quotes.
///
/// # Errors
/// None in practice: text can be written as JSON.
pub fn string(out: &mut Vec<u8>, text: &str) -> Result<()> {
    let is_plain = |byte| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\');
    if !text.bytes().all(is_plain) {
        return to_writer(out, text);
    }
    out.push(b'"');
    out.extend_from_slice(text.as_bytes());
    out.push(b'"');
    Ok(())
}

struct Visible(CompactFormatter);

impl Visible {
    /// Writes `text` and escapes every character that has no column of its own, except those that `skip` matches.
    fn escaped<W: Write + ?Sized>(
        &mut self,
        writer: &mut W,
        text: &str,
        skip: fn(char) -> bool,
    ) -> io::Result<()> {
        let mut written = 0;
        if !text.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
            for (at, character) in text.char_indices() {
                if columns(character).is_some() || skip(character) {
                    continue;
                }
                let (before, after) = (text.get(written..at), at + character.len_utf8());
                self.0.write_string_fragment(writer, before.unwrap_or_default())?;
                for unit in character.encode_utf16(&mut [0; 2]) {
                    write!(writer, "\\u{unit:04x}")?;
                }
                written = after;
            }
        }
        let rest = text.get(written..).unwrap_or_default();
        self.0.write_string_fragment(writer, rest)
    }
}

impl Formatter for Visible {
    fn write_string_fragment<W: Write + ?Sized>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        self.escaped(writer, fragment, |_| false)
    }

    /// JSON passed on as it was read, for example from a recording. A character below U+0020 can only be white space between
    /// tokens there, because JSON allows none in a string; escaped, it would not be JSON.
    fn write_raw_fragment<W: Write + ?Sized>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        self.escaped(writer, fragment, |character| character < ' ')
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(text: &str) -> String {
        let json = to_string(text).unwrap();
        let mut appended = Vec::new();
        string(&mut appended, text).unwrap();
        assert_eq!(appended, json.as_bytes());
        json
    }

    #[test]
    fn what_is_no_character_of_its_own_is_spelt() {
        for (raw, json) in [
            ("", "\"\""),
            ("caf\u{e9} \u{76d1}\u{63a7}", "\"caf\u{e9} \u{76d1}\u{63a7}\""),
            ("a\"b\\\n\x1b[31m", "\"a\\\"b\\\\\\n\\u001b[31m\""),
            ("\u{9b}2J\u{7f}", "\"\\u009b2J\\u007f\""),
            ("a\u{202e}b\u{301}c", "\"a\\u202eb\\u0301c\""),
            ("tag\u{e0041}", "\"tag\\udb40\\udc41\""),
        ] {
            assert_eq!(written(raw), json);
        }
    }

    /// A recording may be anybody's file.
    #[test]
    fn json_that_is_passed_on() {
        let foreign = "{\"name\" :\t\"a\u{9b}2J\u{202e}\\n\u{7f}\"}";
        let raw: &serde_json::value::RawValue = serde_json::from_str(foreign).unwrap();
        let json = to_string(&[raw]).unwrap();
        assert_eq!(json, "[{\"name\" :\t\"a\\u009b2J\\u202e\\n\\u007f\"}]");
        let value = |json| serde_json::from_str::<serde_json::Value>(json).unwrap();
        assert_eq!(value(&json)[0], value(foreign));
    }

    #[test]
    fn every_character_stays_the_same() {
        for character in '\0'..=char::MAX {
            let json = written(&character.to_string());
            assert_eq!(
                serde_json::from_str::<String>(&json).unwrap(),
                character.to_string()
            );
            assert!(!json.chars().any(char::is_control), "{json:?}");
        }
    }
}
