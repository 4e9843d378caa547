//! The kernel's table of open connections: clients that server records wait for, and what is still open at the end.

use std::{
    ops::ControlFlow,
    time::{Duration, Instant},
};

use crate::{
    capture::connection::Side,
    kernel::{KernelError, connection::Tables},
    model::Role,
};

/// How often at the most, and how far, the table is searched for a server's client.
const EVERY: Duration = Duration::from_secs(1);
const AT_MOST: usize = 4096;

/// A source of sides, read at most so often.
#[derive(Default)]
pub struct OpenConnections {
    at: Option<Instant>,
}

impl OpenConnections {
    /// Whether the table may be searched again.
    pub fn is_due(&self) -> bool {
        self.at.is_none_or(|at| at.elapsed() >= EVERY)
    }

    /// The clients in the first part of the table.
    ///
    /// # Errors
    /// When the kernel's map can't be read.
    pub fn clients(&mut self, tables: &Tables, mut each: impl FnMut(&Side)) -> Result<(), KernelError> {
        self.at = Some(Instant::now());
        let mut left = AT_MOST;
        tables.connections(|raw| {
            if raw.established == 1
                && let Ok(side) = Side::open(raw)
                && side.role == Role::Client
            {
                each(&side);
            }
            left -= 1;
            if left == 0 {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        })
    }
}

/// All that are open, the oldest first; the clients of them before the servers, whose peers they name.
///
/// # Errors
/// When the kernel's map can't be read.
pub fn all(tables: &Tables) -> Result<[Vec<Side>; 2], KernelError> {
    let mut open = Vec::new();
    tables.connections(|raw| {
        if raw.established == 1 {
            open.extend(Side::open(raw).ok());
        }
        ControlFlow::Continue(())
    })?;
    open.sort_unstable_by_key(Side::start_ns);
    Ok(Role::ALL.map(|role| open.iter().filter(|side| side.role == role).copied().collect()))
}
