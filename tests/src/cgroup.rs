//! Control groups shaped like a pod's, and the kubelet's log directories, without a kubelet.

use std::{
    fs, io,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Once,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result};
use tempfile::TempDir;

use crate::netns::{PREFIX, orphaned};

/// A pod's container as the kubelet's cgroupfs driver lays it, in every hierarchy of the machine.
#[derive(Debug)]
pub struct Cgroup {
    /// One a hierarchy: the innermost group.
    leaves: Vec<PathBuf>,
    /// The lab's own group above, one a hierarchy.
    tops: Vec<PathBuf>,
    pub pod_uid: String,
    pub container_id: String,
}

impl Cgroup {
    /// `/<unique>/kubepods/besteffort/pod<uid>/<id>`.
    pub fn pod() -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        static SWEEP: Once = Once::new();
        let (process, number) = (std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let pod_uid = format!("{process:08x}-{number:04x}-4000-8000-00000000abcd");
        let container_id = format!("{process:032x}{number:032x}");
        let mut cgroup = Self {
            leaves: Vec::new(),
            tops: Vec::new(),
            pod_uid,
            container_id,
        };
        let hierarchies = hierarchies()?;
        SWEEP.call_once(|| sweep(&hierarchies));
        for hierarchy in hierarchies {
            let mut path = hierarchy.join(format!("{PREFIX}{process}-{number}"));
            cgroup.tops.push(path.clone());
            make(&path)?;
            for name in [
                "kubepods",
                "besteffort",
                &format!("pod{}", cgroup.pod_uid),
                &cgroup.container_id,
            ] {
                path.push(name);
                make(&path)?;
            }
            cgroup.leaves.push(path);
        }
        Ok(cgroup)
    }

    /// Starts `command` inside.
    pub fn place<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        let files: Vec<PathBuf> = self.leaves.iter().map(|leaf| leaf.join("cgroup.procs")).collect();
        // SAFETY: between fork and exec it only opens, writes and closes files; the paths were made before.
        unsafe {
            command.pre_exec(move || {
                for file in &files {
                    fs::write(file, "0")?;
                }
                io::Result::Ok(())
            })
        }
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        for top in &self.tops {
            clear(top);
        }
    }
}

/// Removes a control group with all below it, and the processes inside.
fn clear(group: &Path) {
    let inside = |path: &Path| fs::read_to_string(path.join("cgroup.procs")).unwrap_or_default();
    for pid in inside(group).lines() {
        let _ = crate::process::run(&format!("kill -KILL {pid}"));
    }
    for entry in fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            clear(&entry.path());
        }
    }
    // What was killed may take a moment to leave.
    let gone = || fs::remove_dir(group).is_ok() || !group.exists();
    let _ = crate::wait_until("a control group is empty", Duration::from_secs(2), || {
        gone().then_some(())
    });
}

/// Removes what processes that were killed left behind.
fn sweep(hierarchies: &[PathBuf]) {
    for hierarchy in hierarchies {
        for entry in fs::read_dir(hierarchy).into_iter().flatten().flatten() {
            if entry.file_name().to_str().is_some_and(orphaned) {
                clear(&entry.path());
            }
        }
    }
}

/// The mount points of all control group hierarchies, version 1 and 2.
fn hierarchies() -> Result<Vec<PathBuf>> {
    let mounts = fs::read_to_string("/proc/self/mounts").context("can't read /proc/self/mounts")?;
    let mounted = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ');
        let (path, kind) = (fields.nth(1)?, fields.next()?);
        matches!(kind, "cgroup" | "cgroup2").then(|| PathBuf::from(path))
    });
    Ok(mounted.collect())
}

fn make(path: &Path) -> Result<()> {
    fs::create_dir(path).with_context(|| format!("can't make the control group {}", path.display()))?;
    // A cpuset of version 1 takes no process before it has these.
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let above = path.parent().unwrap_or(path).join(file);
        if let (true, Ok(value)) = (path.join(file).exists(), fs::read_to_string(above)) {
            let _ = fs::write(path.join(file), value);
        }
    }
    Ok(())
}

/// A stand-in for `/var/log/pods`.
#[derive(Debug)]
pub struct PodLogs(TempDir);

impl PodLogs {
    pub fn new() -> Result<Self> {
        Ok(Self(tempfile::tempdir()?))
    }

    pub fn add(&self, namespace: &str, name: &str, uid: &str) -> Result<()> {
        Ok(fs::create_dir(
            self.0.path().join(format!("{namespace}_{name}_{uid}")),
        )?)
    }

    pub fn path(&self) -> &str {
        self.0.path().to_str().unwrap_or_default()
    }
}
