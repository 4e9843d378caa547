//! Faults that the tables show: devices that are down, missing entries, dead peers, MTUs.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use ipnet::IpNet;

use super::{Identity, Observation, belongs, identity_of, manager, underlay_to};
use crate::vxlan::{
    finding::Fault,
    overlay::{Overlay, Peer, PeerEntry},
    traffic::{Direction, Layer, VxlanDrop, VxlanStream},
};
use crate::{finding::Fix, network::Mac};

/// EtherType.
const IPV6: u16 = 0x86dd;

impl Observation<'_> {
    /// Entries that a peer lacks.
    pub(super) fn entries(&mut self, overlay: &Overlay) {
        if !overlay.device.up {
            return;
        }
        let name = &overlay.device.name;
        for peer in &overlay.peers {
            let Some(entry) = peer.lacks.first().copied() else {
                continue;
            };
            // What it sends says where it is.
            let heard = self.traffic.streams.iter().find(|(stream, count)| {
                belongs(overlay, stream)
                    && stream.direction == Direction::In
                    && peer.mac.is_some_and(|mac| mac == count.source_mac)
            });
            let before = self.known(overlay, peer);
            let heard = heard.map(|(stream, _)| stream.peer);
            let vtep = peer.vtep.or(heard).or(before.and_then(|before| before.vtep));
            let contact = self.only_contact(overlay).filter(|_| vtep.is_none());
            let who = named(peer, vtep);
            let mut evidence = vec![has(peer)];
            if let (None, Some(heard)) = (peer.vtep, heard) {
                evidence.push(format!("packets from its link layer address come from {heard}"));
            }
            if let Some(contact) = contact {
                evidence.push(format!(
                    "conntrack has VXLAN packets between this node and {contact}, which is no other peer's VTEP"
                ));
            }
            if let Some(detour) = &peer.detour {
                evidence.push(format!(
                    "a route rejects packets to its pods: {} {}",
                    detour.kind, detour.prefix
                ));
            }
            // What a node says of IPv6 to all is sent nowhere, and rightly so.
            let towards = |dropped: &VxlanDrop| {
                dropped.place == Layer::Inner
                    && dropped.device == overlay.device.index
                    && dropped.ethertype != IPV6
                    && overlay.towards(dropped.destination) == Some(peer)
            };
            if let Some((packets, last)) = self.dropped(towards) {
                evidence.push(format!(
                    "packets to it dropped at {name}: {}",
                    self.seen(packets, last)
                ));
            }
            let (fault, what) = match entry {
                PeerEntry::Route => (
                    Fault::MissingRoute,
                    format!("{name} has no route to the pods of {who}: packets to them take another route."),
                ),
                PeerEntry::Neighbour => (
                    Fault::MissingNeighbour,
                    format!("{name} has no neighbour entry for {who}: packets to its pods are dropped here."),
                ),
                PeerEntry::Forwarding => (
                    Fault::MissingForwarding,
                    format!(
                        "{name} has no forwarding entry for {who}: packets to its pods are dropped here."
                    ),
                ),
            };
            let whole = Peer {
                vtep: vtep.or(contact),
                mac: peer.mac.or(before.and_then(|before| before.mac)),
                gateway: peer.gateway.or(before.and_then(|before| before.gateway)),
                routes: match (before, peer.routes.is_empty()) {
                    (Some(before), true) => before.routes.clone(),
                    (_, true) => subnet_of(overlay, peer).into_iter().collect(),
                    (_, false) => peer.routes.clone(),
                },
                ..Peer::default()
            };
            let by_hand = entry_commands(name, &whole, &peer.lacks);
            let manager = manager(name);
            let restart = Fix::text(if by_hand.is_empty() {
                format!("Restart {manager} on this node: it sets the entry again.")
            } else {
                format!("Or restart {manager} on this node: it sets the entry again.")
            });
            let fixes = by_hand.into_iter().chain([restart]);
            let finding = self.find(fault, overlay, vtep, what, evidence, fixes);
            finding.detail = peer
                .gateway
                .map(|gateway| gateway.to_string())
                .unwrap_or_default();
        }
    }

    /// The peer as it was while it had all entries.
    fn known(&self, overlay: &Overlay, peer: &Peer) -> Option<&Peer> {
        let mut known = self.known.get(&overlay.device.index)?.iter();
        known.find(|known| {
            (peer.gateway.is_some() && known.gateway == peer.gateway)
                || (peer.mac.is_some() && known.mac == peer.mac)
        })
    }

    /// The one address that had VXLAN packets on the device's port and is no peer's VTEP.
    fn only_contact(&self, overlay: &Overlay) -> Option<IpAddr> {
        let mut contacts = self.traffic.contacts.iter().filter(|(port, address)| {
            *port == overlay.vxlan.port
                && !self.own.contains(address)
                && !self
                    .overlays
                    .iter()
                    .any(|overlay| overlay.peer(*address).is_some())
        });
        let (_, contact) = contacts.next()?;
        contacts.next().is_none().then_some(*contact)
    }

    /// Peers that send through the device, while packets to their pods leave by another one.
    pub(super) fn asymmetric(&mut self, overlay: &Overlay) {
        let name = &overlay.device.name;
        for peer in overlay.peers.iter().filter(|peer| peer.is_direct()) {
            let (Some(detour), Some(vtep)) = (&peer.detour, peer.vtep) else {
                continue;
            };
            let heard = self.traffic.streams.iter().find(|(stream, count)| {
                belongs(overlay, stream)
                    && stream.direction == Direction::In
                    && stream.peer == vtep
                    && self.holds(count.last_ns)
            });
            let Some((_, count)) = heard else { continue };
            let device = detour.device.as_deref().unwrap_or("another device");
            let via = detour
                .gateway
                .map(|gateway| format!(" via {gateway}"))
                .unwrap_or_default();
            let what = format!(
                "{name} has no route to the pods of {vtep}, which sends through {name}: answers leave by {device}, and a reverse \
                 path filter there may drop them."
            );
            let evidence = vec![
                format!(
                    "received from {vtep} by {name}: {}",
                    self.seen(count.packets, count.last_ns)
                ),
                format!("route to its pods: {}{via} dev {device}", detour.prefix),
            ];
            let whole = Peer {
                routes: vec![detour.prefix],
                ..peer.clone()
            };
            let fixes = entry_commands(name, &whole, &[PeerEntry::Route])
                .into_iter()
                .chain([Fix::text(format!(
                    "Or route without VXLAN on both nodes: {} sets the routes of both.",
                    manager(name)
                ))]);
            let finding = self.find(Fault::MissingRoute, overlay, Some(vtep), what, evidence, fixes);
            finding.detail = "asymmetric".to_owned();
        }
    }

    pub(super) fn dead(&mut self, overlay: &Overlay) {
        let vteps: Vec<_> = overlay
            .peers
            .iter()
            .filter_map(|peer| Some((peer, peer.vtep?)))
            .collect();
        for (peer, vtep) in vteps {
            if self.explained(Some(vtep), &[Fault::UnderlayRoute, Fault::OwnAddress]) {
                continue;
            }
            let to_it = |dropped: &VxlanDrop| dropped.place == Layer::Outer && dropped.destination == vtep;
            let of_neighbours = |dropped: &VxlanDrop| {
                let reason = dropped.reason.as_deref();
                to_it(dropped) && reason.is_some_and(|reason| reason.starts_with("NEIGH_"))
            };
            // Before 5.17: what is dropped while ARP gets no answer.
            let unreasoned = |dropped: &VxlanDrop| {
                to_it(dropped) && matches!(dropped.reason.as_deref(), None | Some("NOT_SPECIFIED"))
            };
            let mut drops = self.dropped(of_neighbours);
            let named = drops.is_some();
            if !named && peer.asked {
                drops = self.dropped(unreasoned);
            }
            if !peer.unreachable && drops.is_none() {
                continue;
            }
            let name = &overlay.device.name;
            let underlay = underlay_to(overlay, peer);
            let mut evidence = Vec::new();
            if peer.unreachable {
                evidence.push(format!(
                    "no answer for its address on {underlay} (neighbour state FAILED)"
                ));
            }
            if peer.asked {
                evidence.push(format!(
                    "no answer yet for its address on {underlay} (neighbour state INCOMPLETE)"
                ));
            }
            if let Some((packets, last)) = drops {
                evidence.push(format!(
                    "VXLAN packets to it dropped: {}",
                    self.seen(packets, last)
                ));
            }
            let what = format!(
                "The peer {vtep} of {name} is down or not on this network: its address does not answer ARP or neighbour discovery on {underlay}."
            );
            let fixes = [Fix::text(format!(
                "Check that the node runs and has {vtep}. If the node was removed, delete its Node object: \
                 {} then removes its entries.",
                manager(name)
            ))];
            let finding = self.find(Fault::DeadVtep, overlay, Some(vtep), what, evidence, fixes);
            finding.certain = peer.unreachable || named;
        }
    }

    pub(super) fn mtu(&mut self, overlay: &Overlay, fragments: &HashMap<VxlanStream, u64>) {
        let name = &overlay.device.name;
        if let Some(underlay) = overlay.narrowest() {
            let (mtu, overhead) = (overlay.device.mtu, overlay.overhead());
            if mtu + overhead > underlay.mtu {
                let fits = underlay.mtu.saturating_sub(overhead);
                let what = format!(
                    "{name} has MTU {mtu}, but {} carries only {fits} and VXLAN's {overhead} bytes: large packets are \
                     fragmented or lost.",
                    underlay.name
                );
                let mut evidence = vec![format!("MTU of {}: {}", underlay.name, underlay.mtu)];
                let streams = self.traffic.streams.iter();
                let cut: u64 = streams
                    .filter(|(stream, _)| belongs(overlay, stream) && stream.direction == Direction::Out)
                    .map(|(_, count)| count.fragments)
                    .sum();
                if cut > 0 {
                    evidence.push(format!("{cut} VXLAN packets left in fragments"));
                }
                let fixes = [
                    Fix::run(
                        ["ip", "link", "set", name, "mtu", &fits.to_string()],
                        "on every node",
                    ),
                    Fix::text(
                        "Then give the pods the same MTU: flannel reads it from the underlay at start, so \
                         restart flanneld, then the pods.",
                    ),
                ];
                self.find(Fault::Mtu, overlay, None, what, evidence, fixes);
            }
        }
        let mut cut: Vec<_> = fragments
            .iter()
            .filter(|(stream, at)| {
                belongs(overlay, stream) && stream.direction == Direction::In && self.holds(**at)
            })
            .map(|(stream, at)| (*stream, *at))
            .collect();
        cut.sort_unstable();
        for (stream, at) in cut {
            let count = self.count(&stream).map_or(0, |count| count.fragments);
            let what = format!(
                "VXLAN packets from {} to {name} come in fragments: its MTU is larger than the path carries.",
                stream.peer
            );
            let fixes = [Fix::text(format!(
                "Set the MTU of {}'s VXLAN device, and of its pods, to what the path carries less {} bytes.",
                stream.peer,
                overlay.overhead()
            ))];
            let evidence = vec![format!("fragmented: {}", self.seen(count, at))];
            let finding = self.find(Fault::Mtu, overlay, Some(stream.peer), what, evidence, fixes);
            finding.detail = "fragments".to_owned();
        }
    }

    /// Keeps only those findings from tables that the previous snapshot had, too.
    pub(super) fn settled(&mut self, shown: &mut HashSet<Identity>) {
        let now: HashSet<_> = self.findings.iter().map(identity_of).collect();
        self.findings
            .retain(|finding| shown.contains(&identity_of(finding)));
        *shown = now;
    }
}

