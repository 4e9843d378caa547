//! `cargo xtask bench`: what probe costs.
//!
//! Rates are measured with the kernel's run-time statistics off, rounds with and without interleaved: machines drift.
//! Kernel time is measured after, with the statistics on, which cost time themselves: a program that returns at once
//! tells how much.

mod agent;
mod bare;
mod kind;
mod limit;
mod note;
mod rules;
mod sample;
mod statistics;
mod tracer;
mod tunnel;
mod watch;

use std::time::Duration;

use anyhow::{Result, ensure};
use clap::Subcommand;
use nix::sys::{
    resource::{UsageWho, getrusage},
    time::TimeValLike as _,
};

use self::{bare::Bare, statistics::Enabled};

/// Rounds with the run-time statistics on.
const KERNEL_ROUNDS: u32 = 3;

#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Measure `probe watch` under a storm of connections: rate, kernel time, CPU, memory; bpftrace for comparison
    Watch(watch::Args),
    /// Measure `probe vxlan` under traffic through a tunnel: throughput, kernel time per packet
    Vxlan(tunnel::Args),
    /// Measure `probe bypass` under tracked traffic through a tunnel: throughput, kernel time per transmitted packet
    Bypass(tunnel::Args),
    /// Measure `probe path` with a filter that matches nothing, and without one: throughput, kernel time, losses
    Path(tunnel::Args),
    /// Measure what `probe watch --max-cpu` keeps to in a storm, and what it counts
    Limit(limit::Args),
    /// Measure `probe agent` on a node with many pods and connections: memory, CPU
    Agent(agent::Args),
    /// Measure the rules of many Services: the first failed connection, failures that repeat, the agent while rules change
    Rules(rules::Args),
}

pub fn run(args: &Args) -> Result<()> {
    match &args.what {
        What::Watch(args) => watch::run(args),
        What::Vxlan(args) => tunnel::run(args, tunnel::Watcher::Vxlan),
        What::Bypass(args) => tunnel::run(args, tunnel::Watcher::Bypass),
        What::Path(args) => tunnel::run(args, tunnel::Watcher::Path),
        What::Limit(args) => limit::run(args),
        What::Agent(args) => agent::run(args),
        What::Rules(args) => rules::run(args),
    }
}

/// Nanoseconds that measuring adds to a run of a program, while `load` runs one on `inet_sock_set_state`.
fn cost_of_measuring(_: &Enabled, load: impl FnOnce() -> Result<()>) -> Result<f64> {
    let program = Bare::attach(c"inet_sock_set_state")?;
    load()?;
    let runs = program.runs()?;
    ensure!(runs.count > 0, "a program on inet_sock_set_state never ran");
    Ok(runs.time.as_nanos() as f64 / runs.count as f64)
}

/// CPU time of this process so far, the kernel's for it included.
fn cpu_time() -> Result<Duration> {
    let usage = getrusage(UsageWho::RUSAGE_SELF)?;
    let microseconds = (usage.user_time() + usage.system_time()).num_microseconds();
    Ok(Duration::from_micros(u64::try_from(microseconds)?))
}
