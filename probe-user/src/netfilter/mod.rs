//! What the node's packet filter knows of a connection.

pub mod conntrack;
pub mod rules;
pub mod services;
