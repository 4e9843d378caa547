//! Numbers and addresses as people read them. Every function appends, and returns the columns it took.

use std::{
    io::Write as _,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use crate::model::Cadence;

/// Plain ASCII.
pub fn ascii(out: &mut Vec<u8>, text: &str) -> usize {
    out.extend_from_slice(text.as_bytes());
    text.len()
}

pub fn spaces(out: &mut Vec<u8>, count: usize) -> usize {
    // Nearly always these are enough.
    const BLANK: [u8; 64] = [b' '; 64];
    match BLANK.get(..count) {
        Some(blank) => out.extend_from_slice(blank),
        None => out.resize(out.len() + count, b' '),
    }
    count
}

/// A number, written without the formatter: it is on the path of every record.
pub fn decimal(out: &mut Vec<u8>, mut number: u64) -> usize {
    let mut digits = [0; 20];
    let mut start = digits.len();
    loop {
        start -= 1;
        digits[start] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[start..]);
    digits.len() - start
}

/// A point and `digits` of a fraction, at most six: `.045`.
pub fn fraction(out: &mut Vec<u8>, mut number: u64, digits: usize) -> usize {
    let mut text = *b".000000";
    let length = (digits + 1).min(text.len());
    for digit in text[1..length].iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
    out.extend_from_slice(&text[..length]);
    length
}

/// A number of tenths: 12 is `1.2`.
fn tenths(out: &mut Vec<u8>, number: u64) -> usize {
    decimal(out, number / 10) + ascii(out, ".") + decimal(out, number % 10)
}

/// In one piece, as every record has two.
fn ipv4(out: &mut Vec<u8>, address: Ipv4Addr) -> usize {
    let mut text = [0; "255.255.255.255".len()];
    let mut length = 0;
    let mut put = |byte| {
        text[length] = byte;
        length += 1;
    };
    for (index, octet) in address.octets().into_iter().enumerate() {
        if index > 0 {
            put(b'.');
        }
        if octet >= 100 {
            put(b'0' + octet / 100);
        }
        if octet >= 10 {
            put(b'0' + octet / 10 % 10);
        }
        put(b'0' + octet % 10);
    }
    out.extend_from_slice(&text[..length]);
    length
}

pub fn ip(out: &mut Vec<u8>, address: IpAddr) -> usize {
    match address {
        IpAddr::V4(address) => ipv4(out, address),
        IpAddr::V6(address) => {
            let start = out.len();
            // Writing to memory does not fail.
            drop(write!(out, "{address}"));
            out.len() - start
        }
    }
}

/// `10.244.2.2:41234`, `[fd00::1]:41234`; with a port of 0, which no SYN left from, `10.244.2.2:-`; `-` with no
/// address either.
pub fn end(out: &mut Vec<u8>, end: SocketAddr) -> usize {
    let (address, port) = (end.ip(), u64::from(end.port()));
    if port == 0 && address.is_unspecified() {
        return ascii(out, "-");
    }
    let mut width = match address {
        IpAddr::V4(address) => ipv4(out, address),
        IpAddr::V6(_) => ascii(out, "[") + ip(out, address) + ascii(out, "]"),
    };
    width += ascii(out, ":");
    width
        + if port == 0 {
            ascii(out, "-")
        } else {
            decimal(out, port)
        }
}

/// `0 B`, `999 B`, `1.2 kB`, `34.5 MB`; cut, not rounded.
pub fn bytes(out: &mut Vec<u8>, bytes: u64) -> usize {
    if bytes < 1000 {
        return decimal(out, bytes) + ascii(out, " B");
    }
    let (mut tens, mut unit) = (bytes / 100, 0);
    let units = [" kB", " MB", " GB", " TB", " PB", " EB"];
    while tens >= 10_000 && unit + 1 < units.len() {
        (tens, unit) = (tens / 1000, unit + 1);
    }
    tenths(out, tens) + ascii(out, units[unit])
}

/// A unit of time chosen for a duration, with what it holds in microseconds.
#[derive(Clone, Copy)]
enum Unit {
    Microseconds,
    Milliseconds,
    Seconds,
    Minutes,
    Hours,
}

impl Unit {
    fn of(duration: Duration) -> Self {
        match duration.as_micros() {
            0..100 => Self::Microseconds,
            100..1_000_000 => Self::Milliseconds,
            1_000_000..600_000_000 => Self::Seconds,
            600_000_000..7_200_000_000 => Self::Minutes,
            _ => Self::Hours,
        }
    }

    const fn micros(self) -> u64 {
        match self {
            Self::Microseconds => 1,
            Self::Milliseconds => 1000,
            Self::Seconds => 1_000_000,
            Self::Minutes => 60_000_000,
            Self::Hours => 3_600_000_000,
        }
    }

    /// All ASCII but the first.
    const fn name(self) -> &'static str {
        match self {
            Self::Microseconds => " µs",
            Self::Milliseconds => " ms",
            Self::Seconds => " s",
            Self::Minutes => " min",
            Self::Hours => " h",
        }
    }

    /// The duration in tenths of this unit, rounded.
    fn tenths(self, duration: Duration) -> u64 {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        micros.saturating_mul(10).saturating_add(self.micros() / 2) / self.micros()
    }

    fn push(self, out: &mut Vec<u8>) -> usize {
        ascii(out, self.name());
        self.name().len() - usize::from(matches!(self, Self::Microseconds))
    }

    /// Whether tenths say nothing of a duration of so many tenths of this unit.
    const fn is_whole(self, value: u64) -> bool {
        match self {
            Self::Microseconds => true,
            Self::Milliseconds => value >= 1000,
            Self::Seconds | Self::Minutes | Self::Hours => false,
        }
    }
}