/// The commands that set entries of a peer, those for which all words are known.
pub(super) fn entry_commands(device: &str, peer: &Peer, lacks: &[PeerEntry]) -> Vec<Fix> {
    let text = |address: Option<IpAddr>| address.map(|address| address.to_string());
    let (gateway, vtep) = (text(peer.gateway), text(peer.vtep));
    let mac = peer.mac.map(|mac| mac.to_string());
    let has = |entry| lacks.contains(&entry);
    let mut fixes = Vec::new();
    if let (true, Some(mac), Some(vtep)) = (has(PeerEntry::Forwarding), &mac, &vtep) {
        fixes.push(Fix::run(
            ["bridge", "fdb", "replace", mac, "dev", device, "dst", vtep],
            "",
        ));
    }
    if let (true, Some(mac), Some(gateway)) = (has(PeerEntry::Neighbour), &mac, &gateway) {
        let argv = [
            "ip",
            "neigh",
            "replace",
            gateway,
            "lladdr",
            mac,
            "dev",
            device,
            "nud",
            "permanent",
        ];
        fixes.push(Fix::run(argv, ""));
    }
    if let (true, Some(gateway)) = (has(PeerEntry::Route), &gateway) {
        for route in &peer.routes {
            let route = route.to_string();
            fixes.push(Fix::run(
                [
                    "ip", "route", "replace", &route, "via", gateway, "dev", device, "onlink",
                ],
                "",
            ));
        }
    }
    fixes
}

