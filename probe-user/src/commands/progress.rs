//! How far a long command is, beside its answers.

use std::{
    fmt,
    io::{self, IsTerminal as _},
    time::{Duration, Instant},
};

use crate::report::say;

/// How often a terminal shows it, and how often it is a line where there is none.
const ON_A_TERMINAL: Duration = Duration::from_secs(1);
const AS_A_LINE: Duration = Duration::from_secs(10);

/// How it is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Off,
    /// Over what was shown before.
    Terminal,
    Lines,
}

pub struct Progress {
    shown: bool,
    way: Way,
    at: Instant,
}

impl Progress {
    fn by(way: Way) -> Self {
        Self {
            shown: false,
            way,
            at: Instant::now(),
        }
    }

    /// On a terminal that the answers don't go to.
    pub fn new() -> Self {
        let on = io::stderr().is_terminal() && !io::stdout().is_terminal();
        Self::by(if on { Way::Terminal } else { Way::Off })
    }

    /// One that may share the terminal with answers that come after it.
    pub fn before_answers() -> Self {
        let on = io::stderr().is_terminal();
        Self::by(if on { Way::Terminal } else { Way::Off })
    }

    /// Of what may take many minutes: without a terminal, a line now and then.
    pub fn of_many() -> Self {
        let on = io::stderr().is_terminal();
        Self::by(if on { Way::Terminal } else { Way::Lines })
    }

    /// Whether [`Self::show`] would show anything now.
    fn is_due(&self) -> bool {
        let every = match self.way {
            Way::Off => return false,
            Way::Terminal => ON_A_TERMINAL,
            Way::Lines => AS_A_LINE,
        };
        self.at.elapsed() >= every
    }

    /// Says it, but not too often.
    pub fn show(&mut self, what: fmt::Arguments<'_>) {
        if !self.is_due() {
            return;
        }
        self.at = Instant::now();
        match self.way {
            Way::Lines => say(format_args!("probe: {what}")),
            Way::Off | Way::Terminal => self.now(what),
        }
    }

    /// Says it, at once where something was printed in its place.
    pub fn keep(&mut self, what: fmt::Arguments<'_>) {
        if self.shown {
            self.show(what);
        } else {
            self.now(what);
            self.show(what);
        }
    }

    /// Says it at once, where it takes no line.
    pub fn now(&mut self, what: fmt::Arguments<'_>) {
        if self.way == Way::Terminal {
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

impl Drop for Progress {
    fn drop(&mut self) {
        self.clear();
    }
}
