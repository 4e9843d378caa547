//! The way of one packet.

use std::{
    collections::{HashMap, HashSet},
    mem,
};

use serde::{Serialize, Serializer};

use super::{
    cause::DropCause,
    event::{Direction, Event, Hook, Packet, Tcp, What},
    reason::{self, Fate},
    rounds::Rounds,
};
use crate::{
    finding::Fix,
    rule::{CandidateRule, RuleOwner},
};

/// Hops kept of one packet: more is a loop, or a flood of a bridge.
const HOPS: usize = 192;
/// What takes longer from one function to the next has waited for something.
const AT_ONCE_NS: u64 = 1_000_000;

/// One packet at one point, and the rule that did it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hop {
    pub event: Event,
    /// The rule that dropped it, or that exempted it from conntrack.
    pub rule: Option<AppliedRule>,
    /// What could not be read of the rules there, in sentences, where none was found that dropped it.
    pub unread: Vec<String>,
    /// Of a netfilter hook that was passed: the tables that have chains there, in their order.
    pub tables: Vec<String>,
    /// Why it was dropped, by what the network namespace is set to: more than the kernel's reason says.
    pub cause: Option<DropCause>,
    /// Whether its network namespace has the destination's address, where that was looked up.
    pub owns: Option<bool>,
}

impl Hop {
    fn new(event: Event) -> Self {
        Self {
            event,
            rule: None,
            unread: Vec::new(),
            tables: Vec::new(),
            cause: None,
            owns: None,
        }
    }
}

/// A rule that did something to a packet, and how to undo that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppliedRule {
    pub rule: CandidateRule,
    /// For this packet and those of its kind, the best first.
    pub fixes: Vec<Fix>,
}

/// A rule of the packet filter.
#[derive(Serialize)]
#[cfg_attr(
    feature = "schema",
    derive(schemars::JsonSchema),
    schemars(rename = "PathRule")
)]
struct RuleJson<'a> {
    /// The rule.
    text: String,
    /// The program that keeps it, if known.
    #[serde(skip_serializing_if = "Option::is_none")]
    owner: Option<RuleOwner>,
    /// How to change what it does.
    #[serde(skip_serializing_if = "<[Fix]>::is_empty")]
    fixes: &'a [Fix],
    /// True if the packet meets all its conditions.
    certain: bool,
}

impl Serialize for AppliedRule {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let rule = RuleJson {
            text: self.rule.to_string(),
            owner: self.rule.owner,
            fixes: &self.fixes,
            certain: self.rule.certain,
        };
        rule.serialize(serializer)
    }
}

#[cfg(feature = "schema")]
impl schemars::JsonSchema for AppliedRule {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        RuleJson::schema_name()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        RuleJson::json_schema(generator)
    }
}

/// How a journey ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JourneyEnd {
    /// A socket has it. The hop that showed it.
    Delivered(usize),
    /// It was dropped on its way. The hop.
    Dropped(usize),
    /// A device sent it, and no other of this machine's has it. The hop.
    Left(usize),
    /// It reached a host, and no drop was seen: its delivery is not visible there. The hop.
    Arrived(usize),
}

impl JourneyEnd {
    /// The name in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Delivered(_) => "delivered",
            Self::Dropped(_) => "dropped",
            Self::Left(_) => "left",
            Self::Arrived(_) => "arrived",
        }
    }

    /// Which hop it is about.
    pub const fn hop(self) -> usize {
        match self {
            Self::Delivered(hop) | Self::Dropped(hop) | Self::Left(hop) | Self::Arrived(hop) => hop,
        }
    }
}

/// All that was seen of one packet, in the order of time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Journey {
    pub direction: Direction,
    /// The same was sent before: a retransmission.
    pub again: bool,
    /// At least one.
    pub hops: Vec<Hop>,
    /// Hops beyond what is kept.
    pub left_out: u64,
    /// It went in circles; only the first round is among the hops.
    pub rounds: Option<Rounds>,
}

impl Journey {
    pub(super) fn new(event: Event, again: bool) -> Self {
        Self {
            direction: event.direction,
            again,
            hops: vec![Hop::new(event)],
            left_out: 0,
            rounds: None,
        }
    }

    /// The same with its first hop alone.
    pub(super) fn first(&self) -> Option<Self> {
        let first = self.hops.first()?;
        Some(Self {
            direction: self.direction,
            again: self.again,
            hops: vec![first.clone()],
            left_out: 0,
            rounds: None,
        })
    }

