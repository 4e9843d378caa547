//! Pure types and rules: no aya, no tokio, no files.

pub mod address;
pub mod addresses;
pub mod bypass;
pub mod cadence;
pub mod cause;
pub mod check;
pub mod command_line;
pub mod connection;
pub mod doctor;
pub mod etcd_log;
pub mod exit;
pub mod finding;
pub mod flow;
pub mod handshake;
pub mod history;
pub mod host;
pub mod json_event;
pub mod listed;
pub mod names;
pub mod network;
pub mod outcome;
pub mod owner;
pub mod pairing;
pub mod part;
pub mod path;
pub mod path_mtu;
pub mod plural;
pub mod probe_command;
#[cfg(test)]
mod random;
pub mod recording_scope;
pub mod routing;
pub mod rule;
pub mod secret;
pub mod selector;
pub mod settings;
pub mod summary;
pub mod throttle;
pub mod tls;
pub mod translation;
pub mod unlisted_time;
pub mod verdict;
pub mod vxlan;
pub mod workload;

pub use cadence::{Cadence, Cadences};
pub use cause::Cause;
pub use command_line::{CommandLine, Secrets};
pub use connection::Connection;
pub use exit::Exit;
pub use finding::Finding;
pub use json_event::JsonEvent;
pub use listed::Listed;
pub use owner::{Container, Node, Owner, Pod, PodSource, Process, ProcessSource, Qos, Runtime};
pub use probe_ebpf::contract::outcome::{Outcome, Role};
#[cfg(feature = "schema")]
#[doc(hidden)]
pub use schemars;
pub use summary::Summary;
pub use verdict::Verdict;
