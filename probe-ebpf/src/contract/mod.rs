//! Records, map names, the hooks and offsets tables and the outcome rule: all that both sides must agree on.

pub mod bypass;
pub mod connection;
pub mod drops;
pub mod hooks;
pub mod offsets;
pub mod outcome;
pub mod path;
pub mod tls;
pub mod vxlan;
