//! Keeps a run to its share of a core: measures what it uses, and has the kernel side hand over less, or more again.

use std::time::{Duration, Instant};

use probe_ebpf::contract::connection::StormLimit;

use crate::{
    cli::rate_of,
    host::cpu,
    model::throttle::{Measured, Throttle},
    report::say,
};

/// As long as the kernel side counts a second.
const EVERY: Duration = Duration::from_millis(1074);
/// Of each source beyond, in a second: fewer than usual, so that there is room for more sources.
const SAMPLES: u64 = 2;
/// Changes are said no more often.
const SAY: Duration = Duration::from_secs(10);

/// What a run may use, and how it keeps to it.
pub struct Shedding {
    percent: f64,
    throttle: Throttle,
    /// As it was asked for.
    limit: StormLimit,
    since: Instant,
    cpu: Duration,
    listed: u64,
    /// What was said last, and when.
    said: Option<(bool, Instant)>,
}

impl Shedding {
    /// `percent` of a core; `limit`: what the kernel side hands over as long as that is enough.
    pub fn new(percent: f64, limit: StormLimit) -> Self {
        let most = rate_of(limit);
        Self {
            percent,
            throttle: Throttle::new(percent / 100.0, most),
            limit,
            since: Instant::now(),
            cpu: cpu::of_process(),
            listed: 0,
            said: None,
        }
    }

    /// The limit from now on, if it is another. `listed`: connections that were, since the run began.
    pub fn next(&mut self, listed: u64) -> Option<StormLimit> {
        let elapsed = self.since.elapsed();
        if elapsed < EVERY {
            return None;
        }
        let cpu = cpu::of_process();
        let changed = self.throttle.measured(&Measured {
            elapsed,
            cpu: cpu.saturating_sub(self.cpu),
            listed: listed - self.listed,
        });
        (self.since, self.cpu, self.listed) = (Instant::now(), cpu, listed);
        if !changed {
            return None;
        }
        self.say();
        Some(match self.throttle.rate() {
            // Half of it is for sources that come after the first half of a second's connections.
            Some(rate) if self.throttle.is_on() => StormLimit::of(rate / 2, SAMPLES),
            _ => self.limit,
        })
    }

    /// That less is listed, and that all is again.
    fn say(&mut self) {
        let is_on = self.throttle.is_on();
        let was_on = self.said.is_some_and(|(said, _)| said);
        let is_early = self.said.is_some_and(|(_, at)| at.elapsed() < SAY);
        if is_on == was_on || is_early {
            return;
        }
        self.said = Some((is_on, Instant::now()));
        match self.throttle.rate() {
            Some(rate) if is_on => say(format_args!(
                "probe: using more than {} % of a core (--max-cpu): lists {rate} connections a second from now on and counts the others \
                 by source",
                self.percent
            )),
            _ => say(format_args!(
                "probe: using less than {} % of a core again (--max-cpu): lists connections as before",
                self.percent
            )),
        }
    }
}

/// Says what was only counted, while it happens.
pub struct Storms {
    counted: u64,
    said: Instant,
    is_on: bool,
}

impl Storms {
    pub fn new() -> Self {
        Self {
            counted: 0,
            said: Instant::now(),
            is_on: false,
        }
    }

    /// `counted`: connections that were only counted, since the run began. The first are said at once, more every ten seconds.
    pub fn report(&mut self, counted: u64) {
        if counted == self.counted || self.is_on && self.said.elapsed() < SAY {
            self.is_on &= self.said.elapsed() < SAY;
            return;
        }
        let more = counted - self.counted;
        let since = if self.is_on {
            format!(" in {} s", self.said.elapsed().as_secs())
        } else {
            String::new()
        };
        say(format_args!(
            "probe: too many connections a second to list them all (--max-rate): {more} counted by source only{since}; the summary has them"
        ));
        (self.counted, self.said, self.is_on) = (counted, Instant::now(), true);
    }
}
