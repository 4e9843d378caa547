//! What should be against what is: the rules. No I/O, and no clock but the one in the counts.

mod device;
mod drops;
mod icmp_errors;
mod packets;
mod tables;
mod unanswered;
mod uniqueness;
mod ways;

use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
    time::Duration,
};

use self::unanswered::Questions;
pub use self::unanswered::UNANSWERED;
use super::{
    filters::FilterHook,
    finding::{Diagnosed, Fault},
    overlay::{Overlay, Peer, PeerSource},
    traffic::{Direction, Traffic, VxlanCount, VxlanDrop, VxlanStream},
};
use crate::{
    finding::{Fix, ago_ms},
    network::RouteLookup,
    plural::counted,
};

/// A fault that shows in packets is over when none showed it for so long.
pub const HOLD: Duration = Duration::from_secs(10);

/// Compares snapshots.
#[derive(Debug)]
pub struct Diagnosis {
    /// How long packets count as evidence; `None`: the whole run is one snapshot.
    hold: Option<Duration>,
    /// Counters at the previous snapshot.
    counts: HashMap<VxlanStream, VxlanCount>,
    checksum_errors: Option<u64>,
    checksum_errors_at: Option<u64>,
    /// When fragments were last seen in a stream; the stream's own time is of any packet.
    fragments: HashMap<VxlanStream, u64>,
    malformed: HashMap<VxlanStream, u64>,
    /// By UDP port and peer: a node with two network cards answers by another device than the one asked through.
    questions: HashMap<(u16, IpAddr), Questions>,
    /// Packets that `rp_filter` dropped by the first snapshot.
    reverse_path_before: Option<u64>,
    /// The complete peers of each device that was up, by its index: when it goes down, the kernel forgets them.
    known: HashMap<u32, Vec<Peer>>,
    /// Findings from tables at the previous snapshot: only one that stays is a fault, not an entry that is being added.
    shown: HashSet<Identity>,
    since: HashMap<Identity, u64>,
}

/// Findings of the same fault.
type Identity = (Fault, String, Option<IpAddr>, String);

