//! Arguments of the commands that write what is made of the arguments themselves.

use std::path::PathBuf;

use clap::Args;
use clap_complete::Shell;

/// Completions for a shell, on standard output
///
/// For bash: `probe completions bash >/usr/share/bash-completion/completions/probe`.
#[derive(Args, Debug)]
pub struct CompletionsArgs {
    #[arg(value_enum, value_name = "SHELL")]
    pub shell: Shell,
}

/// Manual pages, one a command, into a folder
#[derive(Args, Debug)]
pub struct ManArgs {
    #[arg(value_name = "DIR")]
    pub directory: PathBuf,
}
