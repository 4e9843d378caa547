//! Lines and recorded connections: what a line does not say, such as its zone, its server or its node, is read from the other
//! lines of the same log, and only where many agree.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    net::IpAddr,
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};

use super::{
    Endpoint, Rejected,
    earlier::{Earlier, EarlierLine},
};
use crate::flow::{
    Flows, LineKey, Near, Unmatched,
    matching::{choose, is_of_one_node},
};

/// Lines that are looked at together, and the bytes that they take.
const LINES: usize = 10_000;
const BYTES: usize = 4 << 20;
/// As many lines have to agree, and as many times more than on anything else.
const AGREE: usize = 3;
/// etcd's ports, where nothing else is known.
const CLIENT_PORT: u16 = 2379;
const PEER_PORT: u16 = 2380;
/// Offsets of zones are multiples of this, and at most so many of it: 14 hours.
const QUARTER: i64 = 15 * 60;
const QUARTERS: i64 = 56;
/// How far from a multiple two clocks may be. Microseconds.
const CLOCKS: i64 = 60_000_000;
/// An address with more records than this, such as that of a client with one fixed port, has no information about the zone.
const RECORDS: usize = 64;
/// Addresses of servers that are kept.
const SERVERS: usize = 256;

/// What the caller knows.
#[derive(Clone, Debug, Default)]
pub struct MatchOptions {
    /// Largest difference between the log's time and the connection's end.
    pub within: Duration,
    /// Ports of the server that wrote the log. `None`: etcd's, and those that the recordings were made of.
    pub ports: Option<Vec<u16>>,
    /// The node that wrote the log.
    pub node: Option<String>,
    /// Whether the offset of times without a zone may be inferred.
    pub infers_offset: bool,
}

/// What the log's times without a zone are off by, as recorded connections show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inferred {
    /// To be added to what was read.
    pub shift: SignedDuration,
    /// Lines that agree on it.
    pub lines: u64,
    /// A time as it was read, without its zone.
    pub at: Timestamp,
}

/// Takes the rejected connections of one log in order, and gives each back with what was found.
#[derive(Debug)]
pub struct Matcher<'a> {
    flows: &'a Flows,
    options: MatchOptions,
    waiting: VecDeque<Rejected>,
    bytes: usize,
    /// Ports that the recordings were made of.
    recorded_ports: Vec<u16>,
    /// Server ports that lines named, by the endpoint that they name too.
    named_ports: HashSet<(Option<Endpoint>, u16)>,
    /// The servers that lines named, loopback aside.
    named: HashSet<IpAddr>,
    /// Lines that are about a connection to this server.
    servers: HashMap<IpAddr, usize>,
    node: Option<String>,
    inferred: Option<Inferred>,
    /// The time of the line before, or of one further back.
    before: Option<Timestamp>,
    /// Whether any line has a time.
    has_times: bool,
    earlier: Earlier<'a>,
}

impl<'a> Matcher<'a> {
    pub fn new(flows: &'a Flows, options: MatchOptions) -> Self {
        let mut names = flows.node_names();
        let only = match (names.next(), names.next()) {
            (Some(Some(only)), None) => Some(only.to_owned()),
            _ => None,
        };
        let ports = flows.scopes().iter().flat_map(|scope| &scope.ports);
        Self {
            node: options.node.clone().or(only),
            recorded_ports: ports.copied().collect::<HashSet<_>>().into_iter().collect(),
            flows,
            options,
            waiting: VecDeque::new(),
            bytes: 0,
            named_ports: HashSet::new(),
            named: HashSet::new(),
            servers: HashMap::new(),
            inferred: None,
            before: None,
            has_times: false,
            earlier: Earlier::new(flows),
        }
    }

    /// Takes one; `true`: it is time to [settle](Self::settle) what waits.
    pub fn push(&mut self, rejected: Rejected) -> bool {
        self.bytes += rejected.error.len() + rejected.server_name.len();
        self.waiting.push_back(rejected);
        self.is_full()
    }

    fn is_full(&self) -> bool {
        self.waiting.len() >= LINES || self.bytes >= BYTES
    }

