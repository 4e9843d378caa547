//! Lines of JSON one by one, as `probe agent` logs and remembers them: connections, and findings as they begin and end.

use std::io;

use jiff::{Timestamp, tz::TimeZone};
use serde::Serialize;

use super::{clock::Clock, json, lines};
use crate::model::{self, Connection};

/// Writes lines, each by itself.
pub struct Lines {
    node: String,
    clock: Clock,
    scratch: Vec<u8>,
    line: Vec<u8>,
}

/// A finding, as far as those of all features are alike.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub feature: &'static str,
    pub kind: &'static str,
    /// What is wrong, one sentence.
    pub what: String,
    pub evidence: Vec<String>,
    pub remedy: String,
    pub certain: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<String>,
}

impl Finding {
    /// What tells it from others, from look to look: numbers in its words change.
    pub fn identity(&self) -> String {
        let part = |text: &Option<String>| text.clone().unwrap_or_default();
        format!(
            "{}\0{}\0{}\0{}\0{}\0{}",
            self.feature,
            self.kind,
            part(&self.device),
            part(&self.peer),
            part(&self.service),
            self.rules.join("\0")
        )
    }
}

impl From<&model::vxlan::finding::Finding> for Finding {
    fn from(finding: &model::vxlan::finding::Finding) -> Self {
        Self {
            feature: "vxlan",
            kind: finding.fault.name(),
            what: finding.what.clone(),
            evidence: finding.evidence.clone(),
            remedy: finding.remedy.clone(),
            certain: finding.certain,
            device: Some(finding.device.clone()),
            peer: finding.peer.map(|peer| peer.to_string()),
            service: None,
            rules: Vec::new(),
        }
    }
}

impl From<&model::bypass::finding::Finding> for Finding {
    fn from(finding: &model::bypass::finding::Finding) -> Self {
        Self {
            feature: "bypass",
            kind: finding.fault.name(),
            what: finding.what.clone(),
            evidence: finding.evidence.clone(),
            remedy: finding.remedy.clone(),
            certain: finding.certain,
            device: None,
            peer: None,
            service: finding.service.clone(),
            rules: finding.rules.clone(),
        }
    }
}

#[derive(Serialize)]
struct Event<'a, T> {
    event: &'static str,
    time: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<&'static str>,
    #[serde(flatten)]
    body: T,
    node: &'a str,
}

impl Lines {
    pub fn new(node: String) -> Self {
        Self {
            node,
            clock: Clock::new(TimeZone::UTC),
            scratch: Vec::new(),
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
            &mut self.scratch,
            Some(&self.node),
            connection,
        )?;
        Ok(&self.line)
    }

    /// A finding that begins, or ends.
    pub fn finding(&mut self, finding: &Finding, begins: bool) -> Vec<u8> {
        self.event("finding", Some(if begins { "begins" } else { "ends" }), finding)
    }

    /// Anything else that has a name.
    pub fn event(
        &mut self,
        event: &'static str,
        state: Option<&'static str>,
        body: impl Serialize,
    ) -> Vec<u8> {
        self.scratch.clear();
        self.clock.utc(&mut self.scratch, Timestamp::now());
        let time = String::from_utf8_lossy(&self.scratch).into_owned();
        let event = Event {
            event,
            time,
            state,
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
    use crate::report::samples;

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
            feature: "vxlan",
            kind: "mtu",
            what: "too\n\"large\"".to_owned(),
            evidence: vec!["seen\u{1b}[2J".to_owned()],
            remedy: String::new(),
            certain: true,
            device: Some("flannel.1".to_owned()),
            peer: None,
            service: None,
            rules: Vec::new(),
        };
        let line = Lines::new("beta".to_owned()).finding(&finding, true);
        let text = String::from_utf8(line).unwrap();
        assert_eq!(text.matches('\n').count(), 1);
        assert!(!text.contains('\u{1b}'));
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(
            (&value["event"], &value["state"], &value["node"], &value["what"]),
            (
                &"finding".into(),
                &"begins".into(),
                &"beta".into(),
                &"too\n\"large\"".into()
            )
        );
    }
}
