//! What should be against what is: the rules. No I/O, and no clock but the one in the counts.

use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
    time::Duration,
};

use super::{
    finding::{Fault, FilteredPackets, Finding},
    overlay::{Entry, Kind, Overlay, Peer},
    settings::Mac,
    traffic::{Complaint, Count, Direction, DropCount, Dropped, Place, Stream, Traffic},
};

/// A fault that shows in packets is over when none showed it for so long.
pub const HOLD: Duration = Duration::from_secs(10);
/// So many questions without any answer, for so long, are more than a slow start.
const UNANSWERED: u64 = 3;
const UNANSWERED_FOR: Duration = Duration::from_secs(2);
/// Single packets are dropped for reasons that say nothing of an overlay.
const DROPPED: u64 = 10;

/// EtherTypes.
const IPV6: u16 = 0x86dd;

/// Reasons that say nothing of the packet: its copy for a listener such as tcpdump was dropped.
const OF_COPIES: [&str; 2] = ["PACKET_SOCK_ERROR", "SOCKET_FILTER"];

/// Compares look by look.
#[derive(Debug)]
pub struct Diagnosis {
    /// How long packets speak; `None`: all of a run is one look.
    hold: Option<Duration>,
    /// What was counted at the last look.
    counts: HashMap<Stream, Count>,
    checksum_errors: Option<u64>,
    checksum_errors_at: Option<u64>,
    /// When something inside a stream was seen last, which the stream's own time does not tell.
    fragments: HashMap<Stream, u64>,
    malformed: HashMap<Stream, u64>,
    questions: HashMap<(u32, IpAddr), Questions>,
    /// What the tables showed at the last look: only what stays is a fault, not an entry that is just being made.
    shown: HashSet<Identity>,
    since: HashMap<Identity, u64>,
}

/// What was asked of a peer since it last answered.
#[derive(Clone, Copy, Debug, Default)]
struct Questions {
    answers: u64,
    /// Asked by then.
    base: u64,
    asked: u64,
    /// Received from it, questions of its own left out, by then and by now.
    others_before: u64,
    others: u64,
    /// The first that is unanswered, `CLOCK_MONOTONIC` nanoseconds.
    first_ns: Option<u64>,
}

/// Finding of the same fault.
type Identity = (Fault, String, Option<IpAddr>, String);

/// What one look has to go by.
struct Look<'a> {
    overlays: &'a [Overlay],
    /// Addresses of this node.
    own: &'a HashSet<IpAddr>,
    traffic: &'a Traffic,
    hold: Option<Duration>,
    findings: Vec<Finding>,
}

impl Diagnosis {
    /// A fault that shows in packets holds for [`HOLD`], in a run `at_once` to its end.
    pub fn new(at_once: bool) -> Self {
        Self {
            hold: (!at_once).then_some(HOLD),
            counts: HashMap::new(),
            checksum_errors: None,
            checksum_errors_at: None,
            fragments: HashMap::new(),
            malformed: HashMap::new(),
            questions: HashMap::new(),
            shown: HashSet::new(),
            since: HashMap::new(),
        }
    }

    /// What is wrong now, the faults of one device together.
    pub fn look(&mut self, overlays: &[Overlay], own: &HashSet<IpAddr>, traffic: &Traffic) -> Vec<Finding> {
        self.compare(traffic);
        let mut look = Look {
            overlays,
            own,
            traffic,
            hold: self.hold,
            findings: Vec::new(),
        };
        for overlay in overlays {
            look.device(overlay);
            look.entries(overlay);
            look.dead(overlay);
            look.mtu(overlay, &self.fragments);
            look.stale(overlay);
        }
        look.settled(&mut self.shown);
        look.strangers();
        look.malformed(&self.malformed);
        look.complaints();
        look.drops(self.checksum_errors_at);
        look.unanswered(&self.questions);
        let mut findings = look.findings;
        self.since
            .retain(|identity, _| findings.iter().any(|finding| identity_of(finding) == *identity));
        for finding in &mut findings {
            let since = self.since.entry(identity_of(finding)).or_insert(traffic.now_ns);
            finding.since_ns = *since;
        }
        findings
    }

