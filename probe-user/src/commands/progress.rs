//! How far a long command is, on a terminal that the answers don't go to.

use std::{
    fmt,
    io::{self, IsTerminal as _},
    time::{Duration, Instant},
};

const EVERY: Duration = Duration::from_secs(1);

pub struct Progress {
    shown: bool,
    on: bool,
    at: Instant,
}

impl Progress {
    pub fn new() -> Self {
        Self {
            shown: false,
            on: io::stderr().is_terminal() && !io::stdout().is_terminal(),
            at: Instant::now(),
        }
    }

    /// One that may share the terminal with answers that come after it.
    pub fn before_answers() -> Self {
        Self {
            on: io::stderr().is_terminal(),
            ..Self::new()
        }
    }

    /// Says it over what was said before, each second at the most.
    pub fn show(&mut self, what: fmt::Arguments<'_>) {
        if !self.on || self.at.elapsed() < EVERY {
            return;
        }
        self.at = Instant::now();
        self.now(what);
    }

    /// Says it at once.
    pub fn now(&mut self, what: fmt::Arguments<'_>) {
        if self.on {
            self.shown = true;
            eprint!("\r{what}\x1b[K");
        }
    }

    /// Takes away what was said.
    pub fn clear(&mut self) {
        if std::mem::take(&mut self.shown) {
            eprint!("\r\x1b[K");
        }
    }
}
