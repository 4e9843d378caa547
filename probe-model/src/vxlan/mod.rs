//! VXLAN overlays: what should be, what is on the wire, and what is wrong.

pub mod diagnosis;
pub mod filters;
pub mod finding;
pub mod overlay;
pub mod path_mtu;
pub mod pings;
pub mod routes;
pub mod traffic;
mod underlay;
pub mod view;

#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_of_peers;
#[cfg(test)]
mod tests_of_routes;
#[cfg(test)]
mod tests_of_view;
#[cfg(test)]
mod tests_of_ways;

use std::net::IpAddr;

pub use diagnosis::Diagnosis;
pub use finding::{Diagnosed, Fault};
pub use overlay::Overlay;
pub use traffic::Traffic;

/// A peer as sentences name it.
pub fn peer_name(vtep: Option<IpAddr>) -> String {
    vtep.map_or_else(|| "a peer".to_owned(), |vtep| vtep.to_string())
}
