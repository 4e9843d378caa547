//! What a look at VXLAN comes to.

use super::{Answer, Check};
use crate::{plural::counted, vxlan::view::View};

/// There is nothing to look at.
pub fn nothing() -> Answer {
    Answer::not_applicable(Check::Vxlan, "there is no VXLAN device here")
}

/// The answer of one look.
pub fn judge(view: &View) -> Answer {
    if view.overlays.is_empty() {
        return nothing();
    }
    let devices: Vec<_> = view
        .overlays
        .iter()
        .map(|overlay| overlay.device.name.as_str())
        .collect();
    let peers = view.peers();
    let heard = peers.iter().filter(|peer| peer.received.packets > 0).count();
    let summary = format!(
        "{}: {heard} of {} heard from while probe looked",
        devices.join(", "),
        counted(peers.len(), "peer", "peers"),
    );
    let findings = view.findings.iter().map(|found| found.finding.clone()).collect();
    Answer::of(Check::Vxlan, summary, findings).without(view.unread.clone())
}
