//! What is around a line: prefixes, JSON in JSON, quotes of supervisors, escapes of syslog servers.

use std::borrow::Cow;

use jiff::Timestamp;

use super::{
    Excerpt, Line, REJECTED, REJECTED_BYTES, Reader, Rejected, ServerKind,
    json::{self, Json, NoJson},
    quoted::quoted,
    servers::{self, Mention},
    shapes,
    time::{self, Reading},
};

/// Wrappers in wrappers that are followed: a container runtime's around a collector's around docker's around etcd's own.
const DEPTH: u8 = 6;
/// Braces and quotes before a message that are tried as the start of a wrapper.
const TRIES: usize = 16;

/// Fields that hold the time of an entry. etcd's own first, then the nearest to it.
const TIMES: [&str; 20] = [
    "ts",
    "_SOURCE_REALTIME_TIMESTAMP",
    "__REALTIME_TIMESTAMP",
    "time",
    "@timestamp",
    "timestamp",
    "_timestamp",
    "Timestamp",
    "Time",
    "_time",
    "timeUnixNano",
    "eventTime",
    "event_time",
    "datetime",
    "date",
    "asctime",
    "log_time",
    "logtime",
    "@t",
    "t",
];

/// Appends what a line is about.
pub fn text(reader: &Reader, excerpt: &Excerpt<'_>, outer: Option<Reading>, out: &mut Vec<Line>) {
    Unwrapping { reader, excerpt }.text(excerpt.line, Around::new(outer), out);
}

/// Appends what an object is about.
pub fn object(
    reader: &Reader,
    excerpt: &Excerpt<'_>,
    object: &Json<'_>,
    outer: Option<Reading>,
    out: &mut Vec<Line>,
) {
    Unwrapping { reader, excerpt }.value(object, Around::new(outer), out);
}

/// When a line was written, whatever it is about.
pub fn time_of(reader: &Reader, line: &str) -> Option<Timestamp> {
    let line = clean(line);
    if let Some(start) = line.find('{')
        && let Ok((object, _)) = json::first(&line[start..])
        && let Some(reading) = field_time(reader, &object)
    {
        return Some(reading.time());
    }
    // The words of a message may be times of something else.
    let words: Vec<&str> = line.split_ascii_whitespace().take(8).collect();
    time::before(&words.join(" "), &reader.zone, reader.now).map(Reading::time)
}

/// What wrappers say about the line within.
#[derive(Clone, Copy)]
struct Around {
    time: Option<Reading>,
    /// The client's address and port, where they are fields of their own.
    peer: Option<std::net::SocketAddr>,
    depth: u8,
}

impl Around {
    const fn new(time: Option<Reading>) -> Self {
        Self {
            time,
            peer: None,
            depth: DEPTH,
        }
    }

    /// Of what is within a further wrapper, or `None` where it is one too many.
    fn within(self, time: Option<Reading>) -> Option<Self> {
        Some(Self {
            time: time::choose(time, self.time),
            depth: self.depth.checked_sub(1)?,
            ..self
        })
    }
}

struct Unwrapping<'a> {
    reader: &'a Reader,
    excerpt: &'a Excerpt<'a>,
}

