//! This kernel's types, as far as any object needs them: read once for all objects that are loaded meanwhile.

use std::{
    collections::{BTreeSet, HashMap},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, Weak},
};

use aya::{Btf as AyaBtf, EbpfLoader, Endianness};
use probe_ebpf::contract::{
    hooks::{functions, tracepoints},
    offsets::Offsets,
};

use super::{
    KernelError, OBJECTS,
    btf::{Absent, Btf, Name},
    memory,
    object::Object,
};
use crate::{error::chain, model::settings::KernelSource};

const SUBSYSTEMS: &str = "cgroup_subsys_id";
const REASONS: &str = "skb_drop_reason";
const HELPERS: &str = "bpf_func_id";

static LATEST: Latest<KernelTypes> = Latest(Mutex::new(None));

/// What was read last, and of which file, as long as somebody holds it.
struct Latest<T>(Mutex<Option<(PathBuf, Weak<T>)>>);

impl<T> Latest<T> {
    /// What somebody holds of this file, if it is `enough`; calls `read` otherwise, and has others wait for it.
    fn get<E>(
        &self,
        path: &Path,
        enough: impl FnOnce(&T) -> bool,
        read: impl FnOnce() -> Result<T, E>,
    ) -> Result<Arc<T>, E> {
        let mut latest = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((known, held)) = &*latest
            && known == path
            && let Some(held) = held.upgrade()
            && enough(&held)
        {
            return Ok(held);
        }
        let read = Arc::new(read()?);
        *latest = Some((path.to_owned(), Arc::downgrade(&read)));
        Ok(read)
    }
}

/// This kernel's types. Held while objects are loaded, and by nothing that runs: the ids alone take up to 5 MB.
pub struct KernelTypes {
    /// Names of the objects whose hooks were looked for.
    objects: Vec<&'static str>,
    pub offsets: Offsets,
    /// Fields this kernel does not have.
    pub absent: Vec<Absent>,
    /// How many arguments each tracepoint has.
    arguments: HashMap<&'static str, u32>,
    /// Names of the reasons for drops; none before 5.17.
    pub reasons: HashMap<u32, String>,
    /// Control group controllers by their index: `pids_cgrp_id`.
    pub subsystems: HashMap<u32, String>,
    /// Whether programs can read the coarse clock (5.11).
    pub coarse_clock: bool,
    /// BTF with the ids of the tracepoints and functions.
    pub ids: AyaBtf,
    /// One for each object.
    loaders: Mutex<Vec<EbpfLoader<'static>>>,
}

impl KernelTypes {
    /// For all objects. Those that are loaded while the result is held read none.
    ///
    /// # Errors
    /// When the kernel has no BTF, or a required field is not in it.
    pub fn hold(source: &KernelSource) -> Result<Arc<Self>, KernelError> {
        Self::of(source, &OBJECTS)
    }

    /// For these objects: those that somebody holds already, or what is read now.
    pub(super) fn of(source: &KernelSource, objects: &[&Object]) -> Result<Arc<Self>, KernelError> {
        let has_all = |types: &Self| objects.iter().all(|object| types.objects.contains(&object.name));
        LATEST.get(&source.btf, has_all, || {
            memory::raise_limit();
            // The most memory is needed from here until the objects are loaded.
            memory::give_back();
            let mut types = Self::read(&source.btf, objects)?;
            let loaders = || objects.iter().map(|_| EbpfLoader::new()).collect();
            types.loaders = Mutex::new(memory::without_files(loaders));
            Ok(types)
        })
    }

    /// Reads a file.
    pub(super) fn read(path: &Path, objects: &[&Object]) -> Result<Self, KernelError> {
        let hooks = || objects.iter().map(|object| object.hooks);
        let tracepoints: BTreeSet<_> = hooks().flat_map(tracepoints).collect();
        let functions = hooks().flat_map(functions).map(Name::Function);
        let enumerations = [SUBSYSTEMS, REASONS, HELPERS].map(Name::Members);
        let names = tracepoints.iter().copied().map(Name::Tracepoint);
        let btf = Btf::read(path, names.chain(functions).chain(enumerations))?;
        let (offsets, absent) = btf.offsets()?;
        let mut types = Self {
            objects: objects.iter().map(|object| object.name).collect(),
            offsets,
            absent,
            arguments: tracepoints
                .into_iter()
                .filter_map(|name| Some((name, btf.arguments(name)?)))
                .collect(),
            reasons: btf.names(REASONS, "SKB_DROP_REASON_"),
            subsystems: btf.names(SUBSYSTEMS, ""),
            coarse_clock: btf
                .names(HELPERS, "BPF_FUNC_")
                .values()
                .any(|name| name == "ktime_get_coarse_ns"),
            ids: AyaBtf::new(),
            loaders: Mutex::default(),
        };
        let hooks = btf.hooks();
        // Before 6.16 a copy of 5 MB; the ids take as much again.
        drop(btf);
        types.ids =
            AyaBtf::parse(&hooks, Endianness::default()).map_err(|error| KernelError::Ids(chain(&error)))?;
        Ok(types)
    }

    /// How many arguments a tracepoint has; 0 where there is none of that name.
    pub fn arguments(&self, tracepoint: &str) -> u32 {
        self.arguments.get(tracepoint).copied().unwrap_or(0)
    }

    /// Whether the kernel reports why it drops a packet (5.17).
    pub fn has_reasons(&self) -> bool {
        self.arguments("kfree_skb") >= 3
    }

    /// A loader for one object. Those made with the types need no moment without files, in which no other thread may open
    /// one.
    pub(super) fn loader<'a>(&self) -> EbpfLoader<'a> {
        let mut loaders = self.loaders.lock().unwrap_or_else(PoisonError::into_inner);
        let mut loader = loaders
            .pop()
            .unwrap_or_else(|| memory::without_files(EbpfLoader::new));
        loader.btf(None);
        loader
    }
}

impl Drop for KernelTypes {
    fn drop(&mut self) {
        // All of it is free before the allocator gives back what is.
        self.ids = AyaBtf::new();
        memory::give_back();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_once_while_enough_of_it_is_held() {
        let latest = Latest(Mutex::new(None));
        let get = |path: &str, least: u32, number: u32| {
            let read = || (number != 0).then_some(number).ok_or("unreadable");
            latest.get(Path::new(path), |held| *held >= least, read)
        };
        assert_eq!(get("a", 1, 0), Err("unreadable"));
        let held = get("a", 1, 1);
        for number in [0, 2] {
            assert_eq!(get("a", 1, number), Ok(Arc::new(1)), "held");
        }
        let more = get("a", 2, 2);
        assert_eq!(more, Ok(Arc::new(2)), "not enough was held");
        assert_eq!(get("a", 1, 0), more, "more than enough is held");
        drop((held, more));
        let held = get("a", 1, 3);
        assert_eq!(held, Ok(Arc::new(3)), "no longer held");
        assert_eq!(get("b", 1, 4), Ok(Arc::new(4)), "another file");
    }
}