    /// Notes what changed since the last look.
    fn compare(&mut self, traffic: &Traffic) {
        let now = traffic.now_ns;
        let mut peers: HashMap<(u32, IpAddr), Questions> = HashMap::new();
        for (stream, count) in &traffic.streams {
            let before = self.counts.insert(*stream, *count).unwrap_or_default();
            if count.fragments > before.fragments {
                self.fragments.insert(*stream, now);
            }
            if count.malformed > before.malformed {
                self.malformed.insert(*stream, now);
            }
            let peer = peers.entry((stream.underlay, stream.peer)).or_default();
            match stream.direction {
                Direction::In => {
                    peer.answers += count.answers;
                    peer.others += count.packets.saturating_sub(count.asks);
                }
                Direction::Out => peer.asked += count.asks,
            }
        }
        for (peer, seen) in peers {
            let questions = self.questions.entry(peer).or_default();
            if seen.answers > questions.answers {
                *questions = Questions {
                    base: seen.asked,
                    others_before: seen.others,
                    ..seen
                };
            } else if seen.asked > questions.asked {
                questions.asked = seen.asked;
                questions.first_ns.get_or_insert(now);
            }
            questions.others = seen.others;
        }
        if self
            .checksum_errors
            .is_some_and(|before| traffic.checksum_errors > before)
        {
            self.checksum_errors_at = Some(now);
        }
        self.checksum_errors = Some(traffic.checksum_errors);
    }
}

fn identity_of(finding: &Finding) -> Identity {
    (
        finding.fault,
        finding.device.clone(),
        finding.peer,
        finding.detail.clone(),
    )
}

