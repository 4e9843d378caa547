//! Request and reply side by side: a line a place, the request from above downwards, its reply from below upwards.

use super::{
    super::{style, text},
    rows::{GAP, INDENT, Row, Widths, push_place, push_what},
    text::{Style, say, wrapped},
};

/// Columns for what happened to each, at the least; in a narrower terminal, one is printed below the other.
const LEAST: usize = 36;
/// Hops of each that are laid side by side at the most: comparing takes the product of both.
const MOST: usize = 256;
const REQUEST: &str = "↓ request";
const REPLY: &str = "↑ reply";

/// The columns of both.
struct Columns {
    widths: Widths,
    request: usize,
    after: usize,
    reply: usize,
}

impl Columns {
    /// `None`: the terminal is too narrow.
    fn of(width: usize, request: &[Row], reply: &[Row]) -> Option<Self> {
        let widths = Widths::of(request.iter().chain(reply));
        let after = Widths::of(reply.iter()).after;
        let room = width.checked_sub(widths.what() + GAP + after + GAP)?;
        if room < 2 * LEAST {
            return None;
        }
        // Who has short words leaves room for the other.
        let longest = |rows: &[Row]| rows.iter().map(Row::longest).max().unwrap_or(0).max(LEAST);
        let half = room / 2;
        let request = match (longest(request), longest(reply)) {
            (request, _) if request <= half => request,
            (_, reply) if reply <= half => room - reply,
            _ => half,
        };
        Some(Self {
            widths,
            request,
            after,
            reply: room - request,
        })
    }
}

/// The hops of both.
pub struct SideBySide {
    request: Vec<Row>,
    reply: Vec<Row>,
    columns: Columns,
}

impl SideBySide {
    /// `None`: they don't fit.
    pub fn of(width: usize, request: Vec<Row>, reply: Vec<Row>) -> Option<Self> {
        if request.len().max(reply.len()) > MOST {
            return None;
        }
        Some(Self {
            columns: Columns::of(width, &request, &reply)?,
            request,
            reply,
        })
    }

    /// Appends the lines.
    pub fn push(&self, out: &mut Vec<u8>, look: Style) {
        text::spaces(out, self.columns.widths.what());
        let used = style::styled(out, look.colour, style::HEADER, |out| say(out, REQUEST));
        text::spaces(out, self.columns.request - used + GAP);
        style::styled(out, look.colour, style::HEADER, |out| say(out, REPLY));
        out.push(b'\n');
        for (request, reply) in aligned(&self.request, &self.reply) {
            line(out, look, &self.columns, request, reply);
        }
    }
}

fn line(out: &mut Vec<u8>, look: Style, columns: &Columns, request: Option<&Row>, reply: Option<&Row>) {
    let Some(place) = request.or(reply) else { return };
    let after = |out: &mut Vec<u8>, row: Option<&Row>, room: usize| {
        let words = row.map_or("", |row| row.after.as_str());
        text::spaces(out, room.saturating_sub(words.chars().count()));
        style::styled(out, look.colour, style::TIME, |out| say(out, words));
        text::spaces(out, GAP);
    };
    text::spaces(out, INDENT);
    after(out, request, columns.widths.after);
    push_place(out, columns.widths, place);
    let told = |row: Option<&Row>, room: usize| row.map(|row| lines(row, room)).unwrap_or_default();
    let (down, up) = (told(request, columns.request), told(reply, columns.reply));
    for at in 0..down.len().max(up.len()) {
        if at > 0 {
            text::spaces(out, columns.widths.what());
        }
        let used = down.get(at).map_or(0, |words| words.push(out, look));
        if let Some(words) = up.get(at) {
            text::spaces(out, columns.request.saturating_sub(used) + GAP);
            after(out, reply.filter(|_| at == 0), columns.after);
            words.push(out, look);
        }
        out.push(b'\n');
    }
}

/// One line of a cell.
struct Words {
    text: String,
    stressed: bool,
    rule: bool,
}

impl Words {
    /// Appends it; how many columns it takes.
    fn push(&self, out: &mut Vec<u8>, look: Style) -> usize {
        if self.rule {
            return style::styled(out, look.colour, style::FAULT, |out| say(out, &self.text));
        }
        push_what(out, look.colour, self.stressed, &self.text)
    }
}

/// What a cell says: what happened, and the rule that did it.
fn lines(row: &Row, room: usize) -> Vec<Words> {
    let of = |words: &str, rule| {
        wrapped(words, room, 0)
            .map(|text| Words {
                text,
                stressed: row.stressed,
                rule,
            })
            .collect::<Vec<_>>()
    };
    let mut lines = of(&row.what, false);
    lines.extend(row.rule.iter().flat_map(|rule| of(rule, true)));
    lines
}

