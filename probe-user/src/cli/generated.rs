//! Arguments of the commands that write what is made of the arguments themselves.

use std::path::PathBuf;

use clap::Args;
use clap_complete::Shell;

use super::{help, named};
use crate::model::JsonEvent;

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

/// Print the JSON Schema of the output
///
/// Prints the schema (draft 2020-12) of each object that probe prints with -o json, records, or sends between agent and client.
/// With EVENT, prints one of them. Fields may be added in later versions; fields described here keep their names and meaning.
#[derive(Args, Debug)]
#[command(after_help = schema_help())]
pub struct SchemaArgs {
    /// Kind of object (listed below). Default: all
    #[arg(value_name = "EVENT", value_parser = named::<JsonEvent>(), hide_possible_values = true)]
    pub event: Option<JsonEvent>,
}

const SCHEMA_EXAMPLES: &str = "\
Examples:
  probe schema >probe.schema.json               all of them
  probe schema connection                       a connection of watch, recordings, the agent";

fn schema_help() -> String {
    help::sections(&[SCHEMA_EXAMPLES, &help::list::<JsonEvent>("Events")])
}

/// Write manual pages, one per command
#[derive(Args, Debug)]
#[command(after_help = help::sections(&[]))]
pub struct ManArgs {
    /// Directory to write to; created if missing
    #[arg(value_name = "DIR")]
    pub directory: PathBuf,
}
