//! `probe doctor` on a node that a scenario lays out: its files in a directory, its network in a namespace.

use std::{fs, path::PathBuf, process::Command};

use anyhow::{Context, Result, bail};
use serde_json::Value;
use tempfile::TempDir;

use crate::{netns::Netns, probe::Probe, process::finish};

/// A node's files.
#[derive(Debug)]
pub struct Files(TempDir);

impl Files {
    /// None yet.
    ///
    /// # Errors
    /// When there is no room for a directory.
    pub fn new() -> Result<Self> {
        Ok(Self(tempfile::tempdir()?))
    }

    /// Where a file of the node's is.
    pub fn path(&self, path: &str) -> PathBuf {
        self.0.path().join(path.trim_start_matches('/'))
    }

    /// Writes a file, with the directories above it.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn write(&self, path: &str, text: &str) -> Result<()> {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap_or(&path))?;
        Ok(fs::write(path, text)?)
    }

    /// What one check says of it, as JSON.
    ///
    /// # Errors
    /// When probe does not run, or its exit code is not what the verdict is.
    pub fn doctor(&self, check: &str, netns: &Netns, arguments: &[&str]) -> Result<Value> {
        let mut command = self.command(check, netns, arguments)?;
        let output = finish(&mut command)?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let said = || format!("{text}{}", String::from_utf8_lossy(&output.stderr));
        let answer: Value = serde_json::from_str(text.trim()).with_context(said)?;
        let failed = answer["verdict"] == "failed";
        if output.status.code() != Some(i32::from(failed)) {
            bail!("{}: {}", output.status, said());
        }
        Ok(answer)
    }

    /// The command.
    ///
    /// # Errors
    /// When there is no probe to test.
    pub fn command(&self, check: &str, netns: &Netns, arguments: &[&str]) -> Result<Command> {
        let mut command = Probe::command(&["doctor", "-o", "json", "--check", check])?;
        command.arg("--root").arg(self.0.path());
        command.arg("--netns").arg(format!("/run/netns/{}", netns.name()));
        command.args(arguments);
        Ok(command)
    }
}
