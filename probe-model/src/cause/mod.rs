//! Why a connection failed: evidence of its own packets, or of the path they use. Pure.
//!
//! What fits in time and addresses is evidence; where there is none, there is no cause.

pub mod causes;
pub mod dropped;
#[cfg(test)]
mod tests;

use std::{
    collections::HashSet,
    net::{IpAddr, SocketAddr},
};

use ipnet::IpNet;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use self::dropped::{DroppedPackets, Weight};
use super::{
    Connection, Outcome, Role,
    bypass::{
        service::{Mode, Service, Services},
        stream::{Direction, Server, UntrackedStream},
    },
    finding::Fix,
    outcome::{Failure, failure},
    path_mtu,
    rule::{CandidateRule, RuleFlow, endpoints},
    vxlan::finding::Fault,
};

const TCP: u8 = 6;

crate::names! {
    /// A kind of cause.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub enum CauseKind {
        /// The Service that was dialled has no endpoints.
        NoEndpoints = "no-endpoints",
        /// Its packets bypassed conntrack, and were not translated.
        Untracked = "untracked",
        /// Its packets were dropped on this node.
        Dropped = "dropped",
        /// The VXLAN peer that its packets had to pass does not answer, or can't be sent to.
        Vxlan = "vxlan",
        /// Its large segments are lost on the path while small ones arrive.
        BlackHole = "black-hole",
    }
}

/// Why a connection failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Cause {
    /// The kind of cause.
    pub kind: CauseKind,
    /// The cause, one sentence.
    pub what: String,
    /// The rule responsible, as its tool writes it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// The Service affected: `namespace/name:port`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// The kernel's reason for dropping a packet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// How to fix it, the best first; probe never does it itself.
    #[serde(
        skip_serializing_if = "Vec::is_empty",
        default,
        alias = "remedy",
        deserialize_with = "fixes_or_remedy"
    )]
    pub fixes: Vec<Fix>,
    /// The rule or the fault is the one; else it is what fits.
    pub certain: bool,
}

impl Cause {
    /// A rule did it, and none that was read explains it: a newer one may.
    pub fn lacks_rule(&self) -> bool {
        let by_rule = match self.kind {
            // What the kernel names as the reason is certain without a rule.
            CauseKind::Untracked | CauseKind::Dropped => !self.certain,
            CauseKind::NoEndpoints | CauseKind::Vxlan | CauseKind::BlackHole => false,
        };
        by_rule && self.rule.is_none()
    }
}

/// Untracked packets of one stream, in the node's network namespace.
#[derive(Clone, Debug)]
pub struct UntrackedPackets {
    pub stream: UntrackedStream,
    pub first: Timestamp,
    pub last: Timestamp,
    /// They leave by the device of the default route.
    pub outside: bool,
}

/// A fault of a VXLAN device, and the networks behind it.
#[derive(Clone, Debug)]
pub struct FaultyTunnel {
    pub fault: Fault,
    pub networks: Vec<IpNet>,
    pub what: String,
    pub fixes: Vec<Fix>,
    pub certain: bool,
}

/// Recordings of version 0.1 have one sentence, as `remedy`.
fn fixes_or_remedy<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<Fix>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Read {
        Fixes(Vec<Fix>),
        Remedy(String),
    }
    Ok(match Read::deserialize(deserializer)? {
        Read::Fixes(fixes) => fixes,
        Read::Remedy(text) => vec![Fix::Text(text)],
    })
}

/// The rules of the node, for packets that were seen.
pub trait RuleSource {
    /// The rule that exempted a stream from conntrack.
    fn untracked(&self, untracked: &UntrackedPackets) -> Option<CandidateRule>;
    /// The rule that dropped these packets.
    fn dropped(&self, dropped: &DroppedPackets) -> Option<CandidateRule>;
    /// What could not be read, in sentences: a rule may be missing for it.
    fn unread(&self) -> Vec<String>;
}

