//! The node's files, below the directory where they are.

use std::{
    fs::{self, File},
    io::{self, Read as _},
    path::{Path, PathBuf},
};

/// A file longer than this is no configuration.
const LONGEST: u64 = 1 << 20;
/// Entries of a directory that are looked at.
const ENTRIES: usize = 4096;

/// Where the node's files are: `/`, or where a container has them.
#[derive(Clone, Debug)]
pub struct Root(PathBuf);

impl Root {
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self(root.into())
    }

    /// Where the node's `path` is for this process.
    pub fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        let path = path.as_ref();
        self.0.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// A file's text; what is no UTF-8 in it is replaced.
    ///
    /// # Errors
    /// When it is not there, can't be read, or is longer than a configuration is.
    pub fn text(&self, path: impl AsRef<Path>) -> io::Result<String> {
        let mut bytes = Vec::new();
        let file = File::open(self.path(path))?;
        file.take(LONGEST + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > LONGEST {
            return Err(io::Error::other("longer than 1 MiB"));
        }
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// The names in a directory, sorted; of too many, some.
    ///
    /// # Errors
    /// When it is not there or can't be read.
    pub fn names(&self, path: impl AsRef<Path>) -> io::Result<Vec<String>> {
        let entries = fs::read_dir(self.path(path))?;
        let mut names: Vec<String> = entries
            .take(ENTRIES)
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .collect();
        names.sort();
        Ok(names)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_configuration_may_be() {
        let directory = tempfile::tempdir().unwrap();
        let root = Root::new(directory.path());
        fs::create_dir(directory.path().join("etc")).unwrap();
        fs::write(directory.path().join("etc/b"), b"\xffb").unwrap();
        fs::write(directory.path().join("etc/a"), vec![b'a'; LONGEST as usize + 1]).unwrap();
        assert_eq!(root.text("/etc/b").unwrap(), "\u{fffd}b");
        assert!(root.text("/etc/a").unwrap_err().to_string().contains("1 MiB"));
        assert!(root.text("/etc/c").is_err());
        assert_eq!(root.names("/etc").unwrap(), ["a", "b"]);
    }
}
