//! `-o table`: one line a record, columns that stay where they are.

use super::{clock::Clock, escape, style, text, tls, who};
use crate::model::{Connection, Role};

/// The width where the output is no terminal.
pub const DEFAULT_WIDTH: usize = 140;
/// Below, the owner's column would say nothing; lines then run over.
const LEAST_WHO: usize = 14;
/// More is left empty, so that a line stays readable.
const MOST_WHO: usize = 64;

/// Where the columns start, chosen once from the terminal's width.
#[derive(Debug)]
pub struct Columns {
    /// From 120 columns on: milliseconds, and roles in full.
    long: bool,
    /// From 140 columns on: the spread of a cadence.
    spread: bool,
    /// From 160 columns on: bytes and duration.
    traffic: bool,
    /// Where the node's name is, and its room, where records of several are shown.
    node: Option<(usize, usize)>,
    outcome: usize,
    role: usize,
    who: usize,
    source: usize,
    destination: usize,
    sent: usize,
    every: usize,
}

/// Columns for a cause, on a line of its own that may run over.
const CAUSE: usize = 600;
/// Columns for what TLS says, likewise.
const TLS: usize = 400;
/// Columns for each of SENT, RECEIVED and TOOK: `999.9 kB`, right-aligned.
const NUMBER: usize = 8;

impl Columns {
    pub fn new(width: usize) -> Self {
        let (long, spread, traffic) = (width >= 120, width >= 140, width >= 160);
        // An address and port take 21 columns at most in IPv4, fewer in nearly all clusters, and a server's
        // port is short. What is longer pushes the rest to the right as far as it must: it is never cut.
        let (client, server) = if spread { (21, 21) } else { (19, 18) };
        let every_room = if spread { 18 } else { 12 };
        let outcome = if long { 13 } else { 9 };
        let role = outcome + 16;
        let who = role + if long { 7 } else { 4 };
        let numbers = if traffic { 3 * (NUMBER + 1) } else { 0 };
        let gap = if spread { 2 } else { 1 };
        let others = who + 1 + client + 3 + server + numbers + gap + every_room;
        let source = who + width.saturating_sub(others).clamp(LEAST_WHO, MOST_WHO) + 1;
        let destination = source + client + 3;
        let sent = destination + server;
        Self {
            long,
            spread,
            traffic,
            node: None,
            outcome,
            role,
            who,
            source,
            destination,
            sent,
            every: sent + numbers + gap,
        }
    }

    /// The same with a column for the node, of `room` columns.
    pub fn with_node(width: usize, room: usize) -> Self {
        let taken = room + 1;
        let others = Self::new(width.saturating_sub(taken));
        Self {
            node: Some((others.outcome, room)),
            outcome: others.outcome + taken,
            role: others.role + taken,
            who: others.who + taken,
            source: others.source + taken,
            destination: others.destination + taken,
            sent: others.sent + taken,
            every: others.every + taken,
            ..others
        }
    }

    pub fn header(&self, out: &mut Vec<u8>, colour: bool) {
        style::styled(out, colour, style::HEADER, |out| {
            let mut line = LineBuilder { out, column: 0 };
            line.cell(0, |out| text::ascii(out, "TIME"));
            if let Some((start, _)) = self.node {
                line.cell(start, |out| text::ascii(out, "NODE"));
            }
            line.cell(self.outcome, |out| text::ascii(out, "OUTCOME"));
            line.cell(self.role, |out| {
                text::ascii(out, if self.long { "ROLE" } else { "END" })
            });
            line.cell(self.who, |out| text::ascii(out, "WHO"));
            line.cell(self.source, |out| text::ascii(out, "SOURCE"));
            line.cell(self.destination, |out| text::ascii(out, "DESTINATION"));
            if self.traffic {
                for (index, name) in ["SENT", "RECEIVED", "TOOK"].into_iter().enumerate() {
                    line.cell(self.number(index) + NUMBER - name.len(), |out| {
                        text::ascii(out, name)
                    });
                }
            }
            line.cell(self.every, |out| text::ascii(out, "EVERY"));
            line.column
        });
        out.push(b'\n');
    }

