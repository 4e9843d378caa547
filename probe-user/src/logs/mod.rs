//! Logs as people have them: files, directories of rotated files, standard input; compressed or not, in any encoding of text.

mod decode;
mod scan;

use std::{
    fs::{self, File},
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use jiff::Timestamp;

pub use self::{
    decode::decoded,
    scan::{Hit, Scanned, Scanner},
};

/// Files of a directory that are read.
const FILES: usize = 1000;
/// What is read of a file to find when it begins.
const HEAD: u64 = 64 << 10;

/// A log can't be read.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    #[error("can't read the log {name}: {source}")]
    Read { name: String, source: io::Error },
    #[error("{0} has no files: name the log, or its directory")]
    Empty(String),
    #[error("{0} has more than {FILES} files: name those that matter")]
    TooMany(String),
}

impl LogError {
    fn read(name: &str) -> impl Fn(io::Error) -> Self {
        move |source| Self::Read {
            name: name.to_owned(),
            source,
        }
    }
}

/// A file, or standard input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogSource {
    /// As messages call it.
    pub name: String,
    /// `None` for standard input.
    path: Option<PathBuf>,
}

impl LogSource {
    fn file(path: PathBuf) -> Self {
        Self {
            name: path.display().to_string(),
            path: Some(path),
        }
    }

    /// Whether it can be read more than once: no pipe.
    pub fn is_file(&self) -> bool {
        self.path.as_ref().is_some_and(|path| path.is_file())
    }

    /// Opens it, and gives its size where it has one.
    ///
    /// # Errors
    /// When it can't be opened.
    pub fn open(&self) -> Result<(Box<dyn io::Read>, Option<u64>), LogError> {
        let Some(path) = &self.path else {
            return Ok((Box::new(io::stdin()), None));
        };
        let file = File::open(path).map_err(LogError::read(&self.name))?;
        let size = file.metadata().ok().map(|metadata| metadata.len());
        Ok((Box::new(file), size))
    }
}

/// The logs that these paths name, `-` for standard input. The files of a directory are in order of time: that of their first line
/// that has one, as `time` reads it, else that of their last change.
///
/// # Errors
/// When a directory can't be read.
pub fn sources(
    paths: &[PathBuf],
    time: impl Fn(&str) -> Option<Timestamp>,
) -> Result<Vec<LogSource>, LogError> {
    let mut sources = Vec::new();
    for path in paths {
        if path == Path::new("-") {
            sources.push(LogSource {
                name: "standard input".to_owned(),
                path: None,
            });
        } else if path.is_dir() {
            sources.append(&mut directory(path, &time)?);
        } else {
            sources.push(LogSource::file(path.clone()));
        }
    }
    Ok(sources)
}

fn directory(path: &Path, time: impl Fn(&str) -> Option<Timestamp>) -> Result<Vec<LogSource>, LogError> {
    let name = path.display().to_string();
    let error = LogError::read(&name);
    let mut files = Vec::new();
    for entry in fs::read_dir(path).map_err(&error)? {
        let path = entry.map_err(&error)?.path();
        // The kubelet's links to logs count as files.
        if path.is_file() {
            files.push(path);
        }
        if files.len() > FILES {
            return Err(LogError::TooMany(name.clone()));
        }
    }
    if files.is_empty() {
        return Err(LogError::Empty(name.clone()));
    }
    files.sort();
    let changed = |path: &Path| Timestamp::try_from(fs::metadata(path).ok()?.modified().ok()?).ok();
    files.sort_by_cached_key(|path| first_time(path, &time).or_else(|| changed(path)));
    Ok(files.into_iter().map(LogSource::file).collect())
}

/// The time of the first line that has one.
fn first_time(path: &Path, time: impl Fn(&str) -> Option<Timestamp>) -> Option<Timestamp> {
    let mut head = Vec::new();
    // What can't be read is reported when its turn comes.
    let (decoded, _) = decoded(File::open(path).ok()?).ok()?;
    let _ = decoded.take(HEAD).read_to_end(&mut head);
    String::from_utf8_lossy(&head).lines().find_map(time)
}

/// Whether a file is a recording of `probe watch`, which stood behind `--flows` once.
pub fn is_recording(path: &Path) -> bool {
    let mut head = [0; 64];
    let read = File::open(path)
        .and_then(|mut file| file.read(&mut head))
        .unwrap_or(0);
    let head: Vec<u8> = head[..read]
        .iter()
        .copied()
        .filter(|byte| *byte != b' ')
        .collect();
    head.starts_with(b"{\"event\":\"")
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn files_of_a_directory_are_in_order_of_time() {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &[u8]| fs::write(directory.path().join(name), text).unwrap();
        write("etcd.log", b"no time\n2026-11-23T09:00:03Z\n");
        write("etcd.log.1", b"2026-11-23T09:00:02Z\n");
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packed.write_all(b"2026-11-23T09:00:01Z\n").unwrap();
        write("etcd.log.2.gz", &packed.finish().unwrap());
        fs::create_dir(directory.path().join("older")).unwrap();
        let paths = [
            directory.path().to_owned(),
            PathBuf::from("-"),
            PathBuf::from("gone"),
        ];
        let sources = sources(&paths, |line| line.parse().ok()).unwrap();
        let names: Vec<_> = sources
            .iter()
            .map(|source| source.name.rsplit('/').next().unwrap())
            .collect();
        assert_eq!(
            names,
            [
                "etcd.log.2.gz",
                "etcd.log.1",
                "etcd.log",
                "standard input",
                "gone"
            ]
        );
        assert!(sources[4].open().is_err());
    }

    #[test]
    fn an_empty_directory_is_said_so() {
        let directory = tempfile::tempdir().unwrap();
        let error = sources(&[directory.path().to_owned()], |_| None).unwrap_err();
        assert!(error.to_string().contains("has no files"), "{error}");
    }

    #[test]
    fn recordings() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x");
        for (text, expected) in [
            (r#"{"event":"connection","time":"#, true),
            (r#"{"event": "connection""#, true),
            (r#"{"level":"warn""#, false),
            ("", false),
        ] {
            fs::write(&path, text).unwrap();
            assert_eq!(is_recording(&path), expected, "{text}");
        }
    }
}
