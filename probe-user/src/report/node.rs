//! What the agents of nodes say in whole texts and objects, node by node.

use serde::Serialize;
use serde_json::{Map, Value};

use super::{escape, json, style, text};

/// The longest line shown, and the most lines of one node.
const LONGEST: usize = 1000;
const LINES: usize = 2000;

/// Appends a text under its node's name, fit for a terminal, after an empty line unless it is the first.
pub fn section(out: &mut Vec<u8>, colour: bool, is_first: bool, node: &str, said: &str) {
    if !is_first {
        out.push(b'\n');
    }
    style::styled(out, colour, style::HEADER, |out| {
        text::ascii(out, "node ") + escape::push(out, node, LONGEST)
    });
    out.push(b'\n');
    let mut lines = said.lines();
    for line in lines.by_ref().take(LINES) {
        escape::push(out, line, LONGEST);
        out.push(b'\n');
    }
    let more = lines.count();
    if more > 0 {
        out.extend_from_slice(format!("… and {more} lines more\n").as_bytes());
    }
}

#[derive(Serialize)]
struct Object<'a> {
    event: &'a str,
    node: &'a str,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

/// Appends an object of an event, of this node whatever it says, on one line.
///
/// # Errors
/// Why it is none.
pub fn object(out: &mut Vec<u8>, event: &str, node: &str, said: &str) -> Result<(), String> {
    let mut rest: Map<String, Value> = serde_json::from_str(said).map_err(|error| error.to_string())?;
    rest.remove("node");
    // The last snapshot of a run is its summary.
    match rest.remove("event").as_ref().and_then(Value::as_str) {
        Some(is) if is == event || is == "summary" => {}
        _ => return Err(format!("no event {event}")),
    }
    json::line(out, &Object { event, node, rest }).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(said: &[(&str, &str)]) -> String {
        let mut out = Vec::new();
        for (node, said) in said {
            let is_first = out.is_empty();
            section(&mut out, false, is_first, node, said);
        }
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn sections() {
        assert_eq!(
            shown(&[
                ("alpha", "fine\n"),
                ("be\x1b[2Jta", "PEER\n\n\x1b]0;title\x07 10.0.0.1\r\n\u{202e}x")
            ]),
            "node alpha\nfine\n\nnode be\\x1b[2Jta\nPEER\n\n\\x1b]0;title\\x07 10.0.0.1\n\\u{202e}x\n"
        );
        let long = shown(&[("a", &"x".repeat(1 << 20)), ("b", &"y\n".repeat(5000))]);
        assert!(long.len() < 8000, "{}", long.len());
        assert!(long.ends_with("y\n… and 3000 lines more\n"));
    }

    #[test]
    fn objects() {
        let object = |said: &str| {
            let mut out = Vec::new();
            object(&mut out, "vxlan", "beta", said).map(|()| String::from_utf8(out).unwrap())
        };
        assert_eq!(
            object("{\"event\":\"summary\",\n\"time\":\"t\",\"node\":\"alpha\",\"healthy\":true}\n").unwrap(),
            "{\"event\":\"vxlan\",\"node\":\"beta\",\"healthy\":true,\"time\":\"t\"}\n"
        );
        for said in [
            "",
            "[]",
            "{}",
            "{\"event\":\"bypass\"}",
            "{\"event\":\"vxlan\"} x",
            "\x1b[2J",
        ] {
            assert!(object(said).is_err(), "{said}");
        }
    }
}
