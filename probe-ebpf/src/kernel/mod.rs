//! The shared part of the BPF objects.

pub mod copy;
pub mod counters;
pub mod filter;
pub mod globals;
pub mod owner;
pub mod read;
pub mod ring;
pub mod sock;
pub mod table;
