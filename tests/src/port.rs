//! Ports that one scenario alone uses.

use std::{
    os::{
        linux::net::SocketAddrExt as _,
        unix::net::{SocketAddr, UnixDatagram},
    },
    sync::{Mutex, PoisonError},
};

/// Below those that the kernel chooses for clients.
const FIRST: u16 = 20_000;
const LAST: u16 = 30_000;

/// A port that no other scenario of this machine uses until this process ends: probe sees every network namespace of the
/// kernel, scenarios run side by side, and so may programs of scenarios.
///
/// # Panics
/// When all are in use.
pub fn unique_port() -> u16 {
    static CLAIMED: Mutex<Vec<(u16, UnixDatagram)>> = Mutex::new(Vec::new());
    let mut claimed = CLAIMED.lock().unwrap_or_else(PoisonError::into_inner);
    // Each process begins elsewhere, so that a port is not used again soon after another process has ended.
    let begin = FIRST + (std::process::id() % 100) as u16 * 100;
    let begin = claimed.last().map_or(begin, |(port, _)| port + 1);
    let port = (begin..LAST).chain(FIRST..begin).find_map(|port| {
        // The name is free again when this process ends, however it ends.
        let name = SocketAddr::from_abstract_name(format!("probe-lab-port-{port}")).ok()?;
        Some((port, UnixDatagram::bind_addr(&name).ok()?))
    });
    let Some(port) = port else {
        panic!("no port from {FIRST} to {LAST} is free");
    };
    let number = port.0;
    claimed.push(port);
    number
}

#[cfg(test)]
mod tests {
    use super::unique_port;

    #[test]
    fn no_port_is_given_twice() {
        let ports: std::collections::BTreeSet<u16> = (0..300).map(|_| unique_port()).collect();
        assert_eq!(ports.len(), 300);
    }
}
