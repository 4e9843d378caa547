//! What many rounds of a measurement say: machines drift, so that one round says little.

use std::fmt;

/// Standard deviations that 95 % of a normal distribution are within.
const SIGMAS: f64 = 1.96;

/// Of the same round: what drifts, drifts in both.
pub fn ratios(with: &[f64], without: &[f64]) -> Vec<f64> {
    with.iter()
        .zip(without)
        .map(|(with, without)| with / without)
        .collect()
}

pub fn median(values: &[f64]) -> f64 {
    let sorted = sorted(values);
    let middle = sorted.len() / 2;
    match sorted.as_slice() {
        [] => 0.0,
        sorted if sorted.len() % 2 == 1 => sorted.get(middle).copied().unwrap_or_default(),
        sorted => sorted.iter().skip(middle - 1).take(2).sum::<f64>() / 2.0,
    }
}

fn sorted(values: &[f64]) -> Vec<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted
}

/// Where the median of all rounds that could be made is, with 95 % confidence.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MedianInterval {
    pub low: f64,
    pub high: f64,
}

impl MedianInterval {
    /// By the ranks of the values alone, as nothing is known of how they are distributed; `None` for fewer than six, of which the
    /// lowest and the highest are not far enough apart.
    pub fn of(values: &[f64]) -> Option<Self> {
        let sorted = sorted(values);
        let count = sorted.len();
        if count < 6 {
            return None;
        }
        // Values below the median are as many as heads of `count` tosses.
        let half = SIGMAS * (count as f64).sqrt() / 2.0;
        let below = ((count as f64 / 2.0 - half).floor().max(1.0) as usize) - 1;
        Some(Self {
            low: *sorted.get(below)?,
            high: *sorted.get(count - 1 - below)?,
        })
    }
}

impl fmt::Display for MedianInterval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.3}-{:.3}", self.low, self.high)
    }
}

/// How much `values` grow from one to the next, by least squares.
pub fn slope(values: &[f64]) -> f64 {
    let count = values.len() as f64;
    let mean = |sum: f64| sum / count;
    let (middle, average) = ((count - 1.0) / 2.0, mean(values.iter().sum()));
    let (mut above, mut below) = (0.0, 0.0);
    for (place, value) in values.iter().enumerate() {
        let distance = place as f64 - middle;
        above += distance * (value - average);
        below += distance * distance;
    }
    if below > 0.0 { above / below } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(count: u32) -> Vec<f64> {
        (1..=count).rev().map(f64::from).collect()
    }

    #[test]
    fn the_median_is_in_the_middle() {
        for (count, expected) in [(0, 0.0), (1, 1.0), (2, 1.5), (5, 3.0), (6, 3.5)] {
            assert_eq!(median(&numbers(count)), expected, "{count}");
        }
    }

    #[test]
    fn an_interval_has_ranks_of_the_binomial_distribution() {
        // Exact ranks of tables: 6 values 1 to 6 (96.9 %), 25 values 8 to 18 (95.7 %), 40 values 14 to 27 (96.2 %); rounded outwards.
        for (count, expected) in [
            (5, None),
            (6, Some((1.0, 6.0))),
            (25, Some((7.0, 19.0))),
            (40, Some((13.0, 28.0))),
        ] {
            let interval = MedianInterval::of(&numbers(count));
            assert_eq!(
                interval.map(|interval| (interval.low, interval.high)),
                expected,
                "{count}"
            );
        }
    }

    #[test]
    fn a_slope_is_of_the_whole() {
        for (values, expected) in [
            (vec![], 0.0),
            (vec![7.0], 0.0),
            (vec![1.0, 3.0, 5.0], 2.0),
            (vec![5.0, 5.0, 5.0, 5.0], 0.0),
            (vec![0.0, 9.0, 9.0, 0.0], 0.0),
        ] {
            assert_eq!(slope(&values), expected, "{values:?}");
        }
    }
}