/// Both with the places they have in common beside each other: as many as can be, in the order of the request.
fn aligned<'a>(request: &'a [Row], reply: &'a [Row]) -> Vec<(Option<&'a Row>, Option<&'a Row>)> {
    let back: Vec<&Row> = reply.iter().rev().collect();
    let (rows, columns) = (request.len(), back.len());
    // How many places what is left of both has in common: the longest common subsequence, from the end.
    let mut common = vec![0u16; (rows + 1) * (columns + 1)];
    let index = |row: usize, column: usize| row * (columns + 1) + column;
    for row in (0..rows).rev() {
        for column in (0..columns).rev() {
            common[index(row, column)] = if request[row].is_beside(back[column]) {
                common[index(row + 1, column + 1)] + 1
            } else {
                common[index(row + 1, column)].max(common[index(row, column + 1)])
            };
        }
    }
    let (mut row, mut column) = (0, 0);
    let mut pairs: Vec<(Option<&Row>, Option<&Row>)> = Vec::with_capacity(rows.max(columns));
    while row < rows || column < columns {
        let (down, up) = (request.get(row), back.get(column).copied());
        let pair = match (down, up) {
            (Some(one), Some(other)) if one.is_beside(other) => (down, up),
            (Some(_), Some(other)) => {
                let (skips_down, skips_up) = (common[index(row + 1, column)], common[index(row, column + 1)]);
                // Who is still where the line before was comes first.
                let before = pairs.last().and_then(|(one, other)| one.or(*other));
                let stays = before.is_some_and(|before| before.place == other.place);
                if skips_down > skips_up || skips_down == skips_up && !stays {
                    (down, None)
                } else {
                    (None, up)
                }
            }
            one => one,
        };
        row += usize::from(pair.0.is_some());
        column += usize::from(pair.1.is_some());
        pairs.push(pair);
    }
    pairs
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(place: &str, device: &str, what: &str) -> Row {
        let cell = |text: &str| (text.as_bytes().to_vec(), text.len());
        Row {
            after: "+1 µs".to_owned(),
            place: cell(place),
            device: cell(device),
            what: what.to_owned(),
            stressed: false,
            rule: None,
        }
    }

    fn rows(text: &str) -> Vec<Row> {
        let one = |word: &str| {
            let (place, device) = word.split_once('/').unwrap_or((word, ""));
            row(place, device, word)
        };
        text.split_whitespace().map(one).collect()
    }

    #[test]
    fn the_same_places_are_beside_each_other() {
        for (request, reply, expected) in [
            // The same way back.
            ("a/0 n/1 b/0", "b/0 n/1 a/0", "a/0=a/0 n/1=n/1 b/0=b/0"),
            // Another way back.
            ("a/0 n/1 b/0", "b/0 n/2 a/0", "a/0=a/0 n/1=- -=n/2 b/0=b/0"),
            // It did not come back.
            ("a/0 n/1 b/0", "b/0 n/1", "a/0=- n/1=n/1 b/0=b/0"),
            // Another point in the same place.
            ("a/0 n/1", "n/1 a/1 a/0", "a/0=a/0 -=a/1 n/1=n/1"),
            ("a/0 n/1 n/2", "n/2 a/1 a/0", "a/0=a/0 -=a/1 n/1=- n/2=n/2"),
            // Several points at one device.
            ("a/0 n/1 n/1 b/0", "b/0 n/1 a/0", "a/0=a/0 n/1=n/1 n/1=- b/0=b/0"),
            ("a/0", "", "a/0=-"),
            ("", "b/0", "-=b/0"),
            ("a/0 n", "n a/0", "a/0=a/0 n=n"),
        ] {
            let (request, reply) = (rows(request), rows(reply));
            let word = |row: Option<&Row>| row.map_or("-", |row| &row.what).to_owned();
            let pairs: Vec<_> = aligned(&request, &reply)
                .into_iter()
                .map(|(one, other)| format!("{}={}", word(one), word(other)))
                .collect();
            assert_eq!(pairs.join(" "), expected);
        }
    }

    #[test]
    fn what_has_no_room_is_not_laid_beside() {
        let hops = || rows("alpha/eth0");
        let many = |count| (0..count).map(|_| row("alpha", "eth0", "sent")).collect();
        assert!(SideBySide::of(80, hops(), hops()).is_none());
        assert!(SideBySide::of(200, many(MOST + 1), hops()).is_none());
        assert!(SideBySide::of(120, many(MOST), hops()).is_some());
    }
}
