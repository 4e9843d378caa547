//! `probe bypass`: periodic snapshots of untracked packets.

mod counting;
mod replies;
mod senders;
mod snapshot;

use anyhow::{Context, Result};

pub(super) use self::{
    counting::Presence,
    snapshot::{NameSources, Poller},
};
use super::{periodic, pods, privileges, rule_book::RuleBook, until::Until};
use crate::{
    attribution::kube::{Access, ServiceList},
    cli::Bypass as Settings,
    kernel::{self, capabilities},
    model::Verdict,
    report::say,
};

/// Runs until Ctrl-C, SIGTERM or `--duration`; the verdict at the end.
///
/// # Errors
/// Missing privileges, a kernel that can't do it, or an output that can't be written.
pub async fn run(settings: Settings) -> Result<Verdict> {
    privileges::check("bypass", &capabilities::BYPASS)?;
    let until = Until::signals()?;
    let kernel = kernel::release();
    let known = NameSources {
        runtime: pods::runtime(&settings.cri)?,
        services: services(&settings)?,
    };
    let mut looker = Poller::new(
        &settings,
        known,
        RuleBook::of_command(settings.pace.once),
        Presence::Always,
    )
    .with_context(|| format!("bypass can't run on kernel {kernel}"))?;
    for degraded in looker.degraded() {
        say(format_args!(
            "probe: bypass runs without {degraded} on kernel {kernel}"
        ));
    }
    say(format_args!(
        "watching untracked packets: {}",
        looker.description()
    ));
    periodic::run(&mut looker, &settings.pace, until).await
}

fn services(settings: &Settings) -> Result<Option<ServiceList>> {
    let list = Access::find(&settings.kube).map(ServiceList::start).transpose();
    list.context("can't start the thread that queries Kubernetes")
}
