//! Which rule drops packets: read when it is asked for, and again after a while.

use std::time::{Duration, Instant};

use crate::{
    model::vxlan::{
        finding::{Culprit, FilteredPackets},
        traffic::Direction,
    },
    netfilter::rules::{self, Action, Packet, Path},
};

/// Reading takes some 100 ms of other tools' time.
const EVERY: Duration = Duration::from_secs(2);
const UDP: u8 = 17;

#[derive(Debug, Default)]
pub struct Rules {
    read: Option<(Instant, rules::Rules)>,
}

impl Rules {
    /// The rules that may drop these packets.
    pub fn culprits(&mut self, packets: &FilteredPackets) -> Vec<Culprit> {
        let fresh = self.read.take().filter(|(at, _)| at.elapsed() < EVERY);
        let (_, rules) = self
            .read
            .insert(fresh.unwrap_or_else(|| (Instant::now(), rules::Rules::read())));
        let (path, input, output) = match packets.direction {
            Direction::In => (Path::In, packets.underlay.clone(), None),
            Direction::Out => (Path::Out, None, packets.underlay.clone()),
        };
        let packet = Packet {
            path,
            protocol: UDP,
            source: packets.source,
            destination: packets.destination,
            // VXLAN's source port is a hash of what is inside.
            source_port: None,
            destination_port: Some(packets.port),
            input,
            output,
        };
        let suspects = rules.suspects(&packet, &[Action::Drop, Action::Reject]);
        suspects
            .into_iter()
            // A counter at zero is an alibi.
            .filter(|suspect| suspect.packets != Some(0))
            .map(|suspect| Culprit {
                rule: suspect.to_string(),
                packets: suspect.packets,
                certain: suspect.certain,
                rejects: suspect.action == Action::Reject,
            })
            .collect()
    }

    /// What could not be read.
    pub fn unread(&self) -> &[String] {
        self.read.as_ref().map_or(&[], |(_, rules)| rules.unread())
    }
}
