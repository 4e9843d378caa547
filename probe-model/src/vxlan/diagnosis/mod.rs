//! What should be against what is: the rules. No I/O, and no clock but the one in the counts.

mod drops;
mod icmp_errors;
mod packets;
mod tables;
mod unanswered;

use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
    time::Duration,
};

use self::unanswered::Questions;
use super::{
    finding::{Diagnosed, Fault},
    overlay::{Overlay, PeerSource},
    traffic::{Direction, Traffic, VxlanCount, VxlanDrop, VxlanStream},
};
use crate::{
    finding::{Fix, ago_ms},
    plural::counted,
};

/// A fault that shows in packets is over when none showed it for so long.
pub const HOLD: Duration = Duration::from_secs(10);

/// Compares look by look.
#[derive(Debug)]
pub struct Diagnosis {
    /// How long packets speak; `None`: all of a run is one look.
    hold: Option<Duration>,
    /// What was counted at the last look.
    counts: HashMap<VxlanStream, VxlanCount>,
    checksum_errors: Option<u64>,
    checksum_errors_at: Option<u64>,
    /// When something inside a stream was seen last, which the stream's own time does not tell.
    fragments: HashMap<VxlanStream, u64>,
    malformed: HashMap<VxlanStream, u64>,
    questions: HashMap<(u32, IpAddr), Questions>,
    /// What the tables showed at the last look: only what stays is a fault, not an entry that is just being made.
    shown: HashSet<Identity>,
    since: HashMap<Identity, u64>,
}

/// Findings of the same fault.
type Identity = (Fault, String, Option<IpAddr>, String);

/// What one look has to go by.
struct Observation<'a> {
    overlays: &'a [Overlay],
    /// Addresses of this node.
    own: &'a HashSet<IpAddr>,
    traffic: &'a Traffic,
    hold: Option<Duration>,
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
            shown: HashSet::new(),
            since: HashMap::new(),
        }
    }

    /// What is wrong now, the faults of one device together.
    pub fn look(&mut self, overlays: &[Overlay], own: &HashSet<IpAddr>, traffic: &Traffic) -> Vec<Diagnosed> {
        self.compare(traffic);
        let mut look = Observation {
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

fn underlay_of(overlay: &Overlay) -> &str {
    overlay
        .underlay
        .as_ref()
        .map_or("the underlay", |underlay| &underlay.name)
}