/// The pod subnet of a peer whose gateway is the first address of it, as flannel has it.
fn subnet_of(overlay: &Overlay, peer: &Peer) -> Option<IpNet> {
    let subnet = IpNet::new(peer.gateway?, overlay.subnet_length?).ok()?;
    (subnet.trunc() == subnet).then_some(subnet)
}

/// A peer by what is known of it.
fn named(peer: &Peer, vtep: Option<IpAddr>) -> String {
    let vtep = vtep.map(|vtep| vtep.to_string());
    let gateway = peer
        .gateway
        .map(|gateway| format!("the peer with overlay address {gateway}"));
    vtep.or(gateway)
        .or_else(|| peer.mac.map(|mac: Mac| format!("the peer with {mac}")))
        .unwrap_or_else(|| "a peer".to_owned())
}

/// What the tables do have of it.
fn has(peer: &Peer) -> String {
    let mut parts = Vec::new();
    let mac = peer
        .mac
        .map_or_else(|| "no address".to_owned(), |mac| mac.to_string());
    let gateway = peer
        .gateway
        .map(|gateway| gateway.to_string())
        .unwrap_or_default();
    if let Some(route) = peer.routes.first() {
        let more = peer.routes.len() - 1;
        let more = if more > 0 {
            format!(" and {more} more")
        } else {
            String::new()
        };
        parts.push(format!("route {route} via {gateway}{more}"));
    }
    if peer.gateway.is_some() && !peer.lacks.contains(&PeerEntry::Neighbour) {
        parts.push(format!("neighbour {gateway} with {mac}"));
    }
    if let Some(vtep) = peer.vtep.filter(|_| !peer.lacks.contains(&PeerEntry::Forwarding)) {
        parts.push(format!("forwarding entry for {mac} to {vtep}"));
    }
    format!("there is only: {}", parts.join(", "))
}
