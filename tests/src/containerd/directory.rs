//! A directory that mounts are made below; dropping it takes both away.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Once,
        atomic::{AtomicU32, Ordering},
    },
};

use anyhow::{Context, Result};

use crate::{
    netns::{PREFIX, orphaned},
    process::run,
};

/// Short: addresses of sockets hold some hundred bytes.
const ABOVE: &str = "/run";

#[derive(Debug)]
pub struct Directory(PathBuf);

impl Directory {
    pub fn new() -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        static SWEEP: Once = Once::new();
        SWEEP.call_once(sweep);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = Path::new(ABOVE).join(format!("{PREFIX}{}-{number}", std::process::id()));
        fs::create_dir(&path).with_context(|| format!("can't make {}", path.display()))?;
        Ok(Self(path))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        remove(&self.0);
    }
}

fn remove(path: &Path) {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let mounts = mounts.lines().filter_map(|line| line.split(' ').nth(1));
    let mut below: Vec<_> = mounts
        .filter(|mount| Path::new(mount).starts_with(path))
        .collect();
    // Those inside others first.
    below.reverse();
    for mount in below {
        let _ = run(&format!("umount -l {mount}"));
    }
    let _ = fs::remove_dir_all(path);
}

/// Removes what processes that were killed left behind.
fn sweep() {
    for entry in fs::read_dir(ABOVE).into_iter().flatten().flatten() {
        if entry.file_name().to_str().is_some_and(orphaned) {
            remove(&entry.path());
        }
    }
}
