//! What the kernel side counts besides its records, taken over piece by piece: its table must not fill up in a run that
//! never ends.

use std::collections::HashMap;

use probe_ebpf::contract::connection::{Counter, CounterKey, MAX_COUNTERS};

use crate::kernel::{KernelError, connection::Tables};

/// With more entries than this, those that count nothing any more make room.
const MANY: usize = MAX_COUNTERS as usize / 2;

/// What was taken over.
#[derive(Debug, Default)]
pub struct CounterDelta {
    seen: HashMap<CounterKey, Counter>,
}

impl CounterDelta {
    /// What was counted since the last time.
    ///
    /// # Errors
    /// When the kernel's map can't be read.
    pub fn more(&mut self, tables: &mut Tables) -> Result<Vec<(CounterKey, Counter)>, KernelError> {
        let mut now = Vec::new();
        tables.counters(|key, counter| now.push((key, counter)))?;
        let Step { more, idle } = self.step(now);
        for key in idle {
            // A connection that ends between the snapshot above and this one is not delta.
            tables.forget_counter(&key);
        }
        Ok(more)
    }

    fn step(&mut self, now: Vec<(CounterKey, Counter)>) -> Step {
        let many = now.len() > MANY;
        let before = std::mem::take(&mut self.seen);
        let mut step = Step::default();
        for (key, counter) in now {
            let more = since(&counter, before.get(&key));
            let is_idle = more.connections == 0;
            if !is_idle {
                step.more.push((key, more));
            }
            if is_idle && many {
                step.idle.push(key);
            } else {
                self.seen.insert(key, counter);
            }
        }
        step
    }
}

/// What was counted since.
fn since(now: &Counter, before: Option<&Counter>) -> Counter {
    match before {
        // Fewer than before: it was taken out, and has begun again.
        Some(before) if now.connections >= before.connections => Counter {
            connections: now.connections - before.connections,
            client_bytes: now.client_bytes.saturating_sub(before.client_bytes),
            server_bytes: now.server_bytes.saturating_sub(before.server_bytes),
            first_ns: before.last_ns,
            ..*now
        },
        _ => *now,
    }
}

#[derive(Default)]
struct Step {
    more: Vec<(CounterKey, Counter)>,
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

    fn counted(cgroup: u64, connections: u64) -> (CounterKey, Counter) {
        let counter = Counter {
            connections,
            client_bytes: 10 * connections,
            ..Counter::zeroed()
        };
        (key(cgroup), counter)
    }

    fn more(step: &Step) -> Vec<(u64, u64)> {
        let each = |(key, more): &(CounterKey, Counter)| {
            assert_eq!(more.client_bytes, 10 * more.connections);
            (key.cgroup, more.connections)
        };
        step.more.iter().map(each).collect()
    }

    #[test]
    fn only_what_is_new() {
        let mut delta = CounterDelta::default();
        for (now, expected) in [
            (vec![counted(1, 5), counted(2, 1)], vec![(1, 5), (2, 1)]),
            (vec![counted(1, 7), counted(2, 1)], vec![(1, 2)]),
            // Gone and come again.
            (vec![counted(2, 1)], vec![]),
            (vec![counted(1, 3), counted(2, 1)], vec![(1, 3)]),
            (vec![counted(1, 2)], vec![(1, 2)]),
        ] {
            assert_eq!(more(&delta.step(now)), expected);
        }
    }

    #[test]
    fn a_full_table_gets_room() {
        let mut delta = CounterDelta::default();
        let all = |count| -> Vec<_> { (0..=(MANY as u64)).map(|number| counted(number, count)).collect() };
        assert!(delta.step(all(1)).idle.is_empty());
        let mut now = all(1);
        now[3] = counted(3, 2);
        let step = delta.step(now);
        assert_eq!(more(&step), [(3, 1)]);
        assert_eq!(step.idle.len(), MANY);
        assert_eq!(delta.seen.len(), 1);
        // What was taken out counts from nothing when it is there again.
        assert_eq!(more(&delta.step(vec![counted(5, 4), counted(3, 2)])), [(5, 4)]);
    }
}
