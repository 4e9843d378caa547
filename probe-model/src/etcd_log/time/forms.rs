//! The forms in which logs write a time.

use jiff::{
    Timestamp, ToSpan,
    civil::{Date, DateTime, Time},
    tz::{Offset, TimeZone},
};

use super::months;

/// A time as it is written.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Written {
    Exact(Timestamp),
    /// Without an offset from UTC.
    Local(DateTime),
    /// As syslog, journald and klog write it.
    NoYear {
        month: i8,
        day: i8,
        time: Time,
        offset: Option<Offset>,
    },
}

/// Keys that a time may stand behind: `time="2026-11-23T09:10:10Z"`.
const KEYS: [&str; 9] = [
    "time",
    "ts",
    "t",
    "timestamp",
    "@timestamp",
    "datetime",
    "date",
    "asctime",
    "at",
];

/// A time that these words begin with, and how many it takes.
pub fn first(words: &[&str]) -> Option<(Written, usize)> {
    let one = word(words.first()?)?;
    of_word(one, words).or_else(|| of_word(behind_file(one)?, words))
}

/// What stands behind the name of a file and the number of a line, as grep writes them: `etcd.log:12:2026-11-23`.
fn behind_file(word: &str) -> Option<&str> {
    let mut rest = word;
    while let Some((_, after)) = rest.split_once(':') {
        let is_date = after.get(..10).is_some_and(|start| date(start).is_some());
        let is_klog = after.len() == 5 && after.starts_with(['I', 'W', 'E', 'F']);
        if is_date || is_klog || months::number(after).is_some() {
            return Some(after);
        }
        rest = after;
    }
    None
}

fn of_word(one: &str, words: &[&str]) -> Option<(Written, usize)> {
    if !one.bytes().any(|byte| byte.is_ascii_digit()) {
        return month_first(one, words);
    }
    if let Some(time) = exact(one) {
        return Some((Written::Exact(time), 1));
    }
    let further = |at: usize| words.get(at).copied().unwrap_or_default();
    if let Some(date) = date(one) {
        let (time, rest) = clock(word(further(1))?)?;
        return complete(date.to_datetime(time), rest, words, 2);
    }
    dotted_or_t(one, words)
        .or_else(|| common_log(one, words))
        .or_else(|| seconds(one).map(|time| (Written::Exact(time), 1)))
        .or_else(|| klog(one, further(1)))
        .or_else(|| compact(one, further(1)))
        .or_else(|| slashed(one, words))
        .or_else(|| month_first(one, words))
        .or_else(|| day_first(one, words))
}

/// A word without what encloses it, a syslog priority (`<30>1`, `<13>Nov`) and a key.
fn word(word: &str) -> Option<&str> {
    let word = match word.strip_prefix('<').and_then(|rest| rest.split_once('>')) {
        Some((digits, rest)) if digits.bytes().all(|byte| byte.is_ascii_digit()) => rest,
        _ => word,
    };
    let word = match word.split_once('=') {
        // `MESSAGE=…` and other keys: what they hold is no time of the line.
        Some((key, value)) => {
            let key = key.trim_start_matches(['{', '[', '(', ',', '"']);
            KEYS.contains(&key.to_ascii_lowercase().as_str())
                .then_some(value)?
        }
        None => word,
    };
    Some(word.trim_matches(['[', ']', '(', ')', '{', '}', '<', '>', '"', '\'', ',', ';']))
}

/// RFC 3339 and what comes near: an offset without a colon, a comma before the fraction.
pub fn exact(text: &str) -> Option<Timestamp> {
    // Most words are no time, and shorter than the shortest.
    if text.len() < "20261123T091010Z".len() || !text.as_bytes()[..4].iter().all(u8::is_ascii_digit) {
        return None;
    }
    text.trim_end_matches(':').parse().ok()
}

/// `2026-11-23`, `2026/11/23`.
fn date(word: &str) -> Option<Date> {
    let bytes = word.as_bytes();
    let separator = *bytes.get(4)?;
    if bytes.len() != 10 || bytes[7] != separator || !matches!(separator, b'-' | b'/' | b'.') {
        return None;
    }
    let number = |from: usize, to: usize| digits(word.get(from..to)?);
    Date::new(
        number(0, 4)?.try_into().ok()?,
        small(number(5, 7)?)?,
        small(number(8, 10)?)?,
    )
    .ok()
}

/// A number that is nothing but digits.
fn digits(text: &str) -> Option<u32> {
    (!text.is_empty() && text.len() < 10 && text.bytes().all(|byte| byte.is_ascii_digit()))
        .then(|| text.parse().ok())
        .flatten()
}

