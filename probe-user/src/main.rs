//! Exit codes only: 0 healthy, 1 finding, 2 usage, 3 nothing matched, 4 could not run.

use std::process::ExitCode;

use probe_user::{
    cli::Cli,
    commands::{self, Outcome},
    report::say,
};

const FAULT: u8 = 1;
const NOTHING_FOUND: u8 = 3;
const NOT_RUN: u8 = 4;

fn main() -> ExitCode {
    let cli = match Cli::of(std::env::args_os()) {
        Ok(cli) => cli,
        Err(error) => error.exit(),
    };
    match commands::run(cli) {
        Ok(Outcome::Fine) => ExitCode::SUCCESS,
        Ok(Outcome::Fault) => ExitCode::from(FAULT),
        Ok(Outcome::NothingFound) => ExitCode::from(NOTHING_FOUND),
        Err(error) => {
            say(format_args!("probe: {error:#}"));
            ExitCode::from(NOT_RUN)
        }
    }
}
