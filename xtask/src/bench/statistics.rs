//! The kernel's run-time statistics of BPF programs.

use std::{fs, ops::Sub, path::Path, time::Duration};

use anyhow::{Context, Result};

const SETTING: &str = "/proc/sys/kernel/bpf_stats_enabled";

/// The statistics are on as long as this lives.
pub struct Enabled(String);

impl Enabled {
    pub fn new() -> Result<Self> {
        let before = fs::read_to_string(SETTING).with_context(|| format!("can't read {SETTING}"))?;
        fs::write(SETTING, "1").with_context(|| format!("can't write {SETTING}"))?;
        Ok(Self(before))
    }
}

impl Drop for Enabled {
    fn drop(&mut self) {
        let _ = fs::write(SETTING, &self.0);
    }
}

/// How often programs ran, and how long in all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Runs {
    pub count: u64,
    pub time: Duration,
}

impl Runs {
    /// Of all programs that a process has open.
    pub fn of_process(pid: u32) -> Result<Self> {
        let directory = format!("/proc/{pid}/fdinfo");
        let entries = fs::read_dir(&directory).with_context(|| format!("can't read {directory}"))?;
        let mut seen = Vec::new();
        let mut total = Self::default();
        for entry in entries.flatten() {
            // A descriptor may be closed meanwhile.
            let Ok(info) = fs::read_to_string(entry.path()) else {
                continue;
            };
            if let Some((id, runs)) = parse(&info)
                && !seen.contains(&id)
            {
                seen.push(id);
                total.count += runs.count;
                total.time += runs.time;
            }
        }
        Ok(total)
    }

    /// Of one program of this process.
    pub fn of_descriptor(descriptor: i32) -> Result<Self> {
        let path = Path::new("/proc/self/fdinfo").join(descriptor.to_string());
        let info = fs::read_to_string(&path).with_context(|| format!("can't read {}", path.display()))?;
        Ok(parse(&info).context("not a BPF program")?.1)
    }
}

impl Sub for Runs {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        Self {
            count: self.count.saturating_sub(earlier.count),
            time: self.time.saturating_sub(earlier.time),
        }
    }
}

/// The program's id and its runs.
fn parse(fdinfo: &str) -> Option<(u64, Runs)> {
    let field = |name: &str| {
        fdinfo
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?
            .trim()
            .parse::<u64>()
            .ok()
    };
    let runs = Runs {
        count: field("run_cnt")?,
        time: Duration::from_nanos(field("run_time_ns")?),
    };
    Some((field("prog_id")?, runs))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Runs, parse};

    #[test]
    fn runs_of_fdinfo() {
        let runs = |count, nanoseconds| Runs {
            count,
            time: Duration::from_nanos(nanoseconds),
        };
        for (info, expected) in [
            (
                "pos:\t0\nprog_type:\t26\nprog_id:\t7\nrun_time_ns:\t90\nrun_cnt:\t3\n",
                Some((7, runs(3, 90))),
            ),
            ("pos:\t0\nlink_type:\traw_tracepoint\nprog_id:\t7\n", None),
            ("", None),
        ] {
            assert_eq!(parse(info), expected);
        }
        assert_eq!(runs(5, 100) - runs(3, 90), runs(2, 10));
    }
}
