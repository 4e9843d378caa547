//! The node's files, below the directory where they are. The same for a container's, which are untrusted: no link
//! leads out of the directory, and only a plain file is opened, as opening others may wait or do things.

use std::{
    fs::{self, File, Metadata},
    io::{self, Read as _},
    os::fd::{AsRawFd as _, OwnedFd},
    path::{Path, PathBuf},
    time::SystemTime,
};

use nix::{
    errno::Errno,
    fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2},
    sys::stat::Mode,
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

    /// Where the node's `path` is for this process. Links in it lead where they would lead this process.
    pub fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        let path = path.as_ref();
        self.0.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// The same, with links followed as the node follows them.
    ///
    /// # Errors
    /// When it is not there.
    pub fn real(&self, path: impl AsRef<Path>) -> io::Result<PathBuf> {
        fs::read_link(behind(&self.find(path.as_ref())?))
    }

    /// A file's text; what is no UTF-8 in it is replaced.
    ///
    /// # Errors
    /// When it is not there, can't be read, or is longer than a configuration is.
    pub fn text(&self, path: impl AsRef<Path>) -> io::Result<String> {
        self.dated(path).map(|(text, _)| text)
    }

    /// The same, and when it was last written.
    ///
    /// # Errors
    /// As [`Root::text`].
    pub fn dated(&self, path: impl AsRef<Path>) -> io::Result<(String, SystemTime)> {
        let (file, metadata) = self.open(path)?;
        let mut bytes = Vec::new();
        file.take(LONGEST + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > LONGEST {
            return Err(io::Error::other("longer than 1 MiB"));
        }
        Ok((String::from_utf8_lossy(&bytes).into_owned(), metadata.modified()?))
    }

    /// A plain file of any length, to be read, and what is known of it.
    ///
    /// # Errors
    /// When it is not there or can't be read.
    pub fn open(&self, path: impl AsRef<Path>) -> io::Result<(File, Metadata)> {
        let found = self.find(path.as_ref())?;
        let metadata = fs::metadata(behind(&found))?;
        if !metadata.is_file() {
            return Err(io::Error::other("not a regular file"));
        }
        Ok((File::open(behind(&found))?, metadata))
    }

    /// The names in a directory, sorted; of too many, some.
    ///
    /// # Errors
    /// When it is not there or can't be read.
    pub fn names(&self, path: impl AsRef<Path>) -> io::Result<Vec<String>> {
        let found = self.find(path.as_ref())?;
        let entries = fs::read_dir(behind(&found))?;
        let mut names: Vec<String> = entries
            .take(ENTRIES)
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .collect();
        names.sort();
        Ok(names)
    }

    /// What is there, without opening it.
    fn find(&self, path: &Path) -> io::Result<OwnedFd> {
        let root = File::open(&self.0)?;
        let how = OpenHow::new()
            .flags(OFlag::O_PATH | OFlag::O_CLOEXEC)
            .mode(Mode::empty())
            .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
        match openat2(&root, path, how) {
            // Where a container's filter of system calls does not know it: below `/`, no link can lead out.
            Err(Errno::ENOSYS | Errno::EPERM) if self.0 == Path::new("/") => {
                Ok(open(path, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())?)
            }
            found => Ok(found?),
        }
    }
}

/// The beginning of a file that the kernel prints, such as one of /proc; `None` if it can't be read.
pub fn head(path: &Path, at_most: u64) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let file = File::open(path).ok()?;
    file.take(at_most).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

/// What a descriptor stands for, to be opened.
fn behind(found: &OwnedFd) -> PathBuf {
    format!("/proc/self/fd/{}", found.as_raw_fd()).into()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use nix::unistd::mkfifo;

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
        assert_eq!(root.text("/etc/c").unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!(root.names("/etc").unwrap(), ["a", "b"]);
        assert!(
            root.text("/etc")
                .unwrap_err()
                .to_string()
                .contains("regular file")
        );
        // Nobody writes to it.
        mkfifo(&directory.path().join("etc/fifo"), Mode::S_IRWXU).unwrap();
        assert!(
            root.text("/etc/fifo")
                .unwrap_err()
                .to_string()
                .contains("regular file")
        );
    }

    #[test]
    fn no_link_leads_out() {
        let directory = tempfile::tempdir().unwrap();
        let (inside, outside) = (directory.path().join("in"), directory.path().join("resolv.conf"));
        fs::create_dir_all(inside.join("run")).unwrap();
        fs::create_dir_all(inside.join("etc")).unwrap();
        fs::write(inside.join("run/resolv.conf"), "inside").unwrap();
        fs::write(&outside, "outside").unwrap();
        let root = Root::new(&inside);
        symlink("/run/resolv.conf", inside.join("etc/absolute")).unwrap();
        symlink("../../resolv.conf", inside.join("etc/relative")).unwrap();
        symlink(&outside, inside.join("etc/outside")).unwrap();
        symlink("/proc/self/root/etc/passwd", inside.join("etc/magic")).unwrap();
        symlink("loop", inside.join("etc/loop")).unwrap();
        assert_eq!(root.text("/etc/absolute").unwrap(), "inside");
        assert_eq!(
            root.real("/etc/absolute").unwrap(),
            inside.canonicalize().unwrap().join("run/resolv.conf")
        );
        for name in ["relative", "outside", "magic", "loop"] {
            assert!(root.text(format!("/etc/{name}")).is_err(), "{name}");
        }
    }
}
