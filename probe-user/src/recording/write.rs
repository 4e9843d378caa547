//! A file of JSON lines that never grows beyond a bound: the older half is FILE.1.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

/// Accepts whole lines, writes them when flushed, and starts a new file before it is half as large as allowed.
#[derive(Debug)]
pub struct Recording {
    path: PathBuf,
    file: File,
    size: u64,
    half: u64,
    lines: Vec<u8>,
    /// The first line of each file.
    header: Vec<u8>,
}

/// Where the older half is.
pub fn older(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".1");
    name.into()
}

impl Recording {
    /// Goes on where an earlier one ended; both files together hold at most `limit` bytes. The header, a whole line or nothing,
    /// is written at once, and again at the begin of each file.
    ///
    /// # Errors
    /// When the file can't be made or written.
    pub fn open(path: &Path, limit: u64, header: Vec<u8>) -> io::Result<Self> {
        let file = open(path)?;
        let size = file.metadata()?.len();
        let mut recording = Self {
            path: path.to_owned(),
            file,
            size,
            half: limit / 2,
            lines: Vec::new(),
            header,
        };
        recording.begin()?;
        Ok(recording)
    }

    fn begin(&mut self) -> io::Result<()> {
        self.file.write_all(&self.header)?;
        self.size += self.header.len() as u64;
        Ok(())
    }

    /// Nothing but the header is in the file.
    fn is_empty(&self) -> bool {
        self.size <= self.header.len() as u64
    }
}

impl Write for Recording {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.lines.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let waiting = std::mem::take(&mut self.lines);
        let mut lines = waiting.as_slice();
        while !lines.is_empty() {
            let room = usize::try_from(self.half.saturating_sub(self.size)).unwrap_or(usize::MAX);
            let fit = whole_lines(lines, room);
            if fit == 0 && !self.is_empty() {
                fs::rename(&self.path, older(&self.path))?;
                self.file = open(&self.path)?;
                self.size = 0;
                self.begin()?;
                continue;
            }
            // A line longer than half of what is allowed still is one line.
            let next = if fit == 0 { first_line(lines) } else { fit };
            let (now, later) = lines.split_at(next);
            self.file.write_all(now)?;
            self.size += now.len() as u64;
            lines = later;
        }
        self.lines = waiting;
        self.lines.clear();
        Ok(())
    }
}

fn open(path: &Path) -> io::Result<File> {
    // Command lines are in it: for its owner only.
    OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(path)
}

/// The length of the whole lines in the first `room` bytes.
fn whole_lines(lines: &[u8], room: usize) -> usize {
    if lines.len() <= room {
        return lines.len();
    }
    lines[..room]
        .iter()
        .rposition(|byte| *byte == b'\n')
        .map_or(0, |end| end + 1)
}

fn first_line(lines: &[u8]) -> usize {
    lines
        .iter()
        .position(|byte| *byte == b'\n')
        .map_or(lines.len(), |end| end + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(path: &Path) -> String {
        fs::read_to_string(path).unwrap_or_default()
    }

    #[test]
    fn the_latest_lines_within_the_bound() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("flows.jsonl");
        // Twelve bytes a half: three lines of four.
        let mut recording = Recording::open(&path, 24, Vec::new()).unwrap();
        for number in 0..10 {
            writeln!(recording, "{number:03}").unwrap();
            if number % 4 == 3 {
                recording.flush().unwrap();
            }
        }
        recording.flush().unwrap();
        assert_eq!(
            (read(&older(&path)), read(&path)),
            ("006\n007\n008\n".into(), "009\n".into())
        );

        // Another goes on.
        let mut recording = Recording::open(&path, 24, Vec::new()).unwrap();
        writeln!(recording, "010").unwrap();
        recording.flush().unwrap();
        assert_eq!(read(&path), "009\n010\n");

        // What is too long for a half is whole all the same, and alone.
        writeln!(recording, "{:020}", 11).unwrap();
        writeln!(recording, "012").unwrap();
        recording.flush().unwrap();
        assert_eq!(read(&older(&path)), format!("{:020}\n", 11));
        assert_eq!(read(&path), "012\n");
    }

    #[test]
    fn each_file_begins_with_the_header() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("flows.jsonl");
        let header = || b"head\n".to_vec();
        // Twelve bytes a half: the header and one line.
        let mut recording = Recording::open(&path, 24, header()).unwrap();
        assert_eq!(read(&path), "head\n");
        for number in 0..4 {
            writeln!(recording, "{number:03}").unwrap();
        }
        recording.flush().unwrap();
        assert_eq!(
            (read(&older(&path)), read(&path)),
            ("head\n002\n".into(), "head\n003\n".into())
        );
        // Another run says its own.
        drop(Recording::open(&path, 100, header()).unwrap());
        assert_eq!(read(&path), "head\n003\nhead\n");
    }
}
