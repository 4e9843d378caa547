//! Path MTU black holes: large segments are sent again and again and nobody acknowledges them, while small packets of the same
//! connection arrive. Somewhere behind this machine they are too large, and the ICMP error that would say so is lost.

use super::{
    conclusion::{Outcome, Places},
    event::{Packet, Tcp},
    exchange::Exchange,
    journey::{Hop, Journey, JourneyEnd},
};
use crate::{
    finding::Fix,
    path_mtu::{self, ALWAYS_CARRIED, Lower},
};

/// A segment that left this often, unacknowledged, is lost for its size: the first is followed by a loss probe (TLP) and then by
/// retransmissions, 200 ms after it and later.
const SENT: usize = 3;

/// Large segments that are lost while small packets arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BlackHole<'a> {
    /// The first of the lost ones.
    journey: &'a Journey,
    hop: &'a Hop,
    /// How often it left.
    sent: usize,
    /// Bytes of one on the wire, from its IP header on, without a tunnel's headers.
    lost: u32,
    /// The same of the largest that was acknowledged.
    passed: u32,
}

/// One packet of a direction: where it starts and ends in the stream, and its size on the wire.
struct Segment<'a> {
    journey: &'a Journey,
    tcp: Tcp,
    /// The sequence number behind it.
    end: u32,
    size: u32,
}

impl<'a> Segment<'a> {
    /// `None`: it occupies no sequence numbers, so nobody acknowledges it.
    fn of(journey: &'a Journey) -> Option<Self> {
        let event = &journey.hops.first()?.event;
        let packet = &event.packet;
        let tcp = packet.tcp.filter(|_| !packet.about)?;
        let flags = u32::from(tcp.has(Tcp::SYN)) + u32::from(tcp.has(Tcp::FIN));
        let occupied = packet.payload + flags;
        (occupied > 0).then(|| Self {
            journey,
            tcp,
            end: tcp.sequence.wrapping_add(occupied),
            size: size_on_wire(packet, event.segments),
        })
    }
}

/// The size of the largest packet that a large one is cut into (GSO).
fn size_on_wire(packet: &Packet, segments: u16) -> u32 {
    let headers = packet.length.saturating_sub(packet.payload);
    headers + packet.payload.div_ceil(u32::from(segments.max(1)))
}

/// Whether `one` is at or behind `other` in a stream whose numbers wrap.
fn is_at_or_after(one: u32, other: u32) -> bool {
    one.wrapping_sub(other) < 1 << 31
}

impl Exchange {
    /// The segments that are lost for their size, if any are.
    pub(super) fn black_hole(&self) -> Option<BlackHole<'_>> {
        self.journeys
            .iter()
            .find_map(|journey| self.lost_for_size(journey))
    }

    /// Whether payload was sent again, and nobody acknowledged it so far: what becomes of it is worth waiting for.
    pub(super) fn is_sending_again(&self) -> bool {
        self.journeys.iter().filter_map(Segment::of).any(|segment| {
            segment.journey.again
                && segment.size > ALWAYS_CARRIED
                && !self.is_acknowledged(&segment)
                && matches!(segment.journey.end(), JourneyEnd::Left(_))
        })
    }

    fn lost_for_size<'a>(&'a self, journey: &'a Journey) -> Option<BlackHole<'a>> {
        let segment = Segment::of(journey)?;
        let JourneyEnd::Left(at) = journey.end() else {
            return None;
        };
        if segment.size <= ALWAYS_CARRIED
            || self.is_acknowledged(&segment)
            || !self.begins_unacknowledged(&segment)
        {
            return None;
        }
        let others = || {
            self.journeys
                .iter()
                .filter(|other| other.direction == journey.direction)
                .filter_map(Segment::of)
        };
        // Retransmissions carry one segment of what left as many.
        let again: Vec<_> = others()
            .filter(|other| other.tcp.sequence == segment.tcp.sequence && other.size > ALWAYS_CARRIED)
            .collect();
        let have_left = again
            .iter()
            .all(|other| matches!(other.journey.end(), JourneyEnd::Left(_)));
        let lost = again.iter().map(|other| other.size).min()?;
        let passed = others()
            .filter(|other| self.is_acknowledged(other))
            .map(|other| other.size)
            .max()?;
        (have_left && again.len() >= SENT && passed < lost && self.peer_lives(journey)).then_some(BlackHole {
            journey,
            hop: journey.hops.get(at)?,
            sent: again.len(),
            lost,
            passed,
        })
    }

    /// Acknowledgments that the other direction carries.
    fn acknowledgments<'a>(&'a self, of: &'a Journey) -> impl Iterator<Item = (u64, u32)> + 'a {
        self.journeys
            .iter()
            .filter(|other| other.direction != of.direction)
            .filter_map(|other| {
                let packet = other.packet().filter(|packet| !packet.about)?;
                let tcp = packet.tcp.filter(|tcp| tcp.has(Tcp::ACK))?;
                Some((other.start_ns(), tcp.acknowledgment))
            })
    }

    fn is_acknowledged(&self, segment: &Segment<'_>) -> bool {
        self.acknowledgments(segment.journey)
            .any(|(_, acknowledged)| is_at_or_after(acknowledged, segment.end))
    }

    /// Not even its first byte is acknowledged.
    fn begins_unacknowledged(&self, segment: &Segment<'_>) -> bool {
        !self.acknowledgments(segment.journey).any(|(_, acknowledged)| {
            acknowledged != segment.tcp.sequence && is_at_or_after(acknowledged, segment.tcp.sequence)
        })
    }

    /// Whether the other host was heard of before or after: one that sends nothing at all is lost itself.
    fn peer_lives(&self, lost: &Journey) -> bool {
        self.acknowledgments(lost).next().is_some()
    }
}

