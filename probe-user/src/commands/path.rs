//! `probe path`: packets followed through the kernel, reported by exchange.

mod cause;
mod lookups;
mod namespaces;
mod pipeline;
mod targets;

use std::{os::unix::fs::MetadataExt, time::Duration};

use anyhow::{Context, Result};
use tokio::{
    select,
    time::{MissedTickBehavior, interval},
};

use self::pipeline::Pipeline;
use super::{clock, pods, privileges, until::Until};
use crate::{
    cli::{Path as Settings, PathTarget},
    kernel::{self, capabilities, path::PathProbe},
    model::{Verdict, path::Outcome},
    report::say,
};

/// How often the ring is emptied.
const EVERY: Duration = Duration::from_millis(40);

/// Runs until Ctrl-C, SIGTERM, `--count` or `--duration`; `faulty` if not all was as expected.
///
/// # Errors
/// Missing privileges, a kernel that can't do it, or an output that can't be written.
pub async fn run(settings: Settings) -> Result<Verdict> {
    privileges::check("path", &capabilities::PATH)?;
    let until = Until::signals()?;
    let kernel = kernel::release();
    let runtime = pods::runtime(&settings.cri)?;
    let options = targets::options(&settings, runtime.as_ref())?;
    let own = std::fs::metadata("/proc/thread-self/ns/net")
        .context("can't read this process's network namespace in /proc")?;
    let mut probe =
        PathProbe::load(&options).with_context(|| format!("path can't run on kernel {kernel}"))?;
    for line in degraded(&probe, &kernel) {
        say(format_args!("{line}"));
    }
    let watched = watched(&settings, &probe);
    say(format_args!("watching {watched} (Ctrl-C ends)"));
    let mut teller = Pipeline::new(&settings, watched, own.ino() as u32, runtime, &probe)?;

    let mut until = until.or_after(settings.duration);
    let mut tick = interval(EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let ended = select! {
            () = until.over() => true,
            _ = tick.tick() => false,
        };
        teller.read(&mut probe);
        if ended {
            probe.detach();
            teller.read(&mut probe);
        }
        match teller.tell(clock::now(), ended) {
            Ok(true) if !ended => {}
            Ok(_) => break,
            Err(error) => return super::quiet_if_closed(error).map(|()| Verdict::Ok),
        }
    }
    probe.detach();
    let outcomes = teller.finish(&probe).or_else(|error| {
        super::quiet_if_closed(error)?;
        anyhow::Ok(Vec::new())
    })?;
    let is_unexpected = |expected| !is_as_expected(&outcomes, expected);
    Ok(Verdict::of(settings.expect.is_some_and(is_unexpected), true))
}

fn is_as_expected(outcomes: &[(Outcome, u64)], expected: Outcome) -> bool {
    if outcomes.is_empty() {
        say(format_args!(
            "probe: expected {}, but no packet was seen that matches the filter",
            expected.name()
        ));
        return false;
    }
    let others: Vec<_> = outcomes
        .iter()
        .filter(|(outcome, _)| *outcome != expected)
        .map(|(outcome, count)| format!("{count} {}", outcome.name()))
        .collect();
    if !others.is_empty() {
        say(format_args!(
            "probe: expected {}, seen {}",
            expected.name(),
            others.join(", ")
        ));
    }
    others.is_empty()
}

/// What this kernel does not give: what is lost for one reason is said once.
fn degraded(probe: &PathProbe, kernel: &str) -> Vec<String> {
    /// As many are named.
    const NAMED: usize = 4;
    let mut by_reason: Vec<(&str, Vec<&str>)> = Vec::new();
    let hooks = probe.degraded.iter().map(|degraded| {
        let reason = degraded.reason.split("; ").next().unwrap_or_default();
        // Without the function's name, which differs from hook to hook.
        (
            reason.split_once(": ").map_or(reason, |(_, reason)| reason),
            degraded.hook.gives,
        )
    });
    let fields = probe
        .absent
        .iter()
        .map(|absent| (absent.what.as_str(), absent.lost));
    for (reason, lost) in hooks.chain(fields) {
        match by_reason.iter_mut().find(|(known, _)| *known == reason) {
            Some((_, all)) => all.push(lost),
            None => by_reason.push((reason, vec![lost])),
        }
    }
    let line = |(reason, lost): (&str, Vec<&str>)| {
        let named = lost
            .iter()
            .rev()
            .take(NAMED)
            .copied()
            .collect::<Vec<_>>()
            .join(", ");
        let more = match lost.len().saturating_sub(NAMED) {
            0 => String::new(),
            more => format!(" and {more} more (`probe check` lists them)"),
        };
        format!("probe: path runs without {named}{more} on kernel {kernel}: {reason}")
    };
    by_reason.into_iter().map(line).collect()
}

/// What is followed, for people.
fn watched(settings: &Settings, probe: &PathProbe) -> String {
    let end = |end: &Option<PathTarget>| match end {
        None => "anywhere".to_owned(),
        Some(PathTarget::Net(net)) if net.prefix_len() == net.max_prefix_len() => net.addr().to_string(),
        Some(PathTarget::Net(net)) => net.to_string(),
        Some(PathTarget::Pod(name)) => name.clone(),
    };
    let mut text = format!("packets from {} to {}", end(&settings.from), end(&settings.to));
    if let Some(port) = settings.port {
        text.push_str(&format!(", port {port}"));
    }
    if let Some(protocol) = settings.protocol {
        text.push_str(&format!(", {protocol:?}").to_lowercase());
    }
    let functions = probe
        .used
        .iter()
        .filter(|(_, program)| program.access.is_of_function())
        .count();
    text.push_str(&match functions {
        0 => ", by tracepoints".to_owned(),
        functions => format!(", by tracepoints and {functions} functions"),
    });
    text
}