impl Look<'_> {
    /// Whether what was seen at that time still says something of now.
    fn holds(&self, at_ns: u64) -> bool {
        at_ns != 0
            && self
                .hold
                .is_none_or(|hold| Duration::from_nanos(self.traffic.now_ns.saturating_sub(at_ns)) <= hold)
    }

    fn seen(&self, packets: u64, at_ns: u64) -> String {
        let ago = Duration::from_nanos(self.traffic.now_ns.saturating_sub(at_ns));
        let packets_word = if packets == 1 { "packet" } else { "packets" };
        format!(
            "{packets} {packets_word}, the latest {:.1} s ago",
            ago.as_secs_f64()
        )
    }

    fn find(
        &mut self,
        fault: Fault,
        overlay: &Overlay,
        peer: Option<IpAddr>,
        what: String,
        evidence: Vec<String>,
        remedy: String,
    ) -> &mut Finding {
        let position = self.findings.len();
        self.findings.push(Finding {
            fault,
            device: overlay.device.name.clone(),
            peer,
            detail: String::new(),
            what,
            evidence,
            remedy,
            certain: true,
            since_ns: 0,
            filtered: None,
        });
        &mut self.findings[position]
    }

    /// Drops that still say something, added up.
    fn dropped(&self, select: impl Fn(&Dropped) -> bool) -> Option<(u64, u64)> {
        self.traffic
            .drops
            .iter()
            .filter(|(dropped, count)| self.holds(count.last_ns) && select(dropped))
            .map(|(_, count)| (count.packets, count.last_ns))
            .reduce(|(packets, last), (more, at)| (packets + more, last.max(at)))
    }

    fn evidence_of_drops(&self, reason: &str, select: impl Fn(&Dropped) -> bool) -> Vec<String> {
        let dropped = self.dropped(|dropped| dropped.reason.as_deref() == Some(reason) && select(dropped));
        dropped
            .map(|(packets, last)| format!("dropped with reason {reason}: {}", self.seen(packets, last)))
            .into_iter()
            .collect()
    }

    /// A device that is not up.
    fn device(&mut self, overlay: &Overlay) {
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
            let remedy = format!("End {holder}, or move it to another port, then `ip link set {name} up`.");
            self.find(Fault::PortTaken, overlay, None, what, evidence, remedy);
        } else {
            let what = format!("{name} is down: nothing goes through it.");
            let remedy = format!("`ip link set {name} up`, and see why what manages it (flanneld) did not.");
            let evidence = vec![format!("{name} is not up")];
            self.find(Fault::DeviceDown, overlay, None, what, evidence, remedy);
        }
    }

    /// Entries that a peer lacks.
    fn entries(&mut self, overlay: &Overlay) {
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
            let towards = |dropped: &Dropped| {
                dropped.place == Place::Inside
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
            let again = "or restart flanneld here, which sets it again";
            let mac = peer.mac.map_or_else(|| "MAC".to_owned(), |mac| mac.to_string());
            let to = vtep.map_or_else(|| "VTEP".to_owned(), |vtep| vtep.to_string());
            let gateway = peer
                .gateway
                .map_or_else(|| "GATEWAY".to_owned(), |gateway| gateway.to_string());
            let (fault, what, remedy) = match entry {
                Entry::Route => (
                    Fault::MissingRoute,
                    format!("{name} has no route to the pods of {who}: packets to them go another way."),
                    format!("`ip route add <its pod subnet> via {gateway} dev {name} onlink`, {again}."),
                ),
                Entry::Neighbour => (
                    Fault::MissingNeighbour,
                    format!("{name} has no neighbour entry for {who}: packets to its pods are dropped here."),
                    format!("`ip neigh replace {gateway} lladdr {mac} dev {name} nud permanent`, {again}."),
                ),
                Entry::Forwarding => (
                    Fault::MissingForwarding,
                    format!(
                        "{name} has no forwarding entry for {who}: packets to its pods are dropped here."
                    ),
                    format!("`bridge fdb append {mac} dev {name} dst {to}`, {again}."),
                ),
            };
            let finding = self.find(fault, overlay, vtep, what, evidence, remedy);
            finding.detail = peer
                .gateway
                .map(|gateway| gateway.to_string())
                .unwrap_or_default();
        }
    }

    fn dead(&mut self, overlay: &Overlay) {
        let vteps: Vec<_> = overlay
            .peers
            .iter()
            .filter_map(|peer| Some((peer, peer.vtep?)))
            .collect();
        for (peer, vtep) in vteps {
            let failed = |dropped: &Dropped| {
                dropped.place == Place::Outside
                    && dropped.destination == vtep
                    && dropped
                        .reason
                        .as_deref()
                        .is_some_and(|reason| reason.starts_with("NEIGH_"))
            };
            let drops = self.dropped(failed);
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
            if let Some((packets, last)) = drops {
                evidence.push(format!(
                    "VXLAN packets to it dropped: {}",
                    self.seen(packets, last)
                ));
            }
            let what = format!(
                "The peer {vtep} of {name} is dead or not on this network: nobody answers for its address on {underlay}."
            );
            let remedy = format!(
                "See whether that node runs and has {vtep}; if it is gone, delete its Node object, so that flanneld \
                 removes its entries."
            );
            self.find(Fault::DeadVtep, overlay, Some(vtep), what, evidence, remedy);
        }
    }

    fn mtu(&mut self, overlay: &Overlay, fragments: &HashMap<Stream, u64>) {
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
                let remedy = format!(
                    "`ip link set {name} mtu {fits}` on every node, and the same for the pods (flannel takes it from the \
                     underlay: restart flanneld, then the pods)."
                );
                self.find(Fault::Mtu, overlay, None, what, evidence, remedy);
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
            let remedy = format!(
                "Set the MTU of {}'s VXLAN device, and of its pods, to what the way carries less {} bytes.",
                stream.peer,
                overlay.overhead()
            );
            let evidence = vec![format!("fragmented: {}", self.seen(count, at))];
            let finding = self.find(Fault::Mtu, overlay, Some(stream.peer), what, evidence, remedy);
            finding.detail = "fragments".to_owned();
        }
    }

    /// Link layer addresses that are not, or no longer, the device's.
    fn stale(&mut self, overlay: &Overlay) {
        if overlay.kind != Kind::Entries {
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
                    dropped.place == Place::Inside && dropped.device == overlay.device.index
                }));
                let what = format!(
                    "{peer} sends to {}, which is not the address of {name} here: it keeps an old one, and its packets \
                     are dropped.",
                    count.destination_mac
                );
                let remedy = format!(
                    "Restart flanneld here and on {peer}, so that this node's address is published and taken over; by hand, \
                     on {peer}: neighbour and forwarding entry for {ours}."
                );
                let finding = self.find(Fault::StaleMac, overlay, Some(peer), what, evidence, remedy);
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
                    "packets from {peer} come from {}, the entries here say {expected}",
                    count.source_mac
                )];
                let remedy = format!(
                    "Restart flanneld on {peer} and here; by hand: `ip neigh replace`, `bridge fdb append` with {} for \
                     {peer} on {name}.",
                    count.source_mac
                );
                let finding = self.find(Fault::StaleMac, overlay, Some(peer), what, evidence, remedy);
                finding.detail = "theirs".to_owned();
            }
        }
    }

    /// Keeps of what the tables show only what they showed at the last look, too.
    fn settled(&mut self, shown: &mut HashSet<Identity>) {
        let now: HashSet<_> = self.findings.iter().map(identity_of).collect();
        self.findings
            .retain(|finding| shown.contains(&identity_of(finding)));
        *shown = now;
    }

    /// Packets for this node that no device here takes.
    fn strangers(&mut self) {
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

    fn stranger(&mut self, stream: &Stream, count: &Count) {
        let Stream { peer, port, vni, .. } = *stream;
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
            let remedy = format!(
                "Set one port on all nodes (flannel: Backend.Port in kube-flannel-cfg, 8472 unless set; 4789 is the \
                 standard's) and restart flanneld where it differs; `ip -d link show {name}` shows it."
            );
            let finding = self.find(Fault::PortMismatch, overlay, Some(peer), what, evidence, remedy);
            finding.detail = port.to_string();
            return;
        }
        if at_port().any(|overlay| overlay.kind == Kind::External || overlay.vxlan.vni == vni) {
            return self.stranger_peer(stream, count);
        }
        // A header without the flag has no VNI.
        if count.malformed == count.packets {
            return;
        }
        let Some(overlay) = at_port().next() else { return };
        let (name, ours) = (&overlay.device.name, overlay.vxlan.vni);
        let what = format!("{peer} sends VXLAN with VNI {vni}, but {name} here has VNI {ours}.");
        let mut evidence = vec![format!("from {peer} to UDP port {port} {seen}")];
        evidence.extend(self.evidence_of_drops("VXLAN_VNI_NOT_FOUND", |dropped| {
            dropped.source == peer && dropped.vni == vni
        }));
        let remedy = format!(
            "Set one VNI on all nodes (flannel: Backend.VNI in kube-flannel-cfg) and restart flanneld where it differs; \
             `ip -d link show {name}` shows it."
        );
        let finding = self.find(Fault::VniMismatch, overlay, Some(peer), what, evidence, remedy);
        finding.detail = vni.to_string();
    }

    /// A sender that the right device has no entries for.
    fn stranger_peer(&mut self, stream: &Stream, count: &Count) {
        let overlays = self.overlays;
        let Some(overlay) = overlays.iter().find(|overlay| belongs(overlay, stream)) else {
            return;
        };
        let known = overlay.peer(stream.peer).is_some();
        // Where a peer's forwarding entry is missing, its VTEP is not known: that is told already.
        let explained = overlay
            .peers
            .iter()
            .any(|peer| peer.lacks.contains(&Entry::Forwarding));
        if known || explained || overlay.kind != Kind::Entries {
            return;
        }
        let (name, peer) = (&overlay.device.name, stream.peer);
        let what = format!("{name} has no entries for {peer}, which sends to it: answers can't go back.");
        let evidence = vec![
            format!("from {peer}: {}", self.seen(count.packets, count.last_ns)),
            format!("no forwarding entry of {name} leads to {peer}"),
        ];
        let remedy = format!(
            "See that {peer} is a node of this cluster with a pod subnet, and restart flanneld here, which sets route, \
             neighbour and forwarding entry."
        );
        let finding = self.find(
            Fault::MissingForwarding,
            overlay,
            Some(peer),
            what,
            evidence,
            remedy,
        );
        finding.detail = "all".to_owned();
    }

    fn malformed(&mut self, malformed: &HashMap<Stream, u64>) {
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
            let remedy = format!(
                "Find what sends it on {peer}: another protocol on that port (Geneve, an older draft), an extension that \
                 {name} is not set to, or a device that damages packets."
            );
            self.find(
                Fault::MalformedHeader,
                overlay,
                Some(peer),
                what,
                evidence,
                remedy,
            );
        }
    }

    /// What ICMP says of VXLAN packets from here.
    fn complaints(&mut self) {
        let errors: Vec<_> = self
            .traffic
            .errors
            .iter()
            .filter(|(error, count)| {
                error.direction == Direction::In
                    && self.own.contains(&error.source)
                    && self.holds(count.last_ns)
            })
            .copied()
            .collect();
        for (error, count) in errors {
            let overlays = self.overlays;
            let at_port = |overlay: &&Overlay| overlay.vxlan.port == error.port;
            let Some(overlay) = overlays.iter().find(at_port) else {
                continue;
            };
            let (name, peer, port) = (&overlay.device.name, error.destination, error.port);
            let complaint = error.complaint.name();
            let evidence = vec![format!(
                "ICMP \"{complaint}\" from {}: {}",
                error.reporter,
                self.seen(count.packets, count.last_ns)
            )];
            match error.complaint {
                // Told already, with what is there instead.
                Complaint::Port if self.explained(Some(peer), &[Fault::PortMismatch]) => {}
                Complaint::Port => {
                    let what = format!(
                        "{peer} refuses VXLAN packets of {name}: nothing listens on its UDP port {port}, or a rule there \
                         rejects them."
                    );
                    let remedy = format!(
                        "On {peer}: `ip -d link show type vxlan` (does it run, with port {port}?), and `probe vxlan` there \
                         names the rule, if it is one."
                    );
                    self.find(Fault::Refused, overlay, Some(peer), what, evidence, remedy);
                }
                Complaint::Prohibited => {
                    let what = format!(
                        "A filter at {} forbids VXLAN packets from {name} to {peer}.",
                        error.reporter
                    );
                    let remedy = format!(
                        "Allow UDP port {port} between the nodes in the filter of {}.",
                        error.reporter
                    );
                    let finding = self.find(Fault::Refused, overlay, Some(peer), what, evidence, remedy);
                    finding.detail = "prohibited".to_owned();
                }
                Complaint::Host if self.explained(Some(peer), &[Fault::DeadVtep]) => {}
                Complaint::Host => {
                    let what = format!(
                        "The peer {peer} of {name} can't be reached: {} says so.",
                        error.reporter
                    );
                    let remedy = format!("See whether that node runs, and the route to {peer}.");
                    self.find(Fault::DeadVtep, overlay, Some(peer), what, evidence, remedy);
                }
                Complaint::TooBig => {
                    let mtu = if count.mtu == 0 {
                        "less".to_owned()
                    } else {
                        format!("packets of {} bytes", count.mtu)
                    };
                    let what = format!(
                        "The way from {name} to {peer} carries only {mtu}: larger VXLAN packets are lost at {}.",
                        error.reporter
                    );
                    let remedy = format!(
                        "Set the MTU of {name}, and of the pods, to what the way carries less {} bytes, on every node.",
                        overlay.overhead()
                    );
                    let finding = self.find(Fault::Mtu, overlay, Some(peer), what, evidence, remedy);
                    finding.detail = "path".to_owned();
                }
                Complaint::Other => {}
            }
        }
    }

    /// VXLAN packets that this node dropped.
    fn drops(&mut self, checksum_errors_at: Option<u64>) {
        let drops: Vec<(Dropped, DropCount)> = self
            .traffic
            .drops
            .iter()
            .filter(|(dropped, count)| dropped.place == Place::Outside && self.holds(count.last_ns))
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
                    && (overlay.kind == Kind::External || overlay.vxlan.vni == dropped.vni)
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
        dropped: &Dropped,
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
                let remedy = format!("Set the MTU of {name}, and of the pods, smaller, on every node.");
                let evidence = vec![format!("dropped with reason PKT_TOO_BIG: {seen}")];
                let finding = self.find(Fault::Mtu, overlay, Some(peer), what, evidence, remedy);
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
                let remedy =
                    "See the rules of iptables and nft for UDP packets between the nodes.".to_owned();
                let finding = self.find(Fault::Dropped, overlay, Some(peer), what, evidence, remedy);
                finding.certain = false;
                finding.filtered = Some(filtered);
                finding.detail = direction.name().to_owned();
            }
            // Told by name elsewhere.
            Some("NO_SOCKET" | "VXLAN_INVALID_HDR" | "VXLAN_VNI_NOT_FOUND") => {}
            Some(reason) if reason.starts_with("NEIGH_") || OF_COPIES.contains(&reason) => {}
            Some(reason) if count.packets >= DROPPED => {
                let what = format!("VXLAN packets {way} are dropped on this node: {reason}.");
                let evidence = vec![format!("dropped with reason {reason}: {seen}")];
                let remedy = format!(
                    "Look the reason up (include/net/dropreason-core.h); drops by queues and memory mean that {name} or \
                     its underlay has more to do than it can."
                );
                let finding = self.find(Fault::Dropped, overlay, Some(peer), what, evidence, remedy);
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
        let remedy = format!(
            "Accept UDP port {} between the nodes: `iptables-save`, `nft list ruleset`.",
            filtered.port
        );
        let detail = filtered.direction.name().to_owned();
        let finding = self.find(Fault::Filtered, overlay, Some(peer), what, evidence, remedy);
        finding.detail = detail;
        finding.filtered = Some(filtered);
    }

    fn checksum(&mut self, overlay: &Overlay, peer: IpAddr, evidence: Vec<String>, certain: bool) {
        if self.explained(Some(peer), &[Fault::BadChecksum]) {
            return;
        }
        let what = format!("VXLAN packets from {peer} have a wrong UDP checksum and are dropped here.");
        let remedy = format!(
            "On {peer}: `ethtool -K {} tx-checksum-ip-generic off` (a bug in the checksum offload of kernel or network \
             card), or a newer kernel.",
            overlay.device.name
        );
        let finding = self.find(Fault::BadChecksum, overlay, Some(peer), what, evidence, remedy);
        finding.certain = certain;
    }

    /// Questions that nobody answered, where nothing else says why.
    fn unanswered(&mut self, questions: &HashMap<(u32, IpAddr), Questions>) {
        let mut silent: Vec<_> = questions
            .iter()
            .filter_map(|((_, peer), questions)| {
                let waited = self.traffic.now_ns.saturating_sub(questions.first_ns?);
                let unanswered = questions.asked - questions.base;
                // Who sends much else gets this node's packets; single ones may be repeated for want of an answer.
                let others = questions.others - questions.others_before;
                let enough = unanswered >= UNANSWERED
                    && others <= unanswered
                    && Duration::from_nanos(waited) >= UNANSWERED_FOR;
                enough.then_some((*peer, *questions, unanswered, waited))
            })
            .collect();
        silent.sort_unstable_by_key(|(peer, ..)| *peer);
        for (peer, questions, unanswered, waited) in silent {
            let overlays = self.overlays;
            let mut sent = self.traffic.streams.iter().filter(|(stream, count)| {
                stream.peer == peer && stream.direction == Direction::Out && self.holds(count.last_ns)
            });
            let Some((overlay, stream)) = sent.find_map(|(stream, _)| {
                Some((overlays.iter().find(|overlay| belongs(overlay, stream))?, *stream))
            }) else {
                continue;
            };
            if self.findings.iter().any(|finding| finding.peer == Some(peer)) {
                continue;
            }
            let name = &overlay.device.name;
            let ever = if questions.answers == 0 {
                "no answer"
            } else {
                "no answer since"
            };
            let what = format!(
                "{peer} does not answer: {name} sends to its UDP port {}, no answer comes back, and no reason for it is on \
                 this node.",
                stream.port
            );
            let evidence = vec![
                format!(
                    "{unanswered} packets that call for an answer (SYN, ping, DNS) sent in {:.1} s, {ever} received",
                    Duration::from_nanos(waited).as_secs_f64()
                ),
                format!("no drop, no ICMP error, entries complete for {peer}"),
            ];
            let remedy = format!(
                "Run `probe vxlan` on {peer}: it names a rule there; if it sees nothing arrive, a filter between the nodes \
                 (security group, switch) drops UDP port {}.",
                stream.port
            );
            let finding = self.find(Fault::NoAnswer, overlay, Some(peer), what, evidence, remedy);
            finding.certain = false;
        }
    }

    fn explained(&self, peer: Option<IpAddr>, by: &[Fault]) -> bool {
        self.findings
            .iter()
            .any(|finding| finding.peer == peer && by.contains(&finding.fault))
    }

    fn count(&self, stream: &Stream) -> Option<Count> {
        let mut streams = self.traffic.streams.iter();
        streams
            .find(|(other, _)| other == stream)
            .map(|(_, count)| *count)
    }
}

/// Whether a stream is a device's.
pub fn belongs(overlay: &Overlay, stream: &Stream) -> bool {
    overlay.vxlan.port == stream.port
        && (overlay.kind == Kind::External || overlay.vxlan.vni == stream.vni)
        && overlay.vxlan.local.is_none_or(|local| local == stream.local)
}

fn underlay_of(overlay: &Overlay) -> &str {
    overlay
        .underlay
        .as_ref()
        .map_or("the underlay", |underlay| &underlay.name)
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
    if peer.gateway.is_some() && !peer.lacks.contains(&Entry::Neighbour) {
        parts.push(format!("neighbour {gateway} with {mac}"));
    }
    if let Some(vtep) = peer.vtep.filter(|_| !peer.lacks.contains(&Entry::Forwarding)) {
        parts.push(format!("forwarding entry for {mac} to {vtep}"));
    }
    format!("there is only: {}", parts.join(", "))
}
