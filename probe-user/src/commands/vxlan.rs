//! `probe vxlan`: look by look, what should be against what is.

mod checksums;
mod look;
mod rules;
mod underlays;

use std::{
    io::{self, IsTerminal as _},
    path::Path,
};

use anyhow::{Context, Result};
use nix::sched::{CloneFlags, setns};
use tokio::{
    select,
    signal::unix::{SignalKind, signal},
    time::{MissedTickBehavior, interval, sleep},
};

use self::look::Looker;
use super::{privileges, quiet_if_closed};
use crate::{
    cli::Vxlan as Settings,
    kernel::{self, capabilities},
    report::{
        say,
        vxlan::{Output, Reporter},
    },
};

/// Goes to the network namespace asked for. Only while there is no other thread.
///
/// # Errors
/// When it is not there, or not allowed.
pub fn enter(netns: &Path) -> Result<()> {
    let file = std::fs::File::open(netns)
        .with_context(|| format!("can't open the network namespace {}", netns.display()))?;
    setns(&file, CloneFlags::CLONE_NEWNET)
        .with_context(|| format!("can't enter the network namespace {}", netns.display()))
}

/// Runs until Ctrl-C, SIGTERM or `--duration`; whether all was well at the end.
///
/// # Errors
/// Missing privileges, a kernel that can't do it, or an output that can't be written.
pub async fn run(settings: Settings) -> Result<bool> {
    privileges::check("vxlan", &capabilities::VXLAN)?;
    let mut interrupt = signal(SignalKind::interrupt()).context("can't handle SIGINT")?;
    let mut terminate = signal(SignalKind::terminate()).context("can't handle SIGTERM")?;
    let kernel = kernel::release();
    let mut looker = Looker::new(&settings).with_context(|| format!("vxlan can't run on kernel {kernel}"))?;
    for degraded in looker.degraded() {
        say(format_args!(
            "probe: vxlan runs without {degraded} on kernel {kernel}"
        ));
    }
    let mut reporter = reporter(&settings);
    say(format_args!("watching VXLAN: {}", looker.description()));

    // The first look is what later ones are compared with.
    looker.look(false)?;
    let end = async {
        match settings.duration {
            Some(duration) => sleep(duration).await,
            None => std::future::pending().await,
        }
    };
    tokio::pin!(end);
    let mut tick = interval(settings.interval);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    tick.tick().await;
    let view = loop {
        let ended = select! {
            _ = interrupt.recv() => true,
            _ = terminate.recv() => true,
            () = &mut end => true,
            _ = tick.tick() => false,
        };
        let view = looker.look(ended || !settings.once)?;
        if ended {
            break view;
        }
        if !settings.once
            && let Err(error) = reporter.view(&view)
        {
            return quiet_if_closed(error.into()).map(|()| true);
        }
    };
    let healthy = view.findings.is_empty();
    reporter
        .last(&view)
        .map_err(anyhow::Error::from)
        .or_else(quiet_if_closed)?;
    Ok(healthy)
}

fn reporter(settings: &Settings) -> Reporter<io::StdoutLock<'static>> {
    let terminal = io::stdout().is_terminal();
    let size = terminal_size::terminal_size_of(io::stdout());
    let output = if settings.json {
        Output::Json
    } else if terminal && !settings.once {
        Output::Live
    } else {
        Output::Text
    };
    let size = size.map(|(width, height)| (usize::from(width.0), usize::from(height.0)));
    Reporter::new(output, size, settings.node.clone(), io::stdout().lock())
}
