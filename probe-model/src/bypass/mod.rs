//! Traffic that bypasses conntrack: the packets, the rule responsible, the broken Services.

pub mod cause;
pub mod diagnosis;
pub mod finding;
pub mod rule;
pub mod service;
pub mod stream;
#[cfg(test)]
mod tests;
pub mod view;
pub mod virtual_server;

pub use diagnosis::diagnose;
pub use view::View;