/// `85 µs`, `0.4 ms`, `120 ms`, `5.0 s`, `12.5 min`, `24.0 h`.
pub fn duration(out: &mut Vec<u8>, duration: Duration) -> usize {
    let unit = Unit::of(duration);
    let value = unit.tenths(duration);
    let number = if unit.is_whole(value) {
        decimal(out, value / 10)
    } else {
        tenths(out, value)
    };
    number + unit.push(out)
}

/// `5.0 s`, and with `spread` `5.0 s ±0.1`, in the same unit; one that rounds to nothing is left out.
pub fn every(out: &mut Vec<u8>, every: Duration, spread: Option<Duration>) -> usize {
    let unit = Unit::of(every);
    let width = duration(out, every);
    let whole = unit.is_whole(unit.tenths(every));
    match spread.map(|spread| unit.tenths(spread)) {
        Some(spread) if spread >= if whole { 10 } else { 1 } => {
            out.extend_from_slice(" ±".as_bytes());
            width
                + 2
                + if whole {
                    decimal(out, spread / 10)
                } else {
                    tenths(out, spread)
                }
        }
        Some(_) | None => width,
    }
}

/// `10.0 s ±0.1, 2 each` of a source with several connections in each interval, `10.0 s, 60.0 s` of one with two intervals.
pub fn intervals(out: &mut Vec<u8>, cadence: &Cadence) -> usize {
    let Some(time) = cadence.every else { return 0 };
    let mut width = every(out, time, Some(cadence.spread));
    if let Some(each) = cadence.per_interval {
        width += ascii(out, ", ") + decimal(out, each.into()) + ascii(out, " each");
    }
    if let Some(also) = cadence.also {
        width += ascii(out, ", ") + every(out, also, None);
    }
    width
}

/// `5.0 s ±0.1 ×12`, with no cadence `×2`, for a first occurrence nothing.
pub fn cadence(out: &mut Vec<u8>, cadence: &Cadence, spread: bool) -> usize {
    if cadence.count < 2 {
        return 0;
    }
    let mut width = 0;
    if let Some(time) = cadence.every {
        width += every(out, time, spread.then_some(cadence.spread)) + ascii(out, " ");
    }
    out.extend_from_slice("×".as_bytes());
    width + 1 + decimal(out, cadence.count)
}

