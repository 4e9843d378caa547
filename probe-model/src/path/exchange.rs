//! Requests and their replies: the packets of one flow, reported together.

use std::{
    collections::{HashMap, VecDeque},
    mem,
    net::SocketAddr,
    time::Duration,
};

use serde::Serialize;

use super::{
    answer::BridgeFiltering,
    detour::Detour,
    event::{Direction, Event, Tcp, What},
    journey::{AppliedRule, Journey, JourneyEnd},
};
use crate::finding::Fix;

/// How long a flow must be quiet before it is reported.
const QUIET: Duration = Duration::from_millis(300);
/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_millis(1200);
/// The reporting interval of a flow without pauses.
const LONGEST: Duration = Duration::from_secs(3);
/// The same of one whose request came somewhere, and what became of it there was not seen: it may wait for the next hop's
/// link-layer address, which the kernel gives up after three seconds.
const RESOLVED: Duration = Duration::from_millis(3500);
/// Packets of a flow in one report.
const PACKETS: usize = 64;
/// Flows kept at once.
const FLOWS: usize = 256;
/// First packets of reported flows: TCP waits longer than `QUIET` before it retransmits one.
const TOLD: usize = 1024;

/// Corrects the direction of an event by its addresses. The kernel side knows a packet by its memory and by what does not change
/// on its way. A reply that gets the memory of its request before the request's end was seen, and has the same payload, is taken
/// for the request (UDP over IPv6 on 7.3, which has no identification). The return path then has the appearance of a translation.
fn by_addresses(event: Event, journeys: &[Journey]) -> Event {
    let (source, destination) = (event.packet.source, event.packet.destination);
    let claimed = journeys
        .iter()
        .find(|journey| journey.direction == event.direction);
    let passed = |from: SocketAddr, to: SocketAddr| {
        claimed.is_some_and(|journey| {
            let mut packets = journey.hops.iter().map(|hop| &hop.event.packet);
            packets.any(|packet| !packet.about && packet.source == from && packet.destination == to)
        })
    };
    if event.packet.about || passed(source, destination) || !passed(destination, source) {
        return event;
    }
    let direction = match event.direction {
        Direction::Request => Direction::Reply,
        Direction::Reply => Direction::Request,
    };
    Event { direction, ..event }
}

/// What was seen of a flow in a while.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exchange {
    /// The same in all exchanges of a flow.
    pub flow: u64,
    /// In the order they began; at least one.
    pub journeys: Vec<Journey>,
    /// Events of packets beyond those kept.
    pub left_out: u64,
    /// A packet left for a Service, or came from one, past conntrack.
    pub untracked: Option<Untracked>,
    /// Who listens where the request was delivered.
    pub listener: Option<Listener>,
    /// The bridge that a reply passed which was not translated back.
    pub bridge: Option<BridgeFiltering>,
    /// Policy routing that sent its packets another way than table main would have.
    pub detours: Vec<Detour>,
    /// The conntrack zone that has the connection, where its reply was looked for in another one.
    pub zone: Option<ConntrackZone>,
    /// The Service whose node port was dialled: `Service shop/web:http (NodePort 30080)`.
    pub node_port: Option<String>,
    /// Points of packets were lost meanwhile.
    pub lossy: bool,
}

/// Packets for a Service that bypassed conntrack.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(
    feature = "schema",
    derive(schemars::JsonSchema),
    schemars(rename = "PathUntracked")
)]
pub struct Untracked {
    /// The rule responsible.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<AppliedRule>,
    /// The Service.
    // `Service shop/web:https (10.96.7.7:443)`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
}

/// Where conntrack has a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConntrackZone {
    /// The network namespace.
    pub netns: u32,
    pub zone: u16,
    /// The rule that chooses the zone, as reports name it.
    pub rule: String,
}

impl ConntrackZone {
    pub(super) fn words(&self, place: &str) -> String {
        format!(
            "conntrack in {place} has the connection in zone {}, by {}, and looks for its replies in another zone",
            self.zone, self.rule
        )
    }