/// The input of one snapshot.
struct Observation<'a> {
    overlays: &'a [Overlay],
    /// Addresses of this node.
    own: &'a HashSet<IpAddr>,
    traffic: &'a Traffic,
    hold: Option<Duration>,
    known: &'a HashMap<u32, Vec<Peer>>,
    /// Packets that `rp_filter` dropped since probe began.
    reverse_path_drops: u64,
    findings: Vec<Diagnosed>,
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
            reverse_path_before: None,
            known: HashMap::new(),
            shown: HashSet::new(),
            since: HashMap::new(),
        }
    }

    /// What is wrong now, the faults of one device together.
    pub fn look(&mut self, overlays: &[Overlay], own: &HashSet<IpAddr>, traffic: &Traffic) -> Vec<Diagnosed> {
        self.compare(overlays, traffic);
        self.remember(overlays);
        let before = *self.reverse_path_before.get_or_insert(traffic.reverse_path_drops);
        let mut look = Observation {
            overlays,
            own,
            traffic,
            hold: self.hold,
            known: &self.known,
            reverse_path_drops: traffic.reverse_path_drops.saturating_sub(before),
            findings: Vec::new(),
        };
        for overlay in overlays {
            look.device(overlay);
            look.entries(overlay);
            look.asymmetric(overlay);
            look.ways(overlay);
            look.rejected_pods(overlay);
            look.duplicates(overlay);
            look.overlapping(overlay);
            look.dead(overlay);
            look.mtu(overlay, &self.fragments);
            look.stale(overlay);
        }
        look.settled(&mut self.shown);
        look.strangers();
        look.malformed(&self.malformed);
        look.icmp_errors();
        look.drops(self.checksum_errors_at);
        look.unanswered(&self.questions);
        let mut findings = look.findings;
        self.since
            .retain(|identity, _| findings.iter().any(|finding| identity_of(finding) == *identity));
        for finding in &mut findings {
            let since = self.since.entry(identity_of(finding)).or_insert(traffic.now_ns);
            finding.since_ns = *since;
            finding.since_ms = ago_ms(traffic.now_ns, *since);
        }
        findings
    }

    /// Notes what changed since the previous snapshot.
    fn compare(&mut self, overlays: &[Overlay], traffic: &Traffic) {
        let now = traffic.now_ns;
        let mut peers: HashMap<(u16, IpAddr), Questions> = HashMap::new();
        for (stream, count) in &traffic.streams {
            let before = self.counts.insert(*stream, *count).unwrap_or_default();
            if count.fragments > before.fragments {
                self.fragments.insert(*stream, now);
            }
            if count.malformed > before.malformed {
                self.malformed.insert(*stream, now);
            }
            let peer = overlays
                .iter()
                .find(|overlay| belongs(overlay, stream))
                .and_then(|overlay| peer_of(overlay, stream, count, traffic)?.vtep)
                .unwrap_or(stream.peer);
            let peer = peers.entry((stream.port, peer)).or_default();
            match stream.direction {
                Direction::In => {
                    peer.answers += count.answers;
                    peer.acks += count.acks;
                }
                Direction::Out => peer.asked += count.asks,
            }
        }
        for (peer, seen) in peers {
            let questions = self.questions.entry(peer).or_default();
            if seen.answers > questions.answers {
                *questions = Questions {
                    base: seen.asked,
                    acks_before: seen.acks,
                    ..seen
                };
            } else if seen.asked > questions.asked {
                questions.asked = seen.asked;
                questions.first_ns.get_or_insert(now);
            }
            questions.acks = seen.acks;
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

impl Diagnosis {
    /// Notes the peers that have all their entries.
    fn remember(&mut self, overlays: &[Overlay]) {
        self.known
            .retain(|index, _| overlays.iter().any(|overlay| overlay.device.index == *index));
        for overlay in overlays.iter().filter(|overlay| overlay.device.up) {
            let known = self.known.entry(overlay.device.index).or_default();
            let complete = |peer: &&Peer| {
                peer.lacks.is_empty()
                    && peer.gateway.is_some()
                    && !peer.routes.is_empty()
                    && peer.vtep.is_some()
            };
            let whole: Vec<_> = overlay.peers.iter().filter(complete).cloned().collect();
            // A peer that lost an entry stays as it was; one that nothing is left of is gone.
            known.retain(|old| {
                let is_left = overlay.peers.iter().any(|peer| {
                    !peer.lacks.is_empty() && (peer.gateway == old.gateway || peer.mac == old.mac)
                });
                is_left && !whole.iter().any(|peer| peer.gateway == old.gateway)
            });
            known.extend(whole);
        }
    }
}

/// The peer that a stream is from or to, by its VTEP, or by its link layer address where it sends from another address.
pub fn peer_of<'a>(
    overlay: &'a Overlay,
    stream: &VxlanStream,
    count: &VxlanCount,
    traffic: &Traffic,
) -> Option<&'a Peer> {
    let is_heard = |vtep| {
        traffic.streams.iter().any(|(other, of)| {
            other.direction == Direction::In
                && other.peer == vtep
                && other.port == stream.port
                && of.source_mac == count.source_mac
        })
    };
    overlay.peer(stream.peer).or_else(|| match stream.direction {
        Direction::In => overlay.alias(stream.peer, count.source_mac, is_heard),
        Direction::Out => None,
    })
}

fn identity_of(finding: &Diagnosed) -> Identity {
    (
        finding.fault,
        finding.device.clone().unwrap_or_default(),
        finding.peer,
        finding.detail.clone(),
    )
}

