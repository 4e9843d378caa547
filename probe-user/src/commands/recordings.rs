//! Reads all recordings of a command, and says what was odd about them.

use std::path::PathBuf;

use anyhow::{Result, bail};

use crate::{model::flow::Flows, recording::read::read, report::say};

/// Every connection in `files`.
///
/// # Errors
/// When one can't be read.
pub fn flows(files: &[PathBuf]) -> Result<Flows> {
    let mut flows = Flows::default();
    for file in files {
        let found = read(file, |recorded| flows.add(recorded))?;
        found.scopes.into_iter().for_each(|scope| flows.add_scope(scope));
        let unlisted = found.unlisted.all().iter().copied();
        unlisted.for_each(|time| flows.add_unlisted(time));
        if found.malformed > 0 {
            say(format_args!(
                "probe: {} lines of {} are not JSON of probe watch and were skipped",
                found.malformed,
                file.display()
            ));
        }
        if found.connections == 0 {
            say(format_args!(
                "probe: the recording {} has no connections",
                file.display()
            ));
        }
    }
    Ok(flows)
}

/// # Errors
/// When nothing is recorded.
pub fn any(flows: &Flows) -> Result<()> {
    if flows.is_empty() {
        bail!(
            "no connection in any recording: run probe watch --record FILE on each node while the problem occurs"
        );
    }
    Ok(())
}