/// What was seen on this node.
pub struct Evidence<'a> {
    pub services: &'a Services,
    pub untracked: &'a [UntrackedPackets],
    pub drops: &'a [DroppedPackets],
    pub tunnels: &'a [FaultyTunnel],
    /// The node's own addresses.
    pub own: &'a HashSet<IpAddr>,
    /// Inode of the node's network namespace.
    pub netns: u32,
    pub rules: &'a dyn RuleSource,
}

/// Why a connection failed, if there is evidence. Evidence of its own packets comes before the state of the path they use.
pub fn explain(connection: &Connection, evidence: &Evidence<'_>) -> Option<Cause> {
    failure(connection.outcome)?;
    no_endpoints(connection, evidence)
        .or_else(|| untracked(connection, evidence))
        .or_else(|| half_tracked(connection, evidence))
        .or_else(|| dropped(connection, evidence, true))
        .or_else(|| tunnel(connection, evidence))
        .or_else(|| dropped(connection, evidence, false))
        .or_else(|| explain_alone(connection))
}

/// Why a connection failed, by its own record alone: what can be said while nothing else is known of the node.
pub fn explain_alone(connection: &Connection) -> Option<Cause> {
    failure(connection.outcome)?;
    black_hole(connection)
}

/// Whether something seen from `first` to `last` can be this connection's.
fn meets(connection: &Connection, first: Timestamp, last: Timestamp) -> bool {
    /// What the clocks, read one after the other, may differ.
    const CLOCKS: SignedDuration = SignedDuration::from_millis(1);
    let not_after = |one: Timestamp, other: Timestamp| one.duration_since(other) <= CLOCKS;
    not_after(connection.began(), last) && not_after(first, connection.time)
}

fn no_endpoints(connection: &Connection, evidence: &Evidence<'_>) -> Option<Cause> {
    let asked = connection.asked();
    let service = evidence
        .services
        .at_node(TCP, asked.ip(), asked.port(), evidence.own)?;
    if !service.refused || connection.role != Role::Client {
        return None;
    }
    Some(Cause {
        kind: CauseKind::NoEndpoints,
        what: format!("{service} has no endpoints"),
        rule: None,
        service: Some(service.title()),
        reason: None,
        fixes: vec![endpoints(service.name.as_deref().unwrap_or_default())],
        certain: true,
    })
}

/// The client's end, as it is and as it is seen.
fn clients(connection: &Connection) -> [Option<SocketAddr>; 2] {
    [Some(connection.source), connection.seen_as]
}

fn untracked(connection: &Connection, evidence: &Evidence<'_>) -> Option<Cause> {
    let of_client = |address: IpAddr| {
        clients(connection)
            .iter()
            .flatten()
            .any(|end| end.ip() == address)
    };
    let (asked, server) = (connection.asked(), connection.destination);
    let seen = evidence
        .untracked
        .iter()
        .filter(|seen| seen.stream.protocol == TCP && meets(connection, seen.first, seen.last));
    for seen in seen {
        let stream = &seen.stream;
        let found = match stream.server {
            Server::Neither => None,
            Server::Destination if is_of_virtual_server(connection, seen, evidence) => {
                Some(unmasqueraded(connection, seen, evidence))
            }
            Server::Destination
                if (stream.destination, stream.port) == (asked.ip(), asked.port())
                    && of_client(stream.source) =>
            {
                request(seen, evidence)
            }
            // Conntrack itself says that this connection is translated: its replies have to be, too.
            Server::Source
                if (stream.source, stream.port) == (server.ip(), server.port())
                    && of_client(stream.destination)
                    && (connection.dialled.is_some() || connection.seen_as.is_some()) =>
            {
                Some(reply(connection, evidence))
            }
            Server::Destination | Server::Source => None,
        };
        if let Some((what, service)) = found {
            let rule = evidence.rules.untracked(seen);
            return Some(Cause {
                kind: CauseKind::Untracked,
                what: format!(
                    "{what}: {}",
                    by("exempted from conntrack", rule.as_ref(), evidence)
                ),
                service,
                reason: None,
                certain: rule.as_ref().is_some_and(|rule| rule.certain),
                fixes: fixes(rule.as_ref(), &stream.rule_flow()),
                rule: rule.map(|rule| rule.to_string()),
            });
        }
    }
    None
}

