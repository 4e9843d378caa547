//! When a line was written, as far as it says.

use jiff::{
    Timestamp, ToSpan,
    civil::{Date, DateTime, Time},
    fmt::strtime,
    tz::TimeZone,
};
use serde::Deserialize;

/// A time read from a line, and how well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    /// With its offset from UTC.
    Exact(Timestamp),
    /// Without one, or to the second only: what a wrapper says is better.
    Assumed(Timestamp),
}

impl Reading {
    pub const fn time(self) -> Timestamp {
        match self {
            Self::Exact(time) | Self::Assumed(time) => time,
        }
    }
}

/// zap's `ts`: text, or seconds since 1970.
#[derive(Deserialize)]
#[serde(untagged)]
pub enum Field {
    Text(String),
    Seconds(f64),
}

pub fn of_field(field: &Field) -> Option<Reading> {
    let time = match field {
        Field::Text(text) => return exact(text).map(Reading::Exact),
        Field::Seconds(seconds) => jiff::SignedDuration::try_from_secs_f64(*seconds).ok()?,
    };
    Timestamp::from_duration(time).ok().map(Reading::Exact)
}

/// What stands before a message: etcd's own time, or syslog's or journald's, or none.
pub fn before(prefix: &str, zone: &TimeZone, now: Timestamp) -> Option<Reading> {
    let mut words = prefix.split_ascii_whitespace();
    let first = words.next()?;
    if let Some(time) = exact(first) {
        return Some(Reading::Exact(time));
    }
    let second = words.next()?;
    if let Ok(date) = first.parse::<Date>() {
        return assumed(date.to_datetime(second.parse().ok()?), zone);
    }
    short(first, second, words.next()?, zone, now)
}

/// The best reading of a line's own time and its wrapper's, which has an offset.
pub fn choose(reading: Option<Reading>, outer: Option<Timestamp>) -> Option<Reading> {
    match reading {
        Some(Reading::Exact(_)) => reading,
        Some(Reading::Assumed(_)) | None => outer.map(Reading::Exact).or(reading),
    }
}

fn exact(text: &str) -> Option<Timestamp> {
    // Most words are no time, and shorter than the shortest.
    if text.len() < "2026-11-23T09:10:10Z".len() {
        return None;
    }
    text.parse().ok()
}

fn assumed(time: DateTime, zone: &TimeZone) -> Option<Reading> {
    zone.to_timestamp(time).ok().map(Reading::Assumed)
}

/// `Nov 23 08:27:43` or `Nov 23 08:27:43.808481`, in the latest year that fits.
fn short(month: &str, day: &str, time: &str, zone: &TimeZone, now: Timestamp) -> Option<Reading> {
    let time: Time = time.parse().ok()?;
    let date = strtime::parse("%b %d", format!("{month} {day}")).ok()?;
    let (month, day) = (date.month()?, date.day()?);
    let latest = now.checked_add(24.hours()).ok()?;
    let this = zone.to_datetime(now).year();
    // The 29th of February may be four years back.
    (0..=8).find_map(|back| {
        let date = Date::new(this + 1 - back, month, day).ok()?;
        let reading = assumed(date.to_datetime(time), zone)?;
        let Reading::Assumed(at) = reading else {
            return None;
        };
        (at <= latest).then_some(reading)
    })
}
