//! The configuration, read again when its file changes.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::{
    cli::{Agent, ConfigError},
    host::node_name,
    model::settings::KernelSource,
    report::say,
};

/// A file larger than this is no configuration.
const LONGEST: u64 = 1 << 20;

/// The file, as it was read last.
pub struct Config {
    file: Option<PathBuf>,
    source: KernelSource,
    text: Option<Vec<u8>>,
}

impl Config {
    /// # Errors
    /// When the file can't be read, or is wrong.
    pub fn read(file: Option<PathBuf>, source: KernelSource) -> Result<(Self, Agent), ConfigError> {
        let mut config = Self {
            text: None,
            file,
            source,
        };
        let agent = config.again()?;
        Ok((config, agent))
    }

    /// Reads it again.
    ///
    /// # Errors
    /// When the file can't be read, or is wrong.
    pub fn again(&mut self) -> Result<Agent, ConfigError> {
        self.text = self.file.as_deref().and_then(text);
        let agent = Agent::read(self.file.as_deref(), &self.source, &node_name(None))?;
        warn_of_former_names(&agent);
        Ok(agent)
    }

    /// Whether the file has changed since. By what is in it: a mounted ConfigMap's is another file each time.
    pub fn has_changed(&self) -> bool {
        let now = self.file.as_deref().and_then(text);
        now.is_some() && now != self.text
    }
}

/// Says which sections have a former name.
pub fn warn_of_former_names(agent: &Agent) {
    for (former, name) in &agent.former_sections {
        say(format_args!(
            "warning: section [{former}] of the configuration is now called [{name}]; the former name is still read"
        ));
    }
}

fn text(file: &Path) -> Option<Vec<u8>> {
    let size = fs::metadata(file).ok()?.len();
    if size > LONGEST {
        return None;
    }
    fs::read(file).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_seen_once() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("agent.toml");
        fs::write(&file, "[node]\nname = \"one\"\n").unwrap();
        let (mut config, agent) = Config::read(Some(file.clone()), KernelSource::default()).unwrap();
        assert_eq!(agent.node, "one");
        assert!(!config.has_changed());
        fs::write(&file, "[node]\nname = \"two\"\n").unwrap();
        assert!(config.has_changed());
        assert_eq!(config.again().unwrap().node, "two");
        fs::write(&file, "[node]\nnam = \"three\"\n").unwrap();
        assert!(config.has_changed());
        assert!(config.again().is_err());
        // Told once.
        assert!(!config.has_changed());
        fs::remove_file(&file).unwrap();
        assert!(!config.has_changed());
    }
}
