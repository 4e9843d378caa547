//! The check `vxlan`: one long look of `probe vxlan`.

use std::thread::sleep;

use anyhow::{Context, Result};

use super::{CheckContext, watching::allowed};
use crate::{
    cli::{Pace, Vxlan},
    commands::{periodic::Looks as _, vxlan::Poller},
    kernel::{self, capabilities},
    model::doctor::{
        Answer, Check,
        vxlan::{judge, nothing},
    },
};

pub fn run(node: &CheckContext) -> Answer {
    look(node).unwrap_or_else(|error| Answer::impossible(Check::Vxlan, &error))
}

fn look(node: &CheckContext) -> Result<Answer> {
    if let Some(memory) = &node.memory {
        return Ok(match memory.vxlan() {
            Some(view) => judge(&view),
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
    looker.look(false)?;
    sleep(node.settings.duration);
    let view = looker.look(true)?;
    Ok(judge(&view).without(looker.degraded()))
}
