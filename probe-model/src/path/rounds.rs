//! Packets that go in circles: the same points again and again, with a TTL that gets less.

use serde::Serialize;

use super::{
    event::{Event, What},
    journey::{Hop, Journey},
};

/// As many rounds make a loop.
const LEAST: usize = 3;
/// Points of one round.
const LONGEST: usize = 48;

/// The loop of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(
    feature = "schema",
    derive(schemars::JsonSchema),
    schemars(rename = "PathRounds")
)]
pub struct Rounds {
    /// The index of the first of `hops` in a round.
    pub first: usize,
    /// Points of a round.
    pub points: usize,
    /// How often it went round.
    pub times: usize,
}

impl Rounds {
    /// The network namespaces and devices of one round, in their order.
    pub fn devices<'a>(&self, journey: &'a Journey) -> Vec<(u32, &'a str)> {
        let mut devices: Vec<(u32, &str)> = Vec::new();
        for hop in journey.hops.iter().skip(self.first).take(self.points) {
            let here = (hop.event.netns, hop.device());
            if !here.1.is_empty() && !devices.contains(&here) {
                devices.push(here);
            }
        }
        devices
    }
}

impl Journey {
    /// Keeps the first round of a loop, and counts the others.
    pub(super) fn fold(&mut self) {
        while let Some(found) = find(&self.hops) {
            self.hops
                .drain(found.first + found.points..found.first + found.points * found.times);
            match &mut self.rounds {
                Some(known) if (known.first, known.points) == (found.first, found.points) => {
                    known.times += found.times - 1;
                }
                _ => self.rounds = Some(found),
            }
        }
    }
}

/// The first loop, by its shortest round.
fn find(hops: &[Hop]) -> Option<Rounds> {
    (0..hops.len()).find_map(|first| {
        let rest = hops.get(first..)?;
        let most = (rest.len() / LEAST).min(LONGEST);
        (2..=most).find_map(|points| {
            let times = 1
                + (1..rest.len() / points)
                    .take_while(|round| {
                        (0..points).all(|at| {
                            let (before, after) =
                                (rest.get((round - 1) * points + at), rest.get(round * points + at));
                            before
                                .zip(after)
                                .is_some_and(|(before, after)| is_round(&before.event, &after.event))
                        })
                    })
                    .count();
            (times >= LEAST).then_some(Rounds { first, points, times })
        })
    })
}

/// Whether it is at the same point once more. Segments of a packet pass the same points as well: they have memory of their own.
fn is_round(before: &Event, after: &Event) -> bool {
    let is_same_packet = before.skb == after.skb && before.packet.tcp == after.packet.tcp;
    before.netns == after.netns
        && before.device == after.device
        && before.what == after.what
        && !matches!(before.what, What::Dropped { .. } | What::Consumed)
        && (after.packet.ttl < before.packet.ttl || after.packet.ttl == before.packet.ttl && is_same_packet)
}

#[cfg(test)]
mod tests {
    use super::{
        super::{
            JourneyEnd,
            samples::{ACK, SYN, Walk, data, dropped, exchange, tcp},
        },
        *,
    };

    const CLIENT: &str = "10.244.1.5:41234";
    const SERVER: &str = "10.244.2.9:8443";

    /// Two devices, round after round.
    fn circles(rounds: u8, ttl: impl Fn(u8) -> u8, skb: impl Fn(u8) -> u64) -> Walk {
        (0..rounds).fold(Walk::request(tcp(CLIENT, SERVER, SYN), 0), |walk, round| {
            walk.with(|event| {
                event.packet.ttl = ttl(round);
                event.skb = skb(round);
            })
            .at(1, "flannel.1")
            .meets(What::Sent)
            .by(1, "nat0")
            .meets(What::Received)
        })
    }

    fn folded(walk: Walk) -> Journey {
        exchange([walk]).journeys.remove(0)
    }

    #[test]
    fn loops_are_folded() {
        let journey =
            folded(circles(31, |round| 63 - 2 * round, |_| 7).meets(dropped("IP_INHDR", "ip_forward")));
        let rounds = journey.rounds.unwrap();
        assert_eq!((rounds.first, rounds.points, rounds.times), (0, 2, 31));
        assert_eq!((journey.hops.len(), journey.left_out), (3, 0));
        assert_eq!(journey.end(), JourneyEnd::Dropped(2));
        assert_eq!(rounds.devices(&journey), [(1, "flannel.1"), (1, "nat0")]);
        // More points than are kept, and still the end is known.
        let long = folded(circles(120, |round| 255 - round, |_| 7).meets(dropped("IP_INHDR", "ip_forward")));
        assert_eq!((long.hops.len(), long.left_out), (3, 0));
        assert_eq!(long.rounds.unwrap().times, 120);
        assert!(matches!(long.end(), JourneyEnd::Dropped(2)));
        // A loop of bridges takes no TTL.
        assert!(folded(circles(5, |_| 64, |_| 7)).rounds.is_some());
        // Twice is no loop, and copies with memory of their own are none.
        assert!(folded(circles(2, |round| 64 - round, |_| 7)).rounds.is_none());
        assert!(folded(circles(5, |_| 64, u64::from)).rounds.is_none());
    }

    #[test]
    fn segments_are_no_loop() {
        let large = Walk::request(data(CLIENT, SERVER, 0, 5000), 0)
            .at(101, "")
            .meets(What::Output);
        let segments = (0..5).map(|at| {
            Walk::request(data(CLIENT, SERVER, at * 1000, 1000), u64::from(at) * 30 + 50)
                .with(|event| {
                    event.packet.tcp = event
                        .packet
                        .tcp
                        .map(|tcp| super::super::event::Tcp { flags: ACK, ..tcp });
                })
                .at(101, "eth0")
                .meets(What::Sent)
                .by(1, "veth")
                .meets(What::Received)
        });
        let exchange = exchange([large].into_iter().chain(segments));
        assert!(exchange.journeys.iter().all(|journey| journey.rounds.is_none()));
    }
}