fn small(number: u32) -> Option<i8> {
    number.try_into().ok()
}

/// `09:10:10`, `9:10:10.123` or `09:10:10,123`, and what follows in the same word.
fn clock(word: &str) -> Option<(Time, &str)> {
    let end = |text: &str| {
        text.find(|character: char| !character.is_ascii_digit())
            .unwrap_or(text.len())
    };
    let mut rest = word;
    let mut parts = [0; 3];
    for (at, part) in parts.iter_mut().enumerate() {
        let length = end(rest);
        let few = if at == 0 { 1..=2 } else { 2..=2 };
        if !few.contains(&length) {
            return None;
        }
        *part = small(digits(&rest[..length])?)?;
        rest = &rest[length..];
        if at < 2 {
            rest = rest.strip_prefix(':')?;
        }
    }
    let mut nanoseconds = 0;
    if let Some(fraction) = rest.strip_prefix(['.', ',']) {
        let length = end(fraction);
        if length == 0 {
            return None;
        }
        // What is below a nanosecond is left out.
        let known = &fraction[..length.min(9)];
        nanoseconds = known.parse::<i32>().ok()? * 10_i32.pow(9 - u32::try_from(known.len()).ok()?);
        rest = &fraction[length..];
    }
    let [hour, minute, second] = parts;
    // A leap second is the one before.
    let second = if second == 60 { 59 } else { second };
    Some((Time::new(hour, minute, second, nanoseconds).ok()?, rest))
}

/// `Z`, `UTC`, `+00:00`, `-0700`, `+02`. Other abbreviations are of several zones: `CST` is of three.
pub fn offset(word: &str) -> Option<Offset> {
    let word = word.trim_matches(['[', ']', '(', ')', '"', '\'', ',', ';']);
    match word {
        "Z" | "z" | "UTC" | "GMT" | "UT" => return Some(Offset::UTC),
        _ => {}
    }
    let word = word
        .strip_prefix("UTC")
        .or_else(|| word.strip_prefix("GMT"))
        .unwrap_or(word);
    let (sign, rest) = match (word.strip_prefix('+'), word.strip_prefix('-')) {
        (Some(rest), _) => (1, rest),
        (_, Some(rest)) => (-1, rest),
        _ => return None,
    };
    let (hours, minutes) = match rest.split_once(':') {
        Some((hours, minutes)) if minutes.len() == 2 => (digits(hours)?, digits(minutes)?),
        Some(_) => return None,
        None if rest.len() == 4 => (digits(&rest[..2])?, digits(rest.get(2..)?)?),
        None if rest.len() <= 2 => (digits(rest)?, 0),
        None => return None,
    };
    if hours > 14 || minutes > 59 {
        return None;
    }
    Offset::from_seconds(sign * i32::try_from(hours * 3600 + minutes * 60).ok()?).ok()
}

/// A date and a time, with the offset that follows in the same word or in the next one. `+0800 CST` is one offset.
fn complete(time: DateTime, rest: &str, words: &[&str], used: usize) -> Option<(Written, usize)> {
    let rest = rest.trim_end_matches(':');
    let (offset, used) = if rest.is_empty() {
        match words
            .get(used)
            .and_then(|next| offset(next.trim_end_matches(':')))
        {
            Some(offset) => (Some(offset), used + 1),
            None => (None, used),
        }
    } else {
        (offset(rest), used)
    };
    // What follows a time in its word is its zone, or the word is something else.
    let is_zone = rest.len() <= 5 && rest.bytes().all(|byte| byte.is_ascii_uppercase());
    if offset.is_none() && !is_zone {
        return None;
    }
    let exact = offset.and_then(|offset| offset.to_timestamp(time).ok());
    Some((exact.map_or(Written::Local(time), Written::Exact), used))
}

/// `2026-11-23T09:10:10.123` without an offset, and `2026-11-23_09:10:10`.
fn dotted_or_t(one: &str, words: &[&str]) -> Option<(Written, usize)> {
    let (day, time) = one.split_once(['T', '_', '@'])?;
    let date = date(day)?;
    let (time, rest) = clock(time)?;
    complete(date.to_datetime(time), rest, words, 1)
}

