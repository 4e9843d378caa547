//! From streams, rules and Services to what is wrong. Pure.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use super::{
    finding::Fault,
    rule::{Intended, NODE_LOCAL, NODE_LOCAL_PORTS, NotrackRule, is_of_node_local_dns},
    service::{Service, Services},
    stream::{Server, UntrackedCount, UntrackedStream},
    view::JudgedStream,
    virtual_server::{self, InTable, IpvsLeg},
};
use crate::{
    finding::{Affected, Finding, Fix, Kind, ago_ms},
    owner::Name,
    rule::{CandidateRule, PacketPath, RuleFlow, RuleOwner},
};

/// What shows in packets is over when none showed it for so long.
const OVER: Duration = Duration::from_secs(10);
/// Streams and affected sources that a finding lists.
const TOLD: usize = 5;

/// Packets that were not seen.
pub(crate) const ANY: RuleFlow = RuleFlow {
    path: PacketPath::Forward,
    protocol: None,
    source: None,
    destination: None,
    source_port: None,
    destination_port: None,
};

const UDP: u8 = 17;
const TCP: u8 = 6;

/// Whether one end is the node itself.
fn is_at_node(stream: &UntrackedStream, own: &HashSet<IpAddr>) -> bool {
    own.contains(&stream.source) || own.contains(&stream.destination)
}

/// What makes one finding: the damage, the Service, the rules.
type Group<'a> = (Fault, Option<&'a str>, Vec<String>);

/// What is known of the node.
#[derive(Clone, Copy, Debug)]
pub struct BypassFacts<'a> {
    pub services: &'a Services,
    /// By their names, those that are gone too.
    pub rules: &'a HashMap<String, NotrackRule>,
    /// The node's own addresses.
    pub own: &'a HashSet<IpAddr>,
    /// UDP ports of this node's tunnel devices.
    pub tunnel_ports: &'a HashSet<u16>,
    pub names: &'a HashMap<IpAddr, Name>,
}

/// What a stream is taken for.
pub fn see(
    stream: UntrackedStream,
    count: UntrackedCount,
    rules: Vec<CandidateRule>,
    known: BypassFacts<'_>,
) -> JudgedStream {
    let (fault, service) = damage(&stream, known);
    JudgedStream {
        intended: intended(&stream, &rules, known),
        service: service.map(Service::title),
        sender: None,
        translated: None,
        dialled: None,
        in_ipvs: InTable::default(),
        stream,
        count,
        rules,
        fault,
    }
}

fn damage<'a>(stream: &UntrackedStream, known: BypassFacts<'a>) -> (Fault, Option<&'a Service>) {
    let services = known.services;
    let (protocol, port) = (stream.protocol, stream.port);
    let service = match stream.server {
        Server::Neither => None,
        Server::Destination => services
            .at_node(protocol, stream.destination, port, known.own)
            .map(|service| (Fault::UntrackedRequest, service)),
        Server::Source => services
            .of_endpoint(protocol, stream.source, port)
            .map(|service| (Fault::UntrackedReply, service)),
    };
    service.map_or((Fault::Untracked, None), |(fault, service)| {
        (fault, Some(service))
    })
}

/// The Service of a stream, as settled: the one that was dialled, where that is known.
fn service_of<'a>(seen: &JudgedStream, known: BypassFacts<'a>) -> Option<&'a Service> {
    let stream = &seen.stream;
    if seen.fault == Fault::Untracked {
        return virtual_server::unanswered(stream, &seen.in_ipvs, known.services);
    }
    let dialled = seen.dialled.filter(|_| seen.fault == Fault::UntrackedReply);
    let dialled = dialled.and_then(|dialled| {
        let services = known.services;
        services.at_node(stream.protocol, dialled.ip(), dialled.port(), known.own)
    });
    dialled.or_else(|| damage(stream, known).1)
}

/// What IPVS translates by itself misses nothing, unless it had to be masqueraded.
fn settle_ipvs(seen: &mut JudgedStream, known: BypassFacts<'_>) {
    let Some(leg) = virtual_server::leg(&seen.stream, known.services) else {
        return;
    };
    seen.fault = Fault::Untracked;
    seen.service = service_of(seen, known).map(Service::title);
    let is_direct = leg == IpvsLeg::ToDestination && seen.in_ipvs == InTable::Absent;
    if seen.service.is_none() && !is_direct {
        seen.intended.get_or_insert(Intended::Ipvs);
    }
}

