//! Dials a server and tells all that it shows, whether or not it is to be trusted. Every dial is bounded in time and bytes.

mod dial;
pub mod http;
mod recorder;
mod timed;

pub use dial::{Ask, Identity, IdentityError, Request, dial};
