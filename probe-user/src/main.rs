//! Exit codes only: 0 fine, 1 a fault, 2 usage.

use std::process::ExitCode;

use clap::Parser;
use probe_user::{
    cli::{Cli, Command, Watch},
    commands,
};

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Watch(args) => match Watch::try_from(args) {
            Ok(settings) => run(commands::watch::run(settings)).map(|()| true),
            Err(error) => error.exit(),
        },
        Command::Check(args) => commands::check::run(args.into()),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("probe: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// One thread: what there is to do between two looks at the ring is little.
fn run(command: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(command)
}
