//! Whether an answer comes from whom the client asked: what a translation on the way there needs is its reverse on the way back.

use std::net::SocketAddr;

use super::{
    conclusion::{Conclusion, Outcome, Places},
    event::{Tracking, What},
    exchange::Exchange,
    journey::{Journey, JourneyEnd},
    reason::Fate,
};
use crate::finding::Fix;

/// An answer that was not translated back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Misaddressed {
    /// The network namespace that translated the request.
    pub translated_in: u32,
    pub lack: Lack,
    /// How far it passed the network namespace that translated the request.
    pub passage: Passage,
}

/// What its translation lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lack {
    /// Its source is the server's, not what was dialled.
    Source {
        dialled: SocketAddr,
        came_from: SocketAddr,
    },
    /// Its destination is the address that the request was given on its way, not the client's.
    Destination { client: SocketAddr, went_to: SocketAddr },
}

/// How a packet passed a network namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Passage {
    /// It did not.
    None,
    /// From one port of a bridge to another, and nothing more: indices of the devices.
    Bridged {
        from: u32,
        to: u32,
    },
    Routed,
}

/// The bridge that an answer passed, and whether it hands packets to the packet filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BridgeFiltering {
    pub bridge: String,
    /// `net.bridge.bridge-nf-call-iptables`, or of IPv6's; `None`: br_netfilter is not loaded.
    pub setting: Option<bool>,
}

impl Exchange {
    /// What was not translated back in a reply that reached its client, or the place of the request's translation.
    pub fn misaddressed(&self) -> Option<Misaddressed> {
        let (request, reply) = (self.request()?, self.reply()?);
        let first = request.hops.first()?;
        let end = reply.end();
        let last = reply.hops.get(end.hop())?;
        let packets = || request.hops.iter().zip(request.hops.iter().skip(1));
        let destination = packets()
            .find(|(one, other)| one.event.packet.destination != other.event.packet.destination)
            .map(|(_, hop)| hop.event.netns);
        let (dialled, came_from) = (first.event.packet.destination, last.event.packet.source);
        let is_at_client = |translated_in| {
            let (begins, ends) = (first.event.netns, last.event.netns);
            // Where the client's own host translates, it does so between the device and the socket.
            let is_back = begins == ends && (translated_in != begins || shows_the_end(reply, end));
            // Followed from the node on that translates, and not from the client: it is as the client gets it when it has left the node.
            let has_left = begins == translated_in
                && ends != translated_in
                && reply.hops.iter().any(|hop| hop.event.netns == translated_in);
            is_back || has_left
        };
        if let Some(translated_in) = destination
            && dialled != came_from
            && is_at_client(translated_in)
        {
            return Some(Misaddressed {
                translated_in,
                lack: Lack::Source { dialled, came_from },
                passage: passage(reply, translated_in),
            });
        }
        let source = packets()
            .find(|(one, other)| one.event.packet.source != other.event.packet.source)
            .map(|(_, hop)| hop.event.netns);
        let (client, went_to) = (first.event.packet.source, last.event.packet.destination);
        let found_nobody =
            matches!(end, JourneyEnd::Dropped(at) if matches!(reply.fate(at), Some(Fate::NoSocket)));
        if let Some(translated_in) = source
            && found_nobody
            && last.event.netns == translated_in
            && translated_in != first.event.netns
            && client != went_to
        {
            return Some(Misaddressed {
                translated_in,
                lack: Lack::Destination { client, went_to },
                passage: passage(reply, translated_in),
            });
        }
        None
    }

    /// What is said of it, after what became of the request.
    pub(super) fn untranslated_answer(&self, there: &str, places: Places<'_>) -> Option<Conclusion> {
        let found = self.misaddressed()?;
        let place = places(found.translated_in);
        let what = match found.lack {
            Lack::Source { dialled, came_from } => {
                format!("its reply came back as from {came_from}, not from {dialled}, which was dialled")
            }
            Lack::Destination { client, went_to } => {
                format!(
                    "its reply came back to {went_to} in {place}, and was not translated back to {client}"
                )
            }
        };
        let (why, fixes) = self.why_untranslated(&found, &place);
        Some(Conclusion {
            outcome: Outcome::Untranslated,
            text: format!("{there}, but {what}: {why}"),
            fixes,
        })
    }

