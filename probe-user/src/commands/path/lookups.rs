//! What a network namespace is set to, apart from its rules: addresses, bridges, conntrack's table, routes. Each is asked when a
//! packet gives reason to.

use std::{
    collections::{HashMap, HashSet},
    net::{IpAddr, SocketAddr},
    path::Path as File,
    thread,
    time::{Duration, Instant},
};

use super::namespaces::Namespaces;
use crate::{
    commands::periodic::enter,
    host::proc_net::setting,
    model::{
        network::{Device, RouteLookup},
        path::{
            BridgeFiltering, ConntrackZone, DropCause, Exchange, Journey, JourneyEnd, Outcome, Passage,
            detour::Detour,
            event::{Tracking, What},
        },
        routing::RouteQuery,
        rule::CandidateRule,
    },
    netfilter::{
        conntrack::{Conntrack, Counts},
        rules::complete,
    },
    rtnetlink::Routing,
};

/// How long addresses hold.
const HOLDS: Duration = Duration::from_secs(5);
/// Network namespaces remembered.
const KEPT: usize = 256;
/// Percentage of conntrack's table from which a drop without a rule is taken as a full table.
const FULL: u64 = 98;
/// Detours of one exchange.
const DETOURS: usize = 2;
const TCP: u8 = 6;

/// Looks things up, and remembers what it costs to look up.
#[derive(Default)]
pub struct Lookups {
    addresses: HashMap<u32, (Instant, HashSet<IpAddr>)>,
    /// conntrack's counts as they were when a network namespace was first of interest.
    counts: HashMap<u32, Counts>,
}

impl Lookups {
    /// Those of this process's network namespace count from now on.
    pub fn new(own: u32) -> Self {
        let mut lookups = Self::default();
        let counts = Conntrack::open(None).and_then(|mut conntrack| conntrack.counts());
        lookups.counts.extend(counts.ok().map(|counts| (own, counts)));
        lookups
    }

    /// Finds out whether packets ended where their destination's address is.
    pub fn add_owners(&mut self, exchange: &mut Exchange, places: &Namespaces) {
        for journey in &mut exchange.journeys {
            let end = journey.end();
            if !matches!(end, JourneyEnd::Delivered(_) | JourneyEnd::Arrived(_)) {
                continue;
            }
            for (at, hop) in journey.hops.iter_mut().enumerate() {
                let event = &hop.event;
                let to = event.packet.destination.ip();
                if event.packet.tunnel.is_some() || at != end.hop() && event.what != What::Consumed {
                    continue;
                }
                hop.owns = self.owns(event.netns, to, places);
            }
        }
    }

    /// `None`: it is not known, or the address is no single host's.
    fn owns(&mut self, netns: u32, address: IpAddr, places: &Namespaces) -> Option<bool> {
        let is_group = match address {
            IpAddr::V4(v4) => v4.is_multicast() || v4.is_broadcast() || v4.is_loopback(),
            IpAddr::V6(v6) => v6.is_multicast() || v6.is_loopback(),
        };
        if is_group {
            return None;
        }
        if self.addresses.len() >= KEPT {
            self.addresses.clear();
        }
        let is_fresh = |(at, _): &(Instant, _)| at.elapsed() < HOLDS;
        if !self.addresses.get(&netns).is_some_and(is_fresh) {
            let found = within(places.file(netns)?, |routing| {
                let addresses = routing?.addresses().ok()?;
                Some(addresses.into_iter().map(|(_, address)| address).collect())
            })?;
            self.addresses.insert(netns, (Instant::now(), found));
        }
        Some(self.addresses.get(&netns)?.1.contains(&address))
    }

    /// The bridge that a reply passed which was not translated back, and its setting.
    pub fn bridge(&self, exchange: &Exchange, places: &Namespaces) -> Option<BridgeFiltering> {
        let found = exchange.misaddressed()?;
        let Passage::Bridged { from, to } = found.passage else {
            return None;
        };
        let v6 = exchange.reply()?.packet()?.source.is_ipv6();
        within(places.file(found.translated_in)?, |routing| {
            let devices = routing?.devices().ok()?;
            let name = if v6 {
                "bridge-nf-call-ip6tables"
            } else {
                "bridge-nf-call-iptables"
            };
            let setting = setting(&format!("net/bridge/{name}")).map(|value| value != 0);
            Some(BridgeFiltering {
                bridge: shared_bridge(&devices, from, to)?,
                setting,
            })
        })
    }

    /// Why netfilter dropped a packet where no rule did: conntrack has no room, or could not insert its entry.
    pub fn conntrack(&mut self, journey: &Journey, at: usize, places: &Namespaces) -> Option<DropCause> {
        let event = &journey.hops.get(at)?.event;
        let (source, destination) = event.packet.ends();
        let before = journey.source_before(at);
        let is_tcp = event.packet.protocol == TCP && event.packet.tunnel.is_none();
        if self.counts.len() >= KEPT {
            self.counts.clear();
        }
        let (counts, entries, room, owner) = within(places.file(event.netns)?, |_| {
            let mut conntrack = Conntrack::open(None).ok()?;
            let owner = is_tcp.then(|| conntrack.lookup_reply(destination, source).ok().flatten());
            Some((
                conntrack.counts().ok()?,
                setting("net/netfilter/nf_conntrack_count")?,
                setting("net/netfilter/nf_conntrack_max")?,
                owner.flatten(),
            ))
        })?;
        let earlier = self.counts.insert(event.netns, counts).unwrap_or_default();
        let grown = |now: u64, then: u64| now.saturating_sub(then);
        let failed = grown(counts.insert_failed, earlier.insert_failed);
        let dropped = grown(counts.drop, earlier.drop);
        if entries.saturating_mul(100) >= room.saturating_mul(FULL)
            && dropped > failed
            && event.tracking == Tracking::None
        {
            return Some(DropCause::TableFull { entries, room });
        }
        let client = before.unwrap_or(source);
        let taken_by: Option<SocketAddr> = owner.map(|entry| entry.client).filter(|owner| *owner != client);
        // An entry is confirmed when the packet leaves: until then it is new. A reply has the entry of its connection.
        if event.tracking != Tracking::New || taken_by.is_none() && failed == 0 {
            return None;
        }
        Some(DropCause::InsertFailed {
            source,
            destination,
            translated: before.is_some(),
            taken_by,
            failed,
        })
    }

