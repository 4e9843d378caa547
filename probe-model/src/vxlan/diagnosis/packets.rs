//! Faults that arriving packets show: another port or VNI, unknown senders, old link layer addresses, other headers.

use std::collections::HashMap;

use super::{Observation, belongs, manager, peer_of};
use crate::finding::Fix;
use crate::vxlan::{
    finding::Fault,
    overlay::{Overlay, PeerEntry, PeerSource},
    traffic::{Direction, Layer, VxlanCount, VxlanDrop, VxlanStream},
};

impl Observation<'_> {
    /// Link layer addresses that are not, or no longer, the device's.
    pub(super) fn stale(&mut self, overlay: &Overlay) {
        if overlay.kind != PeerSource::Entries {
            return;
        }
        let name = &overlay.device.name;
        let Some(ours) = overlay.device.mac else { return };
        let streams: Vec<_> = self
            .traffic
            .streams
            .iter()
            .filter(|(stream, count)| {
                belongs(overlay, stream) && stream.direction == Direction::In && self.holds(count.last_ns)
            })
            .copied()
            .collect();
        for (stream, count) in streams {
            let peer = stream.peer;
            if !count.destination_mac.is_zero() && count.destination_mac != ours {
                let mut evidence = vec![format!(
                    "its packets are for {}, {name} has {ours}",
                    count.destination_mac
                )];
                evidence.extend(self.evidence_of_drops("OTHERHOST", |dropped| {
                    dropped.place == Layer::Inner && dropped.device == overlay.device.index
                }));
                let what = format!(
                    "{peer} sends to {}, which is not the address of {name} here: its entries are outdated, \
                     and its packets are dropped.",
                    count.destination_mac
                );
                let fixes = [Fix::text(format!(
                    "Restart {} on this node, then on {peer}: {peer} then sets neighbour and forwarding \
                     entries for {ours}.",
                    manager(name)
                ))];
                let finding = self.find(Fault::StaleMac, overlay, Some(peer), what, evidence, fixes);
                finding.detail = "ours".to_owned();
            }
            let expected = overlay.peer(peer).and_then(|peer| peer.mac);
            if let Some(expected) = expected
                && !count.source_mac.is_zero()
                && count.source_mac != expected
            {
                let what = format!(
                    "{name} sends {peer} packets for {expected}, but the VXLAN device there has {}: they are dropped \
                     there.",
                    count.source_mac
                );
                let evidence = vec![format!(
                    "packets from {peer} come from {}, but the entries on this node have {expected}",
                    count.source_mac
                )];
                let fixes = [Fix::text(format!(
                    "Restart {} on {peer} and here: it sets {} in the neighbour and forwarding entries of {name}.",
                    manager(name),
                    count.source_mac
                ))];
                let finding = self.find(Fault::StaleMac, overlay, Some(peer), what, evidence, fixes);
                finding.detail = "theirs".to_owned();
            }
        }
    }

    /// Packets for this node that no device here takes.
    pub(super) fn strangers(&mut self) {
        let arriving: Vec<_> = self
            .traffic
            .streams
            .iter()
            .filter(|(stream, count)| {
                stream.direction == Direction::In
                    && self.own.contains(&stream.local)
                    && self.holds(count.last_ns)
            })
            .copied()
            .collect();
        for (stream, count) in arriving {
            self.stranger(&stream, &count);
        }
    }

    fn stranger(&mut self, stream: &VxlanStream, count: &VxlanCount) {
        let VxlanStream { peer, port, vni, .. } = *stream;
        let overlays = self.overlays;
        let of_local = |overlay: &&Overlay| overlay.vxlan.local.is_none_or(|local| local == stream.local);
        let at_port = || {
            overlays
                .iter()
                .filter(of_local)
                .filter(|overlay| overlay.vxlan.port == port)
        };
        let seen = format!("with VNI {vni}: {}", self.seen(count.packets, count.last_ns));
        if at_port().next().is_none() {
            // A device that was made here and moved to another network namespace, as Docker Swarm's, still listens here.
            if self.traffic.listening.contains(&port) {
                return;
            }
            let same_vni = overlays
                .iter()
                .filter(of_local)
                .find(|overlay| overlay.vxlan.vni == vni);
            let Some(overlay) = same_vni.or_else(|| overlays.iter().find(of_local)) else {
                return;
            };
            let (name, ours) = (&overlay.device.name, overlay.vxlan.port);
            let what = format!("{peer} sends VXLAN to UDP port {port}, but {name} here listens on {ours}.");
            let mut evidence = vec![format!("from {peer} to {}:{port} {seen}", stream.local)];
            evidence.extend(self.evidence_of_drops("NO_SOCKET", |dropped| {
                dropped.source == peer && dropped.port == port
            }));
            let fixes = [
                Fix::text(
                    "Set one port on all nodes (flannel: Backend.Port in kube-flannel-cfg, 8472 unless set; 4789 is the \
                     standard's) and restart flanneld where it differs.",
                ),
                Fix::run(
                    ["ip", "-d", "link", "show", name],
                    "prints the port, on both nodes",
                ),
            ];
            let finding = self.find(Fault::PortMismatch, overlay, Some(peer), what, evidence, fixes);
            finding.detail = port.to_string();
            return;
        }
        if at_port().any(|overlay| overlay.kind == PeerSource::External || overlay.vxlan.vni == vni) {
            return self.stranger_peer(stream, count);
        }
        // A header without the flag has no VNI.
        if count.malformed == count.packets {
            return;
        }
        let Some(overlay) = at_port().next() else { return };
        // A device in another network namespace may share the port: where the kernel says so of a VNI that nobody has, it has to.
        let unknown = |dropped: &VxlanDrop| {
            dropped.source == peer
                && dropped.vni == vni
                && dropped.reason.as_deref() == Some("VXLAN_VNI_NOT_FOUND")
        };
        if self.traffic.has_vni_reason && self.dropped(unknown).is_none() {
            return;
        }
        let (name, ours) = (&overlay.device.name, overlay.vxlan.vni);
        let what = format!("{peer} sends VXLAN with VNI {vni}, but {name} here has VNI {ours}.");
        let mut evidence = vec![format!("from {peer} to UDP port {port} {seen}")];
        evidence.extend(self.evidence_of_drops("VXLAN_VNI_NOT_FOUND", |dropped| {
            dropped.source == peer && dropped.vni == vni
        }));
        let fixes = [
            Fix::text(
                "Set one VNI on all nodes (flannel: Backend.VNI in kube-flannel-cfg) and restart flanneld where it differs.",
            ),
            Fix::run(
                ["ip", "-d", "link", "show", name],
                "prints the VNI, on both nodes",
            ),
        ];
        let finding = self.find(Fault::VniMismatch, overlay, Some(peer), what, evidence, fixes);
        finding.detail = vni.to_string();
    }

    /// A sender that the right device has no entries for.
    fn stranger_peer(&mut self, stream: &VxlanStream, count: &VxlanCount) {
        let overlays = self.overlays;
        let Some(overlay) = overlays.iter().find(|overlay| belongs(overlay, stream)) else {
            return;
        };
        // Also by another address of a peer's node.
        let known = peer_of(overlay, stream, count, self.traffic).is_some();
        let is_duplicate = self.findings.iter().any(|finding| {
            finding.fault == Fault::DuplicateMac && finding.detail == count.source_mac.to_string()
        });
        // If a peer's forwarding entry is missing, its VTEP is unknown: that is reported already.
        let explained = overlay
            .peers
            .iter()
            .any(|peer| peer.lacks.contains(&PeerEntry::Forwarding));
        if known || explained || is_duplicate || overlay.kind != PeerSource::Entries {
            return;
        }
        let (name, peer) = (&overlay.device.name, stream.peer);
        let what = format!("{name} has no entries for {peer}, which sends to it: replies can't be sent.");
        let evidence = vec![
            format!("from {peer}: {}", self.seen(count.packets, count.last_ns)),
            format!("{name} has no forwarding entry for {peer}"),
        ];
        let fixes = [Fix::text(format!(
            "Check that {peer} is a node of this cluster with a pod subnet, and restart {} on this node: it \
             sets route, neighbour and forwarding entry.",
            manager(name)
        ))];
        let finding = self.find(
            Fault::MissingForwarding,
            overlay,
            Some(peer),
            what,
            evidence,
            fixes,
        );
        finding.detail = "all".to_owned();
    }

    pub(super) fn malformed(&mut self, malformed: &HashMap<VxlanStream, u64>) {
        let mut streams: Vec<_> = malformed
            .iter()
            .filter(|(stream, at)| stream.direction == Direction::In && self.holds(**at))
            .map(|(stream, at)| (*stream, *at))
            .collect();
        streams.sort_unstable();
        for (stream, at) in streams {
            let overlays = self.overlays;
            let at_port = |overlay: &&Overlay| overlay.vxlan.port == stream.port;
            let (Some(overlay), Some(count)) = (overlays.iter().find(at_port), self.count(&stream)) else {
                continue;
            };
            if self
                .findings
                .iter()
                .any(|finding| finding.fault == Fault::MalformedHeader && finding.peer == Some(stream.peer))
            {
                continue;
            }
            let (name, peer) = (&overlay.device.name, stream.peer);
            let what = format!(
                "{peer} sends packets with a malformed VXLAN header to UDP port {}: {name} drops them.",
                stream.port
            );
            let mut evidence = vec![format!(
                "first word {:#010x}, where 0x08000000 is plain VXLAN: {}",
                count.malformed_header,
                self.seen(count.malformed, at)
            )];
            evidence.extend(self.evidence_of_drops("VXLAN_INVALID_HDR", |dropped| dropped.source == peer));
            let fixes = [Fix::text(format!(
                "Find the sender on {peer}: another protocol on that port (Geneve, an older draft), an extension that {name} \
                 is not configured for, or a device that damages packets."
            ))];
            self.find(Fault::MalformedHeader, overlay, Some(peer), what, evidence, fixes);
        }
    }
}
