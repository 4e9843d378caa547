//! Faults for which this node drops VXLAN packets.

use std::net::IpAddr;

use super::Observation;
use crate::finding::Fix;
use crate::vxlan::{
    finding::{Fault, FilteredPackets, MANY},
    overlay::{Overlay, PeerSource},
    traffic::{Direction, DropCount, Layer, VxlanDrop},
};

/// Reasons that say nothing of the packet: its copy for a listener such as tcpdump was dropped.
const OF_COPIES: [&str; 2] = ["PACKET_SOCK_ERROR", "SOCKET_FILTER"];

impl Observation<'_> {
    /// VXLAN packets that this node dropped.
    pub(super) fn drops(&mut self, checksum_errors_at: Option<u64>) {
        let drops: Vec<(VxlanDrop, DropCount)> = self
            .traffic
            .drops
            .iter()
            .filter(|(dropped, count)| dropped.place == Layer::Outer && self.holds(count.last_ns))
            .cloned()
            .collect();
        for (dropped, count) in drops {
            let direction = if self.own.contains(&dropped.source) {
                Direction::Out
            } else if self.own.contains(&dropped.destination) {
                Direction::In
            } else {
                // Passing through: another overlay's.
                continue;
            };
            let peer = match direction {
                Direction::In => dropped.source,
                Direction::Out => dropped.destination,
            };
            let overlays = self.overlays;
            let ours = |overlay: &&Overlay| {
                overlay.vxlan.port == dropped.port
                    && (overlay.kind == PeerSource::External || overlay.vxlan.vni == dropped.vni)
            };
            let at_port = |overlay: &&Overlay| overlay.vxlan.port == dropped.port;
            // A rule may also drop what is malformed.
            let of_rules = dropped.reason.as_deref() == Some("NETFILTER_DROP");
            let found = overlays
                .iter()
                .find(ours)
                .or_else(|| overlays.iter().find(at_port).filter(|_| of_rules));
            let Some(overlay) = found else { continue };
            self.drop(overlay, direction, peer, &dropped, count, checksum_errors_at);
        }
    }

    fn drop(
        &mut self,
        overlay: &Overlay,
        direction: Direction,
        peer: IpAddr,
        dropped: &VxlanDrop,
        count: DropCount,
        checksum_errors_at: Option<u64>,
    ) {
        let way = match direction {
            Direction::In => format!("from {peer}"),
            Direction::Out => format!("to {peer}"),
        };
        let seen = self.seen(count.packets, count.last_ns);
        let name = overlay.device.name.clone();
        let filtered = FilteredPackets {
            direction,
            source: dropped.source,
            destination: dropped.destination,
            port: dropped.port,
            underlay: overlay.underlay.as_ref().map(|underlay| underlay.name.clone()),
            packets: count.packets,
            latest_ns: count.last_ns,
        };
        let checksums = checksum_errors_at.is_some_and(|at| self.holds(at));
        match dropped.reason.as_deref() {
            Some("NETFILTER_DROP") => {
                let evidence = vec![format!("dropped with reason NETFILTER_DROP: {seen}")];
                self.filtered(overlay, peer, evidence, filtered);
            }
            Some("UDP_CSUM") => {
                self.checksum(
                    overlay,
                    peer,
                    vec![format!("dropped with reason UDP_CSUM: {seen}")],
                    true,
                );
            }
            Some("PKT_TOO_BIG") => {
                let what = format!("VXLAN packets of {name} {way} are too big for this node's underlay.");
                let fixes = [Fix::text(format!(
                    "Set a smaller MTU for {name} and the pods, on every node."
                ))];
                let evidence = vec![format!("dropped with reason PKT_TOO_BIG: {seen}")];
                let finding = self.find(Fault::Mtu, overlay, Some(peer), what, evidence, fixes);
                finding.detail = "too big".to_owned();
            }
            // Without reasons: which can it be?
            None | Some("NOT_SPECIFIED") if direction == Direction::In && checksums => {
                let evidence = vec![
                    format!("VXLAN packets dropped, this kernel does not say why: {seen}"),
                    "the node's count of UDP packets with a wrong checksum (InCsumErrors) goes up".to_owned(),
                ];
                self.checksum(overlay, peer, evidence, false);
            }
            None | Some("NOT_SPECIFIED") => {
                let malformed = self.explained(Some(peer), &[Fault::MalformedHeader]);
                if !overlay.device.up || malformed || self.explained(Some(peer), &[Fault::DeadVtep]) {
                    return;
                }
                let what = format!("VXLAN packets {way} are dropped on this node.");
                let evidence = vec![format!("dropped, this kernel does not say why: {seen}")];
                let fixes = [Fix::text(
                    "Check the rules of iptables and nft for UDP packets between the nodes.",
                )];
                let finding = self.find(Fault::Dropped, overlay, Some(peer), what, evidence, fixes);
                finding.certain = false;
                finding.filtered = Some(filtered);
                finding.detail = direction.name().to_owned();
            }
            // Told by name elsewhere.
            Some("NO_SOCKET" | "VXLAN_INVALID_HDR" | "VXLAN_VNI_NOT_FOUND") => {}
            Some(reason) if reason.starts_with("NEIGH_") || OF_COPIES.contains(&reason) => {}
            Some(reason) if count.packets >= MANY => {
                let what = format!("VXLAN packets {way} are dropped on this node: {reason}.");
                let evidence = vec![format!("dropped with reason {reason}: {seen}")];
                let fixes = [Fix::text(format!(
                    "Look the reason up in the kernel's include/net/dropreason-core.h. Drops by queues and memory mean that \
                     {name} or its underlay is overloaded."
                ))];
                let finding = self.find(Fault::Dropped, overlay, Some(peer), what, evidence, fixes);
                finding.detail = reason.to_owned();
            }
            Some(_) => {}
        }
    }

    fn filtered(
        &mut self,
        overlay: &Overlay,
        peer: IpAddr,
        evidence: Vec<String>,
        filtered: FilteredPackets,
    ) {
        let way = match filtered.direction {
            Direction::In => "from",
            Direction::Out => "to",
        };
        let what = format!("VXLAN packets {way} {peer} are dropped on this node by its packet filter.");
        let fixes = [Fix::text(format!(
            "Accept UDP port {} between the nodes: iptables-save and nft list ruleset show the rules.",
            filtered.port
        ))];
        let detail = filtered.direction.name().to_owned();
        let finding = self.find(Fault::Filtered, overlay, Some(peer), what, evidence, fixes);
        finding.detail = detail;
        finding.filtered = Some(filtered);
    }

    fn checksum(&mut self, overlay: &Overlay, peer: IpAddr, evidence: Vec<String>, certain: bool) {
        if self.explained(Some(peer), &[Fault::BadChecksum]) {
            return;
        }
        let what = format!("VXLAN packets from {peer} have a wrong UDP checksum and are dropped here.");
        let device = overlay.device.name.as_str();
        let fixes = [Fix::run(
            ["ethtool", "-K", device, "tx-checksum-ip-generic", "off"],
            format!(
                "on {peer}: its kernel or network card offloads checksums wrongly; a newer kernel may not"
            ),
        )];
        let finding = self.find(Fault::BadChecksum, overlay, Some(peer), what, evidence, fixes);
        finding.certain = certain;
    }
}