impl Unwrapping<'_> {
    fn before(&self, prefix: &str) -> Option<Reading> {
        time::before(prefix, &self.reader.zone, self.reader.now)
    }

    /// Where the words are that a line is found by.
    fn mention(&self, text: &str) -> Option<usize> {
        let kinds = &self.reader.kinds;
        let etcd = kinds
            .contains(&ServerKind::Etcd)
            .then(|| text.find(REJECTED))
            .flatten();
        etcd.or_else(|| {
            let rows = servers::ROWS.iter().filter(|row| kinds.contains(&row.kind));
            rows.filter_map(|row| text.find(row.pattern)).min()
        })
    }

    fn text(&self, line: &str, around: Around, out: &mut Vec<Line>) {
        let line = clean(line);
        let line = line.as_ref();
        let Some(at) = self.mention(line) else {
            return self.bytes(line, around, out);
        };
        let mut no_json = None;
        let mut from = 0;
        for _ in 0..TRIES {
            let Some(start) = line[from..at].find('{').map(|start| from + start) else {
                break;
            };
            match json::first(&line[start..]) {
                Ok((object, used)) if start + used > at => {
                    match around.within(self.before(&line[..start])) {
                        Some(around) => self.value(&object, around, out),
                        None => out.push(Line::Unreadable(TOO_OFTEN)),
                    }
                    return self.rest(&line[start + used..], around, out);
                }
                // An object that ends before: labels.
                Ok((_, used)) => from = start + used,
                Err(why) => {
                    let is_json = line[start + 1..].trim_start().starts_with('"');
                    no_json = no_json.or(is_json.then_some(why));
                    from = start + 1;
                }
            }
        }
        if let Some((start, within, end)) = enclosing_quotes(line, at) {
            match around.within(self.before(&line[..start])) {
                Some(around) => self.text(&within, around, out),
                None => out.push(Line::Unreadable(TOO_OFTEN)),
            }
            return self.rest(&line[end..], around, out);
        }
        let start = out.len();
        self.shape(line, at, around, out);
        if matches!(out[start..], [Line::Unreadable(_)]) {
            // Quotes doubled by CSV, escaped without a wrapper that says so, or as documents have them.
            for (other, quote) in [
                ("\"\"", "\""),
                ("\\\"", "\""),
                ("&quot;", "\""),
                ("&#34;", "\""),
                ("\u{201c}", "\""),
            ] {
                let escaped = [format!("{{{other}"), format!("from {other}")];
                if !escaped.iter().any(|escaped| line.contains(escaped.as_str())) {
                    continue;
                }
                if let Some(around) = around.within(None) {
                    let mut again = Vec::new();
                    let line = line.replace(other, quote).replace('\u{201d}', quote);
                    self.text(&line, around, &mut again);
                    if again.iter().any(|line| matches!(line, Line::Rejected(_))) {
                        out.truncate(start);
                        out.append(&mut again);
                        return;
                    }
                }
            }
            if let Some(why) = no_json {
                out.truncate(start);
                out.push(Line::Unreadable(match why {
                    NoJson::CutOff => shapes::JSON_CUT_OFF,
                    NoJson::Broken => shapes::JSON_BROKEN,
                }));
            }
        }
    }

    /// A message that journald wrote as bytes.
    fn bytes(&self, line: &str, around: Around, out: &mut Vec<Line>) {
        if self.reader.kinds.contains(&ServerKind::Etcd)
            && REJECTED_BYTES.iter().any(|bytes| line.contains(bytes))
            && let Some(start) = line.find('{')
            && let Ok((object, _)) = json::first(&line[start..])
            && let Some(around) = around.within(None)
        {
            self.value(&object, around, out);
        }
    }

    /// What follows an object or a quoted line: another one.
    fn rest(&self, rest: &str, around: Around, out: &mut Vec<Line>) {
        if rest.contains(['{', '"']) && self.mention(rest).is_some() {
            match around.within(None) {
                Some(around) => self.text(rest, around, out),
                None => out.push(Line::Unreadable(TOO_OFTEN)),
            }
        }
    }

    /// A line that is in no further wrapper.
    fn shape(&self, line: &str, at: usize, around: Around, out: &mut Vec<Line>) {
        let reading = time::choose(self.before(&line[..at]), around.time);
        if let Some(after) = line[at..].strip_prefix(REJECTED)
            && self.reader.kinds.contains(&ServerKind::Etcd)
        {
            return out.push(shapes::read(after, reading));
        }
        let mention = Mention {
            text: line,
            peer: around.peer,
            excerpt: self.excerpt,
        };
        let whole = || time::choose(self.before(line), around.time);
        out.extend(
            servers::read(&self.reader.kinds, &mention).map(|read| match read {
                Err(why) => Line::Unreadable(why),
                Ok(told) => {
                    // Of a web server the time stands before the request, of others before the message.
                    let reading = if told.kind == ServerKind::Nginx {
                        whole()
                    } else {
                        reading
                    };
                    Line::Rejected(Rejected {
                        time: reading.map(Reading::time),
                        has_offset: matches!(reading, Some(Reading::Exact(_))),
                        peer: told.peer,
                        error: told.error,
                        server_name: String::new(),
                        endpoint: None,
                        zone: None,
                        server: told.server,
                        logged_by: told.kind,
                    })
                }
            }),
        );
    }

    fn value(&self, value: &Json<'_>, around: Around, out: &mut Vec<Line>) {
        match value {
            Json::Text(text) if self.mention(text).is_some() => match around.depth.checked_sub(1) {
                Some(depth) => self.text(text, Around { depth, ..around }, out),
                None => out.push(Line::Unreadable(TOO_OFTEN)),
            },
            Json::Array(values) => {
                if let Some(text) = value.bytes() {
                    return self.value(&Json::Text(text.into()), around, out);
                }
                // Loki: ["1795425010613456000", "line"].
                let time = match values.as_slice() {
                    [time @ (Json::Text(_) | Json::Integer(_)), Json::Text(_), ..] => self.field(time),
                    _ => None,
                };
                let around = Around {
                    time: time::choose(time, around.time),
                    ..around
                };
                for value in values {
                    self.value(value, around, out);
                }
            }
            Json::Object(fields) => self.object(value, fields, around, out),
            Json::Text(_) | Json::Null | Json::Bool(_) | Json::Integer(_) | Json::Float(_) => {}
        }
    }

    fn field(&self, value: &Json<'_>) -> Option<Reading> {
        time::of_field(value, &self.reader.zone, self.reader.now)
    }

    fn object(
        &self,
        object: &Json<'_>,
        fields: &[(Cow<'_, str>, Json<'_>)],
        around: Around,
        out: &mut Vec<Line>,
    ) {
        let around = Around {
            time: time::choose(field_time(self.reader, object), around.time),
            peer: servers::peer_fields(object).or(around.peer),
            ..around
        };
        let own = object.get("msg").and_then(Json::text);
        let message = match own {
            Some(message) => shapes::endpoint(message),
            None => fields
                .iter()
                .find_map(|(_, value)| shapes::endpoint(value.text()?)),
        };
        if let Some(endpoint) = message.filter(|_| self.reader.kinds.contains(&ServerKind::Etcd)) {
            let mut holders = Vec::new();
            holders_of_peer(object, &mut holders);
            return out.push(match holders.as_slice() {
                [] => Line::Unreadable(shapes::NO_PEER),
                [holder, ..] => {
                    let own = field_time(self.reader, holder);
                    shapes::zap(holder, endpoint, time::choose(own, around.time))
                }
            });
        }
        let is_read = |line: &Line| matches!(line, Line::Rejected(_));
        // Collectors keep a line twice: as it came, and what they made of it.
        let mut all: Vec<Line> = Vec::new();
        for (_, value) in fields {
            let mut some = Vec::new();
            self.value(value, around, &mut some);
            if some.is_empty() {
                continue;
            }
            match (all.iter().any(is_read), some.iter().any(is_read)) {
                (false, true) => all = some,
                (false, false) if all.is_empty() => all = some,
                (_, false) => {}
                (true, true) => {
                    let known = all.len();
                    for line in some {
                        match all[..known].iter_mut().find(|known| is_same(known, &line)) {
                            Some(Line::Rejected(known)) => better_time(known, &line),
                            _ => all.push(line),
                        }
                    }
                }
            }
        }
        // Another message of a server, which happens to have the words in a field.
        let is_other = own.is_some_and(|message| self.mention(message).is_none());
        if is_other {
            all.retain(is_read);
        }
        out.append(&mut all);
    }
}

