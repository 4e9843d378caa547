//! Whether a connection is this node's: nodes that are containers (kind, k3d) share their kernel with others, whose
//! connections a program in it sees as well.

use std::{
    collections::HashSet,
    fs,
    num::NonZeroUsize,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use lru::LruCache;

use super::cri::Runtime;
use crate::{
    model::{Owner, PodSource},
    namespace::FIRST_PID,
};

/// How often processes are searched for network namespaces, at the most.
const EVERY: Duration = Duration::from_secs(1);
/// How long it is believed that none of this node's processes is in a network namespace.
const BELIEVED: Duration = Duration::from_secs(5);
const NAMESPACES: NonZeroUsize = NonZeroUsize::new(4096).unwrap();

/// This node.
pub struct NodeScope {
    /// Process ids are all of this kernel's: everything is this node's.
    alone: bool,
    netns: u32,
    proc: PathBuf,
    /// Network namespaces of this node's processes, and since when it is known that one is not.
    known: LruCache<u32, Result<(), Instant>>,
    searched: Option<Instant>,
}

impl NodeScope {
    /// That of the calling thread, and of the processes in `proc`.
    pub fn new(proc: &Path) -> Self {
        let inode = |path: PathBuf| fs::metadata(path).map(|file| file.ino());
        Self {
            // Where it can't be read, it is not a container's.
            alone: inode(proc.join("1/ns/pid")).map_or(true, |inode| inode == FIRST_PID),
            netns: inode(proc.join("thread-self/ns/net")).map_or(0, |inode| inode as u32),
            proc: proc.to_owned(),
            known: LruCache::sparse(NAMESPACES),
            searched: None,
        }
    }

    /// Whether an end in the network namespace `netns` is this node's.
    pub fn has(&mut self, netns: u32, owner: &Owner, runtime: Option<&Runtime>) -> bool {
        if self.alone || netns == self.netns || is_named_here(owner) {
            return true;
        }
        if runtime.is_some_and(|runtime| runtime.netns(netns).is_some()) {
            return true;
        }
        match self.known.get(&netns) {
            Some(Ok(())) => return true,
            Some(Err(since)) if since.elapsed() < BELIEVED => return false,
            Some(Err(_)) | None => {}
        }
        let now = Instant::now();
        if self.searched.is_none_or(|at| now.duration_since(at) >= EVERY) {
            self.searched = Some(now);
            for inode in namespaces(&self.proc) {
                self.known.put(inode, Ok(()));
            }
            if self.known.get(&netns).is_none_or(Result::is_err) {
                self.known.put(netns, Err(now));
            }
        }
        self.known.get(&netns).is_some_and(Result::is_ok)
    }
}

/// By those who know this node's pods only.
fn is_named_here(owner: &Owner) -> bool {
    owner.pod.as_ref().is_some_and(|pod| {
        matches!(
            pod.source,
            PodSource::Cri | PodSource::Kubelet | PodSource::KubeApi
        )
    })
}

/// Network namespaces of all processes.
fn namespaces(proc: &Path) -> HashSet<u32> {
    let processes = fs::read_dir(proc).into_iter().flatten().flatten();
    processes
        .filter(|entry| {
            entry
                .file_name()
                .as_encoded_bytes()
                .iter()
                .all(u8::is_ascii_digit)
        })
        .filter_map(|entry| fs::metadata(entry.path().join("ns/net")).ok())
        .map(|file| file.ino() as u32)
        .collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// A /proc whose process 1 is in some pid namespace, with processes in these network namespaces.
    fn proc(namespaces: &[&str]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (pid, netns) in ["1", "thread-self", "77"].iter().zip(namespaces) {
            let ns = dir.path().join(pid).join("ns");
            fs::create_dir_all(&ns).unwrap();
            fs::write(ns.join("pid"), "").unwrap();
            let file = dir.path().join(netns);
            fs::write(&file, "").unwrap();
            symlink(&file, ns.join("net")).unwrap();
        }
        dir
    }

    fn inode(dir: &tempfile::TempDir, name: &str) -> u32 {
        fs::metadata(dir.path().join(name)).unwrap().ino() as u32
    }

    #[test]
    fn what_is_a_nodes_own() {
        let dir = proc(&["node", "node", "pod"]);
        fs::write(dir.path().join("other"), "").unwrap();
        let mut home = NodeScope::new(dir.path());
        let nobody = Owner::default();
        for (namespace, own) in [("node", true), ("pod", true), ("other", false)] {
            assert_eq!(
                home.has(inode(&dir, namespace), &nobody, None),
                own,
                "{namespace}"
            );
        }
        for (source, own) in [
            (PodSource::Cri, true),
            (PodSource::Cgroup, false),
            (PodSource::PodLogDir, false),
        ] {
            let owner = Owner {
                pod: Some(crate::model::Pod {
                    uid: String::new(),
                    namespace: None,
                    name: None,
                    qos: None,
                    workload: None,
                    labels: None,
                    address_since: None,
                    source,
                }),
                ..Owner::default()
            };
            assert_eq!(home.has(inode(&dir, "other"), &owner, None), own, "{source:?}");
        }
    }

    #[test]
    fn a_node_of_its_own_has_all() {
        // Where nothing is known of process 1.
        let mut home = NodeScope::new(Path::new("/nonexistent"));
        assert!(home.has(4_026_999_999, &Owner::default(), None));
    }
}
