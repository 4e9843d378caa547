//! Dials a server and returns what it serves, trusted or not. Every dial is bounded in time and bytes.

mod dial;
pub mod http;
mod recorder;
mod timed;

pub use dial::{Ask, Identity, IdentityError, Request, dial};