const TOO_OFTEN: &str = "it is wrapped too often";

fn is_same(one: &Line, other: &Line) -> bool {
    match (one, other) {
        (Line::Rejected(one), Line::Rejected(other)) => one.peer == other.peer && one.error == other.error,
        _ => false,
    }
}

fn better_time(known: &mut Rejected, line: &Line) {
    if let Line::Rejected(other) = line
        && (known.time.is_none() || (other.has_offset && !known.has_offset))
        && other.time.is_some()
    {
        (known.time, known.has_offset) = (other.time, other.has_offset);
    }
}

/// The best of an entry's own times.
fn field_time(reader: &Reader, object: &Json<'_>) -> Option<Reading> {
    TIMES.iter().fold(None, |found, name| match found {
        Some(Reading::Exact(_)) => found,
        _ => {
            let field = object
                .get(name)
                .and_then(|field| time::of_field(field, &reader.zone, reader.now));
            time::choose(found, field)
        }
    })
}

/// The objects that have zap's fields, the outermost first.
fn holders_of_peer<'j>(value: &'j Json<'j>, out: &mut Vec<&'j Json<'j>>) {
    if shapes::has_peer(value) {
        out.push(value);
    }
    match value {
        Json::Object(fields) => fields.iter().for_each(|(_, value)| holders_of_peer(value, out)),
        // In a list each is an entry of its own.
        Json::Array(_) | Json::Text(_) | Json::Null | Json::Bool(_) | Json::Integer(_) | Json::Float(_) => {}
    }
}