fn intended(stream: &UntrackedStream, rules: &[CandidateRule], known: BypassFacts<'_>) -> Option<Intended> {
    let server = match stream.server {
        Server::Neither => None,
        Server::Destination => Some(stream.destination),
        Server::Source => Some(stream.source),
    };
    let node_local =
        |address| address == NODE_LOCAL || known.own.contains(&address) && known.services.is_dns(address);
    let by_rule = |address| known.own.contains(&address) && rules.iter().any(is_of_node_local_dns);
    let is_node_local = server.is_some_and(|address| node_local(address) || by_rule(address));
    if is_node_local && NODE_LOCAL_PORTS.contains(&stream.port) {
        return Some(Intended::NodeLocalDns);
    }
    let is_of_plugin = |rule: &CandidateRule| rule.owner.is_some_and(RuleOwner::is_network_plugin);
    // What a plugin exempts at the node's own addresses is its tunnel; what it exempts at a tunnel's port between two others are
    // packets of other nodes that this one routes.
    let by_plugin = || !rules.is_empty() && rules.iter().all(is_of_plugin);
    let is_tunnel_port = known.tunnel_ports.contains(&stream.port);
    let is_pod = |address| known.names.contains_key(address);
    let is_overlay = match is_at_node(stream, known.own) {
        true => is_tunnel_port || by_plugin(),
        false => is_tunnel_port && by_plugin() && !is_pod(&stream.source) && !is_pod(&stream.destination),
    };
    if stream.protocol == UDP && is_overlay {
        return Some(Intended::Overlay);
    }
    let of = |rule: &CandidateRule| {
        let rule = known.rules.get(&rule.to_string())?;
        rule.intended.filter(|intended| *intended == Intended::Cilium)
    };
    let (first, rest) = rules.split_first()?;
    of(first).filter(|_| rest.iter().all(|rule| of(rule).is_some()))
}

/// What only all streams together show. Who talks to an endpoint without its Service gets the same packets, and misses nothing;
/// nor does another node's client, whose own node translates. The node's own traffic that nothing has to translate works
/// untracked, if both ways are.
pub fn settle(streams: &mut [JudgedStream], known: BypassFacts<'_>) {
    for seen in streams.iter_mut() {
        settle_ipvs(seen, known);
    }
    let direct: Vec<bool> = streams
        .iter()
        .map(|seen| {
            seen.fault == Fault::UntrackedReply
                && match seen.translated {
                    Some(translated) => !translated,
                    None => opposite(seen, streams).any(|seen| seen.count.syn > 0),
                }
        })
        .collect();
    for (seen, direct) in streams.iter_mut().zip(direct) {
        if direct {
            (seen.fault, seen.service) = (Fault::Untracked, None);
        } else if seen.fault == Fault::UntrackedReply {
            seen.service = service_of(seen, known).map(Service::title);
        }
    }
    let of_node: Vec<bool> = streams
        .iter()
        .map(|seen| {
            seen.fault == Fault::Untracked
                && is_at_node(&seen.stream, known.own)
                && opposite(seen, streams).any(|back| is_answered(seen, back))
        })
        .collect();
    for (seen, of_node) in streams.iter_mut().zip(of_node) {
        if of_node {
            seen.intended.get_or_insert(Intended::NodeTraffic);
        }
    }
}

/// Whether both ways of the same connections work untracked. A SYN without a SYN-ACK does not: it needed a translation, or has no
/// listener.
fn is_answered(one: &JudgedStream, back: &JudgedStream) -> bool {
    let (request, reply) = match one.stream.server {
        Server::Destination => (one, back),
        Server::Source => (back, one),
        Server::Neither => return false,
    };
    back.fault == Fault::Untracked
        && (one.stream.protocol != TCP || request.count.syn == 0 || reply.count.syn_ack > 0)
}

/// The findings, those of Services first. `to_the_end`: none is over before the run is.
pub fn diagnose(
    streams: &[JudgedStream],
    known: BypassFacts<'_>,
    now_ns: u64,
    to_the_end: bool,
) -> Vec<Finding> {
    let current = |count: &UntrackedCount| {
        to_the_end || Duration::from_nanos(now_ns.saturating_sub(count.last_ns)) <= OVER
    };
    let mut groups = BTreeMap::<Group<'_>, Vec<&JudgedStream>>::new();
    for seen in streams
        .iter()
        .filter(|seen| seen.intended.is_none() && current(&seen.count))
        .filter(|seen| !only_refuses(seen, streams))
    {
        let rules = seen.rules.iter().map(ToString::to_string).collect();
        groups
            .entry((seen.fault, seen.service.as_deref(), rules))
            .or_default()
            .push(seen);
    }
    let groups = groups.into_values();
    let mut findings: Vec<Finding> = groups
        .filter_map(|group| finding(&group, streams, known, now_ns))
        .collect();
    if findings.is_empty() {
        // Whose packets were seen, and are no more, is over.
        let was_seen = |rule: &NotrackRule| {
            let name = rule.name();
            let mut candidates = streams.iter().flat_map(|seen| &seen.rules);
            candidates.any(|candidate| candidate.to_string() == name)
        };
        let mut unseen: Vec<Finding> = known
            .rules
            .values()
            .filter(|rule| rule.intended.is_none() && rule.since.is_some_and(|since| since > 0))
            .filter(|rule| !was_seen(rule))
            .filter(|rule| {
                // Rules are read after the packets: the first one of a stream may have come in between.
                let shows = || rule.first_moved_ns <= now_ns;
                let current = || Duration::from_nanos(now_ns.saturating_sub(rule.moved_ns)) <= OVER;
                to_the_end || shows() && current()
            })
            .map(|rule| never_left(rule, now_ns))
            .collect();
        unseen.sort_by(|one, other| one.what.cmp(&other.what));
        findings = unseen;
    }
    findings
}