    fn why_untranslated(&self, found: &Misaddressed, place: &str) -> (String, Vec<Fix>) {
        let v6 = self
            .reply()
            .and_then(Journey::packet)
            .is_some_and(|packet| packet.source.is_ipv6());
        let setting = if v6 {
            "net.bridge.bridge-nf-call-ip6tables"
        } else {
            "net.bridge.bridge-nf-call-iptables"
        };
        let load = || {
            Fix::run(
                ["modprobe", "br_netfilter"],
                "permanently by a file in /etc/modules-load.d",
            )
        };
        let set = || {
            Fix::run(
                ["sysctl".to_owned(), "-w".to_owned(), format!("{setting}=1")],
                "permanently by a file in /etc/sysctl.d",
            )
        };
        let zone = self
            .zone
            .as_ref()
            .filter(|zone| zone.netns == found.translated_in);
        if let (Passage::Routed, Some(zone)) = (found.passage, zone) {
            return (zone.words(place), zone.fixes());
        }
        match (found.passage, &self.bridge) {
            (Passage::None, _) => (
                format!("it did not pass {place}, which translated the request"),
                vec![Fix::text(format!(
                    "Have replies return through {place}, or have it masquerade such requests (a hairpin, or direct server \
                     return)."
                ))],
            ),
            (
                Passage::Bridged { .. },
                Some(BridgeFiltering {
                    bridge,
                    setting: Some(false),
                }),
            ) => (
                format!("bridge {bridge} in {place} forwarded it without conntrack: {setting} is 0"),
                vec![set()],
            ),
            (
                Passage::Bridged { .. },
                Some(BridgeFiltering {
                    bridge,
                    setting: None,
                }),
            ) => (
                format!(
                    "bridge {bridge} in {place} forwarded it without conntrack: br_netfilter is not loaded"
                ),
                vec![load(), set()],
            ),
            (Passage::Bridged { .. }, _) => (
                format!("a bridge in {place} forwarded it, and conntrack did not translate it back there"),
                Vec::new(),
            ),
            (Passage::Routed, _) => (
                format!(
                    "conntrack in {place} has no entry for it: the entry expired, or is in another zone \
                     (iptables: CT --zone; nft: ct zone)"
                ),
                Vec::new(),
            ),
        }
    }
}

/// Whether the end of a journey shows its addresses as a socket, or the wire, sees them.
fn shows_the_end(journey: &Journey, end: JourneyEnd) -> bool {
    match end {
        JourneyEnd::Delivered(at) => journey
            .hops
            .get(at)
            .is_some_and(|hop| hop.event.what == What::Socket),
        JourneyEnd::Dropped(at) => journey.fate(at) == Some(Fate::NoSocket),
        JourneyEnd::Left(_) => true,
        JourneyEnd::Arrived(_) => false,
    }
}

fn passage(journey: &Journey, netns: u32) -> Passage {
    let hops: Vec<_> = journey
        .hops
        .iter()
        .filter(|hop| hop.event.netns == netns)
        .collect();
    let index = |hop: &&super::journey::Hop| hop.event.device.as_ref().map_or(0, |device| device.index);
    match hops.as_slice() {
        [] => Passage::None,
        [first, .., last]
            if first.event.what == What::Received
                && last.event.what == What::Sent
                // A router takes one off.
                && first.event.packet.ttl == last.event.packet.ttl
                && hops.iter().all(|hop| {
                    hop.event.tracking == Tracking::None
                        && matches!(hop.event.what, What::Received | What::Sent)
                })
                && hops.iter().filter(|hop| hop.event.what == What::Received).count() == 1 =>
        {
            Passage::Bridged {
                from: index(first),
                to: index(last),
            }
        }
        _ => Passage::Routed,
    }
}

#[cfg(test)]
#[path = "answer_tests.rs"]
mod tests;
