//! The files of a store, by their names.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use jiff::Timestamp;

/// What a name ends in; before it stands when the first connection in the file ended, milliseconds since 1970, in 13 digits: so
/// names are in the order of time.
const ENDING: &str = ".jsonl.gz";
const DIGITS: usize = 13;
/// Files at the most, however small: an agent that starts again and again begins one each time.
const MOST: usize = 2048;

/// One of the files.
#[derive(Clone, Debug)]
pub struct StoredFile {
    pub path: PathBuf,
    /// When its first connection ended.
    pub first: Timestamp,
    pub size: u64,
    pub written: SystemTime,
}

/// Makes the directory, where there is none.
pub fn prepare(directory: &Path) -> io::Result<()> {
    // Command lines of processes are in the files: for the owner alone.
    DirBuilder::new().recursive(true).mode(0o700).create(directory)
}

/// All files of a store, the oldest first. Others in the directory are left alone.
pub fn list(directory: &Path) -> io::Result<Vec<StoredFile>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        let Some(first) = name.to_str().and_then(first) else {
            continue;
        };
        // Removed meanwhile.
        let Ok(metadata) = entry.metadata() else { continue };
        if metadata.is_file() {
            files.push(StoredFile {
                path: entry.path(),
                first,
                size: metadata.len(),
                written: metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH),
            });
        }
    }
    files.sort_by(|one, other| one.path.cmp(&other.path));
    Ok(files)
}

fn first(name: &str) -> Option<Timestamp> {
    let digits = name.strip_suffix(ENDING)?;
    let is_number = digits.len() == DIGITS && digits.bytes().all(|digit| digit.is_ascii_digit());
    let milliseconds = is_number.then(|| digits.parse().ok()).flatten()?;
    Timestamp::from_millisecond(milliseconds).ok()
}

/// A new file for a connection that ended then, or as soon after as there is a name left.
pub fn create(directory: &Path, ended: Timestamp) -> io::Result<(PathBuf, File)> {
    let mut number = ended.as_millisecond().max(0);
    loop {
        let path = directory.join(format!("{number:0DIGITS$}{ENDING}"));
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path);
        match file {
            Ok(file) => return Ok((path, file)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => number += 1,
            Err(error) => return Err(error),
        }
    }
}

/// Removes the oldest, until what is left is within `size` and no older than `age`. Bytes that are left.
pub fn tidy(directory: &Path, size: u64, age: Duration, current: Option<&Path>) -> io::Result<u64> {
    let files = list(directory)?;
    let mut left: u64 = files.iter().map(|file| file.size).sum();
    let mut count = files.len();
    let now = SystemTime::now();
    for file in files {
        let is_old = now.duration_since(file.written).is_ok_and(|since| since > age);
        let is_current = current == Some(file.path.as_path());
        if is_current || !(is_old || left > size || count > MOST) {
            continue;
        }
        match fs::remove_file(&file.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {
                left -= file.size;
                count -= 1;
            }
        }
    }
    Ok(left)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_files() {
        for (name, expected) in [
            ("1795425010614.jsonl.gz", Some(1_795_425_010_614)),
            ("0000000000007.jsonl.gz", Some(7)),
            ("7.jsonl.gz", None),
            ("-795425010614.jsonl.gz", None),
            ("1795425010614.jsonl", None),
            ("lost+found", None),
            ("", None),
        ] {
            let found = first(name).map(Timestamp::as_millisecond);
            assert_eq!(found, expected, "{name}");
        }
    }

    #[test]
    fn files_of_one_millisecond_have_names_of_their_own() {
        let dir = tempfile::tempdir().unwrap();
        let time = Timestamp::from_millisecond(7).unwrap();
        for _ in 0..3 {
            create(dir.path(), time).unwrap();
        }
        let firsts: Vec<_> = list(dir.path())
            .unwrap()
            .iter()
            .map(|file| file.first.as_millisecond())
            .collect();
        assert_eq!(firsts, [7, 8, 9]);
    }

    #[test]
    fn the_oldest_make_room() {
        let dir = tempfile::tempdir().unwrap();
        let mut paths = Vec::new();
        for number in 1..=5 {
            let (path, _) = create(dir.path(), Timestamp::from_millisecond(number).unwrap()).unwrap();
            fs::write(&path, [0; 10]).unwrap();
            paths.push(path);
        }
        fs::write(dir.path().join("another's"), [0; 99]).unwrap();
        let left = || -> Vec<_> {
            let files = list(dir.path()).unwrap();
            files.iter().map(|file| file.first.as_millisecond()).collect()
        };
        let hour = Duration::from_secs(3600);
        assert_eq!(tidy(dir.path(), 50, hour, None).unwrap(), 50);
        assert_eq!(tidy(dir.path(), 35, hour, None).unwrap(), 30);
        assert_eq!(left(), [3, 4, 5]);
        // The one that is written stays, whatever its age.
        let old = File::options().write(true).open(&paths[2]).unwrap();
        old.set_modified(SystemTime::now() - 2 * hour).unwrap();
        let current = Some(paths[2].as_path());
        assert_eq!(tidy(dir.path(), 50, hour, current).unwrap(), 30);
        assert_eq!(tidy(dir.path(), 50, hour, None).unwrap(), 20);
        assert_eq!(left(), [4, 5]);
        assert!(dir.path().join("another's").exists());
    }
}
