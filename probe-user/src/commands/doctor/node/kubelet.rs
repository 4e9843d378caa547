//! Where kubelet is, and where its files are.

use std::io::ErrorKind;

use crate::{
    attribution::procfs::Proc,
    host::{files::Root, kubelet as files},
    model::doctor::node::Kubelet,
    namespace::{FIRST_PID, inode, own_netns},
};

/// Processes that only a node has: who sees them sees the node's.
const NODES: [&str; 6] = ["systemd", "init", "containerd", "crio", "dockerd", "kube-proxy"];

pub struct Found {
    pub kubelet: Kubelet,
    pub kubeconfig: String,
    pub bootstrap: Option<String>,
    /// It needs no API server: why.
    pub alone: Option<String>,
}

/// What there is of a kubelet; `None`: nothing.
pub fn find(root: &Root) -> Option<Found> {
    let proc = Proc::new("/proc".into());
    let mut seen = is_first_pid_namespace();
    let mut process = None;
    for pid in proc.pids() {
        let Some((name, _)) = proc.identity(pid) else {
            continue;
        };
        seen |= NODES.contains(&name.as_str());
        if process.is_none() && files::PROCESSES.contains(&name.as_str()) && is_here(&proc, pid) {
            process = Some(pid);
        }
    }
    let is_there = |path: &str| match root.text(path) {
        Ok(_) => true,
        Err(error) => error.kind() != ErrorKind::NotFound,
    };
    let flags = process.map(|pid| files::arguments(&proc.command(pid).0));
    let known = files::KUBECONFIGS.into_iter().find(|path| is_there(path));
    let has_bootstrap = is_there(files::BOOTSTRAP);
    let named = flags.as_ref().and_then(|flags| flags.kubeconfig.clone());
    if process.is_none() && known.is_none() && !has_bootstrap {
        return None;
    }
    let alone = match process {
        Some(pid) if named.is_none() && known.is_none() && !has_bootstrap => Some(format!(
            "kubelet (pid {pid}) works without an API server: it has no --kubeconfig"
        )),
        _ => None,
    };
    let bootstrap = flags
        .as_ref()
        .and_then(|flags| flags.bootstrap.clone())
        .or_else(|| (has_bootstrap || process.is_none()).then(|| files::BOOTSTRAP.to_owned()));
    Some(Found {
        kubelet: match process {
            Some(pid) => Kubelet::Runs { pid },
            None if seen => Kubelet::Stopped,
            None => Kubelet::NotSeen,
        },
        kubeconfig: named.unwrap_or_else(|| known.unwrap_or(files::KUBECONFIGS[0]).to_owned()),
        bootstrap,
        alone,
    })
}

/// Whether a process is in this one's network namespace: on a machine with several nodes, of this one.
pub fn is_here(proc: &Proc, pid: u32) -> bool {
    inode(proc.path(pid, "ns/net")).is_some_and(|inode| Some(inode) == own_netns())
}

fn is_first_pid_namespace() -> bool {
    inode("/proc/self/ns/pid") == Some(FIRST_PID)
}
