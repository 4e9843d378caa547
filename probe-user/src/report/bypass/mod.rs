//! `probe bypass`: untracked streams, rules, findings; and JSON.

mod json;
mod text;

use std::io;

use jiff::Timestamp;

#[cfg(test)]
pub(super) use self::json::BypassEvent;
use super::{clock::Clock, finding, snapshot::Snapshot};
use crate::model::{Verdict, bypass::View};

impl Snapshot for View {
    const EVENT: &'static str = "bypass";

    fn verdict(&self) -> Verdict {
        View::verdict(self)
    }

    fn text(&self, clock: &mut Clock) -> String {
        text::all(self, clock)
    }

    fn time(&self) -> Timestamp {
        self.time
    }

    fn findings(&self) -> Vec<(&str, String)> {
        // Counts in the sentence change between snapshots: a finding is identified by what does not change.
        let told = self.findings.iter().map(|finding| {
            let mut text = String::new();
            finding::text(&mut text, finding);
            let what = finding.what.split(" (+").next().unwrap_or_default();
            (what, text)
        });
        told.collect()
    }

    fn json(&self, event: &'static str, node: &str, clock: &mut Clock) -> io::Result<Vec<u8>> {
        json::line(self, event, node, clock)
    }
}