    /// The packet as it was first seen.
    pub fn packet(&self) -> Option<&Packet> {
        self.hops.first().map(|hop| &hop.event.packet)
    }

    /// `CLOCK_MONOTONIC` nanoseconds.
    pub fn start_ns(&self) -> u64 {
        self.hops.first().map_or(0, |hop| hop.event.time_ns)
    }

    /// From the first hop to this one, nanoseconds.
    pub fn after_ns(&self, hop: usize) -> u64 {
        let at = self.hops.get(hop).map_or(0, |hop| hop.event.time_ns);
        at.saturating_sub(self.start_ns())
    }

    pub(super) fn push(&mut self, event: Event) {
        if self.hops.len() >= HOPS {
            self.fold();
        }
        if self.hops.len() >= HOPS {
            self.left_out += 1;
        } else {
            self.hops.push(Hop::new(event));
        }
    }

    /// Whether an event is of this very packet, or of a part of it.
    pub(super) fn has(&self, event: &Event) -> bool {
        let Some(packet) = self.packet() else { return false };
        self.direction == event.direction && same(packet, &event.packet) && !self.is_sent_again(event)
    }

    /// Whether an event, of a packet just like this one, is another's: its sender sent it before.
    fn is_sent_again(&self, event: &Event) -> bool {
        let Some(first) = self.hops.first() else {
            return false;
        };
        // IPv4 numbers packets; 0 means that it doesn't. Parts of one have a number each.
        if let (Some(one @ 1..), Some(other @ 1..)) = (first.event.packet.id, event.packet.id) {
            if one == other {
                return false;
            }
            if first.event.packet.payload == event.packet.payload {
                return true;
            }
        }
        // Each router takes one off: what is sent again begins with as much as the first.
        if event.packet.ttl < first.event.packet.ttl {
            return false;
        }
        // It comes from elsewhere, and a device gets a packet once.
        let at = |event: &Event| (event.netns, event.packet.tunnel);
        if first.event.what == What::Received && event.what == What::Received {
            return at(&first.event) == at(event) && first.event.device == event.device;
        }
        let made_here = |event: &Event| {
            event.input.is_none() && event.packet.tunnel.is_none() && event.netns == first.event.netns
        };
        if !made_here(event) {
            return false;
        }
        let mut sent = self.hops.iter().rev().map(|hop| &hop.event);
        let sent = sent.find(|sent| {
            sent.what == What::Sent
                && made_here(sent)
                && (event.what != What::Sent
                    || sent.device == event.device && same(&sent.packet, &event.packet))
        });
        match (&event.what, sent) {
            (What::Sent, Some(_)) => true,
            // What comes before it is sent. A VRF has it pass that twice, at once; what is sent again may well have
            // the same memory, but later.
            (
                What::Output
                | What::Conntrack
                | What::Hook {
                    hook: Some(Hook::Output),
                    ..
                },
                Some(sent),
            ) => sent.skb != event.skb || event.time_ns.saturating_sub(sent.time_ns) > AT_ONCE_NS,
            _ => false,
        }
    }

    /// Whether it is `other` once more: TCP's own doing.
    pub(super) fn is_again(&self, other: &Event) -> bool {
        let says = |packet: &Packet| packet.payload > 0 || packet.tcp.is_some_and(|tcp| tcp.has(KIND));
        self.direction == other.direction
            && self
                .packet()
                .is_some_and(|packet| packet.tcp.is_some() && says(packet) && same(packet, &other.packet))
    }

    /// Puts it in the order of time, and leaves out what says nothing.
    pub(super) fn settle(&mut self) {
        self.hops.sort_by_key(|hop| hop.event.time_ns);
        // A socket's packet has no device any more, and with it no network namespace: it is where it was.
        let mut before: Option<(u64, u32)> = None;
        for hop in &mut self.hops {
            match before {
                Some((skb, netns)) if hop.event.netns == 0 && skb == hop.event.skb => hop.event.netns = netns,
                _ => {}
            }
            before = Some((hop.event.skb, hop.event.netns));
        }
        let mut seen: Option<(What, u32, u64)> = None;
        let mut hops = mem::take(&mut self.hops);
        hops.retain(|hop| {
            let this = (hop.event.what.clone(), hop.event.netns, hop.event.skb);
            // Functions that call one another of the same meaning.
            let twice = seen.as_ref() == Some(&this)
                && matches!(
                    this.0,
                    What::Socket | What::Nat { .. } | What::Output | What::Local
                );
            seen = Some(this);
            !twice
        });
        self.hops = hops;
        self.fold();
    }