/// Whether these are a client's requests to a virtual server of IPVS, which translated them, and had to be masqueraded.
fn is_of_virtual_server(connection: &Connection, seen: &UntrackedPackets, evidence: &Evidence<'_>) -> bool {
    let (asked, stream) = (connection.asked(), &seen.stream);
    let server = evidence.services.virtual_server(TCP, asked.ip(), asked.port());
    connection.role == Role::Client
        && stream.source == connection.source.ip()
        && server.is_some_and(|server| {
            let destination = SocketAddr::new(stream.destination, stream.port);
            server.endpoints.contains(&destination)
                && (stream.source == asked.ip() || stream.source == stream.destination)
        })
}

/// Requests that IPVS translated and nothing masqueraded: what to say, and the Service.
fn unmasqueraded(
    connection: &Connection,
    seen: &UntrackedPackets,
    evidence: &Evidence<'_>,
) -> (String, Option<String>) {
    let (asked, stream) = (connection.asked(), &seen.stream);
    let service = evidence.services.virtual_server(TCP, asked.ip(), asked.port());
    let named = service.map_or_else(|| asked.to_string(), ToString::to_string);
    let endpoint = SocketAddr::new(stream.destination, stream.port);
    (
        format!(
            "packets to {named} went to {endpoint} as from {}, not masqueraded",
            stream.source
        ),
        service.map(Service::title),
    )
}

/// Requests that were not translated, where they had to be: what to say, and the Service.
fn request(seen: &UntrackedPackets, evidence: &Evidence<'_>) -> Option<(String, Option<String>)> {
    let stream = &seen.stream;
    if let Some(service) = evidence.services.at(TCP, stream.destination, stream.port) {
        // IPVS does not depend on conntrack: it does not know the connection any more.
        let by_conntrack = service.mode != Mode::Ipvs;
        return by_conntrack.then(|| {
            (
                format!("packets to {service} left untranslated"),
                Some(service.title()),
            )
        });
    }
    // A pod's own address means nothing outside.
    let pod = stream.direction == Direction::Forwarded && !evidence.own.contains(&stream.source);
    (pod && seen.outside).then(|| {
        (
            format!("packets left the node as from {}, not masqueraded", stream.source),
            None,
        )
    })
}

/// Replies that were not translated back.
fn reply(connection: &Connection, evidence: &Evidence<'_>) -> (String, Option<String>) {
    let asked = connection.asked();
    match evidence.services.at(TCP, asked.ip(), asked.port()) {
        Some(service) => (
            format!(
                "replies of {}, an endpoint of {service}, came back untranslated",
                connection.destination
            ),
            Some(service.title()),
        ),
        None => (
            format!("replies of {} came back untranslated", connection.destination),
            None,
        ),
    }
}

fn by(did: &str, rule: Option<&CandidateRule>, evidence: &Evidence<'_>) -> String {
    let unread = || match evidence.rules.unread().as_slice() {
        [] => String::new(),
        unread => format!(" ({})", unread.join("; ")),
    };
    match rule {
        Some(rule) if rule.certain => format!("{did} by {rule}"),
        Some(rule) => format!("{did} perhaps by {rule}{}", unread()),
        None => format!("{did}, no rule found{}", unread()),
    }
}

fn fixes(rule: Option<&CandidateRule>, flow: &RuleFlow) -> Vec<Fix> {
    rule.map_or_else(Vec::new, |rule| rule.fixes(flow))
}

