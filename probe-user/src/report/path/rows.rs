//! Hops as lines of a block: when, where, what.

use unicode_width::UnicodeWidthStr as _;

use super::{
    super::{escape, style, text},
    text::{Style, safe, say, wrapped},
};
use crate::model::path::{self, Journey, Places, What, reason::Fate};

/// Columns for a place and for a device at the most.
const MOST_PLACE: usize = 36;
const MOST_DEVICE: usize = 24;
/// Before each line.
pub const INDENT: usize = 2;
/// Between columns.
pub const GAP: usize = 2;
/// The sign of an untracked packet.
const UNTRACKED: &str = "[untracked]";

/// One hop.
pub struct Row {
    pub after: String,
    /// Escaped, with the columns they take.
    pub place: (Vec<u8>, usize),
    pub device: (Vec<u8>, usize),
    pub what: String,
    pub stressed: bool,
    pub rule: Option<String>,
}

impl Row {
    /// Whether both are of the same place and device.
    pub fn is_beside(&self, other: &Self) -> bool {
        (&self.place, &self.device) == (&other.place, &other.device)
    }

    /// Columns of what happened, and of its rule, in one line each.
    pub fn longest(&self) -> usize {
        let rule = self.rule.as_deref().map_or(0, str::width);
        self.what.width().max(rule)
    }
}

/// Columns that each of the three takes, for a whole block.
#[derive(Clone, Copy, Default)]
pub struct Widths {
    pub after: usize,
    place: usize,
    device: usize,
}

impl Widths {
    pub fn of<'a>(rows: impl Iterator<Item = &'a Row>) -> Self {
        rows.fold(Self::default(), |widths, row| Self {
            after: widths.after.max(row.after.chars().count()),
            place: widths.place.max(row.place.1),
            device: widths.device.max(row.device.1),
        })
    }

    /// The column of what happened.
    pub const fn what(self) -> usize {
        let device = if self.device > 0 { self.device + GAP } else { 0 };
        INDENT + self.after + GAP + self.place + GAP + device
    }
}

/// The hops of a packet.
pub fn of(journey: &Journey, places: Places<'_>, wide: bool) -> Vec<Row> {
    (0..journey.hops.len())
        .filter_map(|at| row(journey, at, places, wide))
        .collect()
}

fn row(journey: &Journey, at: usize, places: Places<'_>, wide: bool) -> Option<Row> {
    let hop = journey.hops.get(at)?;
    let mut what = journey.words(at);
    if let Some(tracking) = journey.tracking(at) {
        what.push_str(&format!(" [{}]", tracking.name()));
    }
    let segments = |hop: &path::Hop| hop.event.segments;
    let before = at.checked_sub(1).and_then(|before| journey.hops.get(before));
    if hop.event.segments > 1 && before.map(segments) != Some(hop.event.segments) {
        // Put together where it came in, to be cut where it is sent.
        let name = match (&hop.event.what, hop.event.input) {
            (What::Sent, _) | (_, None) => "GSO",
            _ => "GRO",
        };
        what.push_str(&format!(" {name} ×{}", hop.event.segments));
    }
    if wide {
        let mark = match hop.event.mark {
            0 => String::new(),
            mark => format!(", mark {mark:#x}"),
        };
        what.push_str(&format!(" ({}{mark}, CPU {})", hop.event.function, hop.event.cpu));
    }
    let column = |text: &str, most: usize| {
        let mut out = Vec::new();
        let width = escape::push(&mut out, text, most);
        (out, width)
    };
    Some(Row {
        after: format!("+{}", path::time(journey.after_ns(at))),
        place: column(&places(hop.event.netns), MOST_PLACE),
        device: column(hop.device(), MOST_DEVICE),
        what: safe(&what),
        stressed: journey.is_fault(at) || journey.fate(at) == Some(Fate::NoSocket),
        rule: hop.rule.as_ref().map(|rule| {
            let perhaps = if rule.rule.certain { "" } else { "perhaps " };
            safe(&format!("{perhaps}by {}", rule.rule))
        }),
    })
}

/// Appends the lines of a hop.
pub fn push(out: &mut Vec<u8>, look: Style, widths: Widths, row: &Row) {
    let after = widths.after.saturating_sub(row.after.chars().count());
    text::spaces(out, INDENT + after);
    style::styled(out, look.colour, style::TIME, |out| say(out, &row.after));
    text::spaces(out, GAP);
    push_place(out, widths, row);
    let indent = widths.what();
    for (line, words) in wrapped(&row.what, look.width, indent).enumerate() {
        if line > 0 {
            text::spaces(out, indent);
        }
        push_what(out, look.colour, row.stressed, &words);
        out.push(b'\n');
    }
    if let Some(rule) = &row.rule {
        for words in wrapped(rule, look.width, indent + GAP) {
            text::spaces(out, indent + GAP);
            style::styled(out, look.colour, style::FAULT, |out| say(out, &words));
            out.push(b'\n');
        }
    }
}

/// Appends where it was.
pub fn push_place(out: &mut Vec<u8>, widths: Widths, row: &Row) {
    let cell = |out: &mut Vec<u8>, (text, width): &(Vec<u8>, usize), room: usize| {
        out.extend_from_slice(text);
        text::spaces(out, room.saturating_sub(*width) + GAP);
    };
    cell(out, &row.place, widths.place);
    if widths.device > 0 {
        cell(out, &row.device, widths.device);
    }
}

/// Appends a line of what happened; how many columns it takes.
pub fn push_what(out: &mut Vec<u8>, colour: bool, stressed: bool, words: &str) -> usize {
    if stressed {
        return style::styled(out, colour, style::FAULT.bold(), |out| say(out, words));
    }
    match words.rsplit_once(UNTRACKED) {
        Some((before, after)) => {
            let before = say(out, before);
            let sign = style::styled(out, colour, style::FAULT.bold(), |out| {
                text::ascii(out, UNTRACKED)
            });
            before + sign + say(out, after)
        }
        None => say(out, words),
    }
}

#[cfg(test)]
mod tests {
    use super::UNTRACKED;
    use crate::model::path::Tracking;

    #[test]
    fn the_sign_is_the_states_name() {
        assert_eq!(UNTRACKED, format!("[{}]", Tracking::Untracked.name()));
    }
}
