//! `key=value` pairs of logfmt, and of TiKV's brackets.

use super::quoted::quoted;

/// The pairs of a text, with the value's quotes resolved; `None` for what is no pair: a quote or bracket without its end, a word
/// without `=`. A word in brackets is left out.
pub fn pairs(text: &str) -> impl Iterator<Item = Option<(&str, String)>> {
    let mut rest = text;
    std::iter::from_fn(move || {
        loop {
            rest = rest.trim_start_matches(|character: char| character.is_whitespace() || character == ']');
            if rest.is_empty() {
                return None;
            }
            let in_brackets = rest.starts_with('[');
            let body = rest.trim_start_matches('[');
            let end = if in_brackets {
                [']', ']', ']']
            } else {
                [' ', '\t', '\n']
            };
            let until = body.find(end).unwrap_or(body.len());
            let Some(equals) = body.find('=').filter(|equals| *equals < until) else {
                rest = &body[until..];
                if in_brackets {
                    continue;
                }
                // A value that a blank cut in two.
                return Some(None);
            };
            let (key, value) = (&body[..equals], &body[equals + 1..]);
            let key = key.trim_matches('"');
            if value.starts_with('"') {
                let Some((value, after)) = quoted(value) else {
                    rest = "";
                    return Some(None);
                };
                rest = after;
                return Some(Some((key, value)));
            }
            let until = if in_brackets {
                closing(value)
            } else {
                value.find(end)
            };
            let (value, after) = value.split_at(until.unwrap_or(value.len()));
            rest = after;
            let goes_on = rest
                .strip_prefix(']')
                .is_none_or(|rest| !rest.is_empty() && !rest.starts_with([' ', '[', '\t', '"']));
            if in_brackets && goes_on {
                rest = "";
                return Some(None);
            }
            return Some(Some((key, value.to_owned())));
        }
    })
}

/// The bracket that closes one already open: `[fd00::1]:2379]`.
fn closing(text: &str) -> Option<usize> {
    let mut open = 1_u32;
    text.bytes().position(|byte| {
        match byte {
            b'[' => open += 1,
            b']' => open -= 1,
            _ => {}
        }
        open == 0
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms() {
        for (text, expected) in [
            ("", vec![]),
            (
                " a=1 b= c=\"x \\\"y\\\"\" d",
                vec![Some(("a", "1")), Some(("b", "")), Some(("c", "x \"y\"")), None],
            ),
            (
                "] [remote-addr=1.2.3.4:5] [server-name=] [error=\"a ] b\"] [x]",
                vec![
                    Some(("remote-addr", "1.2.3.4:5")),
                    Some(("server-name", "")),
                    Some(("error", "a ] b")),
                ],
            ),
            (
                "] [remote-addr=[fd00::1]:5] x",
                vec![Some(("remote-addr", "[fd00::1]:5")), None],
            ),
            ("] [remote-addr=1.2.3.4:5]6] [error=EOF]", vec![None]),
            ("] [error=EO", vec![None]),
            (" error=\"EO", vec![None]),
        ] {
            let read: Vec<_> = pairs(text).collect();
            let read: Vec<_> = read
                .iter()
                .map(|pair| pair.as_ref().map(|(key, value)| (*key, value.as_str())))
                .collect();
            assert_eq!(read, expected, "{text}");
        }
    }
}
