//! Times of day. Records come by the thousand in the same second, so its text is kept.

use jiff::{Timestamp, tz::TimeZone};

use super::text;

pub struct Clock {
    zone: TimeZone,
    local: Second,
    utc: Second,
}

/// A second, and how it is written.
#[derive(Default)]
struct Second {
    second: Option<i64>,
    text: String,
}

impl Second {
    fn text(&mut self, time: Timestamp, write: impl FnOnce(Timestamp) -> String) -> &[u8] {
        let second = time.as_microsecond().div_euclid(1_000_000);
        if self.second != Some(second) {
            // Out of range only at the limits of the calendar, where the time itself is near enough.
            self.text = write(Timestamp::from_second(second).unwrap_or(time));
            self.second = Some(second);
        }
        self.text.as_bytes()
    }
}

impl Clock {
    pub fn new(zone: TimeZone) -> Self {
        Self {
            zone,
            local: Second::default(),
            utc: Second::default(),
        }
    }

    /// `09:10:14` where the operator is, with `milliseconds` `09:10:14.145`. Returns its columns.
    pub fn local(&mut self, out: &mut Vec<u8>, time: Timestamp, milliseconds: bool) -> usize {
        let zone = &self.zone;
        out.extend_from_slice(self.local.text(time, |time| {
            zone.to_datetime(time).strftime("%H:%M:%S").to_string()
        }));
        if !milliseconds {
            return 8;
        }
        8 + text::fraction(out, micros(time) / 1000, 3)
    }

    /// As [`Clock::utc`], as a text.
    pub fn utc_text(&mut self, time: Timestamp) -> String {
        let mut out = Vec::new();
        self.utc(&mut out, time);
        String::from_utf8(out).unwrap_or_default()
    }

    /// `2026-11-23 09:10:14` where the operator is.
    pub fn date(&self, time: Timestamp) -> String {
        self.zone
            .to_datetime(time)
            .strftime("%Y-%m-%d %H:%M:%S")
            .to_string()
    }

    /// `2026-11-23T09:10:14.145123Z`: always UTC, always six digits.
    pub fn utc(&mut self, out: &mut Vec<u8>, time: Timestamp) {
        out.extend_from_slice(
            self.utc
                .text(time, |time| time.strftime("%Y-%m-%dT%H:%M:%S").to_string()),
        );
        text::fraction(out, micros(time), 6);
        out.push(b'Z');
    }
}

/// Microseconds within the second.
fn micros(time: Timestamp) -> u64 {
    time.as_microsecond().rem_euclid(1_000_000).unsigned_abs()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        let mut clock = Clock::new(TimeZone::fixed(jiff::tz::offset(2)));
        // UTC, local, local with milliseconds. The second of two in one second comes from what is kept.
        let table = [
            ("2026-11-23T09:10:14.145123Z", "11:10:14", "11:10:14.145"),
            ("2026-11-23T09:10:14.000999Z", "11:10:14", "11:10:14.000"),
            ("2026-11-23T23:59:59.999999Z", "01:59:59", "01:59:59.999"),
            ("1969-12-31T23:59:59.250000Z", "01:59:59", "01:59:59.250"),
        ];
        for (utc, short, long) in table {
            let time = utc.parse().unwrap();
            let mut out = Vec::new();
            assert_eq!(clock.local(&mut out, time, false), short.len());
            assert_eq!(clock.local(&mut out, time, true), long.len());
            clock.utc(&mut out, time);
            assert_eq!(String::from_utf8(out).unwrap(), format!("{short}{long}{utc}"));
        }
        assert_eq!(
            clock.date("2026-11-23T23:10:14.9Z".parse().unwrap()),
            "2026-11-24 01:10:14"
        );
    }
}