/// `23/Nov/2026:09:10:10 +0000` of web servers, `23/Nov/2026:09:10:10.123` of HAProxy, `23-Nov-2026 09:10:10` of BIND.
fn common_log(one: &str, words: &[&str]) -> Option<(Written, usize)> {
    let (date, time) = match one.split_once(':') {
        Some((date, time)) => (date, Some(time)),
        None => (one, None),
    };
    let mut parts = date.split(['/', '-']);
    let (day, month, year) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() || year.len() != 4 {
        return None;
    }
    let date = Date::new(
        digits(year)?.try_into().ok()?,
        months::number(month)?,
        small(digits(day)?)?,
    )
    .ok()?;
    let (time, used) = match time {
        Some(time) => (time, 1),
        None => (word(words.get(1)?)?, 2),
    };
    let (time, rest) = clock(time)?;
    complete(date.to_datetime(time), rest, words, used)
}

/// `1795425010.613456` of `journalctl -o short-unix`, `1.795425010613e+09` of zap.
fn seconds(one: &str) -> Option<Timestamp> {
    let one = one.trim_end_matches(':');
    let (whole, fraction) = one.split_once('.')?;
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let (whole, fraction) = match fraction.split_once("e+") {
        // The first nine digits of the fraction are of the whole.
        Some((digits, "09" | "9")) if whole.len() == 1 && digits.len() >= 9 && is_number(digits) => {
            (format!("{whole}{}", &digits[..9]), &digits[9..])
        }
        Some(_) => return None,
        None => (whole.to_owned(), fraction),
    };
    if whole.len() != 10 || !is_number(&whole) || !(fraction.is_empty() || is_number(fraction)) {
        return None;
    }
    let known = &fraction[..fraction.len().min(9)];
    let nanoseconds = known.parse().unwrap_or(0) * 10_i32.pow(9 - u32::try_from(known.len()).ok()?);
    let time = Timestamp::new(whole.parse().ok()?, nanoseconds).ok()?;
    super::SECONDS.contains(&time.as_second()).then_some(time)
}

/// `I1123 09:10:10.123456`.
fn klog(one: &str, next: &str) -> Option<(Written, usize)> {
    let rest = one.strip_prefix(['I', 'W', 'E', 'F'])?;
    if rest.len() != 4 {
        return None;
    }
    let number = digits(rest)?;
    let (time, rest) = clock(next)?;
    no_year(small(number / 100)?, small(number % 100)?, time, rest, &[], 2)
}

/// `261123  9:10:10` of MySQL before 5.7 and `20261123 09:10:10`.
fn compact(one: &str, next: &str) -> Option<(Written, usize)> {
    let number = digits(one)?;
    let year = match one.len() {
        6 => 2000 + number / 10_000,
        8 => number / 10_000,
        _ => return None,
    };
    if !(2001..2100).contains(&year) {
        return None;
    }
    let date = Date::new(
        year.try_into().ok()?,
        small(number / 100 % 100)?,
        small(number % 100)?,
    )
    .ok()?;
    let (time, rest) = clock(next)?;
    rest.is_empty()
        .then_some((Written::Local(date.to_datetime(time)), 2))
}

/// `11/23/2026 9:10:10 AM`. `11/12/2026` is of two days: no time.
fn slashed(one: &str, words: &[&str]) -> Option<(Written, usize)> {
    let mut parts = one.split(['/', '.', '-']);
    let (first, second, year) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() || year.len() != 4 || first.len() > 2 || second.len() > 2 {
        return None;
    }
    let (first, second, year) = (digits(first)?, digits(second)?, digits(year)?);
    let (month, day) = match (first, second) {
        (1..=12, 13..=31) => (first, second),
        (13..=31, 1..=12) => (second, first),
        _ if first == second => (first, second),
        // With full stops the day is first everywhere.
        _ if one.contains('.') => (second, first),
        _ => return None,
    };
    let date = Date::new(year.try_into().ok()?, small(month)?, small(day)?).ok()?;
    let (time, rest) = clock(word(words.get(1)?)?)?;
    let (time, used) = match words.get(2).map(|half| half.trim_matches([',', ']', '"'])) {
        Some("AM" | "am") if time.hour() == 12 => (time.with().hour(0).build().ok()?, 3),
        Some("AM" | "am") => (time, 3),
        Some("PM" | "pm") if time.hour() < 12 => (time.with().hour(time.hour() + 12).build().ok()?, 3),
        Some("PM" | "pm") => (time, 3),
        _ => (time, 2),
    };
    complete(date.to_datetime(time), rest, words, used)
}

