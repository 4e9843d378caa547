//! Pings to the peers that were not heard from.

use std::{
    collections::{BTreeSet, HashMap},
    net::IpAddr,
    time::Duration,
};

use super::ping::Pinger;
use crate::model::vxlan::{
    path_mtu::SMALL,
    peer_name,
    pings::{self, PeerPings},
    view::{PeerView, View},
};

/// Peers that are pinged.
pub const PINGED: usize = 256;
/// Pings to a peer outside the overlay, against the loss of one.
const OUTSIDE: u16 = 2;
/// How long their answers are waited for.
const OUTSIDE_FOR: Duration = Duration::from_secs(1);

/// Pings that were sent through the overlay; the answers are counted with all other packets.
#[derive(Default)]
pub struct PeerPinger {
    sent: HashMap<IpAddr, PeerPings>,
    /// What could not be sent, in sentences.
    unsent: BTreeSet<String>,
}

impl PeerPinger {
    /// One ping through its VXLAN device to each peer's address in the overlay that nothing was received from yet.
    pub fn ping_silent(&mut self, view: &View) {
        let peers = view.peers();
        let mut silent = peers
            .iter()
            .filter(|peer| !peer.is_direct() && peer.received.packets == 0);
        for peer in silent.by_ref().take(PINGED) {
            let name = &peer.overlay.device.name;
            let who = peer_name(peer.vtep);
            let Some(address) = address_of(peer) else {
                self.unsent.insert(format!(
                    "no ping to {who}: its address in the overlay of {name} is not known"
                ));
                continue;
            };
            let pinger = Pinger::new(Some(name), address.is_ipv6());
            match pinger.and_then(|pinger| pinger.send(address, SMALL, 0)) {
                Ok(()) => {
                    if let Some(vtep) = peer.vtep {
                        self.sent.entry(vtep).or_default().sent += 1;
                    }
                }
                Err(error) => {
                    self.unsent
                        .insert(format!("no ping to {who} ({address} by {name}): {error}"));
                }
            }
        }
        let more = silent.count();
        if more > 0 {
            self.unsent.insert(format!(
                "{more} more peers not pinged: the limit is {PINGED} peers"
            ));
        }
    }

    /// Keeps the findings `no-answer` that pings prove. What was not sent, and what is unknown, in sentences.
    pub fn weigh(mut self, view: &mut View) -> Vec<String> {
        let silent: Vec<_> = pings::unanswered(view)
            .filter(|peer| self.sent.contains_key(peer))
            .collect();
        for peer in answers_outside(&silent) {
            self.sent.entry(peer).or_default().answers_outside = true;
        }
        self.unsent
            .into_iter()
            .chain(pings::weigh(view, &self.sent))
            .collect()
    }
}

/// Of its VXLAN device, in the overlay.
pub fn address_of(peer: &PeerView<'_>) -> Option<IpAddr> {
    peer.peer.and_then(|peer| peer.gateway)
}

/// The peers that answer a ping to their VTEP address, by the routes of the node.
fn answers_outside(peers: &[IpAddr]) -> Vec<IpAddr> {
    let mut answered = Vec::new();
    for is_v6 in [false, true] {
        let peers: Vec<_> = peers.iter().filter(|peer| peer.is_ipv6() == is_v6).collect();
        if peers.is_empty() {
            continue;
        }
        // Without a socket for it nothing is proven, and the finding says less.
        let Ok(pinger) = Pinger::new(None, is_v6) else {
            continue;
        };
        let mut sent: HashMap<u16, IpAddr> = HashMap::new();
        for round in 0..OUTSIDE {
            for (at, peer) in (0_u16..).zip(&peers) {
                // Those through the overlay have the number 0.
                let number = at.wrapping_mul(OUTSIDE).wrapping_add(round + 1);
                if pinger.send(**peer, SMALL, number).is_ok() {
                    sent.insert(number, **peer);
                }
            }
        }
        let numbers = pinger.answers(OUTSIDE_FOR, sent.len()).unwrap_or_default();
        answered.extend(numbers.keys().filter_map(|number| sent.get(number)));
    }
    answered
}
