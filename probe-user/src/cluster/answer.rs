//! The lines of an agent's answer about connections.

use std::borrow::Cow;

use jiff::Timestamp;
use serde::Deserialize;

use crate::{
    model::{
        Connection,
        history::{Gap, HistoryEnd},
    },
    recording::connection::{LineError, read},
};

/// One line.
#[derive(Debug)]
pub enum AnswerLine {
    Connection(Box<Connection>),
    /// All of the agent's history was sent.
    End(HistoryEnd),
    /// Nothing to report until then.
    Alive(Timestamp),
    /// So many were left out: they came faster than they were read.
    Gap(u64),
    /// An event of a newer agent.
    Other,
}

#[derive(Deserialize)]
struct Event<'a> {
    #[serde(borrow)]
    event: Cow<'a, str>,
}

/// The time of a line.
#[derive(Deserialize)]
struct Timed {
    time: Timestamp,
}

/// Reads one line.
///
/// # Errors
/// When it is none of an agent's.
pub fn line(line: &[u8]) -> Result<AnswerLine, LineError> {
    let Event { event } = serde_json::from_slice(line)?;
    Ok(match &*event {
        "connection" => AnswerLine::Connection(Box::new(read(line)?)),
        "end" => AnswerLine::End(serde_json::from_slice(line)?),
        "alive" => AnswerLine::Alive(serde_json::from_slice::<Timed>(line)?.time),
        "gap" => AnswerLine::Gap(serde_json::from_slice::<Gap>(line)?.lost),
        _ => AnswerLine::Other,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{json_line, samples};

    #[test]
    fn lines() {
        let mut connection = Vec::new();
        json_line(&mut connection, "beta", &samples::incident()).unwrap();
        assert!(matches!(line(&connection), Ok(AnswerLine::Connection(_))));
        let end = br#"{"event":"end","node":"beta","held":8123,"oldest":"2026-11-23T09:00:00Z","forgotten":5,"lost":1}"#;
        let Ok(AnswerLine::End(memory)) = line(end) else {
            panic!("no end")
        };
        assert_eq!((memory.held, memory.forgotten, memory.lost), (8123, 5, 1));
        assert_eq!(memory.oldest, Some("2026-11-23T09:00:00Z".parse().unwrap()));
        let alive = br#"{"event":"alive","node":"beta","time":"2026-11-23T09:00:00Z"}"#;
        assert!(matches!(line(alive), Ok(AnswerLine::Alive(_))));
        let gap = br#"{"event":"gap","node":"beta","lost":17}"#;
        assert!(matches!(line(gap), Ok(AnswerLine::Gap(17))));
        assert!(matches!(line(br#"{"event":"finding"}"#), Ok(AnswerLine::Other)));
        for garbage in ["", "<html>", "{}", "[]", r#"{"event":7}"#, r#"{"event":"alive"}"#] {
            assert!(line(garbage.as_bytes()).is_err(), "{garbage}");
        }
    }
}