    /// The zone, of those that rules choose, in which conntrack has the connection of a request.
    pub fn zone(
        &self,
        exchange: &Exchange,
        netns: u32,
        zones: Vec<(CandidateRule, u16)>,
        places: &Namespaces,
    ) -> Option<ConntrackZone> {
        let mut hops = exchange.request()?.hops.iter().map(|hop| &hop.event);
        let packet = &hops.find(|event| event.netns == netns)?.packet;
        if zones.is_empty() || packet.protocol != TCP || packet.tunnel.is_some() {
            return None;
        }
        let (source, destination) = (packet.source, packet.destination);
        within(places.file(netns)?, |_| {
            let mut conntrack = Conntrack::open(None).ok()?;
            let mut has = |zone| matches!(conntrack.lookup_in_zone(source, destination, zone), Ok(Some(_)));
            let (rule, zone) = zones.into_iter().find(|(_, zone)| has(*zone))?;
            let mut rules = vec![rule];
            complete(&mut rules);
            let rule = rules.pop()?;
            Some(ConntrackZone {
                netns,
                zone,
                rule: rule.to_string(),
            })
        })
    }

    /// The kind of route that refused a packet, as the kernel still does.
    pub fn refusal(&self, journey: &Journey, at: usize, places: &Namespaces) -> Option<DropCause> {
        let query = query(journey, at)?;
        let netns = journey.hops.get(at)?.event.netns;
        let (lookup, rule) = within(places.file(netns)?, |routing| {
            let routing = routing?;
            Some((
                routing.lookup(&query).ok()?,
                routing.rejection(&query).ok().flatten(),
            ))
        })?;
        match lookup {
            RouteLookup::Rejected(kind) => Some(rule.map_or(DropCause::Route(kind), DropCause::Rule)),
            RouteLookup::Sent { .. } | RouteLookup::Own | RouteLookup::NoRoute => None,
        }
    }

    /// Where policy routing sent packets another way than table main would have, of an exchange that went wrong.
    pub fn detours(&self, exchange: &Exchange, places: &Namespaces) -> Vec<Detour> {
        let outcome = exchange.conclusion(&|_| String::new()).outcome;
        if matches!(outcome, Outcome::Delivered | Outcome::Refused) {
            return Vec::new();
        }
        let mut detours: Vec<Detour> = Vec::new();
        for journey in [exchange.request(), exchange.reply()].into_iter().flatten() {
            for (at, hop) in journey.hops.iter().enumerate() {
                let event = &hop.event;
                let is_known = detours.iter().any(|detour| detour.netns == event.netns);
                // It may have waited for the next hop's address, and never been sent.
                let is_out = event.what == What::Sent || journey.fault() == Some(at);
                if !is_out || event.packet.tunnel.is_some() || is_known || detours.len() >= DETOURS {
                    continue;
                }
                let Some((query, device)) = query(journey, at).zip(event.device.as_ref()) else {
                    continue;
                };
                let found = places
                    .file(event.netns)
                    .and_then(|file| within(file, |routing| routing?.detour(&query).ok().flatten()));
                // Only if it really went that way.
                if let Some((_, policy)) = found.filter(|(index, _)| *index == device.index) {
                    detours.push(Detour {
                        netns: event.netns,
                        policy,
                    });
                }
            }
        }
        detours
    }
}

/// What the kernel routed a packet by: its source is translated after that, its destination before.
fn query(journey: &Journey, at: usize) -> Option<RouteQuery> {
    let event = &journey.hops.get(at)?.event;
    if event.packet.tunnel.is_some() {
        return None;
    }
    let source = journey.source_before(at).unwrap_or(event.packet.source).ip();
    let name = |index: u32| {
        let hops = journey.hops.iter().map(|hop| &hop.event);
        let mut devices = hops
            .filter(|other| other.netns == event.netns)
            .filter_map(|other| other.device.as_ref());
        devices
            .find(|device| device.index == index)
            .map_or_else(String::new, |device| device.name.clone())
    };
    Some(RouteQuery {
        source: Some(source),
        destination: event.packet.destination.ip(),
        mark: event.mark,
        input: event.input.map(|index| (index, name(index))),
    })
}

/// The bridge that both devices are ports of.
fn shared_bridge(devices: &[Device], from: u32, to: u32) -> Option<String> {
    let controller = |index: u32| devices.iter().find(|device| device.index == index)?.controller;
    let bridge = controller(from).filter(|bridge| controller(to) == Some(*bridge))?;
    let bridge = devices
        .iter()
        .find(|device| device.index == bridge && device.bridge)?;
    Some(bridge.name.clone())
}

/// Asks in a network namespace, by a thread that enters it.
fn within<T: Send>(netns: &File, ask: impl FnOnce(Option<&mut Routing>) -> Option<T> + Send) -> Option<T> {
    let run = || {
        enter(netns).ok()?;
        ask(Routing::open().ok().as_mut())
    };
    thread::scope(|scope| scope.spawn(run).join().ok().flatten())
}