/// Whether it has only the RSTs that answer requests to a Service which were not translated: the node has no listener at the Service's
/// address or node port. The requests are the finding.
fn only_refuses(seen: &JudgedStream, all: &[JudgedStream]) -> bool {
    seen.fault == Fault::Untracked
        && seen.stream.protocol == TCP
        && seen.count.packets > 0
        && seen.count.rst == seen.count.packets
        && opposite(seen, all)
            .any(|request| request.fault == Fault::UntrackedRequest && request.intended.is_none())
}

/// A rule's counter moves, and no packet was seen behind it.
fn never_left(rule: &NotrackRule, now_ns: u64) -> Finding {
    let what = format!(
        "packets exempted from conntrack by {}{} were not seen leaving this node: they are dropped, have no receiver at \
         the untranslated address, or are delivered where this kernel has no hook",
        rule.name(),
        moved(rule)
    );
    Finding {
        rules: vec![rule.name()],
        certain: false,
        packets: Some(rule.since.unwrap_or(0)),
        since_ms: ago_ms(now_ns, rule.moved_ns),
        ..Finding::failed(Kind::Bypass(Fault::Untracked), what)
    }
    .seen(format!(
        "{}; it counted {} packets{}",
        rule.name(),
        rule.rule.packets.unwrap_or(0),
        moved(rule)
    ))
    .fixed_by(rule.rule.fixes(&ANY))
}

fn finding(
    group: &[&JudgedStream],
    all: &[JudgedStream],
    known: BypassFacts<'_>,
    now_ns: u64,
) -> Option<Finding> {
    let first = group.first()?;
    let mut group = group.to_vec();
    group.sort_by_key(|seen| std::cmp::Reverse(seen.count.packets));
    let packets = group.iter().map(|seen| seen.count.packets).sum();
    let mut felt_by: Vec<IpAddr> = Vec::new();
    for seen in &group {
        let one = match first.fault {
            Fault::UntrackedRequest | Fault::Untracked => seen.stream.source,
            Fault::UntrackedReply => seen.stream.destination,
        };
        if !felt_by.contains(&one) {
            felt_by.push(one);
        }
    }
    let sure = !first.rules.is_empty() && first.rules.iter().all(|rule| rule.certain);
    let rules: Vec<&NotrackRule> = first
        .rules
        .iter()
        .filter_map(|rule| known.rules.get(&rule.to_string()))
        .collect();
    let by = match (rules.first(), sure) {
        (Some(rule), true) => format!("by {}{}", rule.name(), moved(rule)),
        (Some(rule), false) => format!("perhaps by {}{}", rule.name(), moved(rule)),
        (None, _) => "no rule found".to_owned(),
    };
    let service = service_of(first, known);
    let named = service.map_or_else(|| "a Service".to_owned(), Service::to_string);
    let who = who(&felt_by, known.names);
    let what = match first.fault {
        Fault::UntrackedRequest if service.is_some_and(Service::is_node_port) => format!(
            "packets to {named} bypass conntrack, so DNAT to an endpoint is skipped and this node itself receives them: it is \
             unreachable from {who}; {by}"
        ),
        Fault::UntrackedRequest => format!(
            "{named} is unreachable from {who}: its packets bypass conntrack, so DNAT to an endpoint is \
             skipped; {by}"
        ),
        Fault::UntrackedReply => format!(
            "{named} is unreachable from {who}: replies of its endpoint bypass conntrack and return with \
             the endpoint's address; {by}"
        ),
        Fault::Untracked if service.is_some() => format!(
            "{named} does not answer {who}: its packets bypass conntrack, so IPVS translates them to an endpoint, but nothing \
             masquerades them; {by}"
        ),
        Fault::Untracked => format!(
            "packets of {who} bypass conntrack: they are not translated, not masqueraded, and match no \
             connection state; {by}"
        ),
    };
    let mut evidence: Vec<String> = group.iter().take(TOLD).map(|seen| told(seen, all)).collect();
    if group.len() > TOLD {
        evidence.push(format!("and {} more streams", group.len() - TOLD));
    }
    evidence.extend(rules.iter().map(|rule| match rule.rule.packets {
        Some(packets) => format!("{}; it counted {packets} packets{}", rule.name(), moved(rule)),
        None => format!("{}; it has no counter", rule.name()),
    }));
    let fixes = if rules.is_empty() {
        vec![Fix::text(
            "No readable iptables or nft rule matches: check BPF programs, and rules that tools in another \
             container manage.",
        )]
    } else {
        rules
            .iter()
            .flat_map(|rule| rule.rule.fixes(&first.stream.rule_flow()))
            .collect()
    };
    let first_ns = group.iter().map(|seen| seen.count.first_ns).min();
    Some(Finding {
        evidence,
        fixes,
        rules: rules.iter().map(|rule| rule.name()).collect(),
        service: first.service.clone(),
        felt_by: felt_by
            .iter()
            .map(|address| Affected::new(*address, known.names.get(address)))
            .collect(),
        certain: sure
            && match first.fault {
                Fault::UntrackedRequest => true,
                Fault::UntrackedReply => group.iter().all(|seen| seen.translated == Some(true)),
                // That an endpoint does not answer may have another reason, where a client need not be masqueraded.
                Fault::Untracked => {
                    let needs = |seen: &&JudgedStream| {
                        virtual_server::needs_masquerade(&seen.stream, known.services).is_some()
                    };
                    service.is_none() || group.iter().all(needs)
                }
            },
        packets: Some(packets),
        since_ms: ago_ms(now_ns, first_ns.unwrap_or(0)),
        ..Finding::failed(Kind::Bypass(first.fault), what)
    })
}

