//! Settings that the command line and the configuration file give to the rooms. Naming one reads nothing: what is to be found on
//! the machine is found by the room that uses it.

use std::{path::PathBuf, time::Duration};

use ipnet::IpNet;
use probe_ebpf::contract::connection::StormLimit;

use super::{Outcome, Role};

/// Where kernels export their type information.
pub const VMLINUX: &str = "/sys/kernel/btf/vmlinux";

/// What is used of this kernel.
#[derive(Clone, Debug)]
pub struct KernelSource {
    /// Its type information.
    pub btf: PathBuf,
    /// Tracepoints, functions and netfilter hooks to do without.
    pub without: Vec<String>,
}

impl Default for KernelSource {
    fn default() -> Self {
        Self {
            btf: VMLINUX.into(),
            without: Vec::new(),
        }
    }
}

/// Which connections the kernel side follows and reports.
#[derive(Clone, Debug)]
pub struct ConnectionOptions {
    /// Server ports; empty: all.
    pub ports: Vec<u16>,
    /// Peer prefixes; empty: all.
    pub peers: Vec<IpNet>,
    pub roles: Vec<Role>,
    /// Outcomes to report; all are counted.
    pub outcomes: Vec<Outcome>,
    /// Size of the ring in bytes: a power of two, at least a page.
    pub ring_bytes: u32,
    /// Connections followed at once.
    pub max_connections: u32,
    /// How many records are told one by one.
    pub storm_limit: StormLimit,
    pub source: KernelSource,
}

crate::names! {
    /// Which messages of kernel programs are printed.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum MessageLevel {
        /// What is rare: a full table, a lost record, a value that is not expected.
        Debug = "debug",
        /// Every connection, too.
        Trace = "trace",
    }
}

/// The socket of the container runtime.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum RuntimeSocket {
    /// The first of the well-known ones that exists.
    Auto,
    #[default]
    Off,
    At(PathBuf),
}

impl From<Option<PathBuf>> for RuntimeSocket {
    /// As an option has it: `none` is off.
    fn from(socket: Option<PathBuf>) -> Self {
        match socket {
            None => Self::Auto,
            Some(socket) if socket.as_os_str() == "none" => Self::Off,
            Some(socket) => Self::At(socket),
        }
    }
}

/// Where the credentials for the Kubernetes API are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Kubeconfig {
    /// The service account, in a pod; otherwise none.
    Auto,
    #[default]
    Off,
    At(PathBuf),
}

impl From<Option<PathBuf>> for Kubeconfig {
    /// As an option has it: `none` is off.
    fn from(file: Option<PathBuf>) -> Self {
        match file {
            None => Self::Auto,
            Some(file) if file.as_os_str() == "none" => Self::Off,
            Some(file) => Self::At(file),
        }
    }
}

/// What is asked of Kubernetes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KubernetesSettings {
    pub kubeconfig: Kubeconfig,
    /// The URL of a kubelet that is asked for pods instead of the API.
    pub kubelet: Option<String>,
    /// The kubelet's certificate is not checked.
    pub kubelet_insecure_tls: bool,
}

/// What the history has in memory at the most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HistoryBounds {
    pub connections: usize,
    /// Bytes that they take.
    pub size: usize,
    pub age: Duration,
}

/// Where the history is on disk, and what it may take there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreBounds {
    /// Of this store alone.
    pub directory: PathBuf,
    /// Bytes of all files.
    pub size: u64,
    /// A file that was last written longer ago is removed.
    pub age: Duration,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_option_names() {
        let path = |path: &str| Some(PathBuf::from(path));
        for (option, socket, kubeconfig) in [
            (None, RuntimeSocket::Auto, Kubeconfig::Auto),
            (path("none"), RuntimeSocket::Off, Kubeconfig::Off),
            (
                path("/a"),
                RuntimeSocket::At("/a".into()),
                Kubeconfig::At("/a".into()),
            ),
            (
                path("./none"),
                RuntimeSocket::At("./none".into()),
                Kubeconfig::At("./none".into()),
            ),
        ] {
            assert_eq!(RuntimeSocket::from(option.clone()), socket, "{option:?}");
            assert_eq!(Kubeconfig::from(option.clone()), kubeconfig, "{option:?}");
        }
    }
}
