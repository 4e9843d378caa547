//! Packets that call for an answer and get none.

use std::{collections::HashMap, net::IpAddr, time::Duration};

use super::{Observation, belongs};
use crate::probe_command;
use crate::{
    finding::Fix,
    plural::counted,
    vxlan::{finding::Fault, traffic::Direction},
};

/// So many questions without any answer, for so long, are more than a slow start.
pub const UNANSWERED: u64 = 3;
const UNANSWERED_FOR: Duration = Duration::from_secs(2);

/// What was asked of a peer since it last answered.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Questions {
    pub(super) answers: u64,
    /// Asked by then.
    pub(super) base: u64,
    pub(super) asked: u64,
    /// TCP segments from it that acknowledge something, at that time and currently.
    pub(super) acks_before: u64,
    pub(super) acks: u64,
    /// The first that is unanswered, `CLOCK_MONOTONIC` nanoseconds.
    pub(super) first_ns: Option<u64>,
}

impl Observation<'_> {
    /// Packets without an answer, if no other finding explains it.
    pub(super) fn unanswered(&mut self, questions: &HashMap<(u16, IpAddr), Questions>) {
        let mut silent: Vec<_> = questions
            .iter()
            .filter_map(|((port, peer), questions)| {
                let waited = self.traffic.now_ns.saturating_sub(questions.first_ns?);
                let unanswered = questions.asked - questions.base;
                // A peer that acknowledges gets this node's packets; single ones may be retransmissions. That it
                // asks, or sends datagrams, says nothing.
                let acks = questions.acks - questions.acks_before;
                let enough = unanswered >= UNANSWERED
                    && acks <= unanswered
                    && Duration::from_nanos(waited) >= UNANSWERED_FOR;
                enough.then_some((*peer, *port, *questions, unanswered, waited))
            })
            .collect();
        silent.sort_unstable_by_key(|(peer, port, ..)| (*peer, *port));
        for (peer, port, questions, unanswered, waited) in silent {
            let overlays = self.overlays;
            let mut sent = self.traffic.streams.iter().filter(|(stream, count)| {
                stream.peer == peer
                    && stream.port == port
                    && stream.direction == Direction::Out
                    && self.holds(count.last_ns)
            });
            let Some((overlay, stream)) = sent.find_map(|(stream, _)| {
                Some((overlays.iter().find(|overlay| belongs(overlay, stream))?, *stream))
            }) else {
                continue;
            };
            if self.findings.iter().any(|finding| finding.peer == Some(peer)) {
                continue;
            }
            let name = &overlay.device.name;
            let ever = if questions.answers == 0 {
                "no answer"
            } else {
                "no answer since"
            };
            let what = format!(
                "{peer} does not answer: {name} sends to its UDP port {}, and receives nothing back.",
                stream.port
            );
            let mut evidence = vec![
                format!(
                    "{unanswered} packets that call for an answer (SYN, ping, DNS) sent in {:.1} s, {ever} received",
                    Duration::from_nanos(waited).as_secs_f64()
                ),
                format!(
                    "entries complete for {peer}; of VXLAN packets from or to it none was seen dropped, none refused by ICMP"
                ),
            ];
            if self.reverse_path_drops > 0 {
                evidence.push(format!(
                    "this node's reverse path filter (rp_filter) dropped {} in this time: replies that \
                     bypass the overlay are dropped by it",
                    counted(self.reverse_path_drops, "packet", "packets")
                ));
            }
            let (filters, _) = self.filters(overlay, |_| true);
            evidence.extend(
                filters
                    .into_iter()
                    .map(|filter| format!("not ruled out: {filter}")),
            );
            let fixes = [
                probe_command::vxlan(&format!("on {peer}: shows a rule there")),
                Fix::text(format!(
                    "If nothing arrives there, a filter between the nodes (security group, switch) drops UDP port {}.",
                    stream.port
                )),
            ];
            let finding = self.find(Fault::NoAnswer, overlay, Some(peer), what, evidence, fixes);
            finding.certain = false;
        }
    }
}
