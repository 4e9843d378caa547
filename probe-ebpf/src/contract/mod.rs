//! Records, map and program names, the offsets table and the outcome rule: all that both sides must agree on.

pub mod connection;
pub mod offsets;
pub mod outcome;
