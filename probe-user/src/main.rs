//! Exit codes only: 0 fine, 1 a fault, 2 usage, 3 nothing found.

use std::{path, process::ExitCode};

use probe_user::{
    cli::{Bypass, Cli, Command, Doctor, Path, Vxlan, Watch},
    commands::{self, Found},
    kernel::messages,
    report::say,
};

const FAULT: u8 = 1;
const NOTHING_FOUND: u8 = 3;

fn main() -> ExitCode {
    let cli = match Cli::of(std::env::args_os()) {
        Ok(cli) => cli,
        Err(error) => error.exit(),
    };
    if let Some(level) = cli.kernel_log {
        messages::enable(level.into(), say);
    }
    let code = |fine: bool| ExitCode::from(if fine { 0 } else { FAULT });
    let result = match cli.command {
        Command::Watch(args) => {
            let agents = args.agents();
            match (Watch::try_from(*args), agents) {
                (Ok(settings), None) => run(commands::watch::run(settings)),
                (Ok(settings), Some(agents)) => run(commands::cluster::watch::run(settings, agents)),
                (Err(error), _) => error.exit(),
            }
            .map(|()| ExitCode::SUCCESS)
        }
        Command::Agent(args) => run(commands::agent::run(args.into())).map(|()| ExitCode::SUCCESS),
        Command::Completions(args) => {
            commands::generated::completions(args.shell).map(|()| ExitCode::SUCCESS)
        }
        Command::Man(args) => commands::generated::man(&args.directory).map(|()| ExitCode::SUCCESS),
        Command::Vxlan(args) => match (args.looks(), Vxlan::try_from(args)) {
            (Some(Ok(settings)), _) => run(commands::cluster::looks::run("vxlan", settings)).map(code),
            (None, Ok(settings)) => {
                inside(settings.netns.clone().as_deref(), commands::vxlan::run(settings)).map(code)
            }
            (Some(Err(error)), _) | (None, Err(error)) => error.exit(),
        },
        Command::Bypass(args) => match (args.looks(), Bypass::try_from(args)) {
            (Some(Ok(settings)), _) => run(commands::cluster::looks::run("bypass", settings)).map(code),
            (None, Ok(settings)) => {
                inside(settings.netns.clone().as_deref(), commands::bypass::run(settings)).map(code)
            }
            (Some(Err(error)), _) | (None, Err(error)) => error.exit(),
        },
        Command::Path(args) => match Path::try_from(args) {
            Ok(settings) => run(commands::path::run(settings)).map(code),
            Err(error) => error.exit(),
        },
        Command::Who(args) => run(commands::who::run(args.into())).map(found),
        Command::EtcdLog(args) => run(commands::etcd_log::run(args.into())).map(found),
        Command::Doctor(args) => match (args.agents(), Doctor::try_from(args)) {
            (Some(agents), Ok(settings)) => run(commands::cluster::doctor::run(settings, agents)).map(code),
            (None, Ok(settings)) => doctor(settings).map(code),
            (_, Err(error)) => error.exit(),
        },
        Command::Check(args) => commands::check::run(args.into()).map(code),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            say(format_args!("probe: {error:#}"));
            ExitCode::from(FAULT)
        }
    }
}

/// In the network namespace that was asked for, with the threads that it begins.
fn doctor(settings: Doctor) -> anyhow::Result<bool> {
    if let Some(netns) = &settings.netns {
        commands::looks::enter(netns)?;
    }
    commands::doctor::run(settings)
}

fn found(found: Found) -> ExitCode {
    ExitCode::from(match found {
        Found::Some => 0,
        Found::Nothing => NOTHING_FOUND,
        Found::Unknown => FAULT,
    })
}

/// In the network namespace that was asked for, all of it: this process has no thread yet but this one.
fn inside<T>(
    netns: Option<&path::Path>,
    command: impl Future<Output = anyhow::Result<T>>,
) -> anyhow::Result<T> {
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