/// Packets of one direction bypass conntrack, and the packet filter drops those of the other, which belong to no connection
/// that it knows.
fn half_tracked(connection: &Connection, evidence: &Evidence<'_>) -> Option<Cause> {
    let dropped = drops(connection, evidence, true)
        .into_iter()
        .find(|dropped| dropped.netns == evidence.netns)?;
    let (from, to) = (dropped.source, dropped.destination);
    let seen = evidence.untracked.iter().find(|seen| {
        let stream = &seen.stream;
        let port = match stream.server {
            Server::Neither => return false,
            Server::Destination => from.port(),
            Server::Source => to.port(),
        };
        (stream.source, stream.destination, stream.port) == (to.ip(), from.ip(), port)
            && stream.protocol == TCP
            && meets(connection, seen.first, seen.last)
    })?;
    let rule = evidence.rules.untracked(seen);
    let dropper = match evidence.rules.dropped(dropped) {
        Some(dropper) => format!(" by {dropper}"),
        None => String::new(),
    };
    Some(Cause {
        kind: CauseKind::Untracked,
        what: format!(
            "packets from {} to {from} are {}; the replies match no conntrack entry and are dropped{dropper}",
            to.ip(),
            by("exempted from conntrack", rule.as_ref(), evidence)
        ),
        service: None,
        reason: dropped.reason.clone(),
        certain: rule.as_ref().is_some_and(|rule| rule.certain),
        fixes: fixes(rule.as_ref(), &seen.stream.rule_flow()),
        rule: rule.map(|rule| rule.to_string()),
    })
}

/// Dropped packets of a connection that may be the reason, the most first. `by_rule`: by the packet filter; else by
/// anything else.
fn drops<'a>(connection: &Connection, evidence: &Evidence<'a>, by_rule: bool) -> Vec<&'a DroppedPackets> {
    let handshake = failure(connection.outcome) == Some(Failure::Handshake);
    let asked = connection.asked();
    let service = evidence.services.at(TCP, asked.ip(), asked.port());
    let mut drops: Vec<&DroppedPackets> = evidence
        .drops
        .iter()
        .filter(|dropped| {
            dropped.is_of(connection, service) && meets(connection, dropped.first, dropped.last)
        })
        .filter(|dropped| match dropped.weight() {
            Weight::Nothing => false,
            Weight::Filter => by_rule,
            // Packets after a connection's end match no entry, either: that is no cause.
            Weight::NoSocket => !by_rule && handshake && dropped.syn,
            Weight::Other => !by_rule,
        })
        .collect();
    drops.sort_by_key(|dropped| std::cmp::Reverse(dropped.packets));
    drops
}

fn dropped(connection: &Connection, evidence: &Evidence<'_>, by_rule: bool) -> Option<Cause> {
    let dropped = *drops(connection, evidence, by_rule).first()?;
    let rule = (by_rule && dropped.netns == evidence.netns)
        .then(|| evidence.rules.dropped(dropped))
        .flatten();
    let here = if dropped.netns == evidence.netns {
        "on this node".to_owned()
    } else if dropped.netns == connection.netns {
        format!("in the {}'s own network namespace", connection.role.name())
    } else {
        format!("in the network namespace {}", dropped.netns)
    };
    let packets = format!(
        "{} from {} to {}",
        if dropped.packets == 1 {
            "a packet".to_owned()
        } else {
            format!("{} packets", dropped.packets)
        },
        dropped.source,
        dropped.destination
    );
    let reason = dropped.reason.as_deref();
    let named = match (reason, dropped.at.as_deref()) {
        (Some(reason), Some(at)) => format!(" ({reason} at {at})"),
        (Some(one), None) | (None, Some(one)) => format!(" ({one})"),
        (None, None) => String::new(),
    };
    let what = match dropped.weight() {
        Weight::NoSocket => format!("{packets} found no socket {here}{named}"),
        Weight::Filter if dropped.netns == evidence.netns => {
            format!("{packets}{named}: {}", by("dropped", rule.as_ref(), evidence))
        }
        Weight::Nothing | Weight::Filter | Weight::Other => format!("{packets}, dropped {here}{named}"),
    };
    Some(Cause {
        kind: CauseKind::Dropped,
        what,
        service: None,
        reason: dropped.reason.clone(),
        certain: !by_rule || rule.as_ref().is_some_and(|rule| rule.certain),
        fixes: fixes(rule.as_ref(), &dropped.rule_flow(connection, evidence.own)),
        rule: rule.map(|rule| rule.to_string()),
    })
}

