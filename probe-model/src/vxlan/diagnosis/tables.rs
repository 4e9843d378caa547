//! Faults that the tables show: devices that are down, entries that are missing, peers that nobody answers for, MTUs.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use super::{Identity, Observation, belongs, identity_of, underlay_of};
use crate::vxlan::{
    finding::Fault,
    overlay::{Overlay, Peer, PeerEntry},
    traffic::{Direction, Layer, VxlanDrop, VxlanStream},
};
use crate::{finding::Fix, network::Mac};

/// EtherType.
const IPV6: u16 = 0x86dd;

impl Observation<'_> {
    /// A device that is not up.
    pub(super) fn device(&mut self, overlay: &Overlay) {
        let (name, port) = (&overlay.device.name, overlay.vxlan.port);
        if overlay.device.up {
            return;
        }
        let holder = self.traffic.holders.iter().find(|(held, _)| *held == port);
        if let Some((_, holder)) = holder {
            let what = format!(
                "{name} is down, and UDP port {port}, which it needs, is taken by another socket: {holder}."
            );
            let evidence = vec![format!("{name} is not up"), format!("UDP port {port}: {holder}")];
            let fixes = [
                Fix::text(format!("Stop {holder}, or move it to another port.")),
                Fix::run(["ip", "link", "set", name, "up"], "once the port is free"),
            ];
            self.find(Fault::PortTaken, overlay, None, what, evidence, fixes);
        } else {
            let what = format!("{name} is down: nothing goes through it.");
            let fixes = [Fix::run(
                ["ip", "link", "set", name, "up"],
                "and find out why flanneld, which manages it, did not",
            )];
            let evidence = vec![format!("{name} is not up")];
            self.find(Fault::DeviceDown, overlay, None, what, evidence, fixes);
        }
    }

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
            let vtep = peer.vtep.or_else(|| heard.map(|(stream, _)| stream.peer));
            let who = named(peer, vtep);
            let mut evidence = vec![has(peer)];
            if let (None, Some(vtep)) = (peer.vtep, vtep) {
                evidence.push(format!("packets from its link layer address come from {vtep}"));
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
            let (mac, to) = (
                peer.mac.map(|mac| mac.to_string()),
                vtep.map(|vtep| vtep.to_string()),
            );
            let gateway = peer.gateway.map(|gateway| gateway.to_string());
            // No command where a word of it is not known: a peer's subnet never is.
            let (fault, what, by_hand) = match entry {
                PeerEntry::Route => (
                    Fault::MissingRoute,
                    format!("{name} has no route to the pods of {who}: packets to them go another way."),
                    gateway.as_ref().map(|gateway| {
                        Fix::text(format!(
                            "Add the route to that node's pod subnet (podCIDR), via {gateway} on {name}, onlink."
                        ))
                    }),
                ),
                PeerEntry::Neighbour => (
                    Fault::MissingNeighbour,
                    format!("{name} has no neighbour entry for {who}: packets to its pods are dropped here."),
                    gateway.zip(mac).map(|(gateway, mac)| {
                        let (gateway, mac) = (gateway.as_str(), mac.as_str());
                        Fix::run(
                            [
                                "ip",
                                "neigh",
                                "replace",
                                gateway,
                                "lladdr",
                                mac,
                                "dev",
                                name,
                                "nud",
                                "permanent",
                            ],
                            "",
                        )
                    }),
                ),
                PeerEntry::Forwarding => (
                    Fault::MissingForwarding,
                    format!(
                        "{name} has no forwarding entry for {who}: packets to its pods are dropped here."
                    ),
                    mac.zip(to).map(|(mac, to)| {
                        Fix::run(["bridge", "fdb", "append", &mac, "dev", name, "dst", &to], "")
                    }),
                ),
            };
            let restart = Fix::text(if by_hand.is_some() {
                "Or restart flanneld on this node: it sets the entry again."
            } else {
                "Restart flanneld on this node: it sets the entry again."
            });
            let fixes = by_hand.into_iter().chain([restart]);
            let finding = self.find(fault, overlay, vtep, what, evidence, fixes);
            finding.detail = peer
                .gateway
                .map(|gateway| gateway.to_string())
                .unwrap_or_default();
        }
    }

    pub(super) fn dead(&mut self, overlay: &Overlay) {
        let vteps: Vec<_> = overlay
            .peers
            .iter()
            .filter_map(|peer| Some((peer, peer.vtep?)))
            .collect();
        for (peer, vtep) in vteps {
            let to_it = |dropped: &VxlanDrop| dropped.place == Layer::Outer && dropped.destination == vtep;
            let of_neighbours = |dropped: &VxlanDrop| {
                let reason = dropped.reason.as_deref();
                to_it(dropped) && reason.is_some_and(|reason| reason.starts_with("NEIGH_"))
            };
            // Before 5.17: what is dropped while nobody answers.
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
            let underlay = underlay_of(overlay);
            let mut evidence = Vec::new();
            if peer.unreachable {
                evidence.push(format!(
                    "its address was asked for on {underlay} in vain (neighbour failed)"
                ));
            }
            if peer.asked {
                evidence.push(format!(
                    "its address is being asked for on {underlay}, without an answer so far"
                ));
            }
            if let Some((packets, last)) = drops {
                evidence.push(format!(
                    "VXLAN packets to it dropped: {}",
                    self.seen(packets, last)
                ));
            }
            let what = format!(
                "The peer {vtep} of {name} is dead or not on this network: nobody answers for its address on {underlay}."
            );
            let fixes = [Fix::text(format!(
                "Check whether that node runs and has {vtep}. If it is gone, delete its Node object: flanneld then removes \
                 its entries."
            ))];
            let finding = self.find(Fault::DeadVtep, overlay, Some(vtep), what, evidence, fixes);
            finding.certain = peer.unreachable || named;
        }
    }

    pub(super) fn mtu(&mut self, overlay: &Overlay, fragments: &HashMap<VxlanStream, u64>) {
        let name = &overlay.device.name;
        if let Some(underlay) = &overlay.underlay {
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
                        "Then give the pods the same MTU: flannel takes it from the underlay when it starts, so restart \
                         flanneld, then the pods.",
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
                "VXLAN packets from {} to {name} come in fragments: its MTU is larger than the way here carries.",
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

    /// Keeps of what the tables show only what they showed at the last look, too.
    pub(super) fn settled(&mut self, shown: &mut HashSet<Identity>) {
        let now: HashSet<_> = self.findings.iter().map(identity_of).collect();
        self.findings
            .retain(|finding| shown.contains(&identity_of(finding)));
        *shown = now;
    }
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