    pub fn end(&self) -> JourneyEnd {
        let last = self.hops.len().saturating_sub(1);
        let find =
            |wanted: fn(&Self, usize) -> bool| (0..self.hops.len()).rev().find(|hop| wanted(self, *hop));
        if let Some(hop) = find(Self::is_delivery) {
            // A full buffer, or a wrong checksum, is found out at the socket.
            let refused = (hop + 1..self.hops.len()).find(|later| {
                let skb = |at: usize| self.hops.get(at).map(|hop| (hop.event.skb, hop.event.netns));
                let at_socket = self
                    .hops
                    .get(hop)
                    .is_some_and(|hop| hop.event.what == What::Socket);
                at_socket && self.is_fault(*later) && skb(hop) == skb(*later)
            });
            return refused.map_or_else(|| JourneyEnd::Delivered(self.came(hop)), JourneyEnd::Dropped);
        }
        let is_drop = |journey: &Self, hop: usize| match journey.fate(hop) {
            None | Some(Fate::Healthy) => false,
            Some(Fate::OtherHost) => journey.is_misdirected(),
            Some(Fate::AtSocket | Fate::NoSocket | Fate::Filter | Fate::Fault) => true,
        };
        if let Some(hop) = find(is_drop) {
            return JourneyEnd::Dropped(hop);
        }
        let copies = self.copies();
        let is_point = |hop: &usize| {
            let what = self.hops.get(*hop).map(|hop| &hop.event.what);
            !matches!(what, Some(What::Dropped { .. } | What::Consumed))
        };
        let is_copy = |hop: &usize| {
            self.hops
                .get(*hop)
                .is_some_and(|hop| copies.contains(&hop.event.skb))
        };
        let points = || (0..=last).rev().filter(is_point);
        let last = points()
            .find(|hop| !is_copy(hop))
            .or_else(|| points().next())
            .unwrap_or(last);
        match self.hops.get(last).map(|hop| &hop.event.what) {
            Some(What::Sent) => JourneyEnd::Left(last),
            _ => JourneyEnd::Arrived(last),
        }
    }

    /// What the drop at a hop says; `None`: it is none.
    pub fn fate(&self, hop: usize) -> Option<Fate> {
        match &self.hops.get(hop)?.event.what {
            What::Dropped { reason, at } => Some(reason::fate(reason.as_deref(), at.as_deref())),
            _ => None,
        }
    }

    /// Whether a rule of the packet filter may have dropped it there.
    pub fn may_be_filtered(&self, hop: usize) -> bool {
        let is_of_bridge = || match self.hops.get(hop).map(|hop| &hop.event.what) {
            Some(What::Dropped { reason, at }) => {
                reason::may_be_bridge_filter(reason.as_deref(), at.as_deref())
            }
            _ => false,
        };
        self.fate(hop) == Some(Fate::Filter) || is_of_bridge()
    }

    /// Whether it was dropped there by the packet filter, or because of a fault.
    pub fn is_fault(&self, hop: usize) -> bool {
        match self.fate(hop) {
            Some(Fate::Filter | Fate::Fault) => true,
            Some(Fate::OtherHost) => self.is_misdirected(),
            Some(Fate::Healthy | Fate::AtSocket | Fate::NoSocket) | None => false,
        }
    }

    /// Freed memory of unused copies.
    fn copies(&self) -> HashSet<u64> {
        let mut latest: HashMap<u64, bool> = HashMap::new();
        for (at, hop) in self.hops.iter().enumerate() {
            if hop.event.what != What::Consumed {
                let is_copy = matches!(self.fate(at), Some(Fate::OtherHost | Fate::Healthy));
                latest.insert(hop.event.skb, is_copy);
            }
        }
        latest
            .into_iter()
            .filter(|(_, is_copy)| *is_copy)
            .map(|(skb, _)| skb)
            .collect()
    }

    /// Whether all that is left of it was dropped for another host's link-layer address. A bridge that floods a packet makes
    /// copies, each with memory of its own: unused copies are dropped with this reason, too, while one goes on.
    fn is_misdirected(&self) -> bool {
        let mut latest: HashMap<u64, (usize, bool)> = HashMap::new();
        for (at, hop) in self.hops.iter().enumerate() {
            let used = hop.event.what == What::Consumed;
            match latest.get_mut(&hop.event.skb) {
                Some(known) if used => known.1 = true,
                _ => drop(latest.insert(hop.event.skb, (at, used))),
            }
        }
        let goes_on = |&(at, used): &(usize, bool)| match self.hops.get(at).map(|hop| &hop.event.what) {
            Some(What::Dropped { .. }) => !matches!(self.fate(at), Some(Fate::OtherHost | Fate::Healthy)),
            Some(What::Sent) => true,
            // Cut into segments, and then done with.
            _ => !used,
        };
        !latest.values().any(goes_on)
    }

