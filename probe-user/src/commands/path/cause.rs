//! Rules, Services and listeners behind what became of packets, in the network namespace where it happened.

use std::{
    collections::{HashMap, HashSet},
    net::{IpAddr, SocketAddr},
    path::{Path as File, PathBuf},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use super::{lookups::Lookups, namespaces::Namespaces};
use crate::{
    attribution::{listener, procfs::Proc},
    commands::{
        periodic::{enter, now_ns},
        rule_book::{RuleBook, RuleSnapshot},
    },
    model::{
        bypass::service::{Service, Services},
        path::{
            AppliedRule, ConntrackZone, DropCause, Exchange, Hop, Journey, JourneyEnd, Listener, Untracked,
            cause::asks_for_invalid,
            event::{Direction, HookVerdict, Packet as PathPacket, Tcp, What},
            reason::Fate,
        },
        rule::{self, Action, CandidateRule, PacketPath, RuleFlow, RuleOwner},
    },
    namespace::own_netns,
    netfilter::rules::Packet,
    rtnetlink::Routing,
};

/// VXLAN's protocol.
const UDP: u8 = 17;
/// Network namespaces whose rules are kept.
const KEPT: usize = 32;
/// Rules are not checked more often.
const EVERY: Duration = Duration::from_millis(300);
/// How old may be what is known of the tables there are.
const LATELY: Duration = Duration::from_secs(10);
/// How long an answer to who listens holds, how often it is searched for at the most, and how many are kept.
const HOLDS: Duration = Duration::from_secs(1);
const SEARCH: Duration = Duration::from_millis(100);
const LISTENERS: usize = 1024;

/// What a network namespace is set to.
#[derive(Default)]
struct Host {
    book: RuleBook,
    snapshot: Arc<RuleSnapshot>,
    services: Services,
    /// Its addresses.
    own: HashSet<IpAddr>,
    /// Names of its devices.
    devices: HashMap<u32, String>,
    /// When this was read.
    read: Option<Instant>,
    /// The network namespace.
    netns: Option<PathBuf>,
}

/// Looks for reasons.
pub struct CauseFinder {
    hosts: HashMap<u32, Host>,
    /// Who listens, by network namespace and address, as far as it was asked, and when.
    listeners: HashMap<(u32, SocketAddr), (Instant, Option<Listener>)>,
    searched: Option<Instant>,
    proc: Proc,
    lookups: Lookups,
}

impl CauseFinder {
    /// `own`: the inode of the network namespace that probe runs in.
    pub fn new(own: u32) -> Self {
        Self {
            lookups: Lookups::new(own),
            hosts: HashMap::new(),
            listeners: HashMap::new(),
            searched: None,
            proc: Proc::new("/proc".into()),
        }
    }

    /// Adds to an exchange the rules that dropped its packets or left them untracked, the tables that let them pass, and who
    /// listens.
    pub fn explain(&mut self, exchange: &mut Exchange, places: &Namespaces) {
        let hops = exchange.journeys.iter_mut().flat_map(|journey| &mut journey.hops);
        for hop in hops {
            if let What::Hook {
                hook: Some(hook),
                verdict: Some(HookVerdict::Accepted),
            } = hop.event.what
                && let Some(host) = self.host_lately(hop, places)
            {
                hop.tables = host
                    .snapshot
                    .rules
                    .passed(hook.name(), hop.event.packet.source.is_ipv6());
            }
        }
        for journey in &mut exchange.journeys {
            let JourneyEnd::Dropped(at) = journey.end() else {
                continue;
            };
            let (rule, cause) = match journey.fate(at) {
                _ if journey.may_be_filtered(at) => self.filtered(journey, at, places),
                Some(Fate::Fault) if journey.is_refused_by_route(at) => {
                    (None, self.lookups.refusal(journey, at, places))
                }
                Some(Fate::Fault) => (None, journey.hairpin(at)),
                _ => continue,
            };
            let is_open = rule.is_none() && cause.is_none() && journey.may_be_filtered(at);
            if let Some(hop) = journey.hops.get_mut(at) {
                if is_open && let Some(host) = self.host(hop, places) {
                    hop.unread = host.snapshot.unread();
                }
                hop.rule = rule;
                hop.cause = cause;
            }
        }
        self.lookups.add_owners(exchange, places);
        exchange.bridge = self.lookups.bridge(exchange, places);
        exchange.untracked = self.untracked(exchange, places);
        exchange.zone = self.zone(exchange, places);
        exchange.node_port = self.node_port(exchange, places);
        exchange.listener = self.listener(exchange);
        exchange.detours = self.lookups.detours(exchange, places);
    }

    /// The rule that dropped a packet, and what is behind it.
    fn filtered(
        &mut self,
        journey: &Journey,
        at: usize,
        places: &Namespaces,
    ) -> (Option<AppliedRule>, Option<DropCause>) {
        let Some(hop) = journey.hops.get(at) else {
            return (None, None);
        };
        let (rule, service) = match self.host(hop, places) {
            Some(host) => (
                host.applied(hop, journey.direction, &[Action::Drop, Action::Reject]),
                host.refusing_service(hop),
            ),
            None => (None, None),
        };
        if rule.as_ref().is_none_or(|applied| !applied.rule.certain)
            && let Some(cause) = self.lookups.conntrack(journey, at, places)
        {
            return (None, Some(cause));
        }
        let cause = rule.as_ref().and_then(|applied| {
            let of_rule = DropCause::of_rule(&applied.rule.to_string(), hop.event.tracking);
            match (of_rule, service) {
                (Some(DropCause::Marked { .. }), service) => Some(DropCause::Marked {
                    service: service.map(|(name, _)| name),
                }),
                (None, Some((service, true))) if applied.rule.owner == Some(RuleOwner::KubeProxy) => {
                    Some(DropCause::NoEndpoints {
                        service,
                        local: false,
                    })
                }
                (of_rule, _) => of_rule,
            }
        });
        (rule, cause)
    }

    fn untracked(&mut self, exchange: &Exchange, places: &Namespaces) -> Option<Untracked> {
        let journeys = [exchange.request(), exchange.reply()].into_iter().flatten();
        for journey in journeys {
            let Some(hop) = journey.untracked().and_then(|at| journey.hops.get(at)) else {
                continue;
            };
            let Some(host) = self.host(hop, places) else {
                continue;
            };
            let packet = &hop.event.packet;
            let service = match journey.direction {
                Direction::Request => host.service_at(packet),
                Direction::Reply => {
                    host.services
                        .of_endpoint(packet.protocol, packet.source.ip(), packet.source.port())
                }
            };
            let service = service.map(ToString::to_string);
            let rule = host.applied(hop, journey.direction, &[Action::NoTrack]);
            if rule.is_some() || service.is_some() {
                return Some(Untracked { rule, service });
            }
        }
        None
    }

    /// The conntrack zone that has the connection, where a reply did not belong to it.
    fn zone(&mut self, exchange: &Exchange, places: &Namespaces) -> Option<ConntrackZone> {
        let is_invalid = |hop: &&Hop| hop.cause == Some(DropCause::Invalid);
        let mut hops = exchange.journeys.iter().flat_map(|journey| &journey.hops);
        let hop = match hops.find(is_invalid) {
            Some(hop) => hop,
            None => {
                let found = exchange.misaddressed()?;
                let mut hops = exchange.request()?.hops.iter();
                hops.find(|hop| hop.event.netns == found.translated_in)?
            }
        };
        let zones = self.host_lately(hop, places)?.snapshot.rules.zones();
        self.lookups.zone(exchange, hop.event.netns, zones, places)
    }

    /// The Service behind a node port, of a request that was translated, or came to the node itself.
    fn node_port(&mut self, exchange: &Exchange, places: &Namespaces) -> Option<String> {
        let request = exchange.request()?;
        let mut hops = request.hops.iter().zip(request.hops.iter().skip(1));
        let translated = hops.find(|(one, other)| {
            one.event.netns == other.event.netns
                && one.event.packet.destination != other.event.packet.destination
        });
        let dialled = request.hops.first()?.event.packet.destination;
        let last = || {
            let hop = request.hops.get(request.end().hop())?;
            (hop.event.packet.destination == dialled && exchange.reply().is_none_or(is_reset)).then_some(hop)
        };
        let hop = translated.map(|(hop, _)| hop).or_else(last)?;
        let host = self.host_lately(hop, places)?;
        let service = host.service_at(&hop.event.packet)?;
        service.is_node_port().then(|| service.to_string())
    }

    fn listener(&mut self, exchange: &Exchange) -> Option<Listener> {
        let request = exchange.request()?;
        let hop = request.hops.get(request.end().hop())?;
        let packet = &hop.event.packet;
        if packet.tcp.is_none() || matches!(request.end(), JourneyEnd::Left(_)) {
            return None;
        }
        let (netns, server, now) = (hop.event.netns, packet.destination, Instant::now());
        let known = self.listeners.get(&(netns, server));
        // Where there is no answer, how many wait now may be why.
        let is_fresh = |at: Instant| now.duration_since(at) < HOLDS && exchange.reply().is_some();
        // All of /proc is searched for it: not for every packet of a storm.
        let too_often = self.searched.is_some_and(|at| now.duration_since(at) < SEARCH);
        if too_often || known.is_some_and(|(at, _)| is_fresh(*at)) {
            return known.and_then(|(_, listener)| listener.clone());
        }
        let found = listener::search_with_queue(&self.proc, netns, server);
        let listener = found.map(|(pid, waiting)| {
            let name = self.proc.identity(pid).map(|(name, _)| name).unwrap_or_default();
            Listener {
                process: Some(format!("{name} (pid {pid})")),
                waiting: Some(waiting),
            }
        });
        self.searched = Some(Instant::now());
        if self.listeners.len() >= LISTENERS {
            self.listeners.clear();
        }
        self.listeners.insert((netns, server), (now, listener.clone()));
        listener
    }

    /// What the network namespace of a hop is set to: read since the packet was there, or just now.
    fn host(&mut self, hop: &Hop, places: &Namespaces) -> Option<&Host> {
        let is_new = |host: &Host| {
            let rested = host.read.is_none_or(|read| read.elapsed() >= EVERY);
            host.snapshot.begun_ns > hop.event.time_ns || !rested
        };
        self.host_where(hop, places, is_new)
    }

    /// The same, for what changes more seldom.
    fn host_lately(&mut self, hop: &Hop, places: &Namespaces) -> Option<&Host> {
        self.host_where(hop, places, |host| {
            host.read.is_some_and(|read| read.elapsed() < LATELY)
        })
    }

    fn host_where(
        &mut self,
        hop: &Hop,
        places: &Namespaces,
        is_new: impl Fn(&Host) -> bool,
    ) -> Option<&Host> {
        let netns = hop.event.netns;
        if self.hosts.len() >= KEPT && !self.hosts.contains_key(&netns) {
            self.hosts.clear();
        }
        let host = self.hosts.entry(netns).or_default();
        if !is_new(host) {
            host.read_again(netns, places.file(netns)?)?;
        }
        Some(host)
    }
}

fn is_reset(journey: &Journey) -> bool {
    let tcp = journey.packet().and_then(|packet| packet.tcp);
    tcp.is_some_and(|tcp| tcp.flags & Tcp::RST != 0)
}

impl Host {
    /// Brings it up to date, by a thread that enters the network namespace. The file of one that is gone may be another's.
    fn read_again(&mut self, inode: u32, netns: &File) -> Option<()> {
        // Without a cookie (before 5.14) the inode alone distinguishes them, which may be another's, too.
        if self.netns.as_deref().is_some_and(|before| before != netns) {
            *self = Self::default();
        }
        let book = self.book.clone();
        let read = || {
            let read = Instant::now();
            enter(netns).ok()?;
            if own_netns() != Some(u64::from(inode)) {
                return None;
            }
            let snapshot = book.since(now_ns());
            let mut routing = Routing::open().ok()?;
            let own = routing.addresses().unwrap_or_default();
            let devices = routing.devices().unwrap_or_default();
            Some((snapshot, own, devices, read))
        };
        let (snapshot, own, devices, read) = thread::scope(|scope| scope.spawn(read).join().ok().flatten())?;
        if self.read.is_none() || !Arc::ptr_eq(&self.snapshot.services, &snapshot.services) {
            self.services = Services::new(snapshot.services.as_ref().clone());
        }
        self.snapshot = snapshot;
        self.own = own.into_iter().map(|(_, address)| address).collect();
        self.devices = devices
            .into_iter()
            .map(|device| (device.index, device.name))
            .collect();
        self.read = Some(read);
        self.netns = Some(netns.to_owned());
        Some(())
    }

    /// The rules that may have done `actions` to a packet, with the counters that they have now.
    fn candidates(&self, packet: &Packet, actions: &[Action]) -> Vec<CandidateRule> {
        let candidates = self.snapshot.uncounted(packet, actions);
        let Some(netns) = self.netns.as_ref().filter(|_| !candidates.is_empty()) else {
            return candidates;
        };
        let before = candidates.clone();
        let counted = || {
            enter(netns).ok()?;
            Some(self.snapshot.counted(candidates))
        };
        let counted = thread::scope(|scope| scope.spawn(counted).join().ok().flatten());
        counted.unwrap_or_else(|| self.snapshot.counted(before))
    }

    /// The same rule as its tool writes it.
    fn whole(&self, rule: CandidateRule) -> CandidateRule {
        let written = || {
            enter(self.netns.as_ref()?).ok()?;
            self.snapshot.whole(vec![rule.clone()]).pop()
        };
        let written = thread::scope(|scope| scope.spawn(written).join().ok().flatten());
        written.unwrap_or(rule)
    }

    /// The Service at the packet's destination, and whether it has no endpoints.
    fn refusing_service(&self, hop: &Hop) -> Option<(String, bool)> {
        let service = self.service_at(&hop.event.packet)?;
        Some((service.title(), service.refused))
    }

    fn service_at(&self, packet: &PathPacket) -> Option<&Service> {
        let to = packet.destination;
        self.services
            .at_node(packet.protocol, to.ip(), to.port(), &self.own)
    }

    /// The rule that did something to the packet of a hop.
    fn applied(&self, hop: &Hop, direction: Direction, actions: &[Action]) -> Option<AppliedRule> {
        let event = &hop.event;
        let input = event.input.and_then(|index| self.devices.get(&index).cloned());
        // Before it is routed a packet has the device that it came by, after that the one that it leaves by.
        let output = event
            .device
            .as_ref()
            .filter(|device| Some(device.index) != event.input)
            .map(|device| device.name.clone());
        // Rules see the outer packet of what is in VXLAN; its port of origin is one of many.
        let (protocol, source, destination) = match event.packet.tunnel {
            Some(tunnel) => (UDP, SocketAddr::new(tunnel.source, 0), tunnel.destination),
            None => (
                event.packet.protocol,
                event.packet.source,
                event.packet.destination,
            ),
        };
        let port = |end: SocketAddr| Some(end.port()).filter(|port| *port != 0);
        let packet = Packet {
            position: self.snapshot.rules.position(
                input.as_deref(),
                event.device.as_ref().map(|device| device.name.as_str()),
            ),
            path: match event.input {
                None => PacketPath::Out,
                Some(_) if self.own.contains(&destination.ip()) => PacketPath::In,
                Some(_) => PacketPath::Forward,
            },
            protocol,
            source: source.ip(),
            destination: destination.ip(),
            source_port: port(source),
            destination_port: port(destination),
            input,
            output,
            is_new: false,
        };
        let mut candidates = self.candidates(&packet, actions);
        // What conntrack knows is not INVALID.
        candidates.retain(|candidate| !hop.is_known_to_conntrack() || !asks_for_invalid(&candidate.text));
        let rule = self.whole(rule::first(candidates)?);
        let flow = RuleFlow::between(packet.path, protocol, packet.source, packet.destination);
        // The client's port is another with the next connection.
        let flow = match (direction, event.packet.tunnel) {
            (_, Some(_)) | (Direction::Request, None) => RuleFlow {
                destination_port: packet.destination_port,
                ..flow
            },
            (Direction::Reply, None) => RuleFlow {
                source_port: packet.source_port,
                ..flow
            },
        };
        Some(AppliedRule {
            fixes: rule.fixes(&flow),
            rule,
        })
    }
}
