//! Pure types and rules: no aya, no tokio, no files.

pub mod cadence;
pub mod connection;
pub mod owner;

pub use cadence::Cadence;
pub use connection::Connection;
pub use owner::{Container, Owner, Pod, Process, ProcessSource, PodSource, Qos, Runtime};
pub use probe_ebpf::contract::outcome::{Outcome, Role};
