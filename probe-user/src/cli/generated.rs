//! Arguments of the commands that write what is made of the arguments themselves.

use std::path::PathBuf;

use clap::Args;
use clap_complete::Shell;

use super::help;

/// Print a completion script for a shell
///
/// For bash: `probe completions bash >/usr/share/bash-completion/completions/probe`.
#[derive(Args, Debug)]
#[command(after_help = help::sections(&[]))]
pub struct CompletionsArgs {
    /// Shell to complete for
    #[arg(value_enum, value_name = "SHELL")]
    pub shell: Shell,
}

/// Write manual pages, one per command
#[derive(Args, Debug)]
#[command(after_help = help::sections(&[]))]
pub struct ManArgs {
    /// Directory to write to; made if missing
    #[arg(value_name = "DIR")]
    pub directory: PathBuf,
}