    /// What was inferred of times without a zone.
    pub fn inferred(&self) -> Option<Inferred> {
        self.inferred
    }

    /// Gives back the lines that are older than the recordings, at the end of the log, in the order of time.
    pub fn settle_earlier(&mut self) -> Vec<EarlierLine> {
        let mut earlier = std::mem::replace(&mut self.earlier, Earlier::new(self.flows));
        let liked = self.liked_servers();
        let ports = |endpoint| self.ports(endpoint);
        let all =
            [None, Some(Endpoint::Client), Some(Endpoint::Peer)].map(|endpoint| (endpoint, ports(endpoint)));
        earlier.settle(self.options.within, |rejected, side| {
            all.iter()
                .find(|(endpoint, _)| *endpoint == rejected.endpoint)
                .is_some_and(|(_, ports)| self.key(rejected, ports, &liked).has_server(side.flow))
        })
    }

    /// Gives back what waits; before the `end` not always all of it. Lines that are older than the recordings come
    /// [later](Self::settle_earlier).
    pub fn settle(&mut self, end: bool) -> Vec<(Rejected, Result<Near<'a>, Unmatched>)> {
        self.has_times |= self.waiting.iter().any(|rejected| rejected.time.is_some());
        self.learn_servers();
        self.infer_offset();
        self.learn_node();
        if let Some(inferred) = self.inferred {
            for rejected in self.waiting.iter_mut().filter(|rejected| !rejected.has_offset) {
                rejected.time = rejected.time.map(|time| add(time, inferred.shift));
            }
        }
        self.count_servers();
        let mut after = None;
        let mut windows: Vec<_> = self
            .waiting
            .iter()
            .rev()
            .map(|rejected| {
                after = rejected.time.or(after);
                after
            })
            .collect();
        windows.reverse();
        // The next line that has a time may still come.
        let ready = match windows.iter().rposition(Option::is_some) {
            Some(last) if !end => last + 1,
            None if !end && !self.is_full() => 0,
            _ => windows.len(),
        };
        let mut settled = Vec::with_capacity(ready);
        for after in windows.into_iter().take(ready) {
            let Some(rejected) = self.waiting.pop_front() else {
                break;
            };
            self.bytes = self
                .bytes
                .saturating_sub(rejected.error.len() + rejected.server_name.len());
            self.before = rejected.time.or(self.before);
            match self.find(&rejected, after) {
                Err(unmatched) if self.earlier.is_earlier(&rejected, &unmatched) => {
                    let oldest = self.earlier.hold(rejected, unmatched);
                    settled.extend(oldest.map(|(rejected, unmatched)| (rejected, Err(unmatched))));
                }
                found => {
                    if let Ok(near) = &found {
                        self.earlier.matched(&rejected, near);
                    }
                    settled.push((rejected, found));
                }
            }
        }
        // Those that stay were moved already.
        if let Some(inferred) = self.inferred {
            for rejected in self.waiting.iter_mut().filter(|rejected| !rejected.has_offset) {
                rejected.time = rejected.time.map(|time| add(time, -inferred.shift));
            }
        }
        settled
    }

