//! What all objects need: their maps made, and their programs loaded.

use std::{
    cell::OnceCell,
    collections::HashMap,
    io::{self, Read as _},
    sync::Arc,
};

use aya::Ebpf;
use probe_ebpf::contract::{
    connection::global::OFFSETS,
    hooks::{Hook, Program},
};

use super::{
    KernelError,
    btf::Absent,
    hooks::{Attempt, Degraded, HookError, Target},
    messages::{self, Reader},
    netfilter::Filter,
    types::KernelTypes,
};
use crate::{error::chain, model::settings::KernelSource};

/// An object, as it is built into probe: compressed (deflate).
pub struct Object {
    /// The `[[bin]]` of probe-ebpf.
    pub name: &'static str,
    /// The command it is for.
    pub feature: &'static str,
    pub plain: &'static [u8],
    /// The same with messages for debugging.
    pub with_messages: &'static [u8],
    pub hooks: &'static [Hook],
    /// Members of [`Offsets`] that its programs read, separated by commas: the build script takes them from the sources. One that
    /// a kernel does not have is a loss of this object; fields that only other objects read are not.
    pub reads: &'static str,
}

impl Object {
    /// The object to load: with messages where they were asked for.
    ///
    /// # Errors
    /// When this binary is damaged.
    fn bytes(&self) -> Result<Vec<u8>, KernelError> {
        let compressed = match messages::threshold() {
            Some(_) => self.with_messages,
            None => self.plain,
        };
        inflated(compressed).map_err(|error| KernelError::Object {
            feature: self.feature,
            reason: error.to_string(),
        })
    }

    /// This kernel's types, as this object needs them.
    ///
    /// # Errors
    /// When the kernel has no BTF, or a required field is not in it.
    pub fn types(&'static self, source: &KernelSource) -> Result<Types, KernelError> {
        Ok(Types::of(KernelTypes::of(source, &[self])?, self))
    }

    /// Makes the maps, `sizes` of them with so many entries. The programs are not loaded yet. `globals` are constants that the
    /// verifier knows, besides the offsets.
    ///
    /// # Errors
    /// When the kernel makes no such map.
    pub fn load(
        &self,
        types: &Types,
        globals: &[(&str, &[u8])],
        sizes: &[(&str, u32)],
    ) -> Result<Ebpf, KernelError> {
        let mut loader = types.kernel.loader();
        if let Some(threshold) = messages::threshold() {
            loader.override_global(aya_log::LEVEL, threshold, true);
        }
        loader.override_global(OFFSETS, bytemuck::bytes_of(&types.kernel.offsets), true);
        for (name, value) in globals {
            loader.override_global(name, *value, true);
        }
        for (name, entries) in sizes {
            loader.map_max_entries(name, *entries);
        }
        loader
            .load(types.bytes(self)?)
            .map_err(|error| KernelError::Object {
                feature: self.feature,
                reason: chain(&error),
            })
    }
}

/// An object as the linker wrote it.
pub(super) fn inflated(compressed: &[u8]) -> io::Result<Vec<u8>> {
    let mut object = Vec::new();
    flate2::read::DeflateDecoder::new(compressed).read_to_end(&mut object)?;
    Ok(object)
}

/// What this kernel makes of an object: every program for every hook, tried.
pub struct Checked {
    pub absent: Vec<Absent>,
    pub hooks: Vec<(Hook, Vec<Attempt>)>,
}

impl Checked {
    /// Adds what another object of the same command needs.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.hooks.extend(other.hooks);
        let known = self.absent.len();
        for absent in other.absent {
            if !self.absent.iter().take(known).any(|known| *known == absent) {
                self.absent.push(absent);
            }
        }
        self
    }
}

/// Names of the reasons for drops, by the kernel's numbers; `None` before 5.17, which reports none.
pub type Reasons = Option<HashMap<u32, String>>;

/// How an object is attached.
pub struct Attached {
    /// Which program serves which hook.
    pub used: Vec<(Hook, Program)>,
    /// Hooks this kernel does not give.
    pub degraded: Vec<Degraded>,
    /// Fields this kernel does not have, of those that the object reads.
    pub absent: Vec<Absent>,
    /// Those of its programs that aya does not hold.
    pub filters: Vec<Filter>,
    /// Prints its messages, where they were asked for.
    pub messages: Option<Reader>,
}

/// This kernel's types for one object.
pub struct Types {
    pub kernel: Arc<KernelTypes>,
    /// Fields this kernel does not have, of those that the object reads.
    pub absent: Vec<Absent>,
    /// The object, as it is loaded.
    bytes: OnceCell<Vec<u8>>,
}

impl Types {
    fn of(kernel: Arc<KernelTypes>, object: &Object) -> Self {
        let mut absent = kernel.absent.clone();
        absent.retain(|absent| object.reads.split(',').any(|name| name == absent.field));
        Self {
            kernel,
            absent,
            bytes: OnceCell::new(),
        }
    }

    /// The object that these are for, as it is loaded: inflated once.
    ///
    /// # Errors
    /// When this binary is damaged.
    pub(super) fn bytes(&self, object: &Object) -> Result<&[u8], KernelError> {
        if let Some(bytes) = self.bytes.get() {
            return Ok(bytes);
        }
        let bytes = object.bytes()?;
        Ok(self.bytes.get_or_init(|| bytes))
    }

    /// This kernel's names of the reasons for drops.
    pub fn reasons(&self) -> Reasons {
        let kernel = &self.kernel;
        kernel.has_reasons().then(|| kernel.reasons.clone())
    }

