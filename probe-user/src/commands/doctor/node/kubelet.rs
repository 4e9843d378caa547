//! Where kubelet is, and where its files are.

use std::io::ErrorKind;

use crate::{
    attribution::procfs::Proc,
    commands::doctor::kubelet::running,
    host::{files::Root, kubelet as files},
    model::doctor::node::Kubelet,
    namespace::{FIRST_PID, inode},
};

/// Processes that only a node has: who sees them sees the node's.
const NODES: [&str; 6] = ["systemd", "init", "containerd", "crio", "dockerd", "kube-proxy"];

pub struct FoundKubelet {
    pub kubelet: Kubelet,
    pub kubeconfig: String,
    pub bootstrap: Option<String>,
    /// It needs no API server: why.
    pub alone: Option<String>,
}

/// What there is of a kubelet; `None`: nothing.
pub fn find(root: &Root) -> Option<FoundKubelet> {
    let running = running();
    let process = running.as_ref().map(|running| running.pid);
    let is_there = |path: &str| match root.text(path) {
        Ok(_) => true,
        Err(error) => error.kind() != ErrorKind::NotFound,
    };
    let flags = running.map(|running| running.arguments);
    let known = files::KUBECONFIGS.into_iter().find(|path| is_there(path));
    let has_bootstrap = is_there(files::BOOTSTRAP);
    let named = flags.as_ref().and_then(|flags| flags.kubeconfig.clone());
    if process.is_none() && known.is_none() && !has_bootstrap {
        return None;
    }
    let alone = match process {
        Some(pid) if named.is_none() && known.is_none() && !has_bootstrap => Some(format!(
            "kubelet (pid {pid}) runs without an API server: it has no --kubeconfig"
        )),
        _ => None,
    };
    let bootstrap = flags
        .as_ref()
        .and_then(|flags| flags.bootstrap.clone())
        .or_else(|| (has_bootstrap || process.is_none()).then(|| files::BOOTSTRAP.to_owned()));
    Some(FoundKubelet {
        kubelet: match process {
            Some(pid) => Kubelet::Runs { pid },
            None if sees_the_node() => Kubelet::Stopped,
            None => Kubelet::NotSeen,
        },
        kubeconfig: named.unwrap_or_else(|| known.unwrap_or(files::KUBECONFIGS[0]).to_owned()),
        bootstrap,
        alone,
    })
}

/// Whether the node's processes would be seen here.
fn sees_the_node() -> bool {
    let proc = Proc::new("/proc".into());
    let is_nodes = |pid| {
        proc.identity(pid)
            .is_some_and(|(name, _)| NODES.contains(&name.as_str()))
    };
    inode("/proc/self/ns/pid") == Some(FIRST_PID) || proc.pids().into_iter().any(is_nodes)
}
