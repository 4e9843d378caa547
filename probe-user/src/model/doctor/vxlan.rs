//! What a look at VXLAN comes to.

use std::time::Duration;

use super::{Answer, Check, Fault};
use crate::model::vxlan::{finding::Finding, view::View};

/// The answer of one look that took so long.
pub fn judge(view: &View, duration: Duration) -> Answer {
    let peers: usize = view.overlays.iter().map(|overlay| overlay.peers.len()).sum();
    let devices: Vec<_> = view
        .overlays
        .iter()
        .map(|overlay| overlay.device.name.as_str())
        .collect();
    let silent = view
        .peers()
        .iter()
        .filter(|peer| peer.received.packets == 0 && peer.sent.packets > 0)
        .count();
    let quiet = match silent {
        0 => String::new(),
        _ => format!(", {silent} of them sent nothing"),
    };
    let summary = format!(
        "{} with {peers} {}{quiet}, looked at for {:.0} s",
        devices.join(", "),
        if peers == 1 { "peer" } else { "peers" },
        duration.as_secs_f64()
    );
    let faults = view.findings.iter().map(fault).collect();
    Answer::of(Check::Vxlan, summary, faults).without(view.unread.clone())
}

fn fault(finding: &Finding) -> Fault {
    Fault {
        failed: true,
        says: format!("{}: {}", finding.fault.name(), finding.what),
        evidence: finding.evidence.clone(),
        remedies: vec![finding.remedy.clone()],
    }
}
