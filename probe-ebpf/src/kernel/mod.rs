//! The shared part of the BPF objects. No maps: each object would have them all.

pub mod atomic;
pub mod cgroup;
pub mod copy;
pub mod globals;
pub mod log;
pub mod packet;
pub mod read;
pub mod sock;
