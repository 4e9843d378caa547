//! Exit codes only: 0 fine, 1 a fault, 2 usage, 3 nothing found.

use std::{path::Path, process::ExitCode};

use clap::Parser;
use probe_user::{
    cli::{Bypass, Cli, Command, Vxlan, Watch},
    commands,
    report::say,
};

const FAULT: u8 = 1;
const NOTHING_FOUND: u8 = 3;

fn main() -> ExitCode {
    let code = |found: bool, otherwise: u8| ExitCode::from(if found { 0 } else { otherwise });
    let result = match Cli::parse().command {
        Command::Watch(args) => match Watch::try_from(*args) {
            Ok(settings) => run(commands::watch::run(settings)).map(|()| ExitCode::SUCCESS),
            Err(error) => error.exit(),
        },
        Command::Vxlan(args) => match Vxlan::try_from(args) {
            Ok(settings) => inside(settings.netns.clone().as_deref(), commands::vxlan::run(settings))
                .map(|healthy| code(healthy, FAULT)),
            Err(error) => error.exit(),
        },
        Command::Bypass(args) => match Bypass::try_from(args) {
            Ok(settings) => inside(settings.netns.clone().as_deref(), commands::bypass::run(settings))
                .map(|healthy| code(healthy, FAULT)),
            Err(error) => error.exit(),
        },
        Command::Who(args) => commands::who::run(&args.into()).map(|found| code(found, NOTHING_FOUND)),
        Command::EtcdLog(args) => {
            commands::etcd_log::run(&args.into()).map(|found| code(found, NOTHING_FOUND))
        }
        Command::Agent(args) => run(commands::agent::run(args.into())).map(|()| ExitCode::SUCCESS),
        Command::Completions(args) => {
            commands::generated::completions(args.shell).map(|()| ExitCode::SUCCESS)
        }
        Command::Man(args) => commands::generated::man(&args.directory).map(|()| ExitCode::SUCCESS),
        Command::Check(args) => commands::check::run(args.into()).map(|runs| code(runs, FAULT)),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            say(format_args!("probe: {error:#}"));
            ExitCode::from(FAULT)
        }
    }
}

/// In the network namespace that was asked for, all of it: this process has no thread yet but this one.
fn inside<T>(netns: Option<&Path>, command: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    if let Some(netns) = netns {
        commands::looks::enter(netns)?;
    }
    run(command)
}

/// One thread: what there is to do between two looks at the ring is little.
fn run<T>(command: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(command)
}
