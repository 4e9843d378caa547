//! Whether times before a recording stand on the phase of a source that the recording shows: the source is followed back from time
//! to time, as its interval drifts, and never far without one.

use std::{collections::VecDeque, time::Duration};

use jiff::Timestamp;

/// Recorded connections from which an interval is known well enough to be followed.
pub const RECORDED: usize = 10;
/// Times that have to stand on the phase.
pub const BEATS: usize = 20;
/// Times, recorded and followed, of which interval and phase are measured.
const FITTED: usize = 32;
/// What an interval may differ from the others for its source to be steady: a two-hundredth of it.
const STEADY: f64 = 1.0 / 200.0;
/// What the phase may be uncertain by: a hundredth of the interval. A time that has nothing to do with the source stands there by
/// chance once in fifty.
const UNCERTAIN: f64 = 1.0 / 100.0;
/// What the interval may change without being seen, where there is no time: clocks are off by less, a loop that sleeps and works by
/// about that.
const DRIFT: f64 = 100e-6;
/// What the interval may differ from the recorded one after however many.
const DRIFTED: f64 = 1e-3;
/// Deviations of one interval that count as possible.
const DEVIATIONS: f64 = 4.0;
/// The smallest deviation that is believed: logs round to milliseconds.
const ROUNDING: f64 = 1e-3;
/// So many intervals of [`BEATS`] may be without a time.
const MISSING: usize = BEATS / 2;
/// After so many intervals in a row with several times, nobody knows which are its own: none further back counts.
const CROWDED: usize = 3;

/// A source that was followed into the past.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Phase {
    /// Places of the times that stand on it, the latest first.
    pub beats: Vec<usize>,
    /// Where it can have been, as far as it was followed, the latest first.
    windows: Vec<(f64, f64)>,
    /// The interval in the recording, seconds.
    every: f64,
    /// The largest distance of a time from where it was expected, seconds.
    spread: f64,
}

/// A regression over the times of consecutive intervals.
struct Fit {
    /// Number of the interval and time, the earliest first.
    points: VecDeque<(f64, f64)>,
}

impl Fit {
    /// The line through the points: the interval, and the time of number 0.
    fn line(&self) -> (f64, f64) {
        let count = self.points.len() as f64;
        let (numbers, times) = self
            .points
            .iter()
            .fold((0.0, 0.0), |(n, t), point| (n + point.0, t + point.1));
        let (number, time) = (numbers / count, times / count);
        let (mut both, mut square) = (0.0, 0.0);
        for point in &self.points {
            both += (point.0 - number) * (point.1 - time);
            square += (point.0 - number) * (point.0 - number);
        }
        let every = if square > 0.0 { both / square } else { 0.0 };
        (every, time - every * number)
    }

    /// The deviation of one interval.
    fn deviation(&self, every: f64) -> f64 {
        let (mut square, mut count) = (0.0, 0.0);
        for (before, after) in self.points.iter().zip(self.points.iter().skip(1)) {
            let many = after.0 - before.0;
            let off = after.1 - before.1 - many * every;
            square += off * off / many.max(1.0);
            count += 1.0;
        }
        if count > 0.0 {
            f64::sqrt(square / count).max(ROUNDING).max(every / 20_000.0)
        } else {
            f64::INFINITY
        }
    }

    /// Where the time of so many intervals before the first can be.
    fn window(&self, back: usize) -> Option<(f64, f64, f64)> {
        let (number, first) = *self.points.front()?;
        let (every, zero) = self.line();
        let deviation = self.deviation(every);
        let many = back as f64;
        // A loop that sleeps keeps each deviation, a ticker none: between the two predictions it is.
        let (by_line, by_first) = (zero + (number - many) * every, first - many * every);
        let margin = DEVIATIONS * deviation * (many.sqrt() + many / (self.points.len() as f64).sqrt())
            + DRIFT * many * every;
        let (from, to) = (by_line.min(by_first) - margin, by_line.max(by_first) + margin);
        (to - from <= 2.0 * UNCERTAIN * every).then_some((from, to, every))
    }

    fn add(&mut self, number: f64, time: f64) {
        self.points.push_front((number, time));
        self.points.truncate(FITTED);
    }
}

/// The steady source at the begin of its recorded times, in order.
fn recorded(times: &[f64]) -> Option<Fit> {
    let mut intervals: Vec<f64> = times
        .iter()
        .zip(times.iter().skip(1))
        .map(|(before, after)| after - before)
        .take(FITTED)
        .collect();
    let mut points = VecDeque::from([(0.0, *times.first()?)]);
    intervals.sort_by(f64::total_cmp);
    let usual = *intervals.get(intervals.len() / 2)?;
    if usual <= 0.0 {
        return None;
    }
    for (before, after) in times.iter().zip(times.iter().skip(1)).take(FITTED - 1) {
        let many = ((after - before) / usual).round();
        if !(1.0..=3.0).contains(&many) || (after - before - many * usual).abs() > STEADY * usual {
            break;
        }
        let number = points.back()?.0 + many;
        points.push_back((number, *after));
    }
    (points.len() >= RECORDED).then_some(Fit { points })
}