    pub(super) fn fixes(&self) -> Vec<Fix> {
        vec![Fix::text(format!(
            "Put both directions of the connection into zone {}: add a rule for packets from the server, or remove the rule for \
             packets from the client.",
            self.zone
        ))]
    }
}

/// A listening socket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(
    feature = "schema",
    derive(schemars::JsonSchema),
    schemars(rename = "PathListener")
)]
pub struct Listener {
    /// The process that holds it.
    // `etcd (pid 812)`, not escaped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub process: Option<String>,
    /// Connections to be accepted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waiting: Option<u32>,
}

impl Exchange {
    /// The reported request: the first one.
    pub fn request(&self) -> Option<&Journey> {
        let mut requests = self.journeys.iter().filter(|journey| {
            journey.direction == Direction::Request && journey.packet().is_none_or(|packet| !packet.about)
        });
        requests.next()
    }

    /// Its reply: the first packet the other way that is no ICMP error.
    pub fn reply(&self) -> Option<&Journey> {
        let start = self.request().map_or(0, Journey::start_ns);
        self.journeys.iter().find(|journey| {
            journey.direction == Direction::Reply
                && journey.start_ns() >= start
                && journey.packet().is_none_or(|packet| !packet.about)
        })
    }

    /// An ICMP error about it. A redirect is none: the packet goes on.
    pub fn error(&self) -> Option<&Journey> {
        self.journeys.iter().find(|journey| {
            journey
                .packet()
                .is_some_and(|packet| packet.about && !packet.is_redirect())
        })
    }

    /// The same packet once more that was not dropped, of one that was.
    pub fn made_good(&self, dropped: &Journey) -> Option<&Journey> {
        self.journeys.iter().find(|journey| {
            journey.start_ns() > dropped.start_ns()
                && journey.fault().is_none()
                && journey
                    .hops
                    .first()
                    .is_some_and(|first| dropped.is_again(&first.event))
        })
    }

    /// Whether it is more than the last packets of a connection that began earlier: those are not reported.
    pub fn is_substantial(&self) -> bool {
        self.journeys.iter().any(|journey| {
            journey
                .packet()
                .is_some_and(|packet| packet.payload > 0 || packet.tcp.is_none_or(|tcp| tcp.has(Tcp::SYN)))
        })
    }

    /// Whether its request may wait for something where it came, as far as was seen.
    fn may_wait(&self) -> bool {
        let request = self.request();
        request.is_some_and(|request| matches!(request.end(), JourneyEnd::Arrived(_)))
            && self.reply().is_none()
    }

    fn is_answered(&self) -> bool {
        let ended = |journey: &Journey| !matches!(journey.end(), JourneyEnd::Left(_));
        self.error().is_some()
            || self.request().is_some_and(ended) && self.reply().is_some_and(ended)
            || self.request().is_some_and(|request| {
                matches!(request.end(), JourneyEnd::Dropped(_)) || request.has_flag(Tcp::RST)
            })
    }
}

#[derive(Debug)]
struct Open {
    exchange: Exchange,
    first_ns: u64,
    last_ns: u64,
}

/// Flows under way.
#[derive(Debug, Default)]
pub struct Exchanges {
    open: HashMap<u64, Open>,
    /// By the time they began.
    order: VecDeque<u64>,
    /// What had to make room.
    early: Vec<Exchange>,
    /// First packets of reported flows; the latest last.
    told: VecDeque<ToldPacket>,
}

/// A reported packet, to recognize its retransmission.
#[derive(Debug)]
struct ToldPacket {
    flow: u64,
    /// Its first hop alone.
    first: Journey,
    end: PacketEnd,
}

