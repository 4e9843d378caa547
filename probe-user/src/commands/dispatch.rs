//! From a command line to the command that it names.
//!
//! In the library, not beside `main`: an async command is compiled by the crate that runs it, and the binary would compile all of
//! them
//! once more, alone.

use std::path;

use anstream::ColorChoice;
use anyhow::Result;

use super::{
    agent, bypass, check, cluster, doctor, etcd_log, generated, path as path_command, periodic, vxlan, watch,
    who,
};
use crate::{
    cli::{Bypass, Cli, Command, Doctor, Path, Vxlan, Watch},
    kernel::messages,
    model::{Exit, Verdict},
    report::say,
};

/// Runs a command. Settings that do not fit together end the process, with usage, as other wrong arguments do.
///
/// # Errors
/// Whatever kept the command from its work.
pub fn run(cli: Cli) -> Result<Exit> {
    ColorChoice::from(cli.color).write_global();
    if let Some(level) = cli.kernel_log {
        messages::enable(level, say);
    }
    let healthy = |()| Exit::Healthy;
    match cli.command {
        Command::Watch(args) => {
            if args.former_node_name().is_some() {
                say(format_args!(
                    "warning: --node selects nodes with --cluster; use --node-name for the name of this node"
                ));
            }
            let agents = args.agents();
            match (Watch::try_from(*args), agents) {
                (Ok(settings), None) => block_on(watch::run(settings)),
                (Ok(settings), Some(agents)) => block_on(cluster::watch::run(settings, agents)),
                (Err(error), _) => error.exit(),
            }
            .map(healthy)
        }
        Command::Agent(args) => block_on(agent::run(args.into())).map(healthy),
        Command::Completions(args) => generated::completions(args.shell).map(healthy),
        Command::Schema(args) => generated::schema(args.event).map(healthy),
        Command::Man(args) => generated::man(&args.directory).map(healthy),
        Command::Vxlan(args) => match (args.looks(), Vxlan::try_from(args)) {
            (Some(Ok(settings)), _) => block_on(cluster::snapshots::run("vxlan", settings)),
            (None, Ok(settings)) => {
                inside(settings.netns.clone().as_deref(), vxlan::run(settings)).map(Exit::of_verdict)
            }
            (Some(Err(error)), _) | (None, Err(error)) => error.exit(),
        },
        Command::Bypass(args) => match (args.looks(), Bypass::try_from(args)) {
            (Some(Ok(settings)), _) => block_on(cluster::snapshots::run("bypass", settings)),
            (None, Ok(settings)) => {
                inside(settings.netns.clone().as_deref(), bypass::run(settings)).map(Exit::of_verdict)
            }
            (Some(Err(error)), _) | (None, Err(error)) => error.exit(),
        },
        Command::Path(args) => match Path::try_from(args) {
            Ok(settings) => block_on(path_command::run(settings)).map(Exit::of_verdict),
            Err(error) => error.exit(),
        },
        Command::Who(args) => block_on(who::run(args.into())),
        Command::EtcdLog(args) => block_on(etcd_log::run(args.into())),
        Command::Doctor(args) => match (args.agents(), Doctor::try_from(args)) {
            (Some(agents), Ok(settings)) => block_on(cluster::doctor::run(settings, agents)),
            (None, Ok(settings)) => diagnose(settings).map(Exit::of_verdict),
            (_, Err(error)) => error.exit(),
        },
        Command::Check(args) => check::run(args.into()).map(Exit::of_verdict),
    }
}

/// In the network namespace that was asked for, with the threads that it begins.
fn diagnose(settings: Doctor) -> Result<Verdict> {
    if let Some(netns) = &settings.netns {
        periodic::enter(netns)?;
    }
    doctor::run(settings)
}

/// In the network namespace that was asked for, all of it: this process has no thread yet but this one.
fn inside<T>(netns: Option<&path::Path>, command: impl Future<Output = Result<T>>) -> Result<T> {
    if let Some(netns) = netns {
        periodic::enter(netns)?;
    }
    block_on(command)
}

/// One thread: what there is to do between two reads of the ring is little.
fn block_on<T>(command: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(command)
}
