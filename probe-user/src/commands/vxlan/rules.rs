//! Which rule drops packets: read when it is asked for, and again after a while.

use std::{
    collections::HashSet,
    mem::take,
    net::IpAddr,
    time::{Duration, Instant},
};

use crate::{
    commands::periodic::now_ns,
    model::vxlan::{
        finding::{Diagnosed, DropRule, FilteredPackets},
        traffic::Direction,
    },
    netfilter::rules::{self, Action, Packet, Path},
};

/// Reading takes some 100 ms of other tools' time.
const EVERY: Duration = Duration::from_secs(2);
const UDP: u8 = 17;

/// Rules as they were, read after that moment.
#[derive(Debug)]
struct Read {
    at: Instant,
    /// The same by the clock of the counts, `CLOCK_MONOTONIC` nanoseconds.
    at_ns: u64,
    rules: rules::Rules,
}

/// Packets that one rule drops.
type Identity = (Direction, IpAddr, IpAddr, u16);

#[derive(Debug, Default)]
pub struct Rules {
    read: Option<Read>,
    /// Those for which a rule was named at the last look.
    named: HashSet<Identity>,
}

impl Rules {
    /// Names the rules to blame in findings of filtered packets, and takes away those whose rule has gone since.
    pub fn blame(&mut self, findings: &mut Vec<Diagnosed>) {
        let before = take(&mut self.named);
        findings.retain_mut(|finding| {
            let Some(packets) = finding.filtered.clone() else {
                return true;
            };
            let identity = (
                packets.direction,
                packets.source,
                packets.destination,
                packets.port,
            );
            let (rules, read_ns) = self.candidates(&packets);
            let gone = rules.is_empty() && before.contains(&identity) && packets.latest_ns <= read_ns;
            if gone || !rules.is_empty() {
                self.named.insert(identity);
            }
            finding.blame(&rules) && !gone
        });
    }

    /// The rules that may drop these packets, and when they were read.
    fn candidates(&mut self, packets: &FilteredPackets) -> (Vec<DropRule>, u64) {
        let fresh = self.read.take().filter(|read| read.at.elapsed() < EVERY);
        let read = self.read.insert(fresh.unwrap_or_else(|| Read {
            at: Instant::now(),
            at_ns: now_ns(),
            rules: rules::Rules::read(),
        }));
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
        let suspects = read
            .rules
            .suspects(&packet, &[Action::Drop, Action::Reject])
            .into_iter()
            // A rule whose counter is zero dropped nothing.
            .filter(|suspect| suspect.packets != Some(0))
            .map(|suspect| DropRule {
                rule: suspect.to_string(),
                packets: suspect.packets,
                certain: suspect.certain,
                rejects: suspect.action == Action::Reject,
            });
        (suspects.collect(), read.at_ns)
    }

    /// What could not be read.
    pub fn unread(&self) -> &[String] {
        self.read.as_ref().map_or(&[], |read| read.rules.unread())
    }
}
