//! What the node's own files say: read with bounds, parsed by pure functions. Nothing in them is trusted.

pub mod certificate;
pub mod cni;
pub mod files;
pub mod hosts;
pub mod journal;
pub mod kubeconfig;
pub mod kubelet;
pub mod reservations;
pub mod resolv;
pub mod sockets;
pub mod subnet_env;