fn tunnel(connection: &Connection, evidence: &Evidence<'_>) -> Option<Cause> {
    let other = match connection.role {
        Role::Client => connection.destination.ip(),
        Role::Server => connection.source.ip(),
    };
    let found = evidence
        .tunnels
        .iter()
        .filter(|tunnel| tunnel.cuts(connection.outcome))
        .find(|tunnel| tunnel.networks.iter().any(|network| network.contains(&other)))?;
    Some(Cause {
        kind: CauseKind::Vxlan,
        what: found.what.clone(),
        rule: None,
        service: None,
        reason: None,
        fixes: found.fixes.clone(),
        certain: found.certain,
    })
}

/// The head of what is unacknowledged is a full-size segment that was sent again and again, and something behind it arrived.
fn black_hole(connection: &Connection) -> Option<Cause> {
    /// One time-out more than a burst of ordinary loss leaves: the third is at least 1.4 s after the first transmission.
    const TIMEOUTS: u8 = 3;
    /// What arrives behind it is the smaller last segment of each write, so only a few; ordinary loss leaves most segments.
    const SACKED: std::ops::RangeInclusive<u8> = 1..=3;
    let unacknowledged = connection.unacknowledged?;
    let (source, destination) = match connection.role {
        Role::Client => (connection.source, connection.destination),
        Role::Server => (connection.destination, connection.source),
    };
    let packet = path_mtu::packet_size(unacknowledged.segment_bytes.into(), destination.ip());
    let stuck = unacknowledged.timeouts >= TIMEOUTS
        && SACKED.contains(&unacknowledged.sacked_segments)
        && unacknowledged.bytes > unacknowledged.segment_bytes.into()
        && packet > path_mtu::ALWAYS_CARRIED;
    stuck.then(|| Cause {
        kind: CauseKind::BlackHole,
        what: format!(
            "full-size packets ({packet} bytes) from {source} to {destination} were sent again {} times and never acknowledged, \
             while a smaller one behind them arrived: likely a path MTU black hole",
            unacknowledged.timeouts
        ),
        rule: None,
        service: None,
        reason: None,
        fixes: path_mtu::fixes(packet, destination.ip(), path_mtu::Lower::Device),
        certain: false,
    })
}

impl FaultyTunnel {
    /// Whether the fault stops what had this outcome.
    fn cuts(&self, outcome: Outcome) -> bool {
        match self.fault {
            Fault::PortMismatch
            | Fault::VniMismatch
            | Fault::Filtered
            | Fault::Refused
            | Fault::NoAnswer
            | Fault::MissingRoute
            | Fault::MissingNeighbour
            | Fault::MissingForwarding
            | Fault::DeadVtep
            | Fault::UnderlayRoute
            | Fault::OwnAddress
            | Fault::MissingAddress
            | Fault::DuplicateMac
            | Fault::DuplicateVtep
            | Fault::StaleMac
            | Fault::BadChecksum
            | Fault::PortTaken
            // The RST of a refused connection came back through the tunnel.
            | Fault::DeviceDown => failure(outcome).is_some() && outcome != Outcome::Refused,
            // A SYN is small.
            Fault::Mtu => failure(outcome) == Some(Failure::Established),
            Fault::PrefixOverlap | Fault::MalformedHeader | Fault::Dropped => false,
        }
    }
}
