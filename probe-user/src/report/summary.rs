//! The end of a run: who it was, how often, and what could not be seen.

use std::cmp::Reverse;

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use unicode_width::UnicodeWidthStr as _;

use super::{clock::Clock, escape, text, who};
use crate::model::{
    Role, Summary,
    cause::causes::Counted,
    summary::{Row, Tally},
};

/// Sources shown; JSON has them all.
const ROWS: usize = 20;
/// Columns for a cause or a remedy, which may run over.
const TEXT: usize = 600;
/// The least room for the owner's column.
const LEAST_WHO: usize = 24;

/// The most frequent first, among equals the one seen last.
pub fn sorted(summary: &Summary) -> Vec<&Row> {
    let mut rows: Vec<_> = summary.rows.iter().collect();
    rows.sort_by_key(|row| Reverse((row.count(), row.last)));
    rows
}

/// Appends what a person reads after the last line, in at most `width` columns where addresses allow.
pub fn push(out: &mut Vec<u8>, clock: &mut Clock, width: usize, summary: &Summary) {
    out.push(b'\n');
    let rows = sorted(summary);
    headline(out, clock, summary, rows.len());
    if !rows.is_empty() {
        out.push(b'\n');
        table(out, clock, width, &rows);
    }
    causes(out, &summary.causes);
    tallies(out, "\nLost (the list above is incomplete):\n", &summary.losses);
    tallies(out, "\nUnresolved:\n", &summary.misses);
}

fn headline(out: &mut Vec<u8>, clock: &Clock, summary: &Summary, sources: usize) {
    let elapsed = summary.ended.duration_since(summary.started).unsigned_abs();
    let Summary {
        watched,
        counted,
        reported,
        aggregated,
        ..
    } = summary;
    if *counted == 0 && *reported == 0 {
        text::ascii(out, "No connection reported in ");
        text::duration(out, elapsed);
        let advice = "A connection is reported when it ends: watch longer, use fewer filters, or add --all for \
                      healthy connections.";
        out.extend_from_slice(format!(", watching {watched}. {advice}\n").as_bytes());
        return;
    }
    text::decimal(out, *counted);
    text::ascii(
        out,
        if *counted == 1 {
            " connection end in "
        } else {
            " connection ends in "
        },
    );
    text::duration(out, elapsed);
    out.extend_from_slice(format!(", from {}, watching {watched}: ", clock.date(summary.started)).as_bytes());
    text::decimal(out, *reported);
    text::ascii(out, " shown, ");
    if *aggregated > 0 {
        text::decimal(out, *aggregated);
        text::ascii(out, " counted by source only (--max-rate), ");
    }
    text::decimal(out, sources as u64);
    text::ascii(out, if sources == 1 { " source.\n" } else { " sources.\n" });
}

/// From here on the time each source was last seen has its place.
const WITH_LAST: usize = 120;