impl BlackHole<'_> {
    pub(super) const OUTCOME: Outcome = Outcome::Unanswered;

    /// What is wrong, and what shows it.
    pub(super) fn text(&self, places: Places<'_>) -> String {
        let (source, destination) = self.ends();
        format!(
            "segments of {} bytes from {source} to {destination} left {} by {} {} times and were never acknowledged, while \
             packets of up to {} bytes were: likely a path MTU black hole",
            self.lost,
            places(self.hop.event.netns),
            self.hop.device(),
            self.sent,
            self.passed,
        )
    }

    pub(super) fn fixes(&self) -> Vec<Fix> {
        let (_, destination) = self.ends();
        let tunnel = self
            .journey
            .hops
            .iter()
            .any(|hop| hop.event.packet.tunnel.is_some());
        let lower = if tunnel { Lower::Tunnel } else { Lower::Device };
        path_mtu::fixes(self.lost, destination.ip(), lower)
    }

    fn ends(&self) -> (std::net::SocketAddr, std::net::SocketAddr) {
        self.hop.event.packet.ends()
    }
}

#[cfg(test)]
mod tests {
    use super::super::{
        event::{Packet, What},
        samples::{ACK, SYN, SYN_ACK, Walk, data, exchange, places, tcp},
    };
    use super::*;

    const CLIENT: &str = "10.244.1.5:41234";
    const SERVER: &str = "10.244.2.9:8443";

    /// By the client's node, milliseconds after the start.
    fn sent(packet: Packet, ms: u64) -> Walk {
        let id = u16::try_from(100 + ms).unwrap();
        Walk::request(packet, ms * 1000)
            .at(1, "eth0")
            .meets(What::Sent)
            .numbered(id)
    }

    /// Of the server, as the client's node receives it.
    fn acknowledged(flags: u8, acknowledgment: u32, ms: u64) -> Walk {
        let mut packet = tcp(SERVER, CLIENT, flags);
        packet.tcp = Some(Tcp {
            sequence: 1,
            acknowledgment,
            flags,
        });
        let id = u16::try_from(5000 + ms).unwrap();
        Walk::reply(packet, ms * 1000)
            .by(1, "eth0")
            .meets(What::Received)
            .meets(What::Socket)
            .numbered(id)
    }

    fn handshake() -> Vec<Walk> {
        vec![sent(tcp(CLIENT, SERVER, SYN), 0), acknowledged(SYN_ACK, 1001, 1)]
    }

    /// A request of 200 bytes that is acknowledged, then segments of so many bytes at these times.
    fn transfer(payload: u32, times: &[u64]) -> Vec<Walk> {
        let mut walks = handshake();
        walks.push(sent(data(CLIENT, SERVER, 1001, 200), 2));
        walks.push(acknowledged(ACK, 1201, 3));
        walks.extend(
            times
                .iter()
                .map(|ms| sent(data(CLIENT, SERVER, 1201, payload), *ms)),
        );
        walks
    }