/// A quoted string around the words at `at`, as logrus writes a line into its own: where it starts, what it says, where it ends.
fn enclosing_quotes(line: &str, at: usize) -> Option<(usize, String, usize)> {
    let quotes = line[..at].match_indices('"').filter(|(quote, _)| {
        let before = line[..*quote].chars().next_back();
        before.is_none_or(|before| matches!(before, '=' | ' ' | '\t' | '[' | '(' | ':' | '{'))
    });
    quotes.take(TRIES).find_map(|(start, _)| {
        let (within, rest) = quoted(&line[start..])?;
        let end = line.len() - rest.len();
        // The message alone: its fields are outside.
        let is_bare = shapes::endpoint(&within).is_some()
            || servers::ROWS.iter().any(|row| within.starts_with(row.pattern));
        (end > at && !is_bare).then_some((start, within, end))
    })
}

/// A line without what is around each character: marks of byte order, colours, escapes of syslog servers.
fn clean(line: &str) -> Cow<'_, str> {
    let line = line.trim_matches(|character: char| character.is_whitespace() || character == '\u{feff}');
    if !line.bytes().any(|byte| matches!(byte, 0x1b | b'#' | 0)) {
        return Cow::Borrowed(line);
    }
    let mut out = String::with_capacity(line.len());
    let mut rest = line;
    while let Some(at) = rest.find(['\x1b', '#', '\0']) {
        out.push_str(&rest[..at]);
        let marked = &rest[at..];
        // rsyslog and syslog-ng write a control character as three octal digits.
        let code = marked.strip_prefix('#').and_then(|digits| digits.get(..3));
        let code = code
            .filter(|digits| {
                digits.starts_with('0') && digits.bytes().all(|byte| (b'0'..b'8').contains(&byte))
            })
            .and_then(|digits| u8::from_str_radix(digits, 8).ok())
            // An escape is one of a colour, or no escape.
            .filter(|code| *code < 0x20 && (*code != 0x1b || marked[4..].starts_with('[')));
        let (character, used) = match code {
            Some(code) => (char::from(code), 4),
            None => (marked.chars().next().unwrap_or('#'), 1),
        };
        rest = &marked[used..];
        match character {
            // A colour ends with a letter.
            '\x1b' if rest.starts_with('[') => {
                let end = rest.find(|character: char| character.is_ascii_alphabetic());
                rest = end.map_or("", |end| &rest[end + 1..]);
            }
            '\x1b' | '\0' => out.push(' '),
            other => out.push(other),
        }
    }
    out.push_str(rest);
    Cow::Owned(out.trim().to_owned())
}
