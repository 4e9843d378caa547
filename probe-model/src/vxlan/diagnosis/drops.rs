//! Faults for which this node drops VXLAN packets.

use std::net::IpAddr;

use super::{Observation, manager, underlay_to};
use crate::finding::Fix;
use crate::vxlan::{
    filters::FilterHook,
    finding::{Fault, FilteredPackets, is_loss},
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
        let device = overlay
            .underlays()
            .find(|underlay| underlay.index == dropped.device)
            // A rule may have dropped it before it had a device.
            .or(overlay
                .underlay
                .as_ref()
                .filter(|_| overlay.other_underlays.is_empty()))
            .map(|underlay| underlay.name.clone());
        let of = self.all(direction, peer, dropped, count);
        let filtered = FilteredPackets {
            direction,
            source: dropped.source,
            destination: dropped.destination,
            port: dropped.port,
            underlay: device.clone(),
            packets: count.packets,
            of,
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
                    format!("VXLAN packets dropped, this kernel reports no reason: {seen}"),
                    "the node's counter of UDP packets with a wrong checksum (InCsumErrors) rises".to_owned(),
                ];
                self.checksum(overlay, peer, evidence, false);
            }
            None | Some("NOT_SPECIFIED") => {
                let malformed = self.explained(Some(peer), &[Fault::MalformedHeader]);
                if !overlay.device.up || malformed || self.explained(Some(peer), &[Fault::DeadVtep]) {
                    return;
                }
                let what = format!("VXLAN packets {way} are dropped on this node.");
                let mut evidence = vec![format!("dropped, this kernel reports no reason: {seen}")];
                evidence.extend(self.filters(overlay, |_| true).0);
                let fixes = [Fix::text(match dropped.reason {
                    None => "Check the iptables and nft rules for UDP packets between the nodes.",
                    Some(_) => {
                        "Follow the packets of a pod to that node with probe path, which prints the kernel function that drops \
                         them. It is not an iptables or nft rule: Linux 5.18 and later name those."
                    }
                })];
                let finding = self.find(Fault::Dropped, overlay, Some(peer), what, evidence, fixes);
                finding.certain = false;
                finding.filtered = Some(filtered);
                finding.detail = direction.name().to_owned();
            }
            // Told by name elsewhere.
            Some("NO_SOCKET" | "VXLAN_INVALID_HDR" | "VXLAN_VNI_NOT_FOUND") => {}
            Some(reason) if reason.starts_with("NEIGH_") || OF_COPIES.contains(&reason) => {}
            Some(reason) if is_loss(count.packets, of) => {
                self.lost(
                    overlay,
                    peer,
                    direction,
                    reason,
                    device.as_deref(),
                    &format!("{seen}, of {of}"),
                );
            }
            Some(_) => {}
        }
    }

    /// How many packets there were of those of which some were dropped.
    fn all(&self, direction: Direction, peer: IpAddr, dropped: &VxlanDrop, count: DropCount) -> u64 {
        let streams = self.traffic.streams.iter();
        let same = streams.filter(|(stream, _)| {
            stream.direction == direction && stream.peer == peer && stream.port == dropped.port
        });
        let passed: u64 = same.map(|(_, count)| count.packets).sum();
        match direction {
            // Received packets are counted before anything drops them.
            Direction::In => passed.max(count.packets),
            Direction::Out => passed.saturating_add(count.packets),
        }
    }

    /// Packets dropped for a reason that names the place.
    fn lost(
        &mut self,
        overlay: &Overlay,
        peer: IpAddr,
        direction: Direction,
        reason: &str,
        device: Option<&str>,
        seen: &str,
    ) {
        let way = match direction {
            Direction::In => format!("from {peer}"),
            Direction::Out => format!("to {peer}"),
        };
        let mut evidence = vec![format!("dropped with reason {reason}: {seen}")];
        let at = device.map(|device| format!(" {device}")).unwrap_or_default();
        let name = &overlay.device.name;
        let (by, fixes) = if let Some(hook) = FilterHook::of_reason(reason) {
            let (filters, list) = self.filters(overlay, |other| other == hook);
            let by = match hook {
                FilterHook::Xdp => format!("an XDP program (BPF) on its device{at}"),
                FilterHook::Ingress => format!("a tc filter or BPF program at the ingress of its device{at}"),
                FilterHook::Egress => format!("a tc filter or BPF program at the egress of its device{at}"),
            };
            if filters.is_empty() {
                evidence.push(format!("{hook}{at}: no filter or program is there now"));
            }
            evidence.extend(filters);
            let text = "Let its owner accept the packets, or remove it: it is not an iptables or nft rule.";
            (by, list.into_iter().chain([Fix::text(text)]).collect())
        } else if reason == "IP_RPFILTER" {
            let ways: Vec<_> = overlay
                .peer(peer)
                .into_iter()
                .map(|of| format!("the route to {peer} uses {}", underlay_to(overlay, of)))
                .collect();
            evidence.extend(ways);
            let loosen = device.map(|device| {
                // sysctl takes a dot in a name for a slash, and the other way round.
                let key = format!("net.ipv4.conf.{}.rp_filter=2", device.replace('.', "/"));
                Fix::run(
                    ["sysctl", "-w", &key],
                    "accepts packets that arrive on another device than the route back, 2 is loose mode",
                )
            });
            let text = Fix::text(format!(
                "Or let {} use the same network on all nodes (flanneld: --iface), so that packets and \
                 replies use the same device.",
                manager(name)
            ));
            let by = format!(
                "the reverse path filter (rp_filter) of{}",
                if at.is_empty() { " its device" } else { &at }
            );
            (by, loosen.into_iter().chain([text]).collect())
        } else if reason.starts_with("QDISC") {
            let text = format!(
                "Show the queue and its drops (tc -s qdisc show{}): it is overloaded, or set to drop (netem, a policer).",
                device.map(|device| format!(" dev {device}")).unwrap_or_default()
            );
            (
                format!("the queueing discipline (qdisc) of its device{at}"),
                vec![Fix::text(text)],
            )
        } else {
            let text = format!(
                "Look the reason up in the kernel's include/net/dropreason-core.h. Drops by queues and memory mean that {name} or its \
                 underlay is overloaded."
            );
            (format!("the kernel: {reason}"), vec![Fix::text(text)])
        };
        let what = format!("VXLAN packets {way} are dropped on this node by {by}.");
        let finding = self.find(Fault::Dropped, overlay, Some(peer), what, evidence, fixes);
        finding.detail = reason.to_owned();
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
                "on {peer}: its kernel or network card offloads checksums wrongly, a newer kernel may be \
                 fixed"
            ),
        )];
        let finding = self.find(Fault::BadChecksum, overlay, Some(peer), what, evidence, fixes);
        finding.certain = certain;
    }
}