/// Seconds since `origin`.
pub fn seconds(time: Timestamp, origin: Timestamp) -> f64 {
    time.duration_since(origin).as_secs_f64()
}

impl Phase {
    /// Follows the source of `recorded` times through `earlier` ones; both in order, in seconds. `None`: it has no steady interval.
    pub fn follow(recorded_times: &[f64], earlier: &[f64]) -> Option<Self> {
        let mut fit = recorded(recorded_times)?;
        let (every, _) = fit.line();
        let mut phase = Self {
            every,
            ..Self::default()
        };
        let oldest = *earlier.first()?;
        let (mut back, mut crowded, mut followed) = (1, 0, VecDeque::new());
        while let Some((from, to, now)) = fit.window(back) {
            if to < oldest || (now - every).abs() > DRIFTED * every {
                break;
            }
            phase.windows.push((from, to));
            let place = earlier.partition_point(|time| *time < from);
            let inside = earlier
                .iter()
                .skip(place)
                .take_while(|time| **time <= to)
                .take(2)
                .count();
            if crowded >= CROWDED {
                back += 1;
                continue;
            }
            let taken = match (inside, earlier.get(place)) {
                (1, Some(time)) => {
                    let expected = f64::midpoint(from, to);
                    phase.spread = phase.spread.max((time - expected).abs());
                    phase.beats.push(place);
                    let number = fit.points.front().map_or(0.0, |point| point.0) - back as f64;
                    fit.add(number, *time);
                    (back, crowded) = (1, 0);
                    true
                }
                (0, _) => {
                    (back, crowded) = (back + 1, 0);
                    false
                }
                _ => {
                    (back, crowded) = (back + 1, crowded + 1);
                    false
                }
            };
            // Before its first time the log may not reach to the recording.
            if !phase.beats.is_empty() {
                followed.push_front(taken);
                followed.truncate(BEATS);
                if followed.iter().filter(|taken| !**taken).count() > MISSING {
                    break;
                }
            }
        }
        Some(phase)
    }

    /// Whether enough times stand on it.
    pub fn is_enough(&self) -> bool {
        self.beats.len() >= BEATS
    }

    /// The times up to `latest` that are where it can have been.
    pub fn places(&self, latest: f64, earlier: &[f64]) -> Vec<usize> {
        let windows = self.windows.iter().filter(|(_, to)| *to <= latest);
        let inside = windows.flat_map(|(from, to)| {
            let begin = earlier.partition_point(|time| time < from);
            let end = earlier.partition_point(|time| time <= to);
            begin..end
        });
        inside.collect()
    }

    /// Drops what is earlier than `since`: the source was not there.
    pub fn begin(&mut self, since: f64, earlier: &[f64]) {
        self.beats
            .retain(|place| earlier.get(*place).is_some_and(|time| *time >= since));
        self.windows.retain(|(from, _)| *from >= since);
    }

    /// The latest time from which on, backwards, `other` with the same interval can have been in the same place, `margin` more or
    /// less. With another interval it is there for a moment only.
    pub fn meets(&self, other: &Self, margin: f64) -> Option<f64> {
        if (self.every - other.every).abs() > 2.0 * UNCERTAIN * self.every {
            return None;
        }
        let mut others = other.windows.iter().peekable();
        for (from, to) in &self.windows {
            while others.next_if(|(other, _)| *other > to + margin).is_some() {}
            if others.peek().is_some_and(|(_, other)| *other >= from - margin) {
                return Some(*to);
            }
        }
        None
    }

    /// Whether it stands on the full multiples of its interval by the clock, as everything does that a clock starts.
    pub fn is_of_clock(&self, earlier: &[f64], origin: Timestamp) -> bool {
        let whole = self.every.round();
        if whole < 1.0 || (self.every - whole).abs() > DRIFT * whole || (86_400.0 % whole) > 0.0 {
            return false;
        }
        let origin = (origin.as_microsecond() % 86_400_000_000) as f64 / 1e6;
        self.beats.iter().all(|place| {
            let Some(time) = earlier.get(*place) else {
                return false;
            };
            let off = (origin + time).rem_euclid(whole);
            off.min(whole - off) <= UNCERTAIN * whole
        })
    }

    /// The interval and the spread.
    pub fn interval(&self) -> (Duration, Duration) {
        let of = |seconds: f64| Duration::try_from_secs_f64(seconds).unwrap_or_default();
        (of(self.every), of(self.spread))
    }
}

#[cfg(test)]
#[path = "phase_tests.rs"]
mod tests;
