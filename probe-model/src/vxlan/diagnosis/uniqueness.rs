//! Link layer addresses and VTEPs that belong to one peer only.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::{Observation, belongs, manager};
use crate::finding::Fix;
use crate::network::Mac;
use crate::vxlan::{
    finding::Fault,
    overlay::{Overlay, Peer, PeerSource},
    traffic::Direction,
};

impl Observation<'_> {
    /// MAC addresses and VTEPs that two have.
    pub(super) fn duplicates(&mut self, overlay: &Overlay) {
        if overlay.kind != PeerSource::Entries || !overlay.device.up {
            return;
        }
        self.own_mac(overlay);
        // IPv4 and IPv6 addresses of one node may have one entry each, with the same link layer address.
        let used = || {
            let peers = overlay.peers.iter();
            peers.filter_map(|peer| Some((peer, peer.gateway?, peer.mac?)))
        };
        let mut by_mac: BTreeMap<(Mac, bool), Vec<&Peer>> = BTreeMap::new();
        let mut by_vtep: BTreeMap<(IpAddr, bool), Vec<&Peer>> = BTreeMap::new();
        for (peer, gateway, mac) in used().filter(|(peer, ..)| !peer.routes.is_empty()) {
            by_mac.entry((mac, gateway.is_ipv4())).or_default().push(peer);
            if let Some(vtep) = peer.vtep {
                by_vtep.entry((vtep, gateway.is_ipv4())).or_default().push(peer);
            }
        }
        for ((mac, _), peers) in by_mac.iter().filter(|(_, peers)| peers.len() > 1) {
            self.same_mac(overlay, *mac, peers);
        }
        for ((vtep, _), peers) in by_vtep {
            let mut macs: Vec<_> = peers.iter().filter_map(|peer| peer.mac).collect();
            macs.sort_unstable();
            macs.dedup();
            // That it is this node's own, too, is a fault of its own.
            if macs.len() > 1 && !self.explained(Some(vtep), &[Fault::OwnAddress]) {
                self.same_vtep(overlay, vtep, &peers);
            }
        }
    }

    fn own_mac(&mut self, overlay: &Overlay) {
        let name = &overlay.device.name;
        let Some(ours) = overlay.device.mac else { return };
        for peer in overlay.peers.iter().filter(|peer| peer.mac == Some(ours)) {
            let who = one(peer);
            let what = format!(
                "{name} here and the VXLAN device of {who} have the same MAC address {ours}: each drops what the other sends."
            );
            let evidence = vec![
                format!("{name} has {ours}"),
                format!("the entries of {name} have {ours} for {who}"),
            ];
            let finding = self.find(
                Fault::DuplicateMac,
                overlay,
                peer.vtep,
                what,
                evidence,
                another_mac(name),
            );
            finding.detail = peer
                .gateway
                .map(|gateway| gateway.to_string())
                .unwrap_or_default();
        }
    }

    fn same_mac(&mut self, overlay: &Overlay, mac: Mac, peers: &[&Peer]) {
        let name = &overlay.device.name;
        let gateways: Vec<_> = peers
            .iter()
            .filter_map(|peer| Some(peer.gateway?.to_string()))
            .collect();
        let vtep = peers.iter().find_map(|peer| peer.vtep);
        let to = vtep.map_or_else(
            || "has no forwarding entry".to_owned(),
            |vtep| format!("is sent to {vtep} alone"),
        );
        let what = format!(
            "Two peers of {name} ({}) have the same MAC address {mac}: traffic to both {to}.",
            gateways.join(" and ")
        );
        let mut evidence: Vec<_> = peers
            .iter()
            .filter_map(|peer| {
                let routes: Vec<_> = peer.routes.iter().map(ToString::to_string).collect();
                Some(format!(
                    "neighbour {} has {mac}; pods {}",
                    peer.gateway?,
                    routes.join(", ")
                ))
            })
            .collect();
        evidence.extend(vtep.map(|vtep| format!("forwarding entry for {mac} to {vtep}")));
        let mut senders: Vec<_> = self
            .traffic
            .streams
            .iter()
            .filter(|(stream, count)| {
                belongs(overlay, stream) && stream.direction == Direction::In && count.source_mac == mac
            })
            .map(|(stream, _)| stream.peer)
            .collect();
        senders.sort_unstable();
        senders.dedup();
        if senders.len() > 1 {
            let senders: Vec<_> = senders.iter().map(ToString::to_string).collect();
            evidence.push(format!("packets from {mac} come from {}", senders.join(" and ")));
        }
        let finding = self.find(
            Fault::DuplicateMac,
            overlay,
            vtep,
            what,
            evidence,
            another_mac(name),
        );
        finding.detail = mac.to_string();
    }

    fn same_vtep(&mut self, overlay: &Overlay, vtep: IpAddr, peers: &[&Peer]) {
        let name = &overlay.device.name;
        let gateways: Vec<_> = peers
            .iter()
            .filter_map(|peer| Some(peer.gateway?.to_string()))
            .collect();
        let what = format!(
            "Two peers of {name} ({}) have the same VTEP {vtep}: one node receives the traffic of both.",
            gateways.join(" and ")
        );
        let evidence = peers
            .iter()
            .filter_map(|peer| {
                Some(format!(
                    "neighbour {} has {}, which a forwarding entry sends to {vtep}",
                    peer.gateway?, peer.mac?
                ))
            })
            .collect();
        let fixes = [Fix::text(format!(
            "Let {} publish a distinct address on each of these nodes (flanneld: --iface or --public-ip), \
             and restart it there.",
            manager(name)
        ))];
        let finding = self.find(Fault::DuplicateVtep, overlay, Some(vtep), what, evidence, fixes);
        finding.detail = gateways.join(" ");
    }
}

fn one(peer: &Peer) -> String {
    let vtep = peer.vtep.map(|vtep| vtep.to_string());
    vtep.or_else(|| peer.gateway.map(|gateway| gateway.to_string()))
        .unwrap_or_else(|| "a peer".to_owned())
}

/// Of machines that were cloned: systemd makes the address of /etc/machine-id and the device's name.
fn another_mac(name: &str) -> [Fix; 2] {
    [
        Fix::text(
            "If these machines were cloned, give each a distinct machine id (/etc/machine-id): systemd \
             derives MAC addresses from it.",
        ),
        Fix::text(format!(
            "Then delete {name} on the node with the wrong address, and restart {} there: it creates the \
             device again and publishes its address.",
            manager(name)
        )),
    ]
}
