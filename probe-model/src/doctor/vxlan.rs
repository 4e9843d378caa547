//! The answer of the check `vxlan`.

use std::time::Duration;

use super::{Answer, Check};
use crate::{
    Verdict,
    plural::counted,
    vxlan::{
        peer_name,
        view::{PeerView, View},
    },
};

/// Peers named one by one.
const NAMED: usize = 8;

/// There is nothing to check.
pub fn nothing() -> Answer {
    Answer::not_applicable(Check::Vxlan, "no VXLAN device on this node")
}

/// The answer of what was observed for so long. A peer that nothing was received from is not verified, unless its pods are
/// routed without VXLAN: then the check is not `ok`, since it is unknown.
pub fn judge(view: &View, observed: Duration) -> Answer {
    if view.overlays.is_empty() {
        return nothing();
    }
    let devices: Vec<_> = view
        .overlays
        .iter()
        .map(|overlay| overlay.device.name.as_str())
        .collect();
    let peers: Vec<_> = view
        .peers()
        .into_iter()
        .filter(|peer| !peer.is_direct() || peer.received.packets > 0)
        .collect();
    let heard = peers.iter().filter(|peer| peer.received.packets > 0).count();
    let summary = format!(
        "{}: traffic from {heard} of {} in {:.0} s",
        devices.join(", "),
        counted(peers.len(), "peer", "peers"),
        observed.as_secs_f64()
    );
    let silent: Vec<_> = peers
        .iter()
        .filter(|peer| peer.verdict() == Verdict::Unknown)
        .collect();
    let findings = view.findings.iter().map(|found| found.finding.clone()).collect();
    let answer = Answer::of(Check::Vxlan, summary, findings).unless(view.verdict());
    let mut unknown: Vec<_> = silent
        .iter()
        .take(NAMED)
        .map(|peer| not_verified(peer, observed))
        .collect();
    if silent.len() > NAMED {
        unknown.push(format!(
            "{} more not verified",
            counted((silent.len() - NAMED) as u64, "peer", "peers")
        ));
    }
    answer.without(unknown).without(view.unread.clone())
}

fn not_verified(peer: &PeerView<'_>, observed: Duration) -> String {
    let vtep = peer_name(peer.vtep);
    let name = &peer.overlay.device.name;
    let seconds = observed.as_secs_f64();
    match peer.sent.packets {
        0 => format!("peer {vtep} of {name}: no traffic in {seconds:.0} s; not verified (--active pings it)"),
        sent => format!(
            "peer {vtep} of {name}: {} sent, none received in {seconds:.0} s; not verified",
            counted(sent, "packet", "packets")
        ),
    }
}
