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
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tempfile::TempDir;

use crate::netns::{PREFIX, orphaned};

/// A control group of the lab's own in every hierarchy of the machine; dropping it removes it with all that is inside.
#[derive(Debug)]
pub struct Group {
    name: String,
    /// One a hierarchy.
    paths: Vec<PathBuf>,
    /// Pods in it.
    pods: AtomicU32,
}

impl Group {
    pub fn new() -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        static SWEEP: Once = Once::new();
        let hierarchies = hierarchies()?;
        SWEEP.call_once(|| sweep(&hierarchies));
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let mut group = Self {
            name: format!("{PREFIX}{}-{number}", std::process::id()),
            paths: Vec::new(),
            pods: AtomicU32::new(number << 8),
        };
        for hierarchy in hierarchies {
            let path = hierarchy.join(&group.name);
            group.paths.push(path.clone());
            make(&path)?;
        }
        Ok(group)
    }

    /// Below each hierarchy's root.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A uid for a pod, used by no other.
    pub fn pod_uid(&self) -> String {
        let (process, number) = (std::process::id(), self.pods.fetch_add(1, Ordering::Relaxed));
        format!("{process:08x}-{:04x}-4000-8000-00000000abcd", number & 0xffff)
    }

    /// Starts `command` inside.
    pub fn place<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        place(&self.paths, command)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        for path in &self.paths {
            clear(path);
        }
    }
}

/// A pod's container as the kubelet's cgroupfs driver lays it.
#[derive(Debug)]
pub struct Cgroup {
    /// One a hierarchy: the innermost group.
    leaves: Vec<PathBuf>,
    pub pod_uid: String,
    pub container_id: String,
    _group: Group,
}

impl Cgroup {
    /// `/<unique>/kubepods/besteffort/pod<uid>/<id>`.
    pub fn pod() -> Result<Self> {
        let group = Group::new()?;
        let pod_uid = group.pod_uid();
        let container_id = format!("{:0>64}", pod_uid.replace('-', ""));
        let mut leaves = Vec::new();
        for path in &group.paths {
            let mut path = path.clone();
            for name in ["kubepods", "besteffort", &format!("pod{pod_uid}"), &container_id] {
                path.push(name);
                make(&path)?;
            }
            leaves.push(path);
        }
        Ok(Self {
            leaves,
            pod_uid,
            container_id,
            _group: group,
        })
    }

    /// Starts `command` inside.
    pub fn place<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        place(&self.leaves, command)
    }
}

/// Starts `command` in these control groups.
fn place<'a>(groups: &[PathBuf], command: &'a mut Command) -> &'a mut Command {
    let files: Vec<PathBuf> = groups.iter().map(|group| group.join("cgroup.procs")).collect();
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

/// Removes a control group with all below it, and the processes inside.
fn clear(group: &Path) {
    let inside = |path: &Path| fs::read_to_string(path.join("cgroup.procs")).unwrap_or_default();
    for pid in inside(group).lines() {
        let pid = pid.parse().map(Pid::from_raw);
        let _ = pid.map(|pid| kill(pid, Signal::SIGKILL));
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
