//! Exit codes only, which [`Exit`] lists.

use std::process::ExitCode;

use probe_user::{cli::Cli, commands, error::chain, model::Exit, report::say};

fn main() -> ExitCode {
    let cli = match Cli::of(std::env::args_os()) {
        Ok(cli) => cli,
        // With the code of wrong usage, or none for help.
        Err(error) => error.exit(),
    };
    let exit = commands::run(cli).unwrap_or_else(|error| {
        say(format_args!("probe: {}", chain(error.as_ref())));
        Exit::CouldNotRun
    });
    ExitCode::from(exit.code())
}
