//! What the node's packet filter knows of a connection.

pub mod conntrack;
mod link;
pub mod rules;
pub mod services;