fn table(out: &mut Vec<u8>, clock: &mut Clock, width: usize, rows: &[&Row]) {
    let (shown, others) = rows.split_at(rows.len().min(ROWS));
    let every: Vec<_> = shown
        .iter()
        .map(|row| {
            let has_interval = row.cadence.every.is_some();
            has_interval.then(|| cell(|out| text::intervals(out, &row.cadence)))
        })
        .map(Option::unwrap_or_default)
        .collect();
    let destination: Vec<_> = shown
        .iter()
        .map(|row| cell(|out| text::end(out, row.destination)))
        .collect();
    let with_last = width >= WITH_LAST;
    let nodes: Vec<_> = shown
        .iter()
        .map(|row| {
            let node = row.node.as_deref();
            node.map(|node| cell(|out| escape::push(out, node, super::MOST_NODE)))
        })
        .collect();
    let with_node = nodes.iter().any(Option::is_some);
    // What the other columns take, with two between each and the next. LAST is 8 wide.
    let widest = |cells: &mut dyn Iterator<Item = usize>, header: &str| cells.fold(header.len(), usize::max);
    let others_take = widest(&mut shown.iter().map(|row| count(row).len()), "COUNT")
        + widest(&mut every.iter().map(|cell| cell.width()), "EVERY")
        + widest(&mut shown.iter().map(|row| row.outcome.name().len()), "OUTCOME")
        + widest(&mut shown.iter().map(|row| row.role.name().len()), "ROLE")
        + widest(&mut destination.iter().map(String::len), "DESTINATION")
        + if with_last { 8 + 12 } else { 10 }
        + if with_node {
            2 + widest(&mut nodes.iter().flatten().map(|node| node.width()), "NODE")
        } else {
            0
        };
    let room = width.saturating_sub(others_take).max(LEAST_WHO);

    let shows = |header: &str| match header {
        "NODE" => with_node,
        "LAST" => with_last,
        _ => true,
    };
    let headers = [
        "COUNT",
        "EVERY",
        "NODE",
        "OUTCOME",
        "ROLE",
        "WHO",
        "DESTINATION",
        "LAST",
    ];
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(headers.into_iter().filter(|header| shows(header)));
    for (((row, every), destination), node) in shown.iter().zip(every).zip(destination).zip(nodes) {
        let cells = [
            count(row),
            every,
            node.unwrap_or_default(),
            row.outcome.name().to_owned(),
            row.role.name().to_owned(),
            cell(|out| source(out, row, room)),
            destination,
            cell(|out| clock.local(out, row.last, false)),
        ];
        let cells = headers.into_iter().zip(cells);
        table.add_row(cells.filter(|(header, _)| shows(header)).map(|(_, cell)| cell));
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    if let Some(count) = table.column_mut(0) {
        count.set_cell_alignment(CellAlignment::Right);
    }
    out.extend_from_slice(table.trim_fmt().as_bytes());
    out.push(b'\n');
    if !others.is_empty() {
        let connections: u64 = others.iter().map(|row| row.count()).sum();
        out.extend_from_slice(
            format!(
                "… and {} more sources, {connections} connection ends (-o json has all)\n",
                others.len()
            )
            .as_bytes(),
        );
    }
}

/// All of a source's connections; where some were only counted, also how many were not.
fn count(row: &Row) -> String {
    match row.unlisted.connections {
        0 => row.count().to_string(),
        _ => format!("{} ({} shown)", row.count(), row.cadence.count),
    }
}

fn cell(write: impl FnOnce(&mut Vec<u8>) -> usize) -> String {
    let mut text = Vec::new();
    write(&mut text);
    String::from_utf8(text).unwrap_or_default()
}

/// Who it was; a client of whom nothing is known is its address.
fn source(out: &mut Vec<u8>, row: &Row, room: usize) -> usize {
    if row.actor().is_some() {
        return who::push(out, row.role, row.actor(), row.server(), room);
    }
    let width = text::ip(out, row.client);
    match row.server() {
        Some(server) if row.role == Role::Server => {
            let start = out.len();
            let with = width + who::arrow(out) + who::owner(out, server, who::Detail::Short);
            if with <= room {
                return with;
            }
            out.truncate(start);
            width
        }
        Some(_) | None => width,
    }
}

/// Why connections failed, and what to do.
fn causes(out: &mut Vec<u8>, causes: &[Counted]) {
    if causes.is_empty() {
        return;
    }
    let (shown, others) = causes.split_at(causes.len().min(ROWS));
    text::ascii(out, "\nCauses of failed connections, latest example each:\n");
    for Counted { cause, connections } in shown {
        text::ascii(out, "  ");
        text::decimal(out, *connections);
        out.extend_from_slice("× ".as_bytes());
        escape::push(out, &cause.what, TEXT);
        out.push(b'\n');
        for fix in &cause.fixes {
            text::ascii(out, "    do: ");
            // To be pasted: never cut.
            escape::push(out, &fix.to_string(), usize::MAX);
            out.push(b'\n');
        }
    }
    if !others.is_empty() {
        out.extend_from_slice(format!("  … and {} more (-o json has all)\n", others.len()).as_bytes());
    }
}

fn tallies(out: &mut Vec<u8>, heading: &str, tallies: &[Tally]) {
    let mut heading = Some(heading);
    for tally in tallies.iter().filter(|tally| tally.count > 0) {
        text::ascii(out, heading.take().unwrap_or_default());
        text::ascii(out, "  ");
        text::decimal(out, tally.count);
        text::ascii(out, " ");
        text::ascii(out, tally.what);
        out.push(b'\n');
    }
}

#[cfg(test)]
#[path = "summary_tests.rs"]
mod tests;
