//! What all objects need: this kernel's offsets, its tracepoints, and their programs loaded.

use std::{
    collections::{BTreeSet, HashMap},
    path::PathBuf,
};

use aya::{Btf as AyaBtf, Ebpf, EbpfLoader, Endianness};
use probe_ebpf::contract::{
    hooks::{Hook, Program, functions, tracepoints},
    offsets::Offsets,
};

use super::{
    KernelError,
    btf::{Absent, Btf, VMLINUX},
    hooks::{Attempt, Degraded, HookError, Target},
    memory,
    messages::{self, Reader},
    netfilter::Filter,
};
use crate::error::chain;

/// An object, as it is built into probe.
pub struct Object {
    /// The command it is for.
    pub feature: &'static str,
    pub plain: &'static [u8],
    /// The same with messages to whoever debugs it.
    pub with_messages: &'static [u8],
    pub hooks: &'static [Hook],
}

impl Object {
    /// The object to load: with messages where they were asked for.
    pub fn bytes(&self) -> &'static [u8] {
        if messages::threshold().is_some() {
            self.with_messages
        } else {
            self.plain
        }
    }

    /// aya's loader for [`bytes`](Self::bytes), the globals yet to be filled.
    pub fn loader<'a>(&self) -> EbpfLoader<'a> {
        let mut loader = memory::without_files(EbpfLoader::new);
        loader.btf(None);
        if let Some(threshold) = messages::threshold() {
            loader.override_global(aya_log::LEVEL, threshold, true);
        }
        loader
    }
}

/// What is taken of this kernel.
#[derive(Clone, Debug)]
pub struct Source {
    /// Its type information.
    pub btf: PathBuf,
    /// Tracepoints, functions and netfilter hooks to do without.
    pub without: Vec<String>,
}

impl Default for Source {
    fn default() -> Self {
        Self {
            btf: VMLINUX.into(),
            without: Vec::new(),
        }
    }
}

/// What this kernel makes of an object: every program for every hook, tried.
pub struct Checked {
    pub absent: Vec<Absent>,
    pub hooks: Vec<(Hook, Vec<Attempt>)>,
}

/// Names of the reasons for drops, by the kernel's numbers; `None` before 5.17, which tells none.
pub type Reasons = Option<HashMap<u32, String>>;

/// How an object is attached.
pub struct Attached {
    /// Which program serves which hook.
    pub used: Vec<(Hook, Program)>,
    /// Hooks this kernel does not give.
    pub degraded: Vec<Degraded>,
    /// Those of its programs that aya does not hold.
    pub filters: Vec<Filter>,
    /// Prints its messages, where they were asked for.
    pub messages: Option<Reader>,
}

/// This kernel's types, as far as an object needs them.
pub struct Types {
    pub offsets: Offsets,
    /// Fields this kernel does not have.
    pub absent: Vec<Absent>,
    /// BTF with the ids of the tracepoints and functions.
    tracepoints: Vec<u8>,
    /// How many arguments each tracepoint has.
    arguments: HashMap<&'static str, u32>,
}

impl Types {
    /// # Errors
    /// When a required field is not there.
    pub fn of(btf: &Btf, hooks: &[Hook]) -> Result<Self, KernelError> {
        let (offsets, absent) = btf.offsets()?;
        let names: BTreeSet<_> = tracepoints(hooks).collect();
        let arguments = names
            .iter()
            .filter_map(|name| Some((*name, btf.arguments(name)?)))
            .collect();
        Ok(Self {
            offsets,
            absent,
            tracepoints: btf.hooks(&Vec::from_iter(names), &Vec::from_iter(functions(hooks))),
            arguments,
        })
    }

    /// How many arguments a tracepoint has; 0 where there is none of that name.
    pub fn arguments(&self, tracepoint: &str) -> u32 {
        self.arguments.get(tracepoint).copied().unwrap_or(0)
    }

    /// This kernel's names of the reasons for drops.
    pub fn reasons(&self, btf: &Btf) -> Reasons {
        let tells = self.arguments("kfree_skb") >= 3;
        tells.then(|| btf.names("skb_drop_reason", "SKB_DROP_REASON_"))
    }

    /// Loads and attaches the best program for each hook. `ebpf` was made of `object`, and still has all its maps where a
    /// netfilter program is to use them.
    ///
    /// # Errors
    /// When this kernel does not give one that is required.
    pub fn attach(&self, ebpf: &mut Ebpf, object: &Object, source: &Source) -> Result<Attached, KernelError> {
        let btf = self.ids(object.feature)?;
        let mut target = self.target(ebpf, &btf, object, source);
        let mut attached = Attached {
            used: Vec::new(),
            degraded: Vec::new(),
            filters: Vec::new(),
            messages: None,
        };
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
        Ok(attached)
    }

    /// Loads every program for real, and takes all of it away again.
    ///
    /// # Errors
    /// When the object is not this probe's.
    pub fn check(self, ebpf: &mut Ebpf, object: &Object, source: &Source) -> Result<Checked, KernelError> {
        let btf = self.ids(object.feature)?;
        let mut target = self.target(ebpf, &btf, object, source);
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

    fn ids(&self, feature: &'static str) -> Result<AyaBtf, KernelError> {
        AyaBtf::parse(&self.tracepoints, Endianness::default()).map_err(|error| KernelError::Object {
            feature,
            reason: chain(&error),
        })
    }

    fn target<'a>(
        &'a self,
        ebpf: &'a mut Ebpf,
        btf: &'a AyaBtf,
        object: &'a Object,
        source: &'a Source,
    ) -> Target<'a> {
        Target {
            ebpf,
            btf,
            object,
            without: &source.without,
            arguments: &self.arguments,
        }
    }
}