impl Observation<'_> {
    /// Whether what was seen at that time still says something of now.
    fn holds(&self, at_ns: u64) -> bool {
        at_ns != 0
            && self
                .hold
                .is_none_or(|hold| Duration::from_nanos(self.traffic.now_ns.saturating_sub(at_ns)) <= hold)
    }

    fn seen(&self, packets: u64, at_ns: u64) -> String {
        let ago = Duration::from_nanos(self.traffic.now_ns.saturating_sub(at_ns));
        format!(
            "{}, the latest {:.1} s ago",
            counted(packets, "packet", "packets"),
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
        fixes: impl IntoIterator<Item = Fix>,
    ) -> &mut Diagnosed {
        let position = self.findings.len();
        let mut found = Diagnosed::new(fault, &overlay.device.name, peer, what);
        found.evidence = evidence;
        found.fixes = fixes.into_iter().collect();
        self.findings.push(found);
        &mut self.findings[position]
    }

    /// Drops that still say something, added up.
    fn dropped(&self, select: impl Fn(&VxlanDrop) -> bool) -> Option<(u64, u64)> {
        self.traffic
            .drops
            .iter()
            .filter(|(dropped, count)| self.holds(count.last_ns) && select(dropped))
            .map(|(_, count)| (count.packets, count.last_ns))
            .reduce(|(packets, last), (more, at)| (packets + more, last.max(at)))
    }

    fn evidence_of_drops(&self, reason: &str, select: impl Fn(&VxlanDrop) -> bool) -> Vec<String> {
        let dropped = self.dropped(|dropped| dropped.reason.as_deref() == Some(reason) && select(dropped));
        dropped
            .map(|(packets, last)| format!("dropped with reason {reason}: {}", self.seen(packets, last)))
            .into_iter()
            .collect()
    }

    /// What else on the underlay may drop packets, and the command that lists the first of it.
    fn filters(&self, overlay: &Overlay, select: impl Fn(FilterHook) -> bool) -> (Vec<String>, Option<Fix>) {
        let mut evidence = Vec::new();
        let mut fix = None;
        for filter in &self.traffic.filters {
            let is_ours = overlay
                .underlays()
                .any(|underlay| underlay.index == filter.device);
            if is_ours && select(filter.hook) {
                evidence.push(filter.to_string());
                fix.get_or_insert_with(|| Fix::run(filter.listed_by(), "lists the filter"));
            }
        }
        (evidence, fix)
    }

    fn explained(&self, peer: Option<IpAddr>, by: &[Fault]) -> bool {
        self.findings
            .iter()
            .any(|finding| finding.peer == peer && by.contains(&finding.fault))
    }

    fn count(&self, stream: &VxlanStream) -> Option<VxlanCount> {
        let mut streams = self.traffic.streams.iter();
        streams
            .find(|(other, _)| other == stream)
            .map(|(_, count)| *count)
    }
}

/// Whether a stream is a device's.
pub fn belongs(overlay: &Overlay, stream: &VxlanStream) -> bool {
    overlay.vxlan.port == stream.port
        && (overlay.kind == PeerSource::External || overlay.vxlan.vni == stream.vni)
        && overlay.vxlan.local.is_none_or(|local| local == stream.local)
}

/// The program that sets a device's entries, by the name that it gives the device.
pub(super) fn manager(device: &str) -> &'static str {
    match device {
        "vxlan.calico" | "vxlan-v6.calico" => "calico-node",
        name if name.starts_with("flannel") => "flanneld",
        _ => "the program that manages it",
    }
}

/// The name of the device that packets to a peer leave by.
fn underlay_to<'a>(overlay: &'a Overlay, peer: &Peer) -> &'a str {
    let by_route = overlay.underlays().find(
        |underlay| matches!(peer.way, Some(RouteLookup::Sent { device, .. }) if device == underlay.index),
    );
    let underlay = by_route.or(overlay.underlay.as_ref());
    underlay.map_or("the underlay", |underlay| &underlay.name)
}