fn no_year(
    month: i8,
    day: i8,
    time: Time,
    rest: &str,
    words: &[&str],
    used: usize,
) -> Option<(Written, usize)> {
    // 2028 has a 29th of February.
    Date::new(2028, month, day).ok()?;
    let rest = rest.trim_end_matches(':');
    let next = words.get(used).copied().unwrap_or_default();
    let (offset, used) = match (rest.is_empty(), offset(if rest.is_empty() { next } else { rest })) {
        (true, Some(offset)) => (Some(offset), used + 1),
        (true, None) => (None, used),
        (false, Some(offset)) => (Some(offset), used),
        // Something else than a time.
        (false, None) => return None,
    };
    Some((
        Written::NoYear {
            month,
            day,
            time,
            offset,
        },
        used,
    ))
}

fn year(word: &str) -> Option<i16> {
    let word = word.trim_matches([',', '年', ']', ')']);
    let year = (word.len() == 4).then(|| digits(word)).flatten()?;
    (2001..2100)
        .contains(&year)
        .then(|| year.try_into().ok())
        .flatten()
}

/// `Nov 23 09:10:10`, `11月 23 09:10:10`, `Mon Nov 23 09:10:10 UTC 2026`, `Nov 23 2026 09:10:10`, `Nov 23, 2026 @ 09:10:10.613`.
fn month_first(one: &str, words: &[&str]) -> Option<(Written, usize)> {
    // 11月23日 is one word, 2026年 the one before it.
    let (month, day, mut at) = match one.split_once('月') {
        Some((month, day)) if !day.is_empty() => (small(digits(month)?)?, day.trim_end_matches('日'), 1),
        _ => (months::number(one)?, word(words.get(1)?)?, 2),
    };
    let day = small(digits(day.trim_end_matches(['.', '日', '일']))?)?;
    let mut in_year = words.get(at).and_then(|next| year(next));
    at += usize::from(in_year.is_some());
    at += usize::from(words.get(at) == Some(&"@"));
    let (time, rest) = clock(word(words.get(at)?)?)?;
    at += 1;
    if in_year.is_none() && rest.is_empty() {
        // The year is last, after a zone or not.
        let after_zone = words
            .get(at)
            .is_some_and(|zone| zone.len() <= 5 && zone.bytes().all(|byte| byte.is_ascii_uppercase()));
        let offset = words.get(at).and_then(|zone| offset(zone));
        if let Some(last) = words
            .get(at + usize::from(after_zone || offset.is_some()))
            .and_then(|next| year(next))
        {
            let date = Date::new(last, month, day).ok()?;
            let used = at + 1 + usize::from(after_zone || offset.is_some());
            let time = date.to_datetime(time);
            let exact = offset.and_then(|offset| offset.to_timestamp(time).ok());
            return Some((exact.map_or(Written::Local(time), Written::Exact), used));
        }
    }
    match in_year.take() {
        Some(year) => {
            let date = Date::new(year, month, day).ok()?;
            complete(date.to_datetime(time), rest, words, at)
        }
        None => no_year(month, day, time, rest, words, at),
    }
}

/// `23 Nov 2026 09:10:10.123` of Redis, `23. Nov 09:10:10`, `2026年 11月 23日 09:10:10`.
fn day_first(one: &str, words: &[&str]) -> Option<(Written, usize)> {
    if let Some(year) = year(one).filter(|_| one.ends_with('年')) {
        let (written, used) = month_first(words.get(1)?, words.get(1..)?)?;
        let Written::NoYear { month, day, time, .. } = written else {
            return None;
        };
        let date = Date::new(year, month, day).ok()?;
        return Some((Written::Local(date.to_datetime(time)), used + 1));
    }
    let one = one.trim_end_matches('.');
    let day = small((one.len() <= 2).then(|| digits(one)).flatten()?)?;
    let month = months::number(word(words.get(1)?)?)?;
    let in_year = words.get(2).and_then(|next| year(next));
    let at = 2 + usize::from(in_year.is_some());
    let (time, rest) = clock(word(words.get(at)?)?)?;
    match in_year {
        Some(year) => {
            let date = Date::new(year, month, day).ok()?;
            complete(date.to_datetime(time), rest, words, at + 1)
        }
        None => no_year(month, day, time, rest, words, at + 1),
    }
}

/// A day without its year, in the latest year that fits.
pub fn latest(month: i8, day: i8, time: Time, zone: &TimeZone, now: Timestamp) -> Option<Timestamp> {
    let latest = now.checked_add(24.hours()).ok()?;
    let this = zone.to_datetime(now).year();
    // The 29th of February may be eight years back: 1900 and 2100 have none.
    (0..=8).find_map(|back| {
        let date = Date::new(this + 1 - back, month, day).ok()?;
        let at = zone.to_timestamp(date.to_datetime(time)).ok()?;
        (at <= latest).then_some(at)
    })
}