    /// Where it was finally dropped, by the packet filter or because of a fault.
    pub fn fault(&self) -> Option<usize> {
        match self.end() {
            JourneyEnd::Dropped(hop) if self.is_fault(hop) => Some(hop),
            _ => None,
        }
    }

    /// Whether it shows that a socket has the packet.
    pub(super) fn is_delivery(&self, at: usize) -> bool {
        let Some(hop) = self.hops.get(at) else {
            return false;
        };
        match &hop.event.what {
            What::Socket => true,
            What::Dropped { .. } => self.fate(at) == Some(Fate::AtSocket),
            // Consumed: by the host that it reached, unless a device forwarded it. A fragment is taken to be put together with
            // others, of which nothing is known.
            What::Consumed => self.before(at).is_some_and(|earlier| {
                hop.event.packet.tunnel.is_none()
                    && hop.owns != Some(false)
                    && !hop.event.packet.fragment
                    && !matches!(
                        self.hops.get(earlier).map(|hop| &hop.event.what),
                        Some(What::Sent | What::Encapsulate | What::Consumed | What::Forward | What::Output)
                    )
            }),
            _ => false,
        }
    }

    /// The hop before, of the same memory.
    fn before(&self, at: usize) -> Option<usize> {
        let skb = self.hops.get(at)?.event.skb;
        self.hops.get(..at)?.iter().rposition(|hop| hop.event.skb == skb)
    }

    /// Where it arrived: it is freed later, when its reader or the kernel gets to it.
    fn came(&self, delivery: usize) -> usize {
        match self.hops.get(delivery).map(|hop| &hop.event.what) {
            Some(What::Consumed) => self.before(delivery).unwrap_or(delivery),
            _ => delivery,
        }
    }

    /// The network namespaces and devices it passed, as the wire sees them.
    pub fn way(&self) -> Vec<(u32, &str)> {
        let mut way: Vec<(u32, &str)> = Vec::new();
        for hop in &self.hops {
            if let (What::Sent | What::Received, Some(device)) = (&hop.event.what, &hop.event.device) {
                let place = (hop.event.netns, device.name.as_str());
                if way.last() != Some(&place) {
                    way.push(place);
                }
            }
        }
        way
    }

    /// Where it left untracked: the first hop that shows it.
    pub fn untracked(&self) -> Option<usize> {
        self.hops
            .iter()
            .position(|hop| hop.event.tracking == super::Tracking::Untracked)
    }

    pub fn has_flag(&self, flag: u8) -> bool {
        self.packet()
            .and_then(|packet| packet.tcp)
            .is_some_and(|tcp| tcp.has(flag))
    }
}

/// Flags that make a packet more than an acknowledgment.
const KIND: u8 = Tcp::SYN | Tcp::FIN | Tcp::RST;

/// Whether what no translation changes is the same, or `other` is a segment of `one`.
fn same(one: &Packet, other: &Packet) -> bool {
    if one.protocol != other.protocol || one.about != other.about {
        return false;
    }
    match (one.tcp, other.tcp) {
        (Some(a), Some(b)) if one.payload > 0 && other.payload > 0 => {
            // Cut into segments, or put together of them.
            let (start, length) = (b.sequence.wrapping_sub(a.sequence), one.payload.max(1));
            start < length || a.sequence.wrapping_sub(b.sequence) < other.payload
        }
        (Some(a), Some(b)) => {
            a.sequence == b.sequence
                && a.flags & KIND == b.flags & KIND
                && one.payload == other.payload
                && (one.payload > 0 || a.acknowledgment == b.acknowledgment)
        }
        (None, None) => {
            one.icmp == other.icmp
                && one.sequence == other.sequence
                && (one.payload == other.payload || is_part(one, other))
                && one.id == other.id
        }
        _ => false,
    }
}

/// Whether one is a fragment, and the other another one of the same packet, or the whole: IPv4 numbers packets, not fragments.
fn is_part(one: &Packet, other: &Packet) -> bool {
    (one.fragment || other.fragment) && one.id.is_some_and(|id| id != 0)
}
