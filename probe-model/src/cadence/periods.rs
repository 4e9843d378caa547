//! One interval, or several, in the times of one source.

use std::time::Duration;

use super::tracker::TIMES;

/// A median below this is a stream of connections, not an interval. Microseconds.
const SHORTEST: u64 = 100_000;
/// An interval of up to so many medians may be missed occurrences.
const MULTIPLES: u64 = 3;
/// Occurrences in each interval that are distinguished.
const MOST: usize = 8;
/// So few are looked for first.
const FEW: usize = 3;
/// Occurrences that an interval needs beside others.
const HITS: usize = 4;
/// Starts from which a chain is tried.
const STARTS: usize = 3;

/// Several occurrences in each interval, or two intervals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Periods {
    pub every: Duration,
    pub spread: Duration,
    pub per_interval: u8,
    pub also: Option<Duration>,
}

/// The one interval of `times`, and its spread; see [`Tracker`](super::Tracker).
pub(super) fn regular(times: &[i64]) -> Option<(Duration, Duration)> {
    let known = times.len().checked_sub(1).filter(|known| *known >= 2)?;
    // Half of the intervals are as long as the median, or longer: of a stream's records nothing is sorted.
    let (first, last) = (*times.first()?, *times.last()?);
    if last.abs_diff(first) < SHORTEST * (known - known / 2) as u64 {
        return None;
    }
    let mut buffer = [0; TIMES];
    for (interval, pair) in buffer.iter_mut().zip(times.windows(2)) {
        *interval = pair[1].abs_diff(pair[0]);
    }
    let intervals = buffer.get_mut(..known)?;
    intervals.sort_unstable();
    let median = intervals[(known - 1) / 2].midpoint(intervals[known / 2]);
    if median < SHORTEST {
        return None;
    }
    let tolerance = if known < 5 { median / 10 } else { median / 5 };
    let mut missed = 0;
    for interval in &mut *intervals {
        let multiple = ((*interval + median / 2) / median).clamp(1, MULTIPLES);
        *interval = interval.abs_diff(multiple * median);
        missed += usize::from(multiple > 1 && *interval <= tolerance);
    }
    intervals.sort_unstable();
    let spread = intervals[known - 1 - known / 10];
    (spread <= tolerance && missed * 4 <= known)
        .then(|| (Duration::from_micros(median), Duration::from_micros(spread)))
}

/// Several occurrences in each interval, or two intervals: what is reported holds for four of five of the times.
pub(super) fn periods(times: &[i64]) -> Option<Periods> {
    // All of them close together is a stream.
    let mut gaps = times.windows(2).map(|pair| pair[1].abs_diff(pair[0]));
    if times.last()?.abs_diff(*times.first()?) < SHORTEST || gaps.all(|gap| gap < SHORTEST) {
        return None;
    }
    // A check every 10 s beside one every minute is seven connections a minute too, and two intervals say more.
    (2..=FEW)
        .find_map(|each| several(times, each))
        .or_else(|| two(times).filter(|two| two.per_interval == 1 && two.also.is_some()))
        .or_else(|| (FEW + 1..=MOST).find_map(|each| several(times, each)))
        .or_else(|| two(times))
}

/// `each` occurrences in an interval: each has one as long before it, to a twentieth, or less where there are many: they have to
/// be farther from one another than they vary. Three intervals have to be seen.
fn several(times: &[i64], each: usize) -> Option<Periods> {
    let known = times.len().checked_sub(each)?;
    if known < 2 * each || known < HITS {
        return None;
    }
    let mut buffer = [0; TIMES];
    for (interval, (before, after)) in buffer.iter_mut().zip(times.iter().zip(times.get(each..)?)) {
        *interval = after.abs_diff(*before);
    }
    let intervals = buffer.get_mut(..known)?;
    intervals.sort_unstable();
    let median = intervals[(known - 1) / 2].midpoint(intervals[known / 2]);
    if median < SHORTEST {
        return None;
    }
    for interval in &mut *intervals {
        *interval = interval.abs_diff(median);
    }
    intervals.sort_unstable();
    let spread = intervals[known - 1 - known / 10];
    let tolerance = (median / 20).min(median / (8 * each as u64));
    (spread <= tolerance).then(|| Periods {
        every: Duration::from_micros(median),
        spread: Duration::from_micros(spread),
        per_interval: u8::try_from(each).unwrap_or(u8::MAX),
        also: None,
    })
}

