//! The command `probe`: rooms and arrows are drawn in docs/design.md.

pub mod attribution;
pub mod capture;
pub mod cli;
pub mod cluster;
pub mod commands;
pub mod error;
pub mod host;
pub mod kernel;
pub mod logs;
mod namespace;
pub mod netfilter;
pub mod recording;
pub mod report;
pub mod rtnetlink;
pub mod serve;
pub mod tls;

pub use probe_model as model;
