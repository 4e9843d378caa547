//! Exit codes only: 0 fine, 1 a fault, 2 usage, 3 nothing found.

use std::process::ExitCode;

use probe_user::{
    cli::Cli,
    commands::{self, Outcome},
    report::say,
};

const FAULT: u8 = 1;
const NOTHING_FOUND: u8 = 3;

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
            ExitCode::from(FAULT)
        }
    }
}
