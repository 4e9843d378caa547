//! What the node's own files say: read with bounds, parsed by pure functions. Nothing in them is trusted. And what this process uses of the
//! node's CPU time (`cpu`).

pub mod certificate;
pub mod child;
pub mod cni;
pub mod cpu;
pub mod files;
pub mod hosts;
pub mod journal;
pub mod kubeconfig;
pub mod kubelet;
pub mod proc_net;
pub mod reservations;
pub mod resolv;
pub mod sockets;
pub mod subnet_env;
pub mod tools;

/// The name of this node: the one that is set, or the host's in lower case, as the kubelet has it.
pub fn node_name(set: Option<&str>) -> String {
    let host = || nix::unistd::gethostname().map(|name| name.to_string_lossy().to_lowercase());
    set.map_or_else(|| host().unwrap_or_default(), str::to_owned)
}
