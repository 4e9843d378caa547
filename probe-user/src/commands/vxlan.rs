//! `probe vxlan`: periodic snapshots of what should be and what is.

pub mod checksums;
mod filters;
mod holders;
mod rules;
mod snapshot;
mod underlays;

use anyhow::{Context, Result};

pub(super) use self::snapshot::Poller;
use super::{periodic, privileges, rule_book::RuleBook, until::Until};
use crate::{
    cli::Vxlan as Settings,
    kernel::{self, capabilities},
    model::Verdict,
    report::say,
};

/// Runs until Ctrl-C, SIGTERM or `--duration`; the verdict at the end.
///
/// # Errors
/// Missing privileges, a kernel that can't do it, or an output that can't be written.
pub async fn run(settings: Settings) -> Result<Verdict> {
    privileges::check("vxlan", &capabilities::VXLAN)?;
    let until = Until::signals()?;
    let kernel = kernel::release();
    let mut looker = Poller::new(&settings, RuleBook::of_command(settings.pace.once))
        .with_context(|| format!("vxlan can't run on kernel {kernel}"))?;
    for degraded in looker.degraded() {
        say(format_args!(
            "probe: vxlan runs without {degraded} on kernel {kernel}"
        ));
    }
    say(format_args!("watching VXLAN: {}", looker.description()));
    periodic::run(&mut looker, &settings.pace, until).await
}
