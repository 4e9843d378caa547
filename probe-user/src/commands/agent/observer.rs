//! Snapshots of VXLAN devices and untracked packets: findings are counted, and logged when they begin and end.

use std::{collections::HashMap, sync::Arc};

use super::{log::Log, shared::Shared};
use crate::{
    commands::watch::explain::Observer,
    model::{
        Finding, bypass,
        part::{Part, State},
        vxlan,
    },
    report::{events::Lines, say},
};

/// Takes what is seen.
pub struct Watcher {
    shared: Arc<Shared>,
    lines: Lines,
    log: Option<Log>,
    vxlan: Found,
    bypass: Found,
}

/// Findings of the latest snapshot, by identity.
type Found = HashMap<String, Finding>;

impl Watcher {
    /// `log`: where findings go, if anywhere.
    pub fn new(shared: Arc<Shared>, log: Option<Log>) -> Self {
        Self {
            lines: Lines::new(shared.node.clone()),
            shared,
            log,
            vxlan: Found::new(),
            bypass: Found::new(),
        }
    }

    fn changes(&mut self, before: &Found, now: &Found) {
        let Some(log) = &self.log else { return };
        for (identity, finding) in now {
            if !before.contains_key(identity) {
                log.line(self.lines.finding(finding, true).into());
            }
        }
        for (identity, finding) in before {
            if !now.contains_key(identity) {
                log.line(self.lines.finding(finding, false).into());
            }
        }
    }
}

fn found<'a>(findings: impl Iterator<Item = &'a Finding>) -> Found {
    findings
        .map(|finding| (finding.identity(), finding.clone()))
        .collect()
}

impl Observer for Watcher {
    fn state(&mut self, part: Part, state: State) {
        tell(part, &state);
        let ended = match part {
            Part::Vxlan => std::mem::take(&mut self.vxlan),
            Part::Bypass => std::mem::take(&mut self.bypass),
            Part::Watch | Part::Drops => Found::new(),
        };
        self.changes(&ended, &Found::new());
        self.shared.is(part, state);
    }

    fn vxlan(&mut self, view: vxlan::view::View) {
        self.shared.metrics.vxlan(&view);
        let now = found(view.findings.iter().map(|found| &found.finding));
        let before = std::mem::take(&mut self.vxlan);
        self.changes(&before, &now);
        self.vxlan = now;
        self.shared.see_vxlan(view);
    }

    fn bypass(&mut self, view: bypass::View) {
        self.shared.metrics.bypass(&view);
        let now = found(view.findings.iter());
        let before = std::mem::take(&mut self.bypass);
        self.changes(&before, &now);
        self.bypass = now;
        self.shared.see_bypass(view);
    }

    fn polled(&mut self, unkept: u64) {
        self.shared.metrics.lost(Part::Drops, [("evidence", unkept)]);
        self.shared.looked();
    }
}

/// Says on standard error how a part is doing, where that is not well.
pub fn tell(part: Part, state: &State) {
    let name = part.name();
    match state {
        State::Off | State::Starts => {}
        State::Runs { lacks } => {
            for lack in lacks {
                say(format_args!("probe: {name} runs without {lack}"));
            }
        }
        State::Failed(reason) => say(format_args!("probe: {name} does not run: {reason}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{finding::Kind, vxlan::Fault};

    fn finding(fault: Fault, what: &str) -> Finding {
        Finding {
            device: Some("flannel.1".to_owned()),
            peer: Some([192, 168, 88, 12].into()),
            ..Finding::failed(Kind::Vxlan(fault), what)
        }
    }

    #[test]
    fn a_finding_is_the_same_while_only_its_numbers_change() {
        let one = finding(Fault::Filtered, "7 packets are dropped");
        assert_eq!(
            one.identity(),
            finding(Fault::Filtered, "9 packets are dropped").identity()
        );
        assert_ne!(
            one.identity(),
            finding(Fault::NoAnswer, "7 packets are dropped").identity()
        );
    }
}
