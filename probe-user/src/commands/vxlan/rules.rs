//! Which rule drops packets: looked up in the rule book when a finding needs it.

use std::{collections::HashSet, mem::take, net::IpAddr, sync::Arc, time::Duration};

use crate::{
    commands::rule_book::{RuleBook, RuleSnapshot},
    model::{
        rule::{Action, CandidateRule},
        vxlan::{
            finding::{Diagnosed, FilteredPackets},
            traffic::Direction,
        },
    },
    netfilter::rules::{Packet, PathPosition},
};

/// How old may be what is known of them.
const EVERY: Duration = Duration::from_secs(2);
const UDP: u8 = 17;

/// Packets that one rule drops.
type Identity = (Direction, IpAddr, IpAddr, u16);

#[derive(Debug)]
pub struct Rules {
    book: RuleBook,
    latest: Option<Arc<RuleSnapshot>>,
    /// Those for which a rule was named in the snapshot before.
    named: HashSet<Identity>,
}

impl Rules {
    pub fn new(book: RuleBook) -> Self {
        Self {
            book,
            latest: None,
            named: HashSet::new(),
        }
    }

    /// Names the rules in findings of filtered packets, and takes away those whose rule has gone since.
    pub fn explain(&mut self, findings: &mut Vec<Diagnosed>) {
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
            finding.explain(rules) && !gone
        });
    }

    /// The rules that may drop these packets, and when they were read.
    fn candidates(&mut self, packets: &FilteredPackets) -> (Vec<CandidateRule>, u64) {
        let snapshot = self.latest.insert(self.book.within(EVERY));
        let flow = packets.rule_flow();
        let (input, output) = match packets.direction {
            Direction::In => (packets.underlay.clone(), None),
            Direction::Out => (None, packets.underlay.clone()),
        };
        let packet = Packet {
            path: flow.path,
            protocol: UDP,
            source: packets.source,
            destination: packets.destination,
            source_port: None,
            destination_port: flow.destination_port,
            input,
            output,
            is_new: false,
            position: PathPosition::Anywhere,
        };
        let candidates = snapshot.decisive(&packet, &[Action::Drop, Action::Reject]);
        (candidates, snapshot.read_ns)
    }

    /// What could not be read.
    pub fn unread(&self) -> Vec<String> {
        self.latest
            .as_ref()
            .map(|latest| latest.unread())
            .unwrap_or_default()
    }
}
