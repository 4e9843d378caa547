//! The end, for people.

use super::{
    super::{clock::Clock, snapshot::safe},
    Lost, Totals,
};
use crate::model::plural::counted;

/// How many, how they ended, and what was lost if anything was.
pub fn push(out: &mut Vec<u8>, clock: &mut Clock, totals: &Totals) {
    let mut text = format!(
        "{} of {}, {} to {}, {}\n",
        counted(totals.exchanges, "exchange", "exchanges"),
        counted(totals.packets, "packet", "packets"),
        clock.date(totals.started),
        clock.date(totals.ended),
        safe(&totals.watched),
    );
    for (outcome, count) in totals.outcomes.iter().filter(|(_, count)| *count > 0) {
        text.push_str(&format!("  {count} {}\n", outcome.name()));
    }
    if totals.exchanges == 0 {
        text.push_str("No packet matched the filter: send a request during the run, run longer, or use fewer filters.\n");
    }
    let lost = losses(totals.lost);
    if lost.iter().any(|(count, _)| *count > 0) {
        text.push_str("Lost:\n");
    }
    for (count, what) in lost.into_iter().filter(|(count, _)| *count > 0) {
        text.push_str(&format!("  {count} {what}\n"));
    }
    out.extend_from_slice(text.as_bytes());
}

fn losses(lost: Lost) -> [(u64, &'static str); 5] {
    let Lost {
        ring,
        budget,
        flows,
        skipped,
        malformed,
    } = lost;
    [
        (ring, "points of packets lost (faster than they could be read)"),
        (budget, "points of packets beyond the limit per second"),
        (flows, "flows and packets not followed (table full)"),
        (skipped, "runs of programs that the kernel skipped"),
        (malformed, "points of packets that could not be read"),
    ]
}
