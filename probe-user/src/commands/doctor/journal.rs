//! Reads kubelet's log and the kernel's out of the node's journal, with its own tool.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _},
    path::Path,
    process::{Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use crate::{
    host::{files::Root, journal},
    model::doctor::journal::LogEntry,
    netfilter::rules::tools::Tools,
};

const TOOL: &str = "journalctl";
/// How long it may take.
pub const TIMEOUT: Duration = Duration::from_secs(3);
/// Bytes that it may print, and of one line.
const OUTPUT: u64 = 16 << 20;
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
            // A container that has no journal, or no tool: the node's own, where nobody said that its files are elsewhere.
            let node = Some(root.path("/"))
                .filter(|root| root == Path::new("/"))
                .and(Tools::node());
            let program = node.as_ref().and_then(|node| node.find(TOOL));
            match (node, program) {
                (Some(node), Some(program)) => {
                    commands(&node, &program, journal::PLACES.map(str::to_owned).to_vec())
                }
                _ if own.is_empty() => return Err(format!("no journal in {}", journal::PLACES.join(" or "))),
                _ if found.is_none() => return Err(format!("{TOOL} is not here")),
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
        return Err("the journal has nothing of kubelet or the kernel of the past hour".to_owned());
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
fn run(mut command: Command, until: Instant, entries: &mut Vec<LogEntry>) -> Result<bool, String> {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let mut child = command
        .spawn()
        .map_err(|error| format!("{TOOL} can't be run: {}", error.kind()))?;
    let Some(output) = child.stdout.take() else {
        return Ok(false);
    };
    let (sender, lines) = mpsc::sync_channel(64);
    let reader = thread::Builder::new()
        .name("journal-lines".to_owned())
        .spawn(move || {
            let mut output = BufReader::new(output.take(OUTPUT));
            let mut line = Vec::new();
            while let Ok(1..) = output.read_until(b'\n', &mut line) {
                if line.len() <= LINE && sender.send(journal::parse(&line)).is_err() {
                    return;
                }
                line.clear();
            }
        });
    if reader.is_err() {
        let _ = child.kill();
    }
    let mut printed = false;
    while let Ok(entry) = lines.recv_timeout(until.saturating_duration_since(Instant::now())) {
        printed = true;
        entries.extend(entry);
    }
    let _ = child.kill();
    let _ = child.wait();
    Ok(printed)
}
