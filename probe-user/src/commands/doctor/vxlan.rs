//! The check `vxlan`: one report of `probe vxlan`.

use std::{
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use jiff::Timestamp;

use super::{CheckContext, path_mtu, watching::allowed};
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
    let unsent = if node.settings.active {
        path_mtu::ping_all(&view)
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
    if node.settings.active {
        view.findings.extend(path_mtu::faults(&view));
    }
    let answer = judge(&view, node.settings.duration);
    Ok(answer.without(unsent).without(looker.degraded()))
}
