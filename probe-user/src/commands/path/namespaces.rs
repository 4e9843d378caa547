//! Network namespaces: whose each is, and where to enter it.

use std::{
    collections::HashMap,
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use crate::attribution::{cri::Runtime, procfs::Proc};

/// Where `ip netns` keeps them.
const NAMED: &str = "/run/netns";
/// How long an answer holds: a namespace's number may become another's.
const HOLDS: Duration = Duration::from_secs(30);
/// Namespaces remembered.
const KEPT: usize = 1024;

#[derive(Clone, Debug)]
struct CachedName {
    at: Instant,
    name: String,
    file: Option<PathBuf>,
}

/// Names and files of network namespaces.
pub struct Namespaces {
    own: u32,
    node: String,
    runtime: Option<Runtime>,
    proc: Proc,
    known: HashMap<u32, CachedName>,
}

impl Namespaces {
    /// `own`: the inode of the one that probe runs in, which is the node's.
    pub fn new(own: u32, node: String, runtime: Option<Runtime>) -> Self {
        Self {
            own,
            node,
            runtime,
            proc: Proc::new("/proc".into()),
            known: HashMap::new(),
        }
    }

    /// Looks for these, where they are not known.
    pub fn learn(&mut self, inodes: impl Iterator<Item = u32>) {
        let now = Instant::now();
        for inode in inodes {
            let fresh = |known: &CachedName| now.duration_since(known.at) < HOLDS;
            if inode == 0 || self.known.get(&inode).is_some_and(fresh) {
                continue;
            }
            if self.known.len() >= KEPT {
                self.known.clear();
            }
            let known = self.search(inode, now);
            self.known.insert(inode, known);
        }
    }

    fn search(&self, inode: u32, at: Instant) -> CachedName {
        let named = entries(Path::new(NAMED)).find(|file| is(file, inode));
        let process = || {
            let pids = self.proc.pids().into_iter();
            pids.map(|pid| (pid, self.proc.path(pid, "ns/net")))
                .find(|(_, file)| is(file, inode))
        };
        let pod = self.runtime.as_ref().and_then(|runtime| runtime.netns(inode));
        if inode == self.own {
            return CachedName {
                at,
                name: self.node.clone(),
                file: Some("/proc/thread-self/ns/net".into()),
            };
        }
        let process = process();
        let name = match (pod, &named, &process) {
            (Some(named), _, _) => format!("{}/{}", named.pod.namespace, named.pod.name),
            (None, Some(file), _) => {
                let name = file.file_name().unwrap_or_default();
                format!("netns {}", name.to_string_lossy())
            }
            (None, None, Some((pid, _))) => {
                let name = self.proc.identity(*pid).map(|(name, _)| name).unwrap_or_default();
                format!("netns of {name} (pid {pid})")
            }
            (None, None, None) => format!("netns {inode}"),
        };
        CachedName {
            at,
            name,
            // Processes come and go; their file is taken where there is no other.
            file: named.or(process.map(|(_, file)| file)),
        }
    }

    /// As people know it.
    pub fn name(&self, inode: u32) -> String {
        match self.known.get(&inode) {
            Some(known) => known.name.clone(),
            None if inode == 0 => "?".to_owned(),
            None => format!("netns {inode}"),
        }
    }

    /// What it is entered by; `None`: nothing that is known.
    pub fn file(&self, inode: u32) -> Option<&Path> {
        self.known.get(&inode)?.file.as_deref()
    }
}

fn entries(directory: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.map(|entry| entry.path())
}

fn is(file: &Path, inode: u32) -> bool {
    fs::metadata(file).is_ok_and(|file| file.ino() == u64::from(inode))
}