/// Where a packet ended, and how.
type PacketEnd = (&'static str, u32, Option<What>);

fn packet_end(journey: &Journey) -> PacketEnd {
    let end = journey.end();
    let event = journey.hops.get(end.hop()).map(|hop| &hop.event);
    let drop = event.filter(|_| matches!(end, JourneyEnd::Dropped(_)));
    (
        end.name(),
        event.map_or(0, |event| event.netns),
        drop.map(|event| event.what.clone()),
    )
}

impl Exchanges {
    pub fn push(&mut self, event: Event) {
        let flow = event.flow;
        if !self.open.contains_key(&flow) {
            if self.open.len() >= FLOWS
                && let Some(oldest) = self.order.pop_front()
            {
                let oldest = self.open.remove(&oldest);
                self.early.extend(oldest.map(|open| settled(open.exchange)));
            }
            self.order.push_back(flow);
        }
        let time_ns = event.time_ns;
        let open = self.open.entry(flow).or_insert_with(|| Open {
            exchange: Exchange {
                flow,
                journeys: Vec::new(),
                left_out: 0,
                untracked: None,
                listener: None,
                bridge: None,
                detours: Vec::new(),
                zone: None,
                node_port: None,
                lossy: false,
            },
            first_ns: time_ns,
            last_ns: time_ns,
        });
        open.last_ns = open.last_ns.max(time_ns);
        let journeys = &mut open.exchange.journeys;
        let event = by_addresses(event, journeys);
        // The latest that it may belong to: a retransmission equals the first.
        if let Some(journey) = journeys.iter_mut().rev().find(|journey| journey.has(&event)) {
            journey.push(event);
        } else if journeys.len() < PACKETS {
            let told = self.told.iter().rev().filter(|told| told.flow == flow);
            let again = journeys
                .iter()
                .chain(told.map(|told| &told.first))
                .any(|journey| journey.is_again(&event));
            journeys.push(Journey::new(event, again));
        } else {
            open.exchange.left_out += 1;
        }
    }

    /// What is due to be reported at `now`, `CLOCK_MONOTONIC` nanoseconds.
    pub fn due(&mut self, now_ns: u64) -> Vec<Exchange> {
        let mut due = mem::take(&mut self.early);
        let since = |then: u64| Duration::from_nanos(now_ns.saturating_sub(then));
        let open = &mut self.open;
        self.order.retain(|flow| {
            let is_due = open.get(flow).is_none_or(|open| {
                let (quiet, age) = (since(open.last_ns), since(open.first_ns));
                if quiet >= QUIET && open.exchange.is_answered() && !open.exchange.is_sending_again() {
                    return true;
                }
                match open.exchange.may_wait() {
                    true => age >= RESOLVED,
                    false => age >= LONGEST || quiet >= PATIENCE,
                }
            });
            if is_due {
                due.extend(open.remove(flow).map(|open| settled(open.exchange)));
            }
            !is_due
        });
        // A TCP retransmission belongs to the reported exchange.
        due.retain(|exchange| !self.is_repeated(exchange));
        for exchange in &due {
            let flow = exchange.flow;
            let begins = exchange
                .journeys
                .iter()
                .filter(|journey| journey.has_flag(Tcp::SYN));
            self.told.extend(begins.filter_map(|journey| {
                let (first, end) = (journey.first()?, packet_end(journey));
                Some(ToldPacket { flow, first, end })
            }));
        }
        self.told.drain(..self.told.len().saturating_sub(TOLD));
        due
    }

    /// Whether all of it was reported: the same packets, retransmitted, with the same end.
    fn is_repeated(&self, exchange: &Exchange) -> bool {
        exchange.journeys.iter().all(|journey| {
            let Some(first) = journey.hops.first() else {
                return true;
            };
            if journey.packet().is_some_and(|packet| packet.about) {
                // An error about one of them.
                return exchange.journeys.iter().any(|other| other.again);
            }
            let mut told = self.told.iter().rev().filter(|told| told.flow == exchange.flow);
            let known = told.find(|told| told.first.is_again(&first.event));
            journey.again && known.is_some_and(|known| known.end == packet_end(journey))
        })
    }

    /// All that is left.
    pub fn rest(&mut self) -> Vec<Exchange> {
        self.due(u64::MAX)
    }
}

fn settled(mut exchange: Exchange) -> Exchange {
    for journey in &mut exchange.journeys {
        journey.settle();
    }
    exchange.journeys.sort_by_key(Journey::start_ns);
    exchange
}