    /// The start of SENT, RECEIVED or TOOK.
    const fn number(&self, index: usize) -> usize {
        self.sent + 1 + index * (NUMBER + 1)
    }

    pub fn line(
        &self,
        out: &mut Vec<u8>,
        clock: &mut Clock,
        colour: bool,
        node: Option<&str>,
        connection: &Connection,
    ) {
        let mut line = LineBuilder { out, column: 0 };
        line.cell(0, |out| {
            style::styled(out, colour, style::TIME, |out| {
                clock.local(out, connection.time, self.long)
            })
        });
        if let Some((start, room)) = self.node {
            line.cell(start, |out| escape::push(out, node.unwrap_or("?"), room));
        }
        line.cell(self.outcome, |out| {
            style::outcome(out, colour, connection.outcome)
        });
        line.cell(self.role, |out| {
            text::ascii(out, role(connection.role, self.long))
        });
        let room = self.source - self.who - 1;
        line.cell(self.who, |out| {
            who::push(
                out,
                connection.role,
                connection.actor(),
                connection.server(),
                room,
            )
        });
        line.cell(self.source, |out| text::end(out, connection.source));
        line.arrow(self.destination);
        line.cell(self.destination, |out| text::end(out, connection.destination));
        if self.traffic {
            let payload = connection.payload;
            line.right(self.number(0), |out| {
                amount(out, payload.map(|payload| payload.sent))
            });
            line.right(self.number(1), |out| {
                amount(out, payload.map(|payload| payload.received))
            });
            line.right(self.number(2), |out| text::duration(out, connection.duration));
        }
        if let Some(cadence) = connection.cadence.filter(|cadence| cadence.count > 1) {
            line.cell(self.every, |out| text::cadence(out, &cadence, self.spread));
        }
        line.out.push(b'\n');
        if let Some(said) = &connection.tls {
            text::spaces(out, self.outcome);
            text::ascii(out, "tls: ");
            escape::push(out, &tls::text(said), TLS);
            out.push(b'\n');
        }
        if let Some(cause) = &connection.cause {
            text::spaces(out, self.outcome);
            text::ascii(out, "cause: ");
            escape::push(out, &cause.what, CAUSE);
            out.push(b'\n');
        }
    }
}

/// The side that the record describes.
fn role(role: Role, long: bool) -> &'static str {
    match role {
        Role::Client if long => role.name(),
        Role::Server if long => role.name(),
        Role::Client => "cli",
        Role::Server => "srv",
    }
}

/// Payload bytes; `-` while they are not known.
fn amount(out: &mut Vec<u8>, bytes: Option<u64>) -> usize {
    match bytes {
        Some(bytes) => text::bytes(out, bytes),
        None => text::ascii(out, "-"),
    }
}

/// A line under construction, and its current column.
struct LineBuilder<'a> {
    out: &'a mut Vec<u8>,
    column: usize,
}

impl LineBuilder<'_> {
    /// Writes a cell at `start`, or one column after a cell before it that was too long.
    fn cell(&mut self, start: usize, write: impl FnOnce(&mut Vec<u8>) -> usize) {
        if self.column > 0 {
            self.column += text::spaces(self.out, start.saturating_sub(self.column).max(1));
        }
        self.column += write(self.out);
    }

    /// The arrow that leads to the cell at `start`.
    fn arrow(&mut self, start: usize) {
        self.cell(start - 2, |out| {
            out.extend_from_slice("→".as_bytes());
            1
        });
    }

    /// A cell of [`NUMBER`] columns, aligned to its right.
    fn right(&mut self, start: usize, write: impl FnOnce(&mut Vec<u8>) -> usize) {
        let from = self.out.len();
        let width = write(self.out);
        let before = (start + NUMBER).saturating_sub(width + self.column).max(1);
        text::spaces(self.out, before);
        if let Some(cell) = self.out.get_mut(from..) {
            cell.rotate_right(before);
        }
        self.column += before + width;
    }
}

#[cfg(test)]
#[path = "table_tests.rs"]
mod tests;