/// `(+412 packets)`
pub fn moved(rule: &NotrackRule) -> String {
    match rule.since {
        Some(since) => format!(" (+{since} packets)"),
        None => String::new(),
    }
}

/// The opposite direction of a stream.
fn opposite<'a>(of: &JudgedStream, all: &'a [JudgedStream]) -> impl Iterator<Item = &'a JudgedStream> {
    let of = of.stream;
    all.iter().filter(move |seen| {
        let stream = &seen.stream;
        (stream.source, stream.destination) == (of.destination, of.source)
            && (stream.protocol, stream.port) == (of.protocol, of.port)
            && stream.server != of.server
    })
}

fn told(seen: &JudgedStream, all: &[JudgedStream]) -> String {
    let (stream, count) = (&seen.stream, &seen.count);
    let mut text = format!(
        "{}, {}: {} packets",
        ends(stream),
        stream.direction.name(),
        count.packets
    );
    for (number, name) in [(count.syn, "SYN"), (count.syn_ack, "SYN-ACK"), (count.rst, "RST")] {
        if number > 0 {
            text.push_str(&format!(", {number} {name}"));
        }
    }
    if let Some(sender) = &seen.sender {
        text.push_str(&format!(", sent by {}", sender.name()));
    }
    if let InTable::Found(found) = &seen.in_ipvs {
        text.push_str(&format!(
            "; {} to {} in IPVS' table",
            found.state, found.virtual_server
        ));
    }
    let resets: u64 = opposite(seen, all).map(|seen| seen.count.rst).sum();
    if seen.fault == Fault::UntrackedReply && resets > 0 {
        text.push_str(&format!("; {} answers with {resets} RST", stream.destination));
    }
    text
}

/// `TCP 10.244.1.5 → 10.96.0.1:443`
pub fn ends(stream: &UntrackedStream) -> String {
    let (mut source, mut destination) = (stream.source.to_string(), stream.destination.to_string());
    match stream.server {
        Server::Neither => {}
        Server::Destination => destination = SocketAddr::new(stream.destination, stream.port).to_string(),
        Server::Source => source = SocketAddr::new(stream.source, stream.port).to_string(),
    }
    format!("{} {source} → {destination}", protocol(stream.protocol))
}

pub fn protocol(number: u8) -> String {
    match number {
        1 => "ICMP".to_owned(),
        6 => "TCP".to_owned(),
        17 => "UDP".to_owned(),
        58 => "ICMPv6".to_owned(),
        132 => "SCTP".to_owned(),
        number => format!("protocol {number}"),
    }
}

fn who(felt_by: &[IpAddr], names: &HashMap<IpAddr, Name>) -> String {
    let mut told: Vec<String> = felt_by
        .iter()
        .take(TOLD)
        .map(|address| match names.get(address) {
            Some(name) => format!("{}/{} ({address})", name.namespace, name.pod),
            None => address.to_string(),
        })
        .collect();
    if felt_by.len() > TOLD {
        told.push(format!("{} more", felt_by.len() - TOLD));
    }
    told.join(", ")
}
