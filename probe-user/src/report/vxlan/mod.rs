//! `probe vxlan`: the table of peers with the findings under it, and JSON.

mod json;
mod text;

use std::io;

use jiff::Timestamp;

#[cfg(test)]
pub(super) use self::json::VxlanEvent;
use super::{clock::Clock, finding, snapshot::Snapshot};
use crate::model::{Verdict, vxlan::view::View};

impl Snapshot for View {
    const EVENT: &'static str = "vxlan";

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
        let told = self.findings.iter().map(|finding| {
            let mut text = String::new();
            finding::text(&mut text, finding);
            (finding.what.as_str(), text)
        });
        told.collect()
    }

    fn json(&self, event: &'static str, node: &str, clock: &mut Clock) -> io::Result<Vec<u8>> {
        json::line(self, event, node, clock)
    }
}
