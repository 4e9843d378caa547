//! Which records are the two sides of one connection.

use std::{
    hash::{Hash, Hasher},
    net::{IpAddr, Ipv6Addr, SocketAddr},
};

use probe_ebpf::contract::{
    connection::{Address, Connection, HandshakeKey},
    outcome::state,
};

/// What both sides of a connection have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pair {
    client: Address,
    server: Address,
    ports: (u16, u16),
    /// Of a loopback connection: every network namespace has these addresses. Otherwise 0.
    netns: u32,
}

/// In three numbers rather than byte by byte: each record is looked up by it.
impl Hash for Pair {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let Self {
            client,
            server,
            ports: (client_port, server_port),
            netns,
        } = *self;
        state.write_u128(u128::from_ne_bytes(client));
        state.write_u128(u128::from_ne_bytes(server));
        state.write_u64(u64::from(client_port) << 48 | u64::from(server_port) << 32 | u64::from(netns));
    }
}

impl Pair {
    /// Of a connection under way, or one that ended.
    pub fn of(raw: &Connection) -> Self {
        Self::new(
            raw.client,
            raw.server,
            (raw.client_port, raw.server_port),
            raw.netns,
        )
    }

    /// Of a handshake that the client has not finished.
    pub fn of_handshake(key: &HandshakeKey) -> Self {
        Self::new(
            key.client,
            key.server,
            (key.client_port, key.server_port),
            key.netns,
        )
    }

    /// As the server's side has it, where the node translates addresses.
    pub fn of_addresses(client: SocketAddr, server: SocketAddr) -> Self {
        let mapped = |address: IpAddr| match address {
            IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
            IpAddr::V6(address) => address.octets(),
        };
        Self::new(
            mapped(client.ip()),
            mapped(server.ip()),
            (client.port(), server.port()),
            0,
        )
    }

    fn new(client: Address, server: Address, ports: (u16, u16), netns: u32) -> Self {
        let is_loopback = Ipv6Addr::from(server).to_canonical().is_loopback();
        Self {
            client,
            server,
            ports,
            netns: if is_loopback { netns } else { 0 },
        }
    }
}

/// Whether the side that left this TCP state for `TCP_CLOSE` closed first. The peer may then keep its side open for long, and
/// has no record until it ends.
pub const fn has_closed_first(last_state: u8) -> bool {
    matches!(last_state, state::FIN_WAIT1 | state::FIN_WAIT2)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn octets(address: IpAddr) -> Address {
        match address {
            IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
            IpAddr::V6(address) => address.octets(),
        }
    }

    fn pair(client_port: u16, netns: u32, server: &str) -> Pair {
        Pair::of_handshake(&HandshakeKey {
            client: octets("10.244.2.2".parse().unwrap()),
            server: octets(server.parse().unwrap()),
            client_port,
            server_port: 2379,
            netns,
        })
    }

    #[test]
    fn two_sides_are_one_connection() {
        for (server, ports, namespaces, expected) in [
            ("10.0.0.1", (1, 1), (7, 8), true),
            ("10.0.0.1", (1, 2), (7, 7), false),
            ("fd00::1", (1, 1), (7, 8), true),
            ("::1", (1, 1), (7, 7), true),
            ("::1", (1, 1), (7, 8), false),
            ("127.0.0.1", (1, 1), (7, 7), true),
            ("127.0.0.1", (1, 1), (7, 8), false),
            ("127.9.9.9", (1, 1), (7, 8), false),
        ] {
            let one = pair(ports.0, namespaces.0, server);
            assert_eq!(
                one == pair(ports.1, namespaces.1, server),
                expected,
                "{server} {ports:?} {namespaces:?}"
            );
        }
    }

    #[test]
    fn a_translated_client_is_paired_by_what_the_server_has() {
        for (client, server) in [
            ("192.168.0.1:62134", "10.0.0.1:2379"),
            ("[fd00::2]:1", "[fd00::1]:2"),
        ] {
            let (client, server): (SocketAddr, SocketAddr) =
                (client.parse().unwrap(), server.parse().unwrap());
            let key = HandshakeKey {
                client: octets(client.ip()),
                server: octets(server.ip()),
                client_port: client.port(),
                server_port: server.port(),
                netns: 7,
            };
            assert_eq!(Pair::of_addresses(client, server), Pair::of_handshake(&key));
        }
    }

    #[test]
    fn the_side_that_sent_the_first_fin() {
        for (last_state, expected) in [
            (state::FIN_WAIT1, true),
            (state::FIN_WAIT2, true),
            (state::LAST_ACK, false),
            (state::ESTABLISHED, false),
        ] {
            assert_eq!(has_closed_first(last_state), expected, "{last_state}");
        }
    }
}
