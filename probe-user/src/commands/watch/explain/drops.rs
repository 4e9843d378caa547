//! Evidence: packets that the kernel dropped.

use std::collections::HashSet;

use crate::{
    capture::{clock::Clock, drops::dropped},
    kernel::{KernelError, drops::DropsProbe, symbols::Symbols},
    model::{Connection, cause::dropped::DroppedPackets, settings::KernelSource},
};

/// The kernel side, where it runs, and names of kernel functions.
#[derive(Default)]
pub struct Drops {
    probe: Option<DropsProbe>,
    symbols: Symbols,
}

impl Drops {
    /// Attaches the kernel side.
    ///
    /// # Errors
    /// A kernel that can't do it.
    pub fn begin(&mut self, source: &KernelSource, ports: &HashSet<u16>) -> Result<(), KernelError> {
        self.probe = Some(DropsProbe::load(source, ports)?);
        Ok(())
    }

    /// Leaves out packets that no fault dropped, which from then on cost less.
    pub fn leave_out_settled(&mut self) {
        if let Some(probe) = &mut self.probe {
            // A kernel that refuses it counts them as before.
            let _ = probe.leave_out_settled();
        }
    }

    /// Dropped packets of these connections, and when the newest of them was first dropped (`CLOCK_MONOTONIC` nanoseconds).
    pub fn of(&mut self, connections: &[&Connection], clock: &Clock) -> (Vec<DroppedPackets>, Option<u64>) {
        let Some(probe) = &self.probe else {
            return (Vec::new(), None);
        };
        let mut found = Vec::new();
        let mut newest = None;
        let _ = probe.drops(|key, count| {
            let packets = dropped(&key, &count, clock, probe.reasons.as_ref(), None);
            if connections
                .iter()
                .any(|connection| packets.is_of_client(connection))
            {
                found.push((packets, count.location));
                newest = newest.max(Some(count.first_ns));
            }
        });
        self.symbols.find(found.iter().map(|(_, location)| *location));
        let drops = found
            .into_iter()
            .map(|(packets, location)| DroppedPackets {
                at: self.symbols.name(location).map(str::to_owned),
                ..packets
            })
            .collect();
        (drops, newest)
    }

    /// Dropped packets that found no room.
    pub fn lost(&self) -> u64 {
        self.probe.as_ref().map_or(0, DropsProbe::lost)
    }
}

impl Drop for Drops {
    fn drop(&mut self) {
        if let Some(probe) = &mut self.probe {
            probe.detach();
        }
    }
}