    fn find(&self, rejected: &Rejected, after: Option<Timestamp>) -> Result<Near<'a>, Unmatched> {
        let ports = self.ports(rejected.endpoint);
        let liked: Vec<_> = self.liked_servers();
        let key = self.key(rejected, &ports, &liked);
        let found = match self.find_by(&key, rejected, after) {
            // Only their number is evidence for those servers.
            Err(Unmatched::OtherServer(_)) if self.named.is_empty() && !liked.is_empty() => {
                self.find_by(&self.key(rejected, &ports, &[]), rejected, after)
            }
            found => found,
        };
        let Err(Unmatched::TooFar(distance)) = found else {
            return found;
        };
        let zone_unknown = self.options.infers_offset
            && !rejected.has_offset
            && rejected.time.is_some_and(|time| {
                let near = self.flows.near(rejected.peer, Some(time));
                near.iter()
                    .take(RECORDS)
                    .any(|near| quarters(time, near).any(|quarters| quarters != 0))
            });
        Err(if zone_unknown {
            Unmatched::ZoneUnknown(distance)
        } else {
            Unmatched::TooFar(distance)
        })
    }

    fn find_by(
        &self,
        key: &LineKey<'_>,
        rejected: &Rejected,
        after: Option<Timestamp>,
    ) -> Result<Near<'a>, Unmatched> {
        let candidates = self.flows.candidates(key, rejected.time)?;
        let nearest = choose(&candidates, self.options.within)?;
        if rejected.time.is_some() || !self.has_times {
            return Ok(nearest);
        }
        // Without a time: the only client that ever was, and only where the lines around say that it was then.
        let (Some(before), Some(after)) = (self.before, after) else {
            return Err(Unmatched::TimeUnknown);
        };
        let (first, last) = (before.min(after), before.max(after));
        let is_between = |near: &&Near<'_>| {
            let (from, to) = (near.flow.began.max(first), near.flow.ended.min(last));
            from.duration_since(to) <= signed(self.options.within)
        };
        candidates
            .iter()
            .find(is_between)
            .copied()
            .ok_or(Unmatched::TimeUnknown)
    }

    fn key<'k>(&'k self, rejected: &Rejected, ports: &'k [u16], servers: &'k [IpAddr]) -> LineKey<'k> {
        LineKey {
            client: rejected.peer,
            server: rejected.server,
            ports,
            servers,
            node: self
                .node
                .as_deref()
                .filter(|_| is_of_one_node(rejected.peer.ip())),
        }
    }

    /// The ports that a line's server can have which does not say it.
    fn ports(&self, endpoint: Option<Endpoint>) -> Vec<u16> {
        if let Some(ports) = &self.options.ports {
            return ports.clone();
        }
        let (own, other) = match endpoint {
            None => (&[CLIENT_PORT, PEER_PORT][..], None),
            Some(Endpoint::Client) => (&[CLIENT_PORT][..], Some(PEER_PORT)),
            Some(Endpoint::Peer) => (&[PEER_PORT][..], Some(CLIENT_PORT)),
        };
        let recorded = self.recorded_ports.iter().copied();
        let named = self.named_ports.iter();
        let named = named.filter(|(named, _)| endpoint.is_none() || named.is_none() || *named == endpoint);
        own.iter()
            .copied()
            .chain(
                recorded
                    .chain(named.map(|(_, port)| *port))
                    .filter(|port| Some(*port) != other),
            )
            .collect()
    }

    /// Errors that name the server name the log's own.
    fn learn_servers(&mut self) {
        for rejected in &self.waiting {
            let Some(server) = rejected.server else {
                continue;
            };
            if self.named_ports.len() < SERVERS {
                self.named_ports.insert((rejected.endpoint, server.port()));
            }
            if !server.ip().is_loopback() && self.named.len() < SERVERS {
                self.named.insert(server.ip());
            }
        }
    }

    /// The servers that the log is of: those that it names, and those that many of its lines were found to be about.
    fn liked_servers(&self) -> Vec<IpAddr> {
        let most = self.servers.values().copied().max().unwrap_or_default();
        let many = self
            .servers
            .iter()
            .filter(|(_, lines)| **lines >= AGREE && **lines * 10 >= most);
        self.named
            .iter()
            .chain(many.map(|(server, _)| server))
            .copied()
            .collect()
    }

    /// Counts the lines of which only one server can be meant.
    fn count_servers(&mut self) {
        for rejected in &self.waiting {
            let ports = self.ports(rejected.endpoint);
            let Some(mut near) = rejected.time.and_then(|time| self.timely(rejected, &ports, time)) else {
                continue;
            };
            let Some(first) = near.next().map(|near| near.flow.destination.ip()) else {
                continue;
            };
            if first.is_loopback() || near.any(|near| near.flow.destination.ip() != first) {
                continue;
            }
            drop(near);
            if self.servers.len() < SERVERS || self.servers.contains_key(&first) {
                *self.servers.entry(first).or_default() += 1;
            }
        }
    }

    /// The records that a line with this time can be about, servers and nodes aside.
    fn timely(
        &self,
        rejected: &Rejected,
        ports: &[u16],
        time: Timestamp,
    ) -> Option<impl Iterator<Item = Near<'a>> + use<'a>> {
        let within = self.options.within;
        let key = LineKey {
            node: None,
            ..self.key(rejected, ports, &[])
        };
        let near = self.flows.of_any_node(&key, Some(time)).ok()?;
        Some(
            near.into_iter()
                .take_while(move |near| near.distance.is_some_and(|far| far <= within)),
        )
    }

    /// The offset that the records of many lines agree on.
    fn infer_offset(&mut self) {
        if !self.options.infers_offset {
            return;
        }
        // Connections, not lines: a log that was copied twice is one piece of evidence.
        let mut agree: HashMap<i64, HashSet<u32>> = HashMap::new();
        let mut at = None;
        for rejected in self.waiting.iter().filter(|rejected| !rejected.has_offset) {
            let Some(time) = rejected.time else { continue };
            let ports = self.ports(rejected.endpoint);
            let key = self.key(rejected, &ports, &[]);
            let Ok(near) = self.flows.candidates(&key, Some(time)) else {
                continue;
            };
            if near.len() > RECORDS {
                continue;
            }
            at.get_or_insert(time);
            for near in near {
                for quarters in quarters(time, &near) {
                    agree.entry(quarters).or_default().insert(near.place);
                }
            }
        }
        let mut votes: Vec<_> = agree
            .iter()
            .map(|(quarters, places)| (places.len(), *quarters))
            .collect();
        votes.sort_unstable();
        let Some((most, quarters)) = votes.pop() else {
            return;
        };
        let next = votes.pop().map_or(0, |(next, _)| next);
        if most < AGREE || most < next * AGREE {
            return;
        }
        self.inferred = at.filter(|_| quarters != 0).map(|at| Inferred {
            shift: SignedDuration::from_secs(quarters * QUARTER),
            lines: most as u64,
            at,
        });
    }

    /// The node that wrote the log: the one whose own connections, or whose server's, many lines are about.
    fn learn_node(&mut self) {
        if self.node.is_some() {
            return;
        }
        let mut lines: HashMap<&str, usize> = HashMap::new();
        for rejected in &self.waiting {
            if !rejected.peer.ip().is_loopback() {
                if let Some(node) = self.flows.server_node(rejected.peer) {
                    *lines.entry(node).or_default() += 1;
                }
                continue;
            }
            let Some(mut time) = rejected.time else { continue };
            if let Some(inferred) = self.inferred.filter(|_| !rejected.has_offset) {
                time = add(time, inferred.shift);
            }
            let ports = self.ports(rejected.endpoint);
            let near = self.timely(rejected, &ports, time).into_iter().flatten();
            let nodes: HashSet<_> = near.filter_map(|near| near.client.node.as_deref()).collect();
            for node in nodes {
                *lines.entry(node).or_default() += 1;
            }
        }
        let mut votes: Vec<_> = lines.into_iter().map(|(node, lines)| (lines, node)).collect();
        votes.sort_unstable();
        let Some((most, node)) = votes.pop() else { return };
        let next = votes.pop().map_or(0, |(next, _)| next);
        if most >= AGREE && most >= next * AGREE {
            self.node = Some(node.to_owned());
        }
    }
}

/// How many quarters of an hour a recorded connection is after this time, where it is as many of them: at its end, and at its
/// begin.
fn quarters(time: Timestamp, near: &Near<'_>) -> impl Iterator<Item = i64> {
    let of = move |moment: Timestamp| {
        let after = moment.as_microsecond() - time.as_microsecond();
        let quarter = QUARTER * 1_000_000;
        let quarters = (after + quarter / 2).div_euclid(quarter);
        let off = (after - quarters * quarter).abs();
        (off <= CLOCKS && quarters.abs() <= QUARTERS).then_some(quarters)
    };
    let (end, begin) = (of(near.flow.ended), of(near.flow.began));
    end.into_iter().chain(begin.filter(|begin| Some(*begin) != end))
}

fn add(time: Timestamp, shift: SignedDuration) -> Timestamp {
    time.checked_add(shift).unwrap_or(time)
}

fn signed(duration: Duration) -> SignedDuration {
    SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX)
}

#[cfg(test)]
#[path = "matching_tests.rs"]
mod tests;
