//! `probe completions`, `probe man` and `probe schema`: what is made of probe's own definitions.

use std::{fs, path::Path};

use anyhow::{Context as _, Result};
use clap::CommandFactory as _;
use clap_complete::Shell;

use super::print;
use crate::{cli::Cli, model::JsonEvent, report::schema};

/// # Errors
/// When the output can't be written.
pub fn completions(shell: Shell) -> Result<()> {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "probe", &mut text);
    print(text)
}

/// # Errors
/// When the output can't be written.
pub fn schema(event: Option<JsonEvent>) -> Result<()> {
    let text = schema::text(event)? + "\n";
    print(text)
}

/// # Errors
/// When a file can't be written.
pub fn man(directory: &Path) -> Result<()> {
    let written =
        fs::create_dir_all(directory).and_then(|()| clap_mangen::generate_to(Cli::command(), directory));
    written.with_context(|| format!("can't write manual pages into {}", directory.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each command that is shown has a page, and bash completes it.
    #[test]
    fn of_every_command() {
        let directory = tempfile::tempdir().unwrap();
        man(directory.path()).unwrap();
        let mut bash = Vec::new();
        clap_complete::generate(Shell::Bash, &mut Cli::command(), "probe", &mut bash);
        let bash = String::from_utf8(bash).unwrap();
        let cli = Cli::command();
        let shown: Vec<_> = cli
            .get_subcommands()
            .filter(|command| !command.is_hide_set())
            .collect();
        assert!(shown.len() > 5);
        for command in shown {
            let page = directory.path().join(format!("probe-{}.1", command.get_name()));
            let page = fs::read_to_string(&page).unwrap();
            assert!(page.contains("SYNOPSIS"), "{}", command.get_name());
            let options = command.get_opts().filter(|option| !option.is_hide_set());
            for long in options.filter_map(clap::Arg::get_long) {
                // roff writes a hyphen as `\-`.
                assert!(
                    page.contains(&long.replace('-', "\\-")),
                    "{} --{long}",
                    command.get_name()
                );
                assert!(
                    bash.contains(&format!("--{long}")),
                    "{} --{long}",
                    command.get_name()
                );
            }
        }
    }
}
