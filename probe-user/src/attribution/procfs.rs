//! A process in /proc, only if it is the one that is meant: pids are used again.

use std::{fs, path::PathBuf};

use crate::host::files::head;

use jiff::Timestamp;
use nix::time::{ClockId, clock_gettime};

/// Bytes of a command line that are kept: one may be megabytes long.
const COMMAND_BYTES: u64 = 4096;
/// Control group files are a few hundred bytes; mount options make them longer, never this long.
const CGROUP_BYTES: u64 = 64 << 10;
/// `/proc/PID/stat` counts time in these, `USER_HZ`: 100 a second on every architecture.
const NANOSECONDS_A_TICK: u64 = 10_000_000;

/// What /proc has of a process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Details {
    pub command: Vec<String>,
    pub command_cut: bool,
    pub executable: Option<String>,
}

/// The time of day when a process started, to the millisecond, from nanoseconds since boot.
pub fn started(start_boot_ns: u64) -> Option<Timestamp> {
    let nanoseconds = |clock| {
        clock_gettime(clock)
            .map(|time| i128::from(time.tv_sec()) * 1_000_000_000 + i128::from(time.tv_nsec()))
            .ok()
    };
    let since_boot = nanoseconds(ClockId::CLOCK_BOOTTIME)?;
    let time_of_day = nanoseconds(ClockId::CLOCK_REALTIME)?;
    let started = time_of_day - (since_boot - i128::from(start_boot_ns));
    // A kernel without the offset gives none.
    let milliseconds = i64::try_from(started / 1_000_000)
        .ok()
        .filter(|_| start_boot_ns > 0)?;
    Timestamp::from_millisecond(milliseconds).ok()
}

/// A /proc, or what stands for one.
pub struct Proc {
    root: PathBuf,
}

impl Proc {
    pub fn new(root: PathBuf) -> Self {
        Self { root }
    }

    pub fn path(&self, pid: u32, file: &str) -> PathBuf {
        self.root.join(pid.to_string()).join(file)
    }

    /// Details of the process `pid` that started at `start_boot_ns`; `None` if it is gone, or the pid was reused.
    pub fn details(&self, pid: u32, start_boot_ns: u64) -> Option<Details> {
        self.same(pid, start_boot_ns)?;
        let (command, command_cut) = self.command(pid);
        let executable = fs::read_link(self.path(pid, "exe")).ok();
        let executable = executable.map(|path| path.to_string_lossy().into_owned());
        // Once more: it may have gone, and the pid been used again, while it was read.
        self.same(pid, start_boot_ns)?;
        Some(Details {
            command,
            command_cut,
            executable,
        })
    }

    /// The control group paths of a process, one a hierarchy.
    pub fn cgroups(&self, pid: u32) -> Vec<String> {
        let bytes = head(&self.path(pid, "cgroup"), CGROUP_BYTES).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        text.lines()
            .filter_map(|line| line.splitn(3, ':').nth(2))
            .map(str::to_owned)
            .collect()
    }

    /// Name, start (nanoseconds since boot, to a tick) of a process.
    pub fn identity(&self, pid: u32) -> Option<(String, u64)> {
        stat(&head(&self.path(pid, "stat"), 4096)?)
    }

    /// Real user id.
    pub fn uid(&self, pid: u32) -> Option<u32> {
        let status = head(&self.path(pid, "status"), 8192)?;
        let status = String::from_utf8_lossy(&status);
        status
            .lines()
            .find_map(|line| line.strip_prefix("Uid:"))?
            .split_whitespace()
            .next()?
            .parse()
            .ok()
    }

    /// The command line, and whether it was cut.
    pub fn command(&self, pid: u32) -> (Vec<String>, bool) {
        let mut bytes = head(&self.path(pid, "cmdline"), COMMAND_BYTES + 1).unwrap_or_default();
        let cut = bytes.len() as u64 > COMMAND_BYTES;
        bytes.truncate(COMMAND_BYTES as usize);
        let bytes = bytes.strip_suffix(&[0]).unwrap_or(&bytes);
        if bytes.is_empty() {
            return (Vec::new(), false);
        }
        (
            bytes
                .split(|byte| *byte == 0)
                .map(|part| String::from_utf8_lossy(part).into_owned())
                .collect(),
            cut,
        )
    }

