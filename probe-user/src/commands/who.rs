//! `probe who`: who had an address, from recordings.

use std::io::{self, Write};

use anyhow::{Context, Result};
use jiff::tz::TimeZone;

use super::{
    cluster::{Cluster, remembered},
    quiet_if_closed, recordings,
};
use crate::{
    cli::Who as Settings,
    model::Exit,
    report::{etcd_log::Report, say},
};

/// Prints the owners, the nearest in time first.
///
/// # Errors
/// When a recording can't be read, no agent be found or the answer not be written.
pub async fn run(settings: Settings) -> Result<Exit> {
    let mut flows = recordings::flows(&settings.flows)?;
    let remembered = match settings.agents.clone() {
        None => {
            recordings::any(&flows)?;
            None
        }
        Some(agents) => {
            let cluster = Cluster::open(agents).await?;
            Some(remembered::of_client(&cluster, settings.address, &mut flows).await?)
        }
    };
    let near = flows.near(settings.address, settings.at);
    let mut report = Report::new(settings.json, TimeZone::system());
    let mut out = Vec::new();
    // Each identity once: the nearest of its connections.
    let mut told = Vec::new();
    for near in &near {
        if !told.contains(&near.who) {
            told.push(near.who);
            report.who(&mut out, settings.address, near)?;
        }
    }
    let mut stdout = io::stdout().lock();
    let written = stdout.write_all(&out).and_then(|()| stdout.flush());
    written.context("can't write").or_else(quiet_if_closed)?;
    if !near.is_empty() {
        return Ok(Exit::of_search(true, true));
    }
    let address = settings.address;
    let Some(remembered) = remembered else {
        say(format_args!(
            "probe: no recording has a client with the address {address}. Record on the node that has it, or whose pod it is"
        ));
        return Ok(Exit::of_search(false, true));
    };
    say(format_args!(
        "probe: no agent that answered remembers a client with the address {address}"
    ));
    remembered.tell_memories();
    Ok(Exit::of_search(false, !remembered.incomplete))
}
