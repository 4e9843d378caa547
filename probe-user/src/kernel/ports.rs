//! A set of ports that the kernel program looks up: an array of 1024 words, one bit a port.

use std::collections::HashSet;

use aya::{
    Ebpf,
    maps::{Array, MapData},
};

use super::{KernelError, maps::take};
use crate::error::chain;

pub struct PortSet {
    map: Array<MapData, u64>,
    name: &'static str,
    ports: HashSet<u16>,
}

impl PortSet {
    /// Takes the map out of a loaded object, in which no bit is set.
    ///
    /// # Errors
    /// When the object has no such map.
    pub fn take(ebpf: &mut Ebpf, feature: &'static str, name: &'static str) -> Result<Self, KernelError> {
        Ok(Self {
            map: take(ebpf, feature, name)?,
            name,
            ports: HashSet::new(),
        })
    }

    /// Makes it these ports, and no others.
    ///
    /// # Errors
    /// When the kernel's map can't be written.
    pub fn set(&mut self, ports: &HashSet<u16>) -> Result<(), KernelError> {
        if *ports == self.ports {
            return Ok(());
        }
        let words: HashSet<u16> = ports.union(&self.ports).map(|port| port >> 6).collect();
        for word in words {
            let bits = ports
                .iter()
                .filter(|port| *port >> 6 == word)
                .fold(0_u64, |bits, port| bits | 1 << (port & 63));
            self.map
                .set(u32::from(word), bits, 0)
                .map_err(|error| KernelError::Map {
                    map: self.name,
                    reason: chain(&error),
                })?;
        }
        self.ports.clone_from(ports);
        Ok(())
    }
}
