//! Secrets on command lines: passwords, tokens and keys are hidden before anything is displayed, recorded or logged.
//!
//! A rule hides too much rather than too little: a value that is no secret can be looked up, a password in a log can't be taken back.
//! What has no sign of a secret, such as a password that is the third word of an unknown program, stays.

mod names;
mod programs;
mod shapes;
mod words;

#[cfg(test)]
mod tests;

use self::{
    names::{NameKind, is_harmless},
    programs::{ProgramOptions, Value},
    words::Word,
};

/// What is there in place of a secret.
pub const HIDDEN: &str = "***";

/// Hides the secrets of a command line, program first; whether there were any.
pub fn hide(arguments: &mut [String]) -> bool {
    let mut hider = Hider::default();
    let mut is_changed = false;
    for argument in arguments {
        if let Some(hidden) = hider.argument(argument) {
            *argument = hidden;
            is_changed = true;
        }
    }
    is_changed
}

/// What the words so far say of the next.
#[derive(Default)]
struct Hider {
    /// The latest word that names a program with rules of its own.
    program: Option<&'static ProgramOptions>,
    /// Its subcommand was there, where it has its rules only then.
    is_subcommand: bool,
    /// The next word is the value of the one before.
    next: Option<Value>,
    /// Words of the program that were no options.
    positional: usize,
}

impl Hider {
    /// The argument with its secrets hidden; `None`: it has none.
    fn argument(&mut self, argument: &str) -> Option<String> {
        // The value of an option, whatever is in it.
        if let Some(value) = self.next.take()
            && !argument.starts_with('-')
        {
            return value.hide(argument);
        }
        if let Some(hidden) = names::hide_header(argument) {
            return Some(hidden);
        }
        let words = words::of(argument);
        if let [_] = words.as_slice() {
            return self.word(argument);
        }
        // A line for a shell, or a sentence.
        let mut hidden = String::with_capacity(argument.len());
        let mut end = 0;
        let mut is_changed = false;
        for Word { from, to } in words {
            let (before, word) = (argument.get(end..from)?, argument.get(from..to)?);
            hidden.push_str(before);
            end = to;
            let value = self.next.take().filter(|_| !word.starts_with('-'));
            let replaced = match value {
                Some(value) => value.hide(word),
                None => self.word(word),
            };
            is_changed |= replaced.is_some();
            hidden.push_str(replaced.as_deref().unwrap_or(word));
        }
        hidden.push_str(argument.get(end..)?);
        is_changed.then_some(hidden)
    }

    /// A word that is nobody's value.
    fn word(&mut self, word: &str) -> Option<String> {
        if let Some(program) = ProgramOptions::of(word) {
            (self.program, self.is_subcommand, self.positional) = (Some(program), false, 0);
            return None;
        }
        if let Some(program) = self.program {
            self.is_subcommand |= program.subcommand == Some(word);
            if program.subcommand.is_none() || self.is_subcommand {
                if !word.starts_with('-') {
                    self.positional += 1;
                }
                if let Some(found) = program.option(word, self.positional) {
                    return match found {
                        programs::OptionFound::Next(value) => {
                            self.next = Some(value);
                            None
                        }
                        programs::OptionFound::Here(hidden) => hidden,
                    };
                }
            }
        }
        let is_option = word.starts_with('-') && !word.contains('=');
        self.next = match NameKind::of(word) {
            NameKind::Secret if is_option => Some(Value::Whole),
            NameKind::UserAndPassword if is_option => Some(Value::UserAndPassword),
            _ => names::is_scheme(word).then_some(Value::Whole),
        };
        if self.next.is_some() {
            return None;
        }
        names::hide_header(word).or_else(|| {
            // What stands before a value, or behind it, may be one too.
            let assigned = assigned(word);
            shapes::hide(assigned.as_deref().unwrap_or(word)).or(assigned)
        })
    }
}

/// `name=value` with the value hidden, also in a list, in a query, or behind another name: `--set=auth.password=x`.
fn assigned(word: &str) -> Option<String> {
    let mut hidden = String::new();
    let mut done = 0;
    let mut at = 0;
    while let Some(found) = word.get(at..)?.find(['=', ':']) {
        let sign = at + found;
        at = sign + 1;
        let Some((name, value)) = words::assignment(word, sign) else {
            continue;
        };
        let kind = NameKind::of(word.get(name.clone())?);
        let text = word.get(value.clone())?;
        if kind == NameKind::Other || is_harmless(text) {
            continue;
        }
        let replaced = match kind {
            NameKind::UserAndPassword => Value::UserAndPassword.hide(text),
            NameKind::Secret | NameKind::Other => Some(HIDDEN.to_owned()),
        };
        let Some(replaced) = replaced else { continue };
        hidden.push_str(word.get(done..value.start)?);
        hidden.push_str(&replaced);
        (done, at) = (value.end, value.end);
    }
    hidden.push_str(word.get(done..)?);
    (done > 0).then_some(hidden)
}
