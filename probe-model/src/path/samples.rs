//! Packets, and the events they leave behind.

use std::net::SocketAddr;

use super::{
    event::{Direction, Event, Packet, PathDevice, Tcp, Tracking, What},
    exchange::{Exchange, Exchanges},
};

/// `CLOCK_MONOTONIC` of what happens first, nanoseconds.
pub const START: u64 = 5_000_000_000;

pub const SYN: u8 = Tcp::SYN;
pub const SYN_ACK: u8 = Tcp::SYN | Tcp::ACK;
pub const ACK: u8 = Tcp::ACK;
pub const RST_ACK: u8 = Tcp::RST | Tcp::ACK;

pub fn end(text: &str) -> SocketAddr {
    let Ok(end) = text.parse() else {
        panic!("{text} is not an address and a port");
    };
    end
}

/// A TCP packet without payload.
pub fn tcp(source: &str, destination: &str, flags: u8) -> Packet {
    let source = end(source);
    Packet {
        source,
        destination: end(destination),
        protocol: 6,
        id: source.is_ipv4().then_some(7),
        dont_fragment: true,
        fragment: false,
        ttl: 64,
        length: 60,
        payload: 0,
        tcp: Some(Tcp {
            sequence: 1000,
            acknowledgment: 0,
            flags,
        }),
        icmp: None,
        sequence: None,
        about: false,
        tunnel: None,
    }
}

/// The same with some.
pub fn data(source: &str, destination: &str, sequence: u32, payload: u32) -> Packet {
    Packet {
        length: 52 + payload,
        payload,
        tcp: Some(Tcp {
            sequence,
            acknowledgment: 1,
            flags: ACK,
        }),
        ..tcp(source, destination, ACK)
    }
}

/// Of an echo with a sequence number; else of an error.
pub fn icmp(source: &str, destination: &str, message: (u8, u8), sequence: Option<u16>) -> Packet {
    Packet {
        protocol: if end(source).is_ipv4() { 1 } else { 58 },
        tcp: None,
        icmp: Some(message),
        sequence,
        about: sequence.is_none(),
        ..tcp(source, destination, 0)
    }
}

pub fn udp(source: &str, destination: &str, payload: u32) -> Packet {
    Packet {
        protocol: 17,
        tcp: None,
        payload,
        ..tcp(source, destination, 0)
    }
}

pub fn dropped(reason: &str, at: &str) -> What {
    let known = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
    What::Dropped {
        reason: known(reason),
        at: known(at),
    }
}

/// One packet on its way: what it meets becomes events.
#[derive(Clone)]
pub struct Walk {
    next: Event,
    events: Vec<Event>,
}

impl Walk {
    /// It begins at a time, microseconds.
    pub fn new(direction: Direction, packet: Packet, begins: u64) -> Self {
        Self {
            next: Event {
                time_ns: START + begins * 1000,
                flow: 9,
                direction,
                what: What::Sent,
                netns: 1,
                device: None,
                input: None,
                mark: 0,
                tracking: Tracking::None,
                packet,
                segments: 1,
                skb: 0xff00,
                cpu: 3,
                function: "net_dev_start_xmit",
                bytes: Vec::new(),
            },
            events: Vec::new(),
        }
    }

    pub fn request(packet: Packet, begins: u64) -> Self {
        Self::new(Direction::Request, packet, begins)
    }

    pub fn reply(packet: Packet, begins: u64) -> Self {
        Self::new(Direction::Reply, packet, begins)
    }

    /// At a device of a network namespace from now on; without a name at none.
    pub fn at(mut self, netns: u32, name: &str) -> Self {
        self.next.netns = netns;
        self.next.device = (!name.is_empty()).then(|| PathDevice {
            index: name.bytes().map(u32::from).sum(),
            name: name.to_owned(),
        });
        self
    }

    /// Came in by that device.
    pub fn by(self, netns: u32, name: &str) -> Self {
        let mut walk = self.at(netns, name);
        walk.next.input = walk.next.device.as_ref().map(|device| device.index);
        walk
    }

    /// Something else is so from now on.
    pub fn with(mut self, change: impl FnOnce(&mut Event)) -> Self {
        change(&mut self.next);
        self
    }

    pub fn tracked(self, tracking: Tracking) -> Self {
        self.with(|event| event.tracking = tracking)
    }

    pub fn from(self, source: &str) -> Self {
        self.with(|event| event.packet.source = end(source))
    }

    pub fn to(self, destination: &str) -> Self {
        self.with(|event| event.packet.destination = end(destination))
    }

    /// Ten microseconds later than what was before.
    pub fn meets(mut self, what: What) -> Self {
        self.next.what = what;
        self.events.push(self.next.clone());
        self.next.time_ns += 10_000;
        self
    }

    /// All of it with another IPv4 identification.
    pub fn numbered(mut self, id: u16) -> Self {
        let events = self.events.iter_mut().chain([&mut self.next]);
        events.for_each(|event| event.packet.id = Some(id));
        self
    }

    /// All of it so much later, microseconds.
    pub fn later(mut self, by: u64) -> Self {
        let events = self.events.iter_mut().chain([&mut self.next]);
        events.for_each(|event| event.time_ns += by * 1000);
        self
    }

    pub fn events(self) -> Vec<Event> {
        self.events
    }
}

/// All exchanges of these packets.
pub fn exchanges(walks: impl IntoIterator<Item = Walk>) -> Vec<Exchange> {
    let mut events: Vec<_> = walks.into_iter().flat_map(Walk::events).collect();
    events.sort_by_key(|event| event.time_ns);
    let mut exchanges = Exchanges::default();
    events.into_iter().for_each(|event| exchanges.push(event));
    exchanges.rest()
}

/// The only one.
pub fn exchange(walks: impl IntoIterator<Item = Walk>) -> Exchange {
    let mut exchanges = exchanges(walks);
    assert_eq!(exchanges.len(), 1);
    exchanges.remove(0)
}

pub fn places(netns: u32) -> String {
    match netns {
        1 => "alpha",
        2 => "beta",
        101 => "pod shop/cart",
        202 => "pod shop/web",
        _ => "somewhere",
    }
    .to_owned()
}
