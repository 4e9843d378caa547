//! Who owns one end of a connection: process, container, pod. Each name carries its source.

use std::sync::{Arc, LazyLock};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{command_line::CommandLine, selector::Labels, workload::Workload};

/// The owner of an endpoint. Every part may be missing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Owner {
    /// The process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub process: Option<Process>,
    /// Its container.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container: Option<Container>,
    /// Its pod.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod: Option<Pod>,
    /// The node whose address it is, if nothing else is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<Node>,
}

impl Owner {
    /// The one of whom nothing is known: one for all connections.
    pub fn unknown() -> Arc<Self> {
        static UNKNOWN: LazyLock<Arc<Owner>> = LazyLock::new(Arc::default);
        Arc::clone(&UNKNOWN)
    }

    /// Whether anything at all is known.
    pub fn is_known(&self) -> bool {
        self.process.is_some() || self.container.is_some() || self.pod.is_some() || self.node.is_some()
    }

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
            words.push(format!("a process on node {}", node.name));
        }
        if words.is_empty() {
            words.push("an unknown process".to_owned());
        }
        words.join(", ")
    }
}

fn is_empty(command: &CommandLine) -> bool {
    command.is_empty()
}

// Its texts are not escaped: a process chooses its own name.
/// A process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Process {
    /// Process id in the initial pid namespace.
    pub pid: u32,
    /// The kernel's name of the process (comm), at most 15 bytes.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub name: String,
    /// The command line, at most 256 bytes of it, `***` in place of secrets; absent if neither the kernel nor /proc has it.
    #[serde(skip_serializing_if = "is_empty", default)]
    pub command: CommandLine,
    /// Real user id in the initial user namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// Path of the executable.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub executable: Option<String>,
    /// How the process was found: `kernel` (it was on the CPU when it connected or closed) or `listener` (it holds the
    /// listening socket).
    pub source: ProcessSource,
    /// True if `command` was cut.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub command_cut: bool,
    /// When the process started, to the millisecond.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[cfg_attr(feature = "schema", schemars(with = "Option<String>", extend("format" = "date-time")))]
    pub started: Option<Timestamp>,
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

/// A container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Container {
    /// 64 hex digits.
    pub id: String,
    /// The container runtime; absent if the name of the cgroup does not show it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runtime: Option<Runtime>,
    /// The name of the container in its pod.
    #[serde(skip_serializing_if = "Option::is_none")]
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

/// A pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Pod {
    /// The namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// The name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The uid that the kubelet uses: of a static pod the 32 hex digits of its configuration's hash.
    pub uid: String,
    /// Where the name comes from: `cri` (the container runtime), `pod-log-dir` (`/var/log/pods`), `kubelet`, `kube-api`, or
    /// `cgroup` (only the uid is known).
    pub source: PodSource,
    /// The class of quality of service.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub qos: Option<Qos>,
    /// The workload that the pod belongs to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workload: Option<Workload>,
    /// Since when the pod has had its address for certain: since the runtime made its sandbox, or else since Kubernetes saw its
    /// first container run. Absent for a pod on its node's network.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[cfg_attr(feature = "schema", schemars(with = "Option<String>", extend("format" = "date-time")))]
    pub address_since: Option<Timestamp>,
    /// As the runtime had them when the pod began, or as Kubernetes has them. Neither shown nor recorded.
    #[serde(skip)]
    pub labels: Option<Arc<Labels>>,
}

/// A node of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Node {
    /// The node's name.
    pub name: String,
    /// Where the name comes from.
    pub source: NodeSource,
}

crate::names! {
    /// Where a node's name comes from.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum NodeSource {
        /// The Kubernetes API.
        KubeApi = "kube-api",
    }
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
