//! Both ends of a connection on one kernel: each server record is joined with the owner of its client.

use std::{
    collections::VecDeque,
    net::{IpAddr, SocketAddr},
    num::NonZeroUsize,
    sync::Arc,
};

use lru::LruCache;
use probe_ebpf::contract::connection::{Address, Connection as Raw, HandshakeKey};

use crate::model::Owner;

/// Client ends remembered for a server's record that comes later.
const CLIENTS: NonZeroUsize = NonZeroUsize::new(16_384).unwrap();
/// Server ends that wait for their client's record.
const WAITING: usize = 8192;
/// Room for so many is kept when none waits.
const FEW: usize = 256;

/// What both ends have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Pair {
    client: Address,
    server: Address,
    ports: (u16, u16),
    /// Of a loopback connection: there, addresses say nothing across namespaces. Elsewhere 0.
    netns: u32,
}

impl Pair {
    pub fn of(raw: &Raw) -> Self {
        Self::new(
            raw.client,
            raw.server,
            (raw.client_port, raw.server_port),
            raw.netns,
        )
    }

    pub fn of_handshake(key: &HandshakeKey) -> Self {
        Self::new(
            key.client,
            key.server,
            (key.client_port, key.server_port),
            key.netns,
        )
    }

    /// As the server's end has it, where the node translates addresses.
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
        let loopback = std::net::Ipv6Addr::from(server).to_canonical().is_loopback();
        Self {
            client,
            server,
            ports,
            netns: if loopback { netns } else { 0 },
        }
    }
}

/// The owners of client ends, bounded, and what waits for one.
pub struct Pairing<W> {
    clients: LruCache<Pair, Arc<Owner>>,
    /// Each with the round it came in.
    waiting: VecDeque<(u64, Pair, W)>,
    round: u64,
}

impl<W> Pairing<W> {
    pub fn new() -> Self {
        Self {
            clients: LruCache::sparse(CLIENTS),
            waiting: VecDeque::new(),
            round: 0,
        }
    }

    pub fn learn(&mut self, pair: Pair, owner: &Arc<Owner>) {
        self.clients.put(pair, Arc::clone(owner));
    }

    pub fn client(&mut self, pair: &Pair) -> Option<Arc<Owner>> {
        self.clients.get(pair).cloned()
    }

    /// Keeps a server's end until the next round; gives back the one that has no more room.
    pub fn wait(&mut self, pair: Pair, end: W) -> Option<(Pair, W)> {
        self.waiting.push_back((self.round, pair, end));
        if self.waiting.len() <= WAITING {
            return None;
        }
        self.waiting.pop_front().map(|(_, pair, end)| (pair, end))
    }

    /// Whether something waits that came before this round.
    pub fn overdue(&self) -> impl Iterator<Item = (&Pair, &W)> {
        self.waiting
            .iter()
            .filter(|(round, ..)| *round < self.round)
            .map(|(_, pair, end)| (pair, end))
    }

    /// Takes one that came before this round.
    pub fn pop_overdue(&mut self) -> Option<(Pair, W)> {
        let (round, ..) = self.waiting.front()?;
        if *round >= self.round {
            return None;
        }
        let (_, pair, end) = self.waiting.pop_front()?;
        if self.waiting.is_empty() {
            self.waiting.shrink_to(FEW);
        }
        Some((pair, end))
    }

    /// A new round: what waits now has waited once.
    pub fn next_round(&mut self) {
        self.round += 1;
    }
}

#[cfg(test)]
mod tests {
    use bytemuck::Zeroable;

    use super::*;

    fn raw(client_port: u16, netns: u32, server: &str) -> Raw {
        let mut raw = Raw::zeroed();
        raw.server = server.parse::<std::net::Ipv6Addr>().unwrap().octets();
        raw.client_port = client_port;
        raw.netns = netns;
        raw
    }

    #[test]
    fn ends_meet_across_namespaces_but_not_on_loopback() {
        let far = "::ffff:10.0.0.1";
        assert_eq!(Pair::of(&raw(1, 7, far)), Pair::of(&raw(1, 8, far)));
        assert_ne!(Pair::of(&raw(1, 7, far)), Pair::of(&raw(2, 7, far)));
        for loopback in ["::1", "::ffff:127.0.0.1"] {
            assert_ne!(Pair::of(&raw(1, 7, loopback)), Pair::of(&raw(1, 8, loopback)));
            assert_eq!(Pair::of(&raw(1, 7, loopback)), Pair::of(&raw(1, 7, loopback)));
        }
    }

    #[test]
    fn a_server_waits_one_round_and_no_longer() {
        let mut ends = Pairing::new();
        let pair = Pair::of(&raw(1, 0, "::"));
        assert!(ends.wait(pair, "first").is_none());
        assert!(ends.pop_overdue().is_none());
        ends.next_round();
        ends.wait(pair, "second");
        assert_eq!(ends.pop_overdue().map(|(_, end)| end), Some("first"));
        assert!(ends.pop_overdue().is_none());
    }

    #[test]
    fn waiting_is_bounded() {
        let mut ends = Pairing::new();
        let pair = Pair::of(&raw(1, 0, "::"));
        let out = (0..=WAITING)
            .filter_map(|number| ends.wait(pair, number))
            .map(|(_, end)| end);
        assert_eq!(out.collect::<Vec<_>>(), [0]);
    }
}
