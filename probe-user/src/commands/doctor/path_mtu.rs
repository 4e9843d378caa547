//! Pings through the overlay: how large a packet may be that reaches a peer.

use std::{
    collections::{HashMap, hash_map::Entry},
    io,
    net::IpAddr,
    time::{Duration, Instant},
};

use super::{
    peer_pings::{PINGED, address_of},
    ping::Pinger,
};
use crate::model::vxlan::{finding::Diagnosed, overlay::Overlay, path_mtu::PathMtuSearch, view::View};

/// How long an answer to the first pings is waited for.
const FIRST: Duration = Duration::from_millis(400);
/// The least and the most for all others.
const WAIT: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(300));
/// The same in round trips of the slowest peer.
const ROUND_TRIPS: u32 = 8;
/// The whole search takes no longer, whatever is lost.
const LONGEST: Duration = Duration::from_secs(10);

/// A peer whose address in the overlay is known.
struct Target<'a> {
    overlay: &'a Overlay,
    vtep: Option<IpAddr>,
    /// Of its device, in the overlay.
    address: IpAddr,
    search: PathMtuSearch,
}

/// A device, and whether IPv6's pings leave by it.
type Link<'a> = (&'a str, bool);

/// A ping that was sent.
struct Ping {
    number: u16,
    /// Index of its target.
    target: usize,
    size: u32,
}

/// The peers that large packets do not reach, by pings of many sizes to those that were heard from.
pub fn faults(view: &View) -> Vec<Diagnosed> {
    let peers = view.peers();
    let mut targets: Vec<_> = peers
        .iter()
        .filter(|peer| peer.received.packets > 0 && !peer.is_direct())
        .filter_map(|peer| {
            Some(Target {
                overlay: peer.overlay,
                vtep: peer.vtep,
                address: address_of(peer)?,
                search: PathMtuSearch::new(peer.overlay.device.mtu),
            })
        })
        .take(PINGED)
        .collect();
    let begun = Instant::now();
    let mut pingers = HashMap::new();
    let mut wait = FIRST;
    // All peers at once, so that it takes as long for many as for one.
    while begun.elapsed() < LONGEST {
        match round(&mut targets, &mut pingers, wait) {
            Ok(Some(slowest)) => wait = (slowest * ROUND_TRIPS).clamp(WAIT.0, WAIT.1),
            Ok(None) => break,
            // A device that is gone: what it showed so far is no proof.
            Err(_) => return Vec::new(),
        }
    }
    let found = targets.iter();
    found
        .filter_map(|target| target.search.fault(target.overlay, target.vtep))
        .collect()
}

/// Pings each peer with the sizes that its search asks for. How long the slowest answer took; `None`: all searches have ended.
fn round<'a>(
    targets: &mut [Target<'a>],
    pingers: &mut HashMap<Link<'a>, Pinger>,
    wait: Duration,
) -> io::Result<Option<Duration>> {
    let begun = Instant::now();
    let mut number = 0_u16;
    let mut sent: HashMap<Link<'_>, Vec<Ping>> = HashMap::new();
    for (target, of) in targets.iter_mut().enumerate() {
        for size in of.search.sizes() {
            let key = (of.overlay.device.name.as_str(), of.address.is_ipv6());
            let pinger = match pingers.entry(key) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(new) => new.insert(Pinger::new(Some(key.0), key.1)?),
            };
            number = number.wrapping_add(1);
            if pinger.send(of.address, size, number).is_ok() {
                sent.entry(key).or_default().push(Ping { number, target, size });
            } else {
                of.search.give_up();
                break;
            }
        }
    }
    if number == 0 {
        return Ok(None);
    }
    let mut answered: Vec<(usize, u32)> = Vec::new();
    let mut slowest = Duration::ZERO;
    for (key, pings) in &sent {
        let Some(pinger) = pingers.get(key) else { continue };
        let left = wait.saturating_sub(begun.elapsed()).max(WAIT.0);
        for (number, at) in pinger.answers(left, pings.len())? {
            slowest = slowest.max(at);
            let ping = pings.iter().find(|ping| ping.number == number);
            answered.extend(ping.map(|ping| (ping.target, ping.size)));
        }
    }
    for (at, target) in targets.iter_mut().enumerate() {
        target.search.record(|size| answered.contains(&(at, size)));
    }
    Ok(Some(slowest))
}
