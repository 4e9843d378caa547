//! The command line of a process, as it may be shown.

use std::ops::Deref;

use serde::{Deserialize, Serialize};

use super::secret;

/// What becomes of secrets on command lines.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Secrets {
    /// They are replaced by [`secret::HIDDEN`].
    #[default]
    Hidden,
    /// They stay, for who asked for it.
    Shown,
}

impl Secrets {
    /// Whether they are to be shown.
    pub const fn of(are_shown: bool) -> Self {
        if are_shown { Self::Shown } else { Self::Hidden }
    }
}

/// Arguments, program first. There is no other way to one than by deciding about its secrets, or by reading what was decided
/// before.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(inline))]
#[serde(transparent)]
pub struct CommandLine(Vec<String>);

impl CommandLine {
    pub fn new(mut arguments: Vec<String>, secrets: Secrets) -> Self {
        if secrets == Secrets::Hidden {
            secret::hide(&mut arguments);
        }
        Self(arguments)
    }
}

impl Deref for CommandLine {
    type Target = [String];

    fn deref(&self) -> &[String] {
        &self.0
    }
}

impl<const N: usize> PartialEq<[&str; N]> for CommandLine {
    fn eq(&self, other: &[&str; N]) -> bool {
        self.0 == other
    }
}
