//! The answer of a doctor's check, as it was written.

use std::borrow::Cow;

use serde::Deserialize;

use crate::model::doctor::Answer;

#[derive(Deserialize)]
struct Event<'a> {
    #[serde(borrow)]
    event: Cow<'a, str>,
}

/// The answer in a line; `None`: it is about something else.
///
/// # Errors
/// Why it can't be read.
pub fn read(line: &[u8]) -> Result<Option<Answer>, String> {
    let wrong = |error: serde_json::Error| error.to_string();
    let Event { event } = serde_json::from_slice(line).map_err(wrong)?;
    if event != "doctor" {
        return Ok(None);
    }
    serde_json::from_slice(line).map(Some).map_err(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::{Finding, doctor::Check, finding::Kind},
        report::doctor::json,
    };

    #[test]
    fn what_is_written_can_be_read() {
        let kind = Kind::Doctor(Check::Bridge);
        let findings = vec![
            Finding::failed(kind, "a \"b\"\x1b").seen("c\n").advise("d"),
            Finding::warning(kind, "e"),
        ];
        let answer = Answer::of(Check::Bridge, "sum", findings).without(vec!["f".to_owned()]);
        let line = json(&answer, "alpha").unwrap();
        assert_eq!(read(line.as_bytes()), Ok(Some(answer)));
        assert_eq!(read(br#"{"event":"end"}"#), Ok(None));
        for wrong in [
            line.replace("bridge", "moon"),
            line.replace(r#""verdict":"failed""#, r#""verdict":"fine""#),
            line.replace("summary", "total"),
            line[..line.len() - 1].to_owned(),
        ] {
            assert!(read(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }
}
