//! The check `vxlan`: one report of `probe vxlan`.

use std::{
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use jiff::Timestamp;

use super::{CheckContext, path_mtu, peer_pings::PeerPinger, watching::allowed};
use crate::{
    cli::{Pace, Vxlan},
    commands::{periodic::Looks as _, vxlan::Poller},
    kernel::{self, capabilities},
    model::doctor::{
        Answer, Check,
        vxlan::{judge, nothing},
    },
};

/// From one snapshot to the next.
const EVERY: Duration = Duration::from_secs(1);
/// The same while peers are pinged, once a snapshot: three pings are without an answer for 2 s also in a short `--duration`.
const EVERY_PING: Duration = Duration::from_millis(500);

pub fn run(node: &CheckContext) -> Answer {
    look(node).unwrap_or_else(|error| Answer::impossible(Check::Vxlan, &error))
}

fn look(node: &CheckContext) -> Result<Answer> {
    if let Some(memory) = &node.memory {
        let observed = Timestamp::now().duration_since(memory.since()).unsigned_abs();
        return Ok(match memory.vxlan() {
            Some(view) => judge(&view, observed),
            None => Answer::impossible(Check::Vxlan, &"the agent has no snapshot yet"),
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
    let mut pinger = node.settings.active.then(PeerPinger::default);
    // Snapshot after snapshot, as `probe vxlan` does: rules compare what changed from one to the next.
    let every = if pinger.is_some() { EVERY_PING } else { EVERY };
    let begun = Instant::now();
    loop {
        if let Some(pinger) = &mut pinger {
            pinger.ping_silent(&view);
        }
        let left = node.settings.duration.saturating_sub(begun.elapsed());
        sleep(left.min(every));
        let is_last = left <= every;
        view = looker.look(is_last)?;
        if is_last {
            break;
        }
    }
    let mut unknown = Vec::new();
    if let Some(pinger) = pinger {
        unknown = pinger.weigh(&mut view);
        view.findings.extend(path_mtu::faults(&view));
    }
    let answer = judge(&view, node.settings.duration);
    Ok(answer.without(unknown).without(looker.degraded()))
}
