//! What a doctor's check came to, as it was written.

use std::borrow::Cow;

use serde::Deserialize;

use crate::model::doctor::{Answer, Check, Fault, Verdict};

#[derive(Deserialize)]
struct Event<'a> {
    #[serde(borrow)]
    event: Cow<'a, str>,
}

#[derive(Deserialize)]
struct Line<'a> {
    #[serde(borrow)]
    check: Cow<'a, str>,
    #[serde(borrow)]
    verdict: Cow<'a, str>,
    summary: String,
    #[serde(borrow, default)]
    faults: Vec<Wrong<'a>>,
    #[serde(default)]
    unknown: Vec<String>,
    #[serde(default)]
    log: Vec<String>,
}

#[derive(Deserialize)]
struct Wrong<'a> {
    #[serde(borrow)]
    severity: Cow<'a, str>,
    says: String,
    #[serde(default)]
    evidence: Vec<String>,
    #[serde(default)]
    remedies: Vec<String>,
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
    let line: Line<'_> = serde_json::from_slice(line).map_err(wrong)?;
    let check = Check::ALL.into_iter().find(|check| check.name() == line.check);
    let verdict = Verdict::ALL
        .into_iter()
        .find(|verdict| verdict.name() == line.verdict);
    let (Some(check), Some(verdict)) = (check, verdict) else {
        return Err(format!("check {:?} came to {:?}", line.check, line.verdict));
    };
    let fault = |wrong: Wrong<'_>| Fault {
        failed: wrong.severity == Verdict::Failed.name(),
        says: wrong.says,
        evidence: wrong.evidence,
        remedies: wrong.remedies,
    };
    Ok(Some(Answer {
        check,
        verdict,
        summary: line.summary,
        faults: line.faults.into_iter().map(fault).collect(),
        unknown: line.unknown,
        log: line.log,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::doctor::json;

    #[test]
    fn what_is_written_can_be_read() {
        let fault = Fault::failed("a \"b\"\x1b").seen("c\n").remedy("d");
        let answer =
            Answer::of(Check::Bridge, "sum", vec![fault, Fault::warning("e")]).without(vec!["f".to_owned()]);
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