    const BACKED_OFF: [u64; 4] = [4, 210, 620, 1430];

    #[test]
    fn large_segments_are_lost_and_small_ones_arrive() {
        let exchange = exchange(transfer(1398, &BACKED_OFF));
        let conclusion = exchange.conclusion(&places);
        assert_eq!(conclusion.outcome, Outcome::Unanswered);
        assert_eq!(
            conclusion.text,
            "segments of 1450 bytes from 10.244.1.5:41234 to 10.244.2.9:8443 left alpha by eth0 4 times and were never \
             acknowledged, while packets of up to 252 bytes were: likely a path MTU black hole"
        );
        assert_eq!(
            conclusion.fixes[0].to_string(),
            "ping -c1 -M do -s 1422 10.244.2.9  # no answer at this size: repeat with smaller ones to find the path MTU"
        );
    }

    /// What left as one packet of many segments comes back as single segments.
    #[test]
    fn a_large_packet_is_sent_again_in_segments() {
        let mut walks = transfer(1398, &BACKED_OFF[1..]);
        let whole = sent(data(CLIENT, SERVER, 1201, 13_980), 4).with(|event| event.segments = 10);
        // `with` is for what comes next: the event itself is made again.
        let whole = whole.events().into_iter().map(|event| super::super::Event {
            segments: 10,
            ..event
        });
        let mut exchanges = super::super::Exchanges::default();
        let mut events: Vec<_> = walks.drain(..).flat_map(Walk::events).chain(whole).collect();
        events.sort_by_key(|event| event.time_ns);
        events.into_iter().for_each(|event| exchanges.push(event));
        let exchange = exchanges.rest().remove(0);
        let hole = exchange.black_hole().unwrap();
        assert_eq!((hole.lost, hole.passed, hole.sent), (1450, 252, 4));
    }

    #[test]
    fn what_is_no_black_hole() {
        let later = |walks: Vec<Walk>, more: Vec<Walk>| [walks, more].concat();
        let same_size = vec![
            sent(data(CLIENT, SERVER, 1201, 1398), 4),
            acknowledged(ACK, 2599, 5),
            sent(data(CLIENT, SERVER, 2599, 1398), 6),
            sent(data(CLIENT, SERVER, 2599, 1398), 210),
            sent(data(CLIENT, SERVER, 2599, 1398), 620),
        ];
        let cases = [
            ("sent twice only", transfer(1398, &BACKED_OFF[..2])),
            ("small ones are lost as well", transfer(300, &BACKED_OFF)),
            (
                "acknowledged in the end",
                later(transfer(1398, &BACKED_OFF), vec![acknowledged(ACK, 2599, 1440)]),
            ),
            (
                "acknowledged in part: the peer has it",
                later(transfer(1398, &BACKED_OFF), vec![acknowledged(ACK, 1701, 1440)]),
            ),
            (
                "as large a one arrived before",
                later(transfer(200, &[]), same_size),
            ),
            (
                "nothing was ever acknowledged",
                BACKED_OFF
                    .map(|ms| sent(data(CLIENT, SERVER, 1201, 1398), ms))
                    .to_vec(),
            ),
        ];
        for (name, walks) in cases {
            assert_eq!(exchange(walks).black_hole(), None, "{name}");
        }
    }

    /// A packet that this machine drops is not lost behind it.
    #[test]
    fn what_is_dropped_here() {
        let mut walks = transfer(1398, &BACKED_OFF[..3]);
        let drop = super::super::samples::dropped("PKT_TOO_BIG", "ip_forward");
        walks.push(sent(data(CLIENT, SERVER, 1201, 1398), 1430).meets(drop));
        assert_eq!(exchange(walks).black_hole(), None);
    }

    /// The exchange is kept while retransmissions are on their way.
    #[test]
    fn waiting_for_retransmissions() {
        assert!(exchange(transfer(1398, &BACKED_OFF[..2])).is_sending_again());
        assert!(!exchange(transfer(1398, &BACKED_OFF[..1])).is_sending_again());
        assert!(!exchange(transfer(200, &BACKED_OFF)).is_sending_again());
    }
}
