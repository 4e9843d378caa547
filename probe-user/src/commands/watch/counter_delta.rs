//! What the kernel side counts besides its records, taken over piece by piece: its table must not fill up in a run that
//! never ends.

use std::collections::HashMap;

use probe_ebpf::contract::connection::{CounterKey, MAX_COUNTERS};

use crate::kernel::{KernelError, connection::Tables};

/// With more entries than this, those that count nothing any more make room.
const MANY: usize = MAX_COUNTERS as usize / 2;

/// What was taken over.
#[derive(Debug, Default)]
pub struct CounterDelta {
    seen: HashMap<CounterKey, u64>,
}

impl CounterDelta {
    /// What was counted since the last time.
    ///
    /// # Errors
    /// When the kernel's map can't be read.
    pub fn more(&mut self, tables: &mut Tables) -> Result<Vec<(CounterKey, u64)>, KernelError> {
        let mut now = Vec::new();
        tables.counters(|key, counter| now.push((key, counter.connections)))?;
        let Step { more, idle } = self.step(now);
        for key in idle {
            // A connection that ends between the snapshot above and this one is not counted.
            tables.forget_counter(&key);
        }
        Ok(more)
    }

    fn step(&mut self, now: Vec<(CounterKey, u64)>) -> Step {
        let many = now.len() > MANY;
        let before = std::mem::take(&mut self.seen);
        let mut step = Step::default();
        for (key, count) in now {
            let seen = before.get(&key).copied();
            // Fewer than before: it was taken out, and has begun again.
            let more = count.checked_sub(seen.unwrap_or(0)).unwrap_or(count);
            if more > 0 {
                step.more.push((key, more));
            }
            if more == 0 && many {
                step.idle.push(key);
            } else {
                self.seen.insert(key, count);
            }
        }
        step
    }
}

#[derive(Default)]
struct Step {
    more: Vec<(CounterKey, u64)>,
    idle: Vec<CounterKey>,
}

#[cfg(test)]
mod tests {
    use bytemuck::Zeroable;

    use super::*;

    fn key(cgroup: u64) -> CounterKey {
        CounterKey {
            cgroup,
            ..CounterKey::zeroed()
        }
    }

    fn more(step: &Step) -> Vec<(u64, u64)> {
        step.more
            .iter()
            .map(|(key, count)| (key.cgroup, *count))
            .collect()
    }

    #[test]
    fn only_what_is_new() {
        let mut counted = CounterDelta::default();
        assert_eq!(
            more(&counted.step(vec![(key(1), 5), (key(2), 1)])),
            [(1, 5), (2, 1)]
        );
        assert_eq!(more(&counted.step(vec![(key(1), 7), (key(2), 1)])), [(1, 2)]);
        // Gone and come again.
        assert_eq!(more(&counted.step(vec![(key(2), 1)])), []);
        assert_eq!(more(&counted.step(vec![(key(1), 3), (key(2), 1)])), [(1, 3)]);
        assert_eq!(more(&counted.step(vec![(key(1), 2)])), [(1, 2)]);
    }

    #[test]
    fn a_full_table_gets_room() {
        let mut counted = CounterDelta::default();
        let all = |count| -> Vec<_> { (0..=(MANY as u64)).map(|number| (key(number), count)).collect() };
        assert!(counted.step(all(1)).idle.is_empty());
        let mut now = all(1);
        now[3].1 = 2;
        let step = counted.step(now);
        assert_eq!(more(&step), [(3, 1)]);
        assert_eq!(step.idle.len(), MANY);
        assert_eq!(counted.seen.len(), 1);
        // What was taken out counts from nothing when it is there again.
        assert_eq!(more(&counted.step(vec![(key(5), 4), (key(3), 2)])), [(5, 4)]);
    }
}
