//! Who owns one end of a connection: process, container, pod. Each name carries its source.

use std::sync::Arc;

use super::{selector::Labels, workload::Workload};

/// All that is known; every part may be missing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Owner {
    pub process: Option<Process>,
    pub container: Option<Container>,
    pub pod: Option<Pod>,
    /// Of another end than this node's, whose address is a node's: which. Nothing else is known then.
    pub node: Option<Node>,
}

impl Owner {
    /// Whether anything at all is known.
    pub fn is_known(&self) -> bool {
        self.process.is_some() || self.container.is_some() || self.pod.is_some() || self.node.is_some()
    }
}

impl Owner {
    /// For people: pod and process, or else the node. Not escaped.
    pub fn describe(&self) -> String {
        let mut words = Vec::new();
        if let Some(pod) = &self.pod {
            words.push(match (&pod.namespace, &pod.name) {
                (Some(namespace), Some(name)) => format!("{namespace}/{name}"),
                _ => format!("pod {}", pod.uid),
            });
        }
        if let Some(process) = &self.process {
            words.push(format!("{} (pid {})", process.name, process.pid));
        }
        if let Some(node) = self.node.as_ref().filter(|_| words.is_empty()) {
            words.push(format!("somebody on node {}", node.name));
        }
        if words.is_empty() {
            words.push("somebody unknown".to_owned());
        }
        words.join(", ")
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// In the initial pid namespace.
    pub pid: u32,
    /// The kernel's name of it (comm): at most 15 bytes. Not escaped: a process chooses its own name.
    pub name: String,
    /// The command line; empty where neither the kernel nor /proc could tell.
    pub command: Vec<String>,
    /// `command` was cut at what the kernel side takes.
    pub command_cut: bool,
    pub executable: Option<String>,
    /// Real user id in the initial user namespace.
    pub uid: Option<u32>,
    pub source: ProcessSource,
}

crate::names! {
    /// How a process was found.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum ProcessSource {
        /// It was on the CPU when it connected or closed.
        Kernel = "kernel",
        /// It holds the listening socket that the connection came in through.
        Listener = "listener",
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    /// 64 hex digits.
    pub id: String,
    /// Unknown where the cgroup is a bare id.
    pub runtime: Option<Runtime>,
    /// As its pod names it. The runtime tells.
    pub name: Option<String>,
}

crate::names! {
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum Runtime {
        Containerd = "containerd",
        CriO = "cri-o",
        Docker = "docker",
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// As the kubelet knows it: for a static pod the 32 hex digits of its configuration's hash.
    pub uid: String,
    pub namespace: Option<String>,
    pub name: Option<String>,
    pub qos: Option<Qos>,
    /// What it belongs to.
    pub workload: Option<Workload>,
    /// As the runtime had them when the pod began, or as Kubernetes has them. Neither shown nor recorded.
    pub labels: Option<Arc<Labels>>,
    /// Where `namespace` and `name` come from.
    pub source: PodSource,
}

/// A node of the cluster, as the Kubernetes API names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    pub name: String,
}

crate::names! {
    /// As Kubernetes writes it (`status.qosClass`).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum Qos {
        Guaranteed = "Guaranteed",
        Burstable = "Burstable",
        BestEffort = "BestEffort",
    }
}

crate::names! {
    /// Where a pod's name comes from.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum PodSource {
        /// The uid alone is known, from the control group.
        Cgroup = "cgroup",
        /// `/var/log/pods/<namespace>_<name>_<uid>`.
        PodLogDir = "pod-log-dir",
        /// The container runtime.
        Cri = "cri",
        /// The kubelet's `/pods`.
        Kubelet = "kubelet",
        /// The Kubernetes API.
        KubeApi = "kube-api",
    }
}

/// The pod behind an address of this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    pub namespace: String,
    pub pod: String,
}
