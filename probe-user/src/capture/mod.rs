//! Raw records into the model. No I/O.

pub mod bypass;
pub mod cgroup;
pub mod clock;
pub mod connection;
pub mod drops;
pub mod path;
mod reason;
pub mod tls;
pub mod vxlan;
