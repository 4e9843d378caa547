//! The check `bypass`: one snapshot of `probe bypass`.

use std::thread::sleep;

use anyhow::{Context, Result};

use super::{CheckContext, watching::allowed};
use crate::{
    cli::{Bypass, Pace},
    commands::{
        bypass::{NameSources, Poller, Presence},
        periodic::Looks as _,
        pods,
    },
    kernel::{self, capabilities},
    model::doctor::{Answer, Check, bypass::judge},
};

pub fn run(node: &CheckContext) -> Answer {
    look(node).unwrap_or_else(|error| Answer::impossible(Check::Bypass, &error))
}

fn look(node: &CheckContext) -> Result<Answer> {
    if let Some(memory) = &node.memory {
        return Ok(match memory.bypass() {
            Some(view) => judge(&view),
            None => Answer::impossible(Check::Bypass, &"the agent has no snapshot yet"),
        });
    }
    allowed(&capabilities::BYPASS)?;
    let settings = Bypass {
        pace: Pace::once(node.settings.duration),
        cri: node.settings.cri.clone(),
        ..Bypass::faults(node.settings.source.clone())
    };
    let known = NameSources {
        runtime: pods::runtime(&settings.cri)?,
        services: None,
    };
    let kernel = kernel::release();
    let mut looker = Poller::new(&settings, known, node.book.clone(), Presence::Always)
        .with_context(|| format!("bypass can't run on kernel {kernel}"))?;
    looker.look(false)?;
    sleep(node.settings.duration);
    let view = looker.look(true)?;
    Ok(judge(&view).without(looker.degraded()))
}
