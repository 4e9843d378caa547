//! What the node's own files say: read with bounds, parsed by pure functions. Nothing in them is trusted.

pub mod cni;
pub mod files;
pub mod kubelet;
pub mod reservations;
pub mod resolv;
pub mod subnet_env;
