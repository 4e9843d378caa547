//! Looking again and again, as `vxlan` and `bypass` do.

use std::{
    io::{self, IsTerminal as _},
    path::Path,
    time::Duration,
};

use anyhow::{Context, Result};
use nix::{
    sched::{CloneFlags, setns},
    time::{ClockId, clock_gettime},
};
use tokio::{
    select,
    time::{MissedTickBehavior, interval},
};

use super::{quiet_if_closed, until::Until};
use crate::{
    cli::Pace,
    host::node_name,
    model::Verdict,
    report::snapshot::{Output, Reporter, Snapshot},
};

/// Takes the calling thread to the network namespace asked for, and with it those that it begins later.
///
/// # Errors
/// When it is not there, or not allowed.
pub fn enter(netns: &Path) -> Result<()> {
    let file = std::fs::File::open(netns)
        .with_context(|| format!("can't open the network namespace {}", netns.display()))?;
    setns(&file, CloneFlags::CLONE_NEWNET)
        .with_context(|| format!("can't enter the network namespace {}", netns.display()))
}

/// Who looks.
pub trait Looks {
    type View: Snapshot;

    /// Takes a snapshot; `explain`: also finds the rules responsible, which runs other tools.
    ///
    /// # Errors
    /// When the kernel can't be asked.
    fn look(&mut self, explain: bool) -> Result<Self::View>;
}

/// Looks until Ctrl-C, SIGTERM or the end of `pace`; the verdict of the last look.
///
/// # Errors
/// Of a snapshot, or an output that can't be written.
pub async fn run<L: Looks>(looker: &mut L, pace: &Pace, until: Until) -> Result<Verdict> {
    let mut reporter = reporter(pace);
    // Later snapshots are compared with the first.
    looker.look(false)?;
    let mut until = until.or_after(pace.duration);
    let mut tick = interval(pace.interval);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    tick.tick().await;
    let view = loop {
        let ended = select! {
            () = until.over() => true,
            _ = tick.tick() => false,
        };
        let view = looker.look(ended || !pace.once)?;
        if ended {
            break view;
        }
        if !pace.once
            && let Err(error) = reporter.view(&view)
        {
            return quiet_if_closed(error.into()).map(|()| Verdict::Ok);
        }
    };
    let verdict = view.verdict();
    reporter
        .last(&view)
        .map_err(anyhow::Error::from)
        .or_else(quiet_if_closed)?;
    Ok(verdict)
}

fn reporter(pace: &Pace) -> Reporter<io::StdoutLock<'static>> {
    let terminal = io::stdout().is_terminal();
    let size = terminal_size::terminal_size_of(io::stdout());
    let output = if pace.json {
        Output::Json
    } else if terminal && !pace.once {
        Output::Live
    } else {
        Output::Text
    };
    let size = size.map(|(width, height)| (usize::from(width.0), usize::from(height.0)));
    Reporter::new(output, size, node_name(pace.node.as_deref()), io::stdout().lock())
}

/// The clock that the kernel side reads: `CLOCK_MONOTONIC`, nanoseconds.
pub fn now_ns() -> u64 {
    clock_gettime(ClockId::CLOCK_MONOTONIC)
        .map(|time| Duration::from(time).as_nanos() as u64)
        .unwrap_or_default()
}