    /// Every process there is.
    pub fn pids(&self) -> Vec<u32> {
        let entries = fs::read_dir(&self.root).into_iter().flatten().flatten();
        let mut pids: Vec<u32> = entries
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .collect();
        pids.sort_unstable();
        pids
    }

    fn same(&self, pid: u32, start_boot_ns: u64) -> Option<()> {
        let (_, start) = self.identity(pid)?;
        start
            .abs_diff(start_boot_ns)
            .lt(&(2 * NANOSECONDS_A_TICK))
            .then_some(())
    }
}

/// Name and start of a `stat` line. The name is in parentheses and may itself hold any, and spaces and newlines: it
/// ends at the last.
fn stat(bytes: &[u8]) -> Option<(String, u64)> {
    let open = bytes.iter().position(|byte| *byte == b'(')?;
    let close = bytes.iter().rposition(|byte| *byte == b')')?;
    let name = String::from_utf8_lossy(bytes.get(open + 1..close)?).into_owned();
    let rest = std::str::from_utf8(bytes.get(close + 1..)?).ok()?;
    // The start is field 22 of the line; the name is the second.
    let ticks: u64 = rest.split_ascii_whitespace().nth(19)?.parse().ok()?;
    Some((name, ticks.checked_mul(NANOSECONDS_A_TICK)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(name: &str, ticks: u64) -> String {
        format!("42 ({name}) S 1 42 42 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 {ticks} 1000 10")
    }

    #[test]
    fn when_this_process_started() {
        let proc = Proc::new(PathBuf::from("/proc"));
        let (_, start) = proc.identity(std::process::id()).unwrap();
        let ago = Timestamp::now().duration_since(started(start).unwrap());
        assert!((-1.0..3600.0).contains(&ago.as_secs_f64()), "{ago}");
        assert_eq!(started(0), None);
        // Whatever the kernel side says, there is an answer.
        started(u64::MAX);
    }

    #[test]
    fn stat_lines() {
        for name in ["nc", "a b", ") (", "x) S 1 2 3", "new\nline", "é"] {
            assert_eq!(
                stat(line(name, 700).as_bytes()),
                Some((name.to_owned(), 7_000_000_000)),
                "{name}"
            );
        }
        for malformed in [
            "",
            "42 (nc",
            "42 nc) S",
            "42 (nc) S 1 2",
            &line("nc", 1).replace(" 1 1000", " x 1000"),
        ] {
            assert_eq!(stat(malformed.as_bytes()), None, "{malformed}");
        }
        assert_eq!(stat(line("nc", u64::MAX).as_bytes()), None);
    }

    fn fake() -> (tempfile::TempDir, Proc) {
        let dir = tempfile::tempdir().unwrap();
        let process = dir.path().join("42");
        fs::create_dir(&process).unwrap();
        fs::write(process.join("stat"), line("nc", 700)).unwrap();
        fs::write(process.join("cmdline"), b"nc\0-z\0\xff\0").unwrap();
        fs::write(process.join("cgroup"), "9:pids:/kubepods/x\n0::/a:b\nmalformed\n").unwrap();
        std::os::unix::fs::symlink("/usr/bin/nc", process.join("exe")).unwrap();
        let proc = Proc::new(dir.path().to_owned());
        (dir, proc)
    }

    #[test]
    fn only_the_process_that_is_meant() {
        let (_dir, proc) = fake();
        let details = proc.details(42, 7_004_000_000).unwrap();
        assert_eq!(details.command, ["nc", "-z", "\u{fffd}"]);
        assert_eq!(details.executable.as_deref(), Some("/usr/bin/nc"));
        assert_eq!(proc.details(42, 9_000_000_000), None);
        assert_eq!(proc.details(43, 7_004_000_000), None);
        assert_eq!(proc.cgroups(42), ["/kubepods/x", "/a:b"]);
    }

    #[test]
    fn a_long_command_line_is_cut() {
        let (dir, proc) = fake();
        fs::write(dir.path().join("42/cmdline"), vec![b'x'; 10_000]).unwrap();
        let (command, cut) = proc.command(42);
        assert_eq!((command[0].len(), cut), (4096, true));
    }
}
