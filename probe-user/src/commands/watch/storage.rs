//! The stage that leaves out what is neither shown nor stored. The kernel side filters outcomes of all ports alike: where those of
//! some ports only are stored, the others come too, and are counted here.

use std::collections::HashMap;

use probe_ebpf::contract::connection::{CounterKey, MAX_COUNTERS};

use crate::{
    capture::connection::{Side, SideState},
    cli::Watch,
};

/// Sides in, those that are shown or stored out; the others as the kernel side counts what it does not hand over.
#[derive(Default)]
pub struct Storage {
    unstored: HashMap<CounterKey, u64>,
}

impl Storage {
    /// Whether a side is shown or stored.
    pub fn has(&mut self, settings: &Watch, side: &Side) -> bool {
        match &side.state {
            SideState::Ended(record, outcome) => {
                let has =
                    settings.outcomes.contains(outcome) || settings.stored.has(record.connection.server_port);
                if !has {
                    let raw = &record.connection;
                    self.count(CounterKey {
                        cgroup: raw.task.cgroup,
                        client: raw.client,
                        server: raw.server,
                        netns: raw.netns,
                        port: raw.server_port,
                        role: raw.role,
                        outcome: record.outcome,
                    });
                }
                has
            }
            SideState::Open(_) | SideState::Unfinished(..) => true,
        }
    }

    /// What was left out since the last time.
    pub fn take(&mut self) -> HashMap<CounterKey, u64> {
        std::mem::take(&mut self.unstored)
    }

    fn count(&mut self, key: CounterKey) {
        if self.unstored.len() < MAX_COUNTERS as usize || self.unstored.contains_key(&key) {
            *self.unstored.entry(key).or_default() += 1;
        }
    }
}