#[cfg(test)]
mod tests {
    use unicode_width::UnicodeWidthStr;

    use super::*;

    fn text(write: impl FnOnce(&mut Vec<u8>) -> usize) -> String {
        let mut out = Vec::new();
        let width = write(&mut out);
        let out = String::from_utf8(out).unwrap();
        assert_eq!(out.width(), width, "{out}");
        out
    }

    #[test]
    fn numbers() {
        for number in [0, 7, 10, 99, 100, 65535, u64::MAX] {
            assert_eq!(text(|out| decimal(out, number)), number.to_string());
        }
        assert_eq!(text(|out| fraction(out, 7, 3)), ".007");
        for count in [0, 1, 64, 65, 200] {
            assert_eq!(text(|out| spaces(out, count)), " ".repeat(count));
        }
        assert_eq!(text(|out| fraction(out, 123_456, 6)), ".123456");
    }

    #[test]
    fn bytes_table() {
        let table = [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.0 kB"),
            (1299, "1.2 kB"),
            (999_999, "999.9 kB"),
            (1_000_000, "1.0 MB"),
            (34_567_890, "34.5 MB"),
            (u64::MAX, "18.4 EB"),
        ];
        for (number, expected) in table {
            assert_eq!(text(|out| bytes(out, number)), expected);
        }
    }

    #[test]
    fn duration_table() {
        let table = [
            (0, "0 µs"),
            (85, "85 µs"),
            (100, "0.1 ms"),
            (412, "0.4 ms"),
            (9_960, "10.0 ms"),
            (120_400, "120 ms"),
            (999_999, "1000 ms"),
            (1_000_000, "1.0 s"),
            (60_000_000, "60.0 s"),
            (599_900_000, "599.9 s"),
            (750_000_000, "12.5 min"),
            (86_400_000_000, "24.0 h"),
        ];
        for (micros, expected) in table {
            assert_eq!(text(|out| duration(out, Duration::from_micros(micros))), expected);
        }
        assert_eq!(
            text(|out| duration(out, Duration::MAX)).split(' ').nth(1),
            Some("h")
        );
    }

    #[test]
    fn cadence_table() {
        let seconds = |seconds| Some(Duration::from_secs_f64(seconds));
        // Count, every, spread, then what shows narrow and wide.
        let table = [
            (1, None, 0.0, "", ""),
            (2, None, 0.0, "×2", "×2"),
            (12, seconds(60.0), 0.1, "60.0 s ×12", "60.0 s ±0.1 ×12"),
            (12, seconds(60.0), 0.01, "60.0 s ×12", "60.0 s ×12"),
            (3, seconds(0.25), 0.012, "250 ms ×3", "250 ms ±12 ×3"),
            (1440, seconds(900.0), 6.0, "15.0 min ×1440", "15.0 min ±0.1 ×1440"),
        ];
        for (count, every, spread, narrow, wide) in table {
            let value = Cadence {
                count,
                every,
                spread: Duration::from_secs_f64(spread),
                ..Cadence::default()
            };
            assert_eq!(text(|out| cadence(out, &value, false)), narrow);
            assert_eq!(text(|out| cadence(out, &value, true)), wide);
        }
    }

    #[test]
    fn ends() {
        let table = [
            ("10.244.2.2:41234", "10.244.2.2:41234"),
            ("255.255.255.255:65535", "255.255.255.255:65535"),
            ("1.9.99.100:1", "1.9.99.100:1"),
            ("[2001:db8::1]:2379", "[2001:db8::1]:2379"),
            ("10.244.2.2:0", "10.244.2.2:-"),
            ("[fd00::1]:0", "[fd00::1]:-"),
            ("0.0.0.0:0", "-"),
            ("[::]:0", "-"),
        ];
        for (address, expected) in table {
            assert_eq!(text(|out| end(out, address.parse().unwrap())), expected);
        }
    }
}
