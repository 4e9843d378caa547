//! `cargo xtask docs`: the parts of docs/ that are made of the types: the tables of json.md and metrics.md, and schema.json.
//!
//! Unit tests of probe-user make them, where the types are: in this way neither the command nor this crate depends on schemars.

use anyhow::Result;

use crate::{cargo, run};

#[derive(clap::Args)]
pub struct Args {
    /// Write docs/schema.json and the tables of docs/json.md and docs/metrics.md anew
    #[arg(long)]
    write: bool,
}

pub fn run(args: &Args) -> Result<()> {
    let mut command = run::cargo();
    command.args([
        "test",
        "--package",
        "probe-user",
        "--lib",
        "--locked",
        "--",
        "the_documentation_is_of_these",
    ]);
    if args.write {
        command.env("PROBE_WRITE_DOCS", "1");
    }
    cargo::run("holding docs/ against the types", "a minute or two", &mut command)
}
