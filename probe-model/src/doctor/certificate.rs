//! A certificate, and where in its life it is.

use jiff::{SignedDuration, Timestamp};

/// What is reported of a certificate. Its texts are untrusted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    pub subject: String,
    pub common_name: Option<String>,
    pub issuer: String,
    /// What it is good for: DNS names and addresses.
    pub names: Vec<String>,
    /// It is its own issuer.
    pub self_signed: bool,
    pub begins: Timestamp,
    pub ends: Timestamp,
}

/// Where in its life a certificate is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// It begins so much later.
    NotYet(SignedDuration),
    /// It ends so much later.
    Left(SignedDuration),
    /// It ended so long ago.
    Over(SignedDuration),
}

impl Certificate {
    pub fn life(&self, now: Timestamp) -> Life {
        if now < self.begins {
            Life::NotYet(self.begins.duration_since(now))
        } else if now > self.ends {
            Life::Over(now.duration_since(self.ends))
        } else {
            Life::Left(self.ends.duration_since(now))
        }
    }

    /// How much of its life is over, in percent.
    pub fn used(&self, now: Timestamp) -> i64 {
        let whole = self.ends.duration_since(self.begins).as_secs().max(1);
        let gone = now.duration_since(self.begins).as_secs().clamp(0, whole);
        gone.saturating_mul(100) / whole
    }

    /// From when to when, for people.
    pub fn validity(&self) -> String {
        let day = |time: Timestamp| time.strftime("%F %T UTC").to_string();
        format!("{} to {}", day(self.begins), day(self.ends))
    }

    /// Who it says it is, for people: the subject, or else the first name.
    pub fn title(&self) -> &str {
        if self.subject.is_empty() {
            self.names.first().map_or("nobody", String::as_str)
        } else {
            &self.subject
        }
    }
}

/// A time that passed or is to pass, in its largest unit.
pub fn about(time: SignedDuration) -> String {
    let seconds = time.as_secs().abs();
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

#[cfg(test)]
pub(super) mod samples {
    use super::*;

    /// The time of all tables.
    pub fn now() -> Timestamp {
        "2026-11-27T12:00:00Z".parse().unwrap()
    }

    /// A certificate of an authority, from so many hours ago to so many hours ahead.
    pub fn certificate(subject: &str, from: i64, to: i64) -> Certificate {
        Certificate {
            subject: format!("CN={subject}"),
            common_name: Some(subject.to_owned()),
            issuer: "CN=kubernetes".to_owned(),
            names: Vec::new(),
            self_signed: false,
            begins: now() + SignedDuration::from_hours(from),
            ends: now() + SignedDuration::from_hours(to),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{samples::*, *};

    #[test]
    fn lives() {
        let hours = SignedDuration::from_hours;
        for (from, to, life, used) in [
            (-24, 24, Life::Left(hours(24)), 50),
            (-90, 10, Life::Left(hours(10)), 90),
            (1, 24, Life::NotYet(hours(1)), 0),
            (-48, -2, Life::Over(hours(2)), 100),
            (-1, 0, Life::Left(hours(0)), 100),
            // Nonsense is not counted with.
            (1, -1, Life::NotYet(hours(1)), 0),
        ] {
            let certificate = certificate("a", from, to);
            assert_eq!(certificate.life(now()), life, "{from} {to}");
            assert_eq!(certificate.used(now()), used, "{from} {to}");
        }
    }

    #[test]
    fn times() {
        for (seconds, says) in [
            (0, "0 s"),
            (-119, "119 s"),
            (180, "3 min"),
            (7200, "2 h"),
            (172_800, "2 days"),
            (i64::MIN + 1, "106751991167300 days"),
        ] {
            assert_eq!(about(SignedDuration::from_secs(seconds)), says);
        }
    }
}
