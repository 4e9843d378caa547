//! Maps of an object, with errors that name them.

use std::ops::ControlFlow;

use aya::{
    Ebpf,
    maps::{HashMap, Map, MapData, MapError, PerCpuHashMap, PerCpuValues},
};
use bytemuck::AnyBitPattern;

use super::KernelError;
use crate::error::chain;

/// Takes a map out of a loaded object.
pub fn take<T: TryFrom<Map, Error = MapError>>(
    ebpf: &mut Ebpf,
    feature: &'static str,
    name: &'static str,
) -> Result<T, KernelError> {
    let map = ebpf.take_map(name).ok_or(KernelError::Mismatch {
        feature,
        kind: "map",
        name,
    })?;
    T::try_from(map).map_err(|error| KernelError::Map {
        map: name,
        reason: chain(&error),
    })
}

/// The same of which each CPU has its own values.
pub struct PerCpuTable<const K: usize, const V: usize> {
    map: PerCpuHashMap<MapData, [u8; K], [u8; V]>,
    name: &'static str,
}

/// The values of all CPUs as one; `None` without a CPU.
pub fn sum<T: AnyBitPattern, const N: usize>(per_cpu: &[[u8; N]], add: fn(T, T) -> T) -> Option<T> {
    per_cpu
        .iter()
        .map(|value| bytemuck::pod_read_unaligned(value))
        .reduce(add)
}

impl<const K: usize, const V: usize> PerCpuTable<K, V> {
    pub fn take(ebpf: &mut Ebpf, feature: &'static str, name: &'static str) -> Result<Self, KernelError> {
        Ok(Self {
            map: take(ebpf, feature, name)?,
            name,
        })
    }

    /// Calls `each` with every entry and its values, one a CPU. What comes or goes meanwhile may be missed or seen
    /// twice.
    pub fn each(&self, mut each: impl FnMut(&[u8; K], &[[u8; V]])) -> Result<(), KernelError> {
        for entry in &self.map {
            match entry {
                Ok((key, values)) => each(&key, &values),
                // Deleted under the walk, which then starts over.
                Err(MapError::KeyNotFound) => {}
                Err(error) => {
                    return Err(KernelError::Map {
                        map: self.name,
                        reason: chain(&error),
                    });
                }
            }
        }
        Ok(())
    }

    /// The values of one entry, one a CPU; `None` when there is none.
    pub fn get(&self, key: &[u8; K]) -> Option<PerCpuValues<[u8; V]>> {
        self.map.get(key, 0).ok()
    }

    pub fn remove(&mut self, key: &[u8; K]) {
        // Gone already is as good.
        let _ = self.map.remove(key);
    }
}

/// A hash map whose keys and values are the contract's types, as the bytes they are.
pub struct Table<const K: usize, const V: usize> {
    map: HashMap<MapData, [u8; K], [u8; V]>,
    name: &'static str,
}

impl<const K: usize, const V: usize> Table<K, V> {
    pub fn take(ebpf: &mut Ebpf, feature: &'static str, name: &'static str) -> Result<Self, KernelError> {
        Ok(Self {
            map: take(ebpf, feature, name)?,
            name,
        })
    }

    /// `None` when there is no such entry.
    pub fn get(&self, key: &[u8; K]) -> Option<[u8; V]> {
        self.map.get(key, 0).ok()
    }

    pub fn remove(&mut self, key: &[u8; K]) {
        // Gone already is as good.
        let _ = self.map.remove(key);
    }

    /// Calls `each` with every entry until it breaks off. What comes or goes meanwhile may be missed or seen twice.
    pub fn each(
        &self,
        mut each: impl FnMut(&[u8; K], &[u8; V]) -> ControlFlow<()>,
    ) -> Result<(), KernelError> {
        for entry in &self.map {
            match entry {
                Ok((key, value)) => {
                    if each(&key, &value).is_break() {
                        break;
                    }
                }
                // Deleted under the walk, which then starts over.
                Err(MapError::KeyNotFound) => {}
                Err(error) => {
                    return Err(KernelError::Map {
                        map: self.name,
                        reason: chain(&error),
                    });
                }
            }
        }
        Ok(())
    }
}
