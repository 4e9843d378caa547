//! A line of `probe watch -o json` (docs/json.md) as the connection it was: what agents of other nodes send.
//!
//! A field that is not known is left out, so that a newer probe may say more; a name in place of which only some are
//! known (a role, a source) has to be one of these.

use crate::model::{Connection, connection::ConnectionEvent};

/// Why a line is no connection.
#[derive(Debug, thiserror::Error)]
pub enum LineError {
    #[error("not JSON of probe watch, or of another version: {0}")]
    Json(#[from] serde_json::Error),
    #[error("not JSON of probe watch: {0}")]
    Time(#[from] jiff::Error),
    #[error("another event than a connection")]
    Event,
}

/// Reads one line.
///
/// # Errors
/// When it is not, or not wholly, a connection.
pub fn read(line: &[u8]) -> Result<Connection, LineError> {
    let event: ConnectionEvent<'_> = serde_json::from_slice(line)?;
    event.into_connection()?.ok_or(LineError::Event)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        model::{self, Outcome, PodSource, Runtime, cause::CauseKind},
        report::{json_line, samples},
    };

    fn json(connection: &Connection) -> String {
        let mut line = Vec::new();
        json_line(&mut line, "beta", connection).unwrap();
        String::from_utf8(line).unwrap()
    }

    #[test]
    fn what_is_read_is_what_was_written() {
        for connection in samples::every_field() {
            let line = json(&connection);
            let read = read(line.as_bytes()).unwrap();
            assert_eq!(json(&read), line);
        }
    }

    /// Names that are one of a few come back as they went.
    #[test]
    fn every_name_is_known() {
        let mut connection = samples::incident();
        let with = |owner: model::Owner, connection: &Connection| {
            let line = json(&Connection {
                owner: Arc::new(owner),
                ..connection.clone()
            });
            assert_eq!(json(&read(line.as_bytes()).unwrap()), line);
        };
        for source in PodSource::ALL {
            let mut owner = samples::unnamed_pod("sh", 1);
            owner.pod.as_mut().unwrap().source = source;
            with(owner, &connection);
        }
        for runtime in Runtime::ALL {
            let mut owner = samples::unnamed_pod("sh", 1);
            owner.container.as_mut().unwrap().runtime = Some(runtime);
            with(owner, &connection);
        }
        for kind in CauseKind::ALL {
            let mut cause = samples::cause();
            cause.kind = kind;
            connection.cause = Some(Box::new(cause));
            with(samples::host("sh", 1), &connection);
        }
        for outcome in Outcome::ALL {
            connection.outcome = outcome;
            with(samples::host("sh", 1), &connection);
        }
    }

    #[test]
    fn what_is_no_connection_is_refused() {
        let line = json(&samples::incident());
        let with = |from: &str, to: &str| {
            assert!(line.contains(from), "{from}");
            line.replacen(from, to, 1)
        };
        for (line, says) in [
            (String::new(), "not JSON"),
            ("42".to_owned(), "not JSON"),
            (line[..line.len() / 2].to_owned(), "not JSON"),
            (with("\"connection\"", "\"summary\""), "another event"),
            (
                with("\"client\"", "\"bystander\""),
                "unknown variant `bystander`, expected one of client, server",
            ),
            (with("\"half-open\"", "\"\""), "unknown variant ``"),
            (
                with("\"kernel\"", "\"guess\""),
                "unknown variant `guess`, expected `kernel` or `listener`",
            ),
            (with("\"pod-log-dir\"", "\"guess\""), "unknown variant `guess`"),
            (with("2026-11-23T09:10:14.145123Z", "yesterday"), "not JSON"),
            (with("192.168.88.11", "etcd"), "not JSON"),
            (with("4242", "-1"), "not JSON"),
            (
                with("{", "{\"tls\":{\"version\":\"TLS 0.9\"},"),
                "unknown version of TLS",
            ),
        ] {
            let error = read(line.as_bytes()).expect_err(&line).to_string();
            assert!(error.contains(says), "{error}: {line}");
        }
    }

    /// What a newer probe adds is left out, and nothing else.
    #[test]
    fn more_fields_do_no_harm() {
        let line = json(&samples::incident());
        let more = line.replacen('{', "{\"colour\":{\"a\":[1]},", 1);
        assert_eq!(json(&read(more.as_bytes()).unwrap()), line);
    }
}
