//! One file a subcommand. A command composes the rooms; it decides nothing about packets or pods.

pub mod agent;
pub mod bypass;
pub mod check;
mod clock;
pub mod cluster;
mod dispatch;
pub mod doctor;
pub mod etcd_log;
pub mod generated;
pub mod path;
pub mod periodic;
mod pods;
mod privileges;
mod progress;
mod recordings;
mod rule_book;
mod rules;
mod until;
pub mod vxlan;
pub mod watch;
pub mod who;

use std::io::{self, Write as _};

use anyhow::{Context as _, Result};

pub use self::dispatch::run;

/// Writes to standard output, and that is all.
fn print(text: impl AsRef<[u8]>) -> Result<()> {
    write(text).or_else(quiet_if_closed)
}

/// Writes a part of the answer to standard output.
fn write(text: impl AsRef<[u8]>) -> Result<()> {
    let mut out = io::stdout().lock();
    let written = out.write_all(text.as_ref()).and_then(|()| out.flush());
    written.context("can't write")
}

/// Who reads our output may stop reading, as `head` does: that is an end, not a fault.
fn quiet_if_closed(error: anyhow::Error) -> Result<()> {
    let closed = error
        .downcast_ref::<io::Error>()
        .is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe);
    if closed { Ok(()) } else { Err(error) }
}
