//! Arrays that are walked as a whole: with many entries a call, where the kernel can (5.6), as a call for each costs more than
//! all else that `watch` does when nothing happens.

use std::{
    io, mem,
    ops::ControlFlow,
    os::fd::{AsFd, AsRawFd, OwnedFd},
};

use aya::{
    Ebpf,
    maps::{Array, Map, MapData},
};
use aya_obj::generated::{bpf_attr, bpf_cmd};

use super::{KernelError, bpf_syscall::bpf};
use crate::error::chain;

/// Entries a call.
const BATCH: usize = 256;

/// An array of values of `V` bytes, a multiple of eight, as the kernel copies them.
pub struct Slots<const V: usize> {
    map: Array<MapData, [u8; V]>,
    descriptor: OwnedFd,
    name: &'static str,
}

impl<const V: usize> Slots<V> {
    pub fn take(ebpf: &mut Ebpf, feature: &'static str, name: &'static str) -> Result<Self, KernelError> {
        const { assert!(V.is_multiple_of(8)) };
        let wrong = |reason: String| KernelError::Map { map: name, reason };
        let map = ebpf.take_map(name).ok_or(KernelError::Mismatch {
            feature,
            kind: "map",
            name,
        })?;
        let Map::Array(data) = &map else {
            return Err(wrong("it is no array".to_owned()));
        };
        let descriptor = data.fd().as_fd().try_clone_to_owned();
        Ok(Self {
            descriptor: descriptor.map_err(|error| wrong(error.to_string()))?,
            map: map.try_into().map_err(|error| wrong(chain(&error)))?,
            name,
        })
    }

    pub fn len(&self) -> u32 {
        self.map.len()
    }

    /// Calls `each` with every entry until it breaks off, and returns whether it did.
    pub fn each(
        &self,
        mut each: impl FnMut(&[u8; V]) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, KernelError> {
        match self.in_batches(&mut each) {
            // Of the first batch only: nothing was handed over yet.
            Err(_) => self.one_by_one(&mut each),
            Ok(flow) => flow.map_err(|error| KernelError::Map {
                map: self.name,
                reason: error.to_string(),
            }),
        }
    }

    /// The outer error is a kernel's that has no batches.
    fn in_batches(
        &self,
        each: &mut impl FnMut(&[u8; V]) -> ControlFlow<()>,
    ) -> io::Result<io::Result<ControlFlow<()>>> {
        let mut values = vec![[0; V]; BATCH.min(self.len() as usize)];
        let mut keys = vec![0; values.len()];
        let mut at = None;
        loop {
            let (read, end) = match self.batch(at, &mut keys, &mut values) {
                Ok(read) => read,
                Err(error) if at.is_none() => return Err(error),
                Err(error) => return Ok(Err(error)),
            };
            let read = values.get(..read).unwrap_or_default();
            if read.iter().try_for_each(&mut *each).is_break() {
                return Ok(Ok(ControlFlow::Break(())));
            }
            match end {
                Some(next) if !read.is_empty() => at = Some(next),
                Some(_) | None => return Ok(Ok(ControlFlow::Continue(()))),
            }
        }
    }

    /// How many were read after the entry `at`, and, unless these are the last, where to go on.
    fn batch(
        &self,
        at: Option<u32>,
        keys: &mut [u32],
        values: &mut [[u8; V]],
    ) -> io::Result<(usize, Option<u32>)> {
        let (start, mut next) = (at.unwrap_or_default(), 0_u32);
        // SAFETY: all its members are integers.
        let mut attributes: bpf_attr = unsafe { mem::zeroed() };
        // SAFETY: the same; any of its variants is valid.
        let batch = unsafe { &mut attributes.batch };
        batch.in_batch = at.map_or(0, |_| (&raw const start).expose_provenance() as u64);
        batch.out_batch = (&raw mut next).expose_provenance() as u64;
        batch.keys = keys.as_mut_ptr().expose_provenance() as u64;
        batch.values = values.as_mut_ptr().expose_provenance() as u64;
        batch.count = keys.len().min(values.len()) as u32;
        batch.map_fd = self.descriptor.as_raw_fd() as u32;
        // SAFETY: the kernel writes at most `count` keys of 4 bytes and values of V, which are as many and as long, and one key
        // to `next`; all outlive the call.
        let result = unsafe { bpf(bpf_cmd::BPF_MAP_LOOKUP_BATCH, &mut attributes) };
        // SAFETY: an integer, in which the kernel wrote how many it read.
        let read = unsafe { attributes.batch.count } as usize;
        match result {
            Ok(_) => Ok((read, Some(next))),
            // These were the last.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok((read, None)),
            Err(error) => Err(error),
        }
    }

    fn one_by_one(
        &self,
        each: &mut impl FnMut(&[u8; V]) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, KernelError> {
        for index in 0..self.len() {
            let value = self.map.get(&index, 0).map_err(|error| KernelError::Map {
                map: self.name,
                reason: chain(&error),
            })?;
            if each(&value).is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }
}
