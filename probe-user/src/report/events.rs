//! Lines of JSON one by one, as `probe agent` logs and remembers them: connections, and findings as they begin and end.

use std::io;

use jiff::{Timestamp, tz::TimeZone};
use serde::Serialize;

use super::{clock::Clock, json, lines, owner_json::OwnersJson};
use crate::model::{Connection, Finding};

/// Writes lines, each by itself.
pub struct Lines {
    node: String,
    clock: Clock,
    owners: OwnersJson,
    line: Vec<u8>,
}

/// From `probe agent`: a finding that begins or ends.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "AgentFinding"))]
pub(super) struct OfFeature<'a> {
    /// `begins` or `ends`.
    state: &'static str,
    /// The command that finds it: `vxlan` or `bypass`.
    feature: &'static str,
    #[serde(flatten)]
    finding: &'a Finding,
}

/// An event of the agent.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "{T}Event"))]
pub(super) struct Event<'a, T> {
    /// The event.
    event: &'static str,
    /// When it was, RFC 3339, UTC, microseconds.
    #[cfg_attr(test, schemars(extend("format" = "date-time")))]
    time: String,
    #[serde(flatten)]
    body: T,
    /// The name of the node.
    node: &'a str,
}

impl Lines {
    pub fn new(node: String) -> Self {
        Self {
            node,
            clock: Clock::new(TimeZone::UTC),
            owners: OwnersJson::default(),
            line: Vec::new(),
        }
    }

    /// A connection, as `probe watch -o json` prints it, with the line's end.
    ///
    /// # Errors
    /// When it can't be written as JSON.
    pub fn connection(&mut self, connection: &Connection) -> io::Result<&[u8]> {
        self.line.clear();
        json::connection(
            &mut self.line,
            &mut self.clock,
            Some(&mut self.owners),
            Some(&self.node),
            connection,
        )?;
        Ok(&self.line)
    }

    /// A finding that begins, or ends.
    pub fn finding(&mut self, finding: &Finding, begins: bool) -> Vec<u8> {
        let state = if begins { "begins" } else { "ends" };
        let feature = finding.kind.feature();
        let body = OfFeature {
            state,
            feature,
            finding,
        };
        self.event("finding", body)
    }

    /// Anything else that has a name.
    pub fn event(&mut self, event: &'static str, body: impl Serialize) -> Vec<u8> {
        let time = self.clock.utc_text(Timestamp::now());
        let event = Event {
            event,
            time,
            body,
            node: &self.node,
        };
        // Text and numbers always can be written.
        let mut line = lines::to_vec(&event).unwrap_or_default();
        line.push(b'\n');
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::{finding::Kind, vxlan::Fault},
        report::samples,
    };

    #[test]
    fn a_line_is_what_watch_prints() {
        let mut lines = Lines::new("beta".to_owned());
        for connection in samples::all() {
            let line = lines.connection(&connection).unwrap().to_vec();
            assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1);
            let mut reporter =
                crate::report::Reporter::new(crate::report::Format::Json, None, false, Vec::new())
                    .node("beta".to_owned());
            reporter.connection(&connection).unwrap();
            reporter.flush().unwrap();
            assert_eq!(
                String::from_utf8(line).unwrap(),
                String::from_utf8(reporter.out).unwrap()
            );
        }
    }

    #[test]
    fn a_finding_is_one_line() {
        let finding = Finding {
            device: Some("flannel.1".to_owned()),
            ..Finding::failed(Kind::Vxlan(Fault::Mtu), "too\n\"large\"").seen("seen\u{1b}[2J")
        };
        let line = Lines::new("beta".to_owned()).finding(&finding, true);
        let text = String::from_utf8(line).unwrap();
        assert_eq!(text.matches('\n').count(), 1);
        assert!(!text.contains('\u{1b}'));
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(
            ["event", "state", "node", "feature", "kind", "what"].map(|name| &value[name]),
            ["finding", "begins", "beta", "vxlan", "mtu", "too\n\"large\""]
        );
    }
}
