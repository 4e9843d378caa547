//! Where an image is from: its commit, and the time that stands in for that of the build.

use std::process::Command;

use crate::run;

/// The same for each build of a commit, so that the image is.
#[derive(Clone, Debug, Default)]
pub struct Origin {
    /// Seconds since 1970: `SOURCE_DATE_EPOCH`, else the commit's; 0 without git.
    pub time: i64,
    /// The commit, if the sources are those of one.
    pub revision: Option<String>,
}

impl Origin {
    pub fn find() -> Self {
        let given = std::env::var("SOURCE_DATE_EPOCH")
            .ok()
            .and_then(|time| time.parse().ok());
        let time = given.or_else(|| git(&["log", "-1", "--format=%ct"])?.parse().ok());
        // What is not committed can't be found by a revision.
        let clean = git(&["status", "--porcelain"]).is_some_and(|changes| changes.is_empty());
        Self {
            time: time.unwrap_or_default(),
            revision: clean.then(|| git(&["rev-parse", "HEAD"])).flatten(),
        }
    }
}

fn git(arguments: &[&str]) -> Option<String> {
    let text = run::output(Command::new("git").current_dir(run::root()).args(arguments)).ok()?;
    Some(text.trim().to_owned())
}
