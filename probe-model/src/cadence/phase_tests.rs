use super::*;
use crate::random::Numbers;

/// Times from 100 s on: `every` for each number.
fn times(count: usize, mut every: impl FnMut(usize) -> f64) -> Vec<f64> {
    let mut time = 100.0;
    let times = (0..count).map(|number| {
        time += every(number);
        time
    });
    times.collect()
}

/// How many of the times before the last `recorded` stand on the phase; `None`: no steady interval.
fn beats(all: &[f64], recorded: usize) -> Option<usize> {
    let (earlier, recorded) = all.split_at(all.len() - recorded);
    let phase = Phase::follow(recorded, earlier)?;
    // Each is there once, and none that is not.
    let mut places = phase.beats.clone();
    places.sort_unstable();
    places.dedup();
    assert_eq!(places.len(), phase.beats.len());
    assert!(places.iter().all(|place| *place < earlier.len()));
    phase.is_enough().then_some(phase.beats.len())
}

#[test]
fn sources_that_are_followed_and_that_are_not() {
    let mut numbers = Numbers(0x2545_f491_4f6c_dd1d);
    let mut random = move || 2.0 * numbers.unit() - 1.0;
    for (what, all, expected) in [
        ("60.013 s for two days", times(2900, |_| 60.013), Some(2880)),
        (
            "a loop that sleeps 60 s and works 5 to 15 ms",
            times(1500, |_| 60.01 + 0.005 * random()),
            Some(1480),
        ),
        ("5 s", times(1000, |_| 5.002), Some(980)),
        (
            "the clock is slewed: an interval of 60.003 s becomes 60.020 s in a day",
            times(1460, |number| 60.003 + 0.017 * number as f64 / 1460.0),
            Some(1440),
        ),
        ("20 times", times(40, |_| 60.0), Some(20)),
        ("19 times", times(39, |_| 60.0), None),
        (
            "a tenth of the interval late",
            times(200, |_| 60.0 + 3.0 * random()),
            None,
        ),
        (
            "it gets slower by a hundredth of a second each time",
            times(200, |number| 60.0 + 0.01 * number as f64),
            None,
        ),
        ("no interval", times(200, |_| 61.0 + 59.0 * random()), None),
        ("at one moment", times(200, |_| 0.0), None),
    ] {
        assert_eq!(beats(&all, 20), expected, "{what}");
    }
    // 9 recorded connections are no interval.
    assert_eq!(beats(&times(100, |_| 60.0), 9), None);
    assert_eq!(beats(&times(100, |_| 60.0), 10), Some(90));
}

#[test]
fn gaps() {
    let all = times(600, |_| 60.01);
    let (earlier, recorded) = all.split_at(580);
    let without = |gap: std::ops::Range<usize>| {
        let mut earlier = earlier.to_vec();
        earlier.drain(gap);
        Phase::follow(recorded, &earlier).map(|phase| phase.beats.len())
    };
    // The log ends half an hour before the recording, and two hours.
    assert_eq!(without(550..580), Some(550));
    assert_eq!(without(460..580), Some(0));
    // One is missing, ten, and eleven.
    assert_eq!(without(300..301), Some(579));
    assert_eq!(without(300..310), Some(570));
    assert_eq!(without(300..311), Some(269));
    // Every second one is missing, and two of three.
    let every = |many: usize| {
        let earlier: Vec<f64> = earlier.iter().step_by(many).copied().collect();
        Phase::follow(recorded, &earlier).is_some_and(|phase| phase.is_enough())
    };
    assert!(every(2));
    assert!(!every(3));
}

#[test]
fn other_lines_at_the_address() {
    let all = times(600, |_| 60.01);
    let (earlier, recorded) = all.split_at(580);
    // Others beside it, and one in its place twice: these two are nobody's.
    let mut mixed = earlier.to_vec();
    mixed.extend(earlier.iter().map(|time| time + 20.0));
    mixed.push(earlier[100] + 0.001);
    mixed.push(earlier[101] - 0.001);
    mixed.sort_by(f64::total_cmp);
    let phase = Phase::follow(recorded, &mixed).unwrap();
    assert_eq!(phase.beats.len(), 578);
    for place in &phase.beats {
        assert!(earlier.contains(&mixed[*place]));
    }
    // Somebody in the same place each time: nobody's, and from there on back unknown.
    let mut mixed = earlier.to_vec();
    mixed.extend(earlier[..400].iter().map(|time| time + 0.004));
    mixed.sort_by(f64::total_cmp);
    let phase = Phase::follow(recorded, &mixed).unwrap();
    assert_eq!(phase.beats.len(), 180);
    assert!(phase.beats.iter().all(|place| mixed[*place] > earlier[399] + 0.1));
}

#[test]
fn two_sources() {
    // Phases 10 s apart that never meet, and phases that cross 200 intervals before the recording.
    let one = times(600, |_| 60.01);
    for (other, meets) in [
        (one.iter().map(|time| time + 10.0).collect::<Vec<_>>(), false),
        (
            (0..600)
                .map(|number| one[number] + (400.0 - number as f64) * 0.02)
                .collect(),
            true,
        ),
    ] {
        let (earlier, recorded) = one.split_at(580);
        let mut all = [earlier, &other[..580]].concat();
        all.sort_by(f64::total_cmp);
        let first = Phase::follow(recorded, &all).unwrap();
        let second = Phase::follow(&other[580..], &all).unwrap();
        let met = first.meets(&second, 0.0);
        assert_eq!(met.is_some(), meets);
        assert_eq!(second.meets(&first, 0.0).is_some(), meets);
        if let Some(met) = met {
            assert!((met - one[400]).abs() < 60.0 * 6.0, "{met} {}", one[400]);
            let mut first = first;
            first.begin(met, &all);
            assert!(first.beats.iter().all(|place| earlier.contains(&all[*place])));
        }
        assert!(!first_is_of_clock(&one));
    }
}

fn first_is_of_clock(times: &[f64]) -> bool {
    let (earlier, recorded) = times.split_at(580);
    let origin = Timestamp::from_second(1_795_000_020).unwrap();
    let phase = Phase::follow(recorded, earlier).unwrap();
    phase.is_of_clock(earlier, origin)
}

#[test]
fn what_a_clock_starts() {
    // 1,795,000,020 s is 7 o'clock and 7 minutes, and the first time is 100 s later.
    let every = |every: f64, late: f64| {
        let mut times = times(600, |_| every);
        let first = times[0];
        for time in &mut times {
            *time += 180.0 - first + late;
        }
        first_is_of_clock(&times)
    };
    assert!(every(60.0, 0.02));
    assert!(every(60.0, -0.5));
    assert!(every(10.0, 0.0));
    assert!(!every(60.0, 13.0));
    // It drifts through the whole minute.
    assert!(!every(60.02, 0.0));
    // No part of a day.
    assert!(!every(61.0, 0.0));
}