/// Occurrences of one interval among others.
struct Chain {
    every: u64,
    spread: u64,
    hits: usize,
    taken: [bool; TIMES],
}

/// Two intervals, or one with several occurrences some of which are missing.
fn two(times: &[i64]) -> Option<Periods> {
    let (first, last) = (*times.first()?, *times.last()?);
    if times.len() < 2 * HITS || last.abs_diff(first) < SHORTEST * HITS as u64 {
        return None;
    }
    let mut left = [true; TIMES];
    let mut left_over = times.len();
    // Interval, spread, occurrences, chains.
    let mut found: [(u64, u64, usize, u8); 2] = [(0, 0, 0, 0); 2];
    while left_over >= HITS {
        let Some(chain) = longest(times, &left) else { break };
        let is_like = |every: u64| every.abs_diff(chain.every) <= every / 20;
        let Some(period) = found
            .iter_mut()
            .find(|(every, ..)| *every == 0 || is_like(*every))
        else {
            break;
        };
        *period = (
            if period.0 == 0 { chain.every } else { period.0 },
            period.1.max(chain.spread),
            period.2 + chain.hits,
            period.3.saturating_add(1),
        );
        for (left, taken) in left.iter_mut().zip(chain.taken) {
            *left &= !taken;
        }
        left_over -= chain.hits;
    }
    if left_over * 5 > times.len() {
        return None;
    }
    found.sort_by_key(|(_, _, hits, _)| std::cmp::Reverse(*hits));
    let [(every, spread, _, per_interval), (also, _, _, of_also)] = found;
    // What needs many chains of both is explained by neither.
    if per_interval > 1 && of_also > 0 || of_also > 1 {
        return None;
    }
    Some(Periods {
        every: Duration::from_micros(every),
        spread: Duration::from_micros(spread),
        per_interval,
        also: (also > 0).then(|| Duration::from_micros(also)),
    })
}

/// The chain of most of the times that are left.
fn longest(times: &[i64], left: &[bool; TIMES]) -> Option<Chain> {
    let mut best: Option<Chain> = None;
    let places = || (0..times.len()).filter(|place| left[*place]);
    for start in places().take(STARTS) {
        for second in places().filter(|second| *second > start) {
            let every = times[second].abs_diff(times[start]);
            let Some(chain) = chain(times, left, start, every) else {
                continue;
            };
            let is_better = best.as_ref().is_none_or(|best| {
                (chain.hits, std::cmp::Reverse(chain.spread * best.every))
                    > (best.hits, std::cmp::Reverse(best.spread * chain.every))
            });
            if is_better {
                best = Some(chain);
            }
        }
    }
    best
}

/// What follows `start` at intervals of `every`, to a fiftieth, up to the latest of all; at most a quarter is missing.
fn chain(times: &[i64], left: &[bool; TIMES], start: usize, every: u64) -> Option<Chain> {
    if every < SHORTEST {
        return None;
    }
    let step = i64::try_from(every).ok()?;
    let mut chain = Chain {
        every,
        spread: 0,
        hits: 1,
        taken: [false; TIMES],
    };
    chain.taken[start] = true;
    let (mut at, mut place, mut missed) = (times[start], start + 1, 0);
    let last = *times.last()?;
    let mut expected = at + step;
    while expected <= last + step / 50 {
        let far = |place: usize| times[place].abs_diff(expected);
        while place < times.len() && times[place] < expected - step / 50 {
            place += 1;
        }
        let near = (place..times.len()).take_while(|place| times[*place] <= expected + step / 50);
        match near.filter(|place| left[*place]).min_by_key(|place| far(*place)) {
            Some(hit) => {
                chain.spread = chain.spread.max(far(hit));
                chain.hits += 1;
                chain.taken[hit] = true;
                at = times[hit];
                place = hit + 1;
                expected = at + step;
            }
            None => {
                missed += 1;
                expected += step;
                if missed > 2 && expected - at > 3 * step {
                    return None;
                }
            }
        }
    }
    (chain.hits >= HITS && missed * 4 <= chain.hits).then_some(chain)
}