    /// Loads and attaches the best program for each hook, and frees the types. `ebpf` was made of `object`, and still has all its maps where a
    /// netfilter program is to use them.
    ///
    /// # Errors
    /// When this kernel does not give one that is required.
    pub fn attach(
        self,
        ebpf: &mut Ebpf,
        object: &Object,
        source: &KernelSource,
    ) -> Result<Attached, KernelError> {
        let mut target = self.target(ebpf, object, source);
        let mut attached = Attached {
            used: Vec::new(),
            degraded: Vec::new(),
            absent: Vec::new(),
            filters: Vec::new(),
            messages: None,
        };
        target.load_ahead(object.hooks);
        // The first hook last: with `watch` it makes the records, and none is to be made before all of it is seen.
        for hook in object.hooks.iter().rev() {
            match target.attach(*hook) {
                Ok((program, filter)) => {
                    attached.used.push((*hook, program));
                    attached.filters.extend(filter);
                }
                Err(HookError::Mismatch(error)) => return Err(error),
                Err(HookError::Kernel(reason)) if hook.required => {
                    return Err(KernelError::Hook {
                        gives: hook.gives,
                        reason,
                    });
                }
                Err(HookError::Kernel(reason)) => attached.degraded.push(Degraded { hook: *hook, reason }),
            }
        }
        attached.used.reverse();
        attached.messages = Reader::start(ebpf)?;
        attached.absent = self.absent;
        Ok(attached)
    }

    /// Loads every program for real, and takes all of it away again.
    ///
    /// # Errors
    /// When the object is not this probe's.
    pub fn check(
        self,
        ebpf: &mut Ebpf,
        object: &Object,
        source: &KernelSource,
    ) -> Result<Checked, KernelError> {
        let mut target = self.target(ebpf, object, source);
        let mut checked = Vec::new();
        for hook in object.hooks {
            checked.push((*hook, target.check(*hook)?));
        }
        // Of the moment in which they ran.
        drop(Reader::start(ebpf)?);
        Ok(Checked {
            absent: self.absent,
            hooks: checked,
        })
    }

    fn target<'a>(&'a self, ebpf: &'a mut Ebpf, object: &'a Object, source: &'a KernelSource) -> Target<'a> {
        Target {
            ebpf,
            object,
            without: &source.without,
            types: self,
            filters: None,
            ahead: HashMap::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, fs};

    use probe_ebpf::contract::offsets::{FILTERED, Offsets};

    use super::*;
    use crate::kernel::OBJECTS;

    /// What is embedded is what probe-ebpf has.
    #[test]
    fn every_object_has_its_type() {
        let names: Vec<_> = OBJECTS.iter().map(|object| object.name).collect();
        assert_eq!(names.join(","), env!("PROBE_OBJECTS"));
    }

    /// A hook whose program the object lacks can't be attached; a program that no hook names is never attached.
    #[test]
    fn hooks_and_objects_name_the_same_programs() {
        for object in OBJECTS {
            let hooks = object.hooks.iter().flat_map(|hook| hook.programs);
            let mut named: Vec<_> = hooks.map(|program| program.name.to_owned()).collect();
            let bytes = inflated(object.plain).unwrap();
            let mut built: Vec<_> = aya_obj::Object::parse(&bytes)
                .unwrap()
                .programs
                .into_keys()
                .collect();
            named.sort_unstable();
            built.sort_unstable();
            assert_eq!(named, built, "{}", object.name);
        }
    }

    /// The text of a file, or of all files of a folder.
    #[test]
    fn an_object_reads_fields_of_the_table() {
        for object in OBJECTS {
            let reads: BTreeSet<_> = object.reads.split(',').collect();
            let is_known = |name: &&str| Offsets::TABLE.iter().any(|field| field.name == *name);
            assert!(reads.iter().all(is_known), "{}: {reads:?}", object.name);
        }
        let reads = |name: &str| {
            let object = OBJECTS.iter().find(|object| object.name == name).unwrap();
            object.reads.split(',').collect::<BTreeSet<_>>()
        };
        // Of a file of the object, of a module that it imports, and not of another's.
        let connection = reads("connection");
        assert!(connection.contains("sacked") && connection.contains("peer_v6"));
        assert!(!connection.contains("skb_conntrack") && reads("bypass").contains("skb_conntrack"));
    }

    /// A kernel without netfilter's type takes something from `path`, and nothing from the others.
    #[test]
    fn what_only_another_object_reads_is_no_loss() {
        let mut bytes = include_bytes!("btf/fixtures/debian-7.3.btf").to_vec();
        let name = b"\0nf_hook_state\0";
        let at = bytes.windows(name.len()).position(|window| window == name);
        bytes[at.unwrap() + 1] = b'?';
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), bytes).unwrap();
        let kernel = Arc::new(KernelTypes::read(file.path(), &OBJECTS).unwrap());
        for object in OBJECTS {
            let absent = Types::of(Arc::clone(&kernel), object).absent;
            let lost: BTreeSet<_> = absent.iter().map(|absent| absent.lost).collect();
            let expected = if object.feature == "path" {
                BTreeSet::from([FILTERED])
            } else {
                BTreeSet::new()
            };
            assert_eq!(lost, expected, "{}", object.feature);
        }
    }

    #[test]
    fn two_objects_of_one_command_lose_a_field_once() {
        let absent = |what: &str| Absent {
            field: "peer_v6",
            what: what.to_owned(),
            lost: "IPv6 connections",
        };
        let checked = |absent: Vec<Absent>| Checked {
            absent,
            hooks: Vec::new(),
        };
        let both = checked(vec![absent("a"), absent("b")]).and(checked(vec![absent("b"), absent("c")]));
        let what: Vec<_> = both.absent.iter().map(|absent| absent.what.as_str()).collect();
        assert_eq!(what, ["a", "b", "c"]);
    }
}
