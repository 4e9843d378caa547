//! Strings as Go's `%q` writes them.

/// The string that `text` begins with, and what follows it; `None` when it has no end.
pub fn quoted(text: &str) -> Option<(String, &str)> {
    let body = text.strip_prefix('"')?;
    let mut value = String::new();
    let mut characters = body.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((value, &body[at + 1..])),
            '\\' => {
                let (_, escape) = characters.next()?;
                value.push(match escape {
                    'a' => '\x07',
                    'b' => '\x08',
                    'f' => '\x0c',
                    'n' => '\n',
                    'r' => '\r',
                    't' => '\t',
                    'v' => '\x0b',
                    'x' => hex(&mut characters, 2)?,
                    'u' => hex(&mut characters, 4)?,
                    'U' => hex(&mut characters, 8)?,
                    other => other,
                });
            }
            other => value.push(other),
        }
    }
    None
}

/// The character of that many hex digits. A byte that is no character (`\xff`) stands for one that can't be shown.
fn hex(characters: &mut std::str::CharIndices<'_>, digits: u32) -> Option<char> {
    let mut value = 0;
    for _ in 0..digits {
        value = value << 4 | characters.next()?.1.to_digit(16)?;
    }
    let invalid = digits == 2 && value > 0x7f;
    Some(
        char::from_u32(value)
            .filter(|_| !invalid)
            .unwrap_or(char::REPLACEMENT_CHARACTER),
    )
}

#[cfg(test)]
mod tests {
    use super::quoted;

    #[test]
    fn what_go_writes() {
        for (text, expected) in [
            (r#""EOF", more"#, Some(("EOF", ", more"))),
            (r#""""#, Some(("", ""))),
            (
                r#""a \"b\" \\ \n\t\x07é\U0001f600\xff" x"#,
                Some(("a \"b\" \\ \n\t\u{7}é😀\u{fffd}", " x")),
            ),
            (r#""cut"#, None),
            (r#""cut\"#, None),
            (r#""cut\u00"#, None),
            (r#""\ud800""#, Some(("\u{fffd}", ""))),
            ("EOF", None),
        ] {
            let read = quoted(text);
            let read = read.as_ref().map(|(value, rest)| (value.as_str(), *rest));
            assert_eq!(read, expected, "{text}");
        }
    }
}
