//! The check `vxlan`: one report of `probe vxlan`.

use std::{
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use jiff::Timestamp;

use super::{CheckContext, ping, watching::allowed};
use crate::{
    cli::{Pace, Vxlan},
    commands::{periodic::Looks as _, vxlan::Poller},
    kernel::{self, capabilities},
    model::{
        doctor::{
            Answer, Check,
            vxlan::{judge, nothing},
        },
        vxlan::view::View,
    },
};

/// From one snapshot to the next.
const EVERY: Duration = Duration::from_secs(1);
/// Peers that are pinged.
const PINGED: usize = 256;

pub fn run(node: &CheckContext) -> Answer {
    look(node).unwrap_or_else(|error| Answer::impossible(Check::Vxlan, &error))
}

fn look(node: &CheckContext) -> Result<Answer> {
    if let Some(memory) = &node.memory {
        let observed = Timestamp::now().duration_since(memory.since()).unsigned_abs();
        return Ok(match memory.vxlan() {
            Some(view) => judge(&view, observed),
            None => Answer::impossible(Check::Vxlan, &"the agent has not looked yet"),
        });
    }
    allowed(&capabilities::VXLAN)?;
    let settings = Vxlan {
        pace: Pace::once(node.settings.duration),
        ..Vxlan::faults(node.settings.source.clone())
    };
    let kernel = kernel::release();
    let mut looker = Poller::new(&settings, node.book.clone())
        .with_context(|| format!("vxlan can't run on kernel {kernel}"))?;
    if looker.overlays().is_empty() {
        return Ok(nothing());
    }
    let mut view = looker.look(false)?;
    let pinged = if node.settings.active {
        ping_all(&view)
    } else {
        Vec::new()
    };
    // Snapshot after snapshot, as `probe vxlan` does: rules compare what changed from one to the next.
    let begun = Instant::now();
    loop {
        let left = node.settings.duration.saturating_sub(begun.elapsed());
        sleep(left.min(EVERY));
        let is_last = left <= EVERY;
        view = looker.look(is_last)?;
        if is_last {
            break;
        }
    }
    let answer = judge(&view, node.settings.duration);
    Ok(answer.without(pinged).without(looker.degraded()))
}

/// Sends one ping through each VXLAN device to each peer's address in the overlay; the answer is counted with all other packets.
/// What could not be sent, in sentences.
fn ping_all(view: &View) -> Vec<String> {
    let mut unsent = Vec::new();
    let peers = view.peers();
    let mut expected = peers.iter().filter(|peer| !peer.is_direct());
    for peer in expected.by_ref().take(PINGED) {
        let name = &peer.overlay.device.name;
        let who = peer
            .vtep
            .map_or_else(|| "a peer".to_owned(), |vtep| vtep.to_string());
        let Some(address) = peer.peer.and_then(|peer| peer.gateway) else {
            unsent.push(format!(
                "no ping to {who}: its address in the overlay of {name} is not known"
            ));
            continue;
        };
        if let Err(error) = ping::send(name, address) {
            unsent.push(format!("no ping to {who} ({address} by {name}): {error}"));
        }
    }
    let more = expected.count();
    if more > 0 {
        unsent.push(format!("no ping to {more} more peers: {PINGED} is the most"));
    }
    unsent
}
