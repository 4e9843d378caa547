//! The stage that joins both sides of a connection on one kernel: each server's side gets the owner of its client.

use std::{collections::VecDeque, num::NonZeroUsize, sync::Arc};

use lru::LruCache;

use crate::{
    capture::connection::{Side, SideState},
    model::{Connection, Owner, Role, pairing::Pair},
};

/// Owners of clients that are kept for a server's record that comes later.
const CLIENTS: NonZeroUsize = NonZeroUsize::new(16_384).unwrap();
/// Server records that wait for their client's.
const WAITING: usize = 8192;
/// Room for so many is kept when none waits.
const FEW: usize = 256;

/// A side, and who has both.
pub struct Paired {
    pub side: Side,
    pub owner: Arc<Owner>,
    pub peer: Option<Arc<Owner>>,
}

/// A side with its owner in, the same with its peer's owner out. A server's record waits one round for its client's.
pub struct Pairing {
    clients: LruCache<Pair, Arc<Owner>>,
    /// Each with the round it came in.
    waiting: VecDeque<(u64, Side, Arc<Owner>)>,
    round: u64,
}

impl Pairing {
    pub fn new() -> Self {
        Self {
            clients: LruCache::sparse(CLIENTS),
            waiting: VecDeque::new(),
            round: 0,
        }
    }

    /// Gives back what need not wait, or what has no more room to.
    pub fn push(&mut self, side: Side, owner: Arc<Owner>) -> Option<Paired> {
        let pair = side.pair();
        if side.role == Role::Client {
            self.clients.put(pair, Arc::clone(&owner));
            return Some(Paired {
                side,
                owner,
                peer: None,
            });
        }
        let (peer, may_wait) = match &side.state {
            // It was the last of the pair: its client is not kept for another.
            SideState::Ended(..) => (self.clients.pop(&pair), true),
            SideState::Open(_) | SideState::Unfinished(..) => (self.clients.get(&pair).cloned(), false),
        };
        if peer.is_some() || !may_wait {
            return Some(Paired { side, owner, peer });
        }
        self.waiting.push_back((self.round, side, owner));
        if self.waiting.len() <= WAITING {
            return None;
        }
        self.waiting.pop_front().map(|(_, side, owner)| Paired {
            side,
            owner,
            peer: None,
        })
    }

    /// Keeps the owner of a client that is still open.
    pub fn learn(&mut self, side: &Side, owner: &Arc<Owner>) {
        self.clients.put(side.pair(), Arc::clone(owner));
    }

    /// Keeps the owner of a client by the addresses that the server's side has.
    pub fn learn_translated(&mut self, client: &Connection) {
        if client.seen_as.is_some() || client.dialled.is_some() {
            let seen_as = client.seen_as.unwrap_or(client.source);
            let pair = Pair::of_addresses(seen_as, client.destination);
            self.clients.put(pair, Arc::clone(&client.owner));
        }
    }

    /// Whether a side waits that came before this round and whose client may still be open.
    pub fn needs_open_clients(&self) -> bool {
        let mut overdue = self.waiting.iter().filter(|(round, ..)| *round < self.round);
        overdue.any(|(_, side, _)| side.has_closed_first())
    }

    /// Takes one that came before this round.
    pub fn pop_overdue(&mut self) -> Option<Paired> {
        let (round, ..) = self.waiting.front()?;
        if *round >= self.round {
            return None;
        }
        let (_, side, owner) = self.waiting.pop_front()?;
        if self.waiting.is_empty() {
            self.waiting.shrink_to(FEW);
        }
        let peer = self.clients.pop(&side.pair());
        Some(Paired { side, owner, peer })
    }

    /// A new round: what waits now has waited once.
    pub fn next_round(&mut self) {
        self.round += 1;
    }
}

#[cfg(test)]
mod tests {
    use bytemuck::Zeroable;
    use probe_ebpf::contract::{
        connection::{Connection as Raw, Handshake, HandshakeKey, Record},
        outcome::{Outcome, state},
    };

    use super::*;

    fn raw(client_port: u16) -> Raw {
        Raw {
            client_port,
            ..Raw::zeroed()
        }
    }

    fn ended(role: Role, client_port: u16) -> Side {
        let record = Record {
            connection: raw(client_port),
            ..Record::zeroed()
        };
        Side {
            role,
            state: SideState::Ended(record, Outcome::HalfOpen),
        }
    }

    fn port(paired: Option<Paired>) -> Option<u16> {
        match paired?.side.state {
            SideState::Ended(record, _) => Some(record.connection.client_port),
            SideState::Open(_) | SideState::Unfinished(..) => None,
        }
    }

    #[test]
    fn a_server_waits_one_round_and_no_longer() {
        let mut pairing = Pairing::new();
        assert!(pairing.push(ended(Role::Server, 1), Arc::default()).is_none());
        assert!(pairing.pop_overdue().is_none());
        pairing.next_round();
        assert!(pairing.push(ended(Role::Server, 2), Arc::default()).is_none());
        assert_eq!(port(pairing.pop_overdue()), Some(1));
        assert!(pairing.pop_overdue().is_none());
    }

    /// Only a record waits: of what is still open, and of a handshake, no record of the client is to come.
    #[test]
    fn what_waits_for_its_client() {
        let client: Arc<Owner> = Arc::default();
        let open = Side {
            role: Role::Server,
            state: SideState::Open(raw(1)),
        };
        let handshake = Side::unfinished(
            HandshakeKey {
                client_port: 1,
                ..HandshakeKey::zeroed()
            },
            Handshake::zeroed(),
        );
        for (side, waits) in [
            (ended(Role::Client, 1), false),
            (ended(Role::Server, 1), true),
            (open, false),
            (handshake, false),
        ] {
            let mut pairing = Pairing::new();
            assert_eq!(pairing.push(side, Arc::default()).is_none(), waits, "{side:?}");
            // With its client known, none does.
            let mut pairing = Pairing::new();
            pairing.push(ended(Role::Client, 1), Arc::clone(&client));
            let peer = pairing.push(side, Arc::default()).map(|paired| paired.peer);
            assert_eq!(
                peer.flatten().is_some_and(|peer| Arc::ptr_eq(&peer, &client)),
                side.role == Role::Server,
                "{side:?}"
            );
        }
    }

    #[test]
    fn open_clients_are_needed_once_a_server_that_closed_first_is_overdue() {
        for (last_state, expected) in [(state::FIN_WAIT2, true), (state::LAST_ACK, false)] {
            let mut side = ended(Role::Server, 1);
            if let SideState::Ended(record, _) = &mut side.state {
                record.last_state = last_state;
            }
            let mut pairing = Pairing::new();
            pairing.push(side, Arc::default());
            assert!(!pairing.needs_open_clients());
            pairing.next_round();
            assert_eq!(pairing.needs_open_clients(), expected, "{last_state}");
        }
    }

    #[test]
    fn waiting_is_bounded() {
        let mut pairing = Pairing::new();
        let out = (0..=WAITING as u16)
            .filter_map(|number| port(pairing.push(ended(Role::Server, number), Arc::default())));
        assert_eq!(out.collect::<Vec<_>>(), [0]);
    }
}
