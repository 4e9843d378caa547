//! Whether conntrack translated the request that a reply belongs to: then the reply is not translated back.

use std::{collections::HashMap, net::SocketAddr};

use crate::{
    model::{
        bypass::{
            service::Services,
            stream::{Server, UntrackedCount, UntrackedStream},
        },
        translation::ConntrackEntry,
    },
    netfilter::conntrack::Conntrack,
};

const TCP: u8 = 6;
/// Lookups per snapshot; each takes some microseconds.
const LOOKUPS: usize = 512;

/// Answers so far, each for a number of packets.
pub struct Replies {
    /// `None` where conntrack can't be asked: then streams are judged by what else is seen.
    conntrack: Option<Conntrack>,
    known: HashMap<UntrackedStream, (u64, Translated)>,
}

/// What conntrack has of a reply's connection.
#[derive(Clone, Copy, Debug, Default)]
pub struct Translated {
    /// Whether it translated the request; `None` where that does not matter, or can't be known.
    pub is_translated: Option<bool>,
    /// The address that was dialled, of a translated one.
    pub dialled: Option<SocketAddr>,
}

impl Replies {
    /// Of the calling thread's network namespace.
    pub fn new() -> Self {
        Self {
            conntrack: Conntrack::open(None).ok(),
            known: HashMap::new(),
        }
    }

    /// For each stream, whether the latest packet's connection is translated here.
    pub fn translated(
        &mut self,
        streams: &[(UntrackedStream, UntrackedCount)],
        services: &Services,
    ) -> Vec<Translated> {
        let mut left = LOOKUPS;
        let mut known = HashMap::new();
        let answers = streams
            .iter()
            .map(|(stream, count)| {
                if stream.protocol != TCP
                    || stream.server != Server::Source
                    || services.of_endpoint(TCP, stream.source, stream.port).is_none()
                {
                    return Translated::default();
                }
                let before = self.known.get(stream).copied();
                let answer = match before.filter(|(packets, _)| *packets == count.packets) {
                    Some((_, answer)) => answer,
                    None if left == 0 => return Translated::default(),
                    None => {
                        left -= 1;
                        self.ask(stream, count)
                    }
                };
                known.insert(*stream, (count.packets, answer));
                answer
            })
            .collect();
        self.known = known;
        answers
    }

    fn ask(&mut self, stream: &UntrackedStream, count: &UntrackedCount) -> Translated {
        let server = SocketAddr::new(stream.source, stream.port);
        let client = SocketAddr::new(stream.destination, count.other_port);
        let Some(conntrack) = &mut self.conntrack else {
            return Translated::default();
        };
        match conntrack.lookup_reply(server, client) {
            Ok(entry) => {
                let translated = entry.filter(ConntrackEntry::is_translated);
                Translated {
                    is_translated: Some(translated.is_some()),
                    dialled: translated.map(|entry| entry.dialled),
                }
            }
            Err(_) => {
                self.conntrack = None;
                Translated::default()
            }
        }
    }
}
