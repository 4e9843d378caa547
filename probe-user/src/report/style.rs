//! Colours; a plain terminal says the same in words.

use anstyle::{AnsiColor, Style};

use super::text;
use crate::model::Outcome;

pub const TIME: Style = Style::new().dimmed();
pub const HEADER: Style = Style::new().bold();
/// As it should be.
pub const GOOD: Style = Style::new().fg_color(Some(anstyle::Color::Ansi(AnsiColor::Green)));
/// What went wrong.
pub const FAULT: Style = Style::new().fg_color(Some(anstyle::Color::Ansi(AnsiColor::Red)));
/// What may be wrong, or is not known.
pub const DOUBT: Style = Style::new().fg_color(Some(anstyle::Color::Ansi(AnsiColor::Yellow)));

/// Red: it failed. Yellow: it got nothing from it, or broke it off. Green: as it should be. Cyan: not over yet.
const fn of(outcome: Outcome) -> Style {
    let colour = match outcome {
        Outcome::Refused | Outcome::Unanswered | Outcome::Unreachable | Outcome::TimedOut => AnsiColor::Red,
        Outcome::HalfOpen
        | Outcome::HalfOpenReset
        | Outcome::HandshakeReset
        | Outcome::GreetingOnly
        | Outcome::ServerGaveUp
        | Outcome::SynOnly
        | Outcome::NoReply
        | Outcome::ResetByClient
        | Outcome::ResetByServer => AnsiColor::Yellow,
        Outcome::Closed => AnsiColor::Green,
        Outcome::Open => AnsiColor::Cyan,
    };
    Style::new().fg_color(Some(anstyle::Color::Ansi(colour)))
}

/// Whether standard output is to have colors: by `--color`, else where it is a terminal and the environment (NO_COLOR) allows it.
pub fn colour() -> bool {
    anstream::AutoStream::choice(&std::io::stdout()) != anstream::ColorChoice::Never
}

/// Writes with a style where `colour` is on; escape sequences take no columns.
pub fn styled(
    out: &mut Vec<u8>,
    colour: bool,
    style: Style,
    write: impl FnOnce(&mut Vec<u8>) -> usize,
) -> usize {
    use std::io::Write as _;

    if !colour {
        return write(out);
    }
    // Writing to memory does not fail.
    drop(write!(out, "{style}"));
    let width = write(out);
    drop(write!(out, "{style:#}"));
    width
}

pub fn outcome(out: &mut Vec<u8>, colour: bool, outcome: Outcome) -> usize {
    styled(out, colour, of(outcome), |out| text::ascii(out, outcome.name()))
}
