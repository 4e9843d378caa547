//! When a line was written, as far as it says.

mod forms;
mod months;

#[cfg(test)]
mod tests;

use jiff::{Timestamp, tz::TimeZone};

pub use self::forms::offset;
use self::forms::{Written, exact};
use super::json::Json;

/// Seconds since 1970 that can be a log's time: 2001 to 2099. A number outside is something else.
const SECONDS: std::ops::Range<i64> = 978_307_200..4_102_444_800;
/// Words before a message that are looked at. Times stand in the first, or in the last.
const WORDS: usize = 64;

/// A time read from a line, and how well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    /// With its offset from UTC.
    Exact(Timestamp),
    /// Without one: what a wrapper says is better.
    Assumed(Timestamp),
}

impl Reading {
    pub const fn time(self) -> Timestamp {
        match self {
            Self::Exact(time) | Self::Assumed(time) => time,
        }
    }
}

/// What stands before a message: etcd's own time, or that of syslog, journald or a collector, after any words; or none. The last
/// one with an offset from UTC, else the last one: that is the nearest to the message.
pub fn before(prefix: &str, zone: &TimeZone, now: Timestamp) -> Option<Reading> {
    let mut words: Vec<&str> = prefix.split_whitespace().collect();
    if words.len() > 2 * WORDS {
        words.drain(WORDS..words.len() - WORDS);
    }
    let (mut found, mut at) = (None, 0);
    while let Some(rest) = words.get(at..).filter(|rest| !rest.is_empty()) {
        let Some((written, used)) = forms::first(rest) else {
            at += 1;
            continue;
        };
        at += used.max(1);
        let reading = resolve(written, zone, now);
        if !matches!(
            (found, reading),
            (Some(Reading::Exact(_)), Some(Reading::Assumed(_)))
        ) {
            found = reading.or(found);
        }
    }
    found
}

/// A field of JSON: text, or a number since 1970 in seconds, milliseconds, microseconds or nanoseconds.
pub fn of_field(field: &Json<'_>, zone: &TimeZone, now: Timestamp) -> Option<Reading> {
    match field {
        Json::Text(text) => of_text(text, zone, now),
        Json::Integer(number) => epoch(*number).map(Reading::Exact),
        Json::Float(number) => float(*number).map(Reading::Exact),
        Json::Array(values) => match values.as_slice() {
            [one @ (Json::Text(_) | Json::Integer(_) | Json::Float(_))] => of_field(one, zone, now),
            _ => None,
        },
        // MongoDB's and Java's way: {"$date": …}.
        Json::Object(fields) => match fields.as_slice() {
            [(key, one @ (Json::Text(_) | Json::Integer(_)))] if key == "$date" => of_field(one, zone, now),
            _ => None,
        },
        Json::Null | Json::Bool(_) => None,
    }
}

/// A text that is a time and nothing else.
pub fn of_text(text: &str, zone: &TimeZone, now: Timestamp) -> Option<Reading> {
    let text = text.trim();
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        return epoch(text.parse().ok()?).map(Reading::Exact);
    }
    exact(text)
        .map(Reading::Exact)
        .or_else(|| before(text, zone, now))
}

/// The best reading of a line's own time and its wrapper's.
pub fn choose(own: Option<Reading>, outer: Option<Reading>) -> Option<Reading> {
    match (own, outer) {
        (Some(Reading::Assumed(_)) | None, Some(Reading::Exact(_))) => outer,
        _ => own.or(outer),
    }
}

/// A whole number since 1970, by its size.
fn epoch(number: i64) -> Option<Timestamp> {
    let size = number.unsigned_abs();
    let time = match size {
        0..100_000_000_000 => Timestamp::from_second(number),
        100_000_000_000..100_000_000_000_000 => Timestamp::from_millisecond(number),
        100_000_000_000_000..100_000_000_000_000_000 => Timestamp::from_microsecond(number),
        _ => Timestamp::from_nanosecond(number.into()),
    };
    time.ok().filter(|time| SECONDS.contains(&time.as_second()))
}

/// As [`epoch`], with a fraction.
fn float(number: f64) -> Option<Timestamp> {
    let seconds = match number.abs() {
        size if size < 1e11 => number,
        size if size < 1e14 => number / 1e3,
        size if size < 1e17 => number / 1e6,
        _ => number / 1e9,
    };
    if !(SECONDS.start as f64..SECONDS.end as f64).contains(&seconds) {
        return None;
    }
    // A float of this size has no digits below a microsecond.
    Timestamp::from_microsecond((seconds * 1e6).round() as i64).ok()
}

fn resolve(written: Written, zone: &TimeZone, now: Timestamp) -> Option<Reading> {
    match written {
        Written::Exact(time) => Some(Reading::Exact(time)),
        Written::Local(time) => zone.to_timestamp(time).ok().map(Reading::Assumed),
        Written::NoYear {
            month,
            day,
            time,
            offset,
        } => {
            let in_zone = offset.map_or_else(|| zone.clone(), TimeZone::fixed);
            let time = forms::latest(month, day, time, &in_zone, now)?;
            Some(match offset {
                Some(_) => Reading::Exact(time),
                None => Reading::Assumed(time),
            })
        }
    }
}
