//! Reads kubelet's log and the kernel's out of the node's journal, with its own tool.

use std::{
    fs,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use crate::{
    host::{child, files::Root, journal, tools::Tools},
    model::doctor::journal::LogEntry,
};

const TOOL: &str = "journalctl";
/// How long it may take.
pub const TIMEOUT: Duration = Duration::from_secs(3);
/// Bytes that it may print, and of one line.
const OUTPUT: usize = 16 << 20;
const LINE: usize = 64 << 10;

/// An hour of it, the newest entries first.
///
/// # Errors
/// Why there is none, in words.
pub fn read(root: &Root) -> Result<Vec<LogEntry>, String> {
    let here = Tools::here();
    let own: Vec<String> = journal::PLACES
        .iter()
        .map(|place| root.path(place))
        .filter(|place| has_entries(place))
        .map(|place| place.display().to_string())
        .collect();
    let runs: Vec<Command> = match here.find(TOOL) {
        Some(program) if !own.is_empty() => commands(&here, &program, own),
        found => {
            // A container that has no journal, or no tool: the node's own, unless --root is set.
            let node = Some(root.path("/"))
                .filter(|root| root == Path::new("/"))
                .and(Tools::node());
            let program = node.as_ref().and_then(|node| node.find(TOOL));
            match (node, program) {
                (Some(node), Some(program)) => {
                    commands(&node, &program, journal::PLACES.map(str::to_owned).to_vec())
                }
                _ if own.is_empty() => return Err(format!("no journal in {}", journal::PLACES.join(" or "))),
                _ if found.is_none() => return Err(format!("{TOOL} not found")),
                _ => return Err("no journal".to_owned()),
            }
        }
    };
    let until = Instant::now() + TIMEOUT;
    let mut entries = Vec::new();
    let mut printed = false;
    for command in runs {
        printed |= run(command, until, &mut entries)?;
    }
    if !printed {
        return Err("the journal has no lines of kubelet or the kernel of the past hour".to_owned());
    }
    Ok(entries)
}

fn has_entries(place: &Path) -> bool {
    fs::read_dir(place).is_ok_and(|mut entries| entries.next().is_some())
}

fn commands(place: &Tools, program: &Path, directories: Vec<String>) -> Vec<Command> {
    let one = |directory: String| {
        let mut command = place.command(program);
        command.args(journal::arguments(&directory));
        command
    };
    directories.into_iter().map(one).collect()
}

/// Adds what it prints until then; whether it was anything. What is read by then counts: it is the newest.
fn run(command: Command, until: Instant, entries: &mut Vec<LogEntry>) -> Result<bool, String> {
    let output = child::run(command, until, OUTPUT)
        .map_err(|error| format!("{TOOL} can't be run: {}", error.kind()))?;
    let lines = output.stdout.split_inclusive(|byte| *byte == b'\n');
    let lines = lines.filter(|line| line.len() <= LINE);
    entries.extend(lines.filter_map(journal::parse));
    Ok(!output.stdout.is_empty())
}
