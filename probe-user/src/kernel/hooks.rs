//! Which program serves which hook on this kernel. The table itself is the contract's (`contract/hooks.rs`).
//!
//! Typed loads come first, whose offsets the verifier proves, then a raw tracepoint that probes; the tracepoint that
//! reports most first, then what older kernels have.

use std::path::Path;

use aya::{
    Btf, Ebpf,
    programs::{BtfTracePoint, FEntry, FExit, KProbe, ProgramError, RawTracePoint, SchedClassifier},
};
use probe_ebpf::contract::hooks::{Access, Hook, Program};

use super::{
    KernelError,
    netfilter::{Filter, FilterError, FilterObject},
    object::{Object, Types},
    system,
};
use crate::error::chain;

/// There where the kernel can have kprobes without tracefs.
const KPROBES: &str = "/sys/bus/event_source/devices/kprobe";

/// A program on its way into the kernel.
#[derive(Clone, Debug)]
pub struct Attempt {
    pub program: Program,
    /// Why the kernel did not take it.
    pub refused: Option<String>,
}

/// A hook this kernel does not give, and what is lost without it.
#[derive(Debug)]
pub struct Degraded {
    pub hook: Hook,
    pub reason: String,
}

/// Where the programs of a feature go.
pub struct Target<'a> {
    pub ebpf: &'a mut Ebpf,
    /// Ids of the tracepoints and functions.
    pub btf: &'a Btf,
    pub object: &'a Object,
    /// Tracepoints, functions and netfilter hooks to do without, as if the kernel did not have them.
    pub without: &'a [String],
    pub types: &'a Types,
    /// The object for its netfilter programs, once there is one to be attached.
    pub filters: Option<FilterObject>,
}

impl Target<'_> {
    /// Loads and attaches the best program that this kernel accepts for `hook`, and returns it; one that is attached
    /// to devices is loaded only. What aya does not hold is given to the caller.
    ///
    /// # Errors
    /// [`HookError::Kernel`] with the reasons of all of them when it takes none.
    pub fn attach(&mut self, hook: Hook) -> Result<(Program, Option<Filter>), HookError> {
        let mut refusals = Vec::new();
        for program in hook.programs {
            match self.attach_one(*program) {
                Ok(filter) => return Ok((*program, filter)),
                // Programs for one tracepoint mostly fail alike: said once.
                Err(HookError::Kernel(reason)) => {
                    let refusal = format!("{}: {reason}", program.tracepoint);
                    if !refusals.contains(&refusal) {
                        refusals.push(refusal);
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Err(HookError::Kernel(refusals.join("; ")))
    }

    /// Loads, attaches and takes away again every program for `hook`, the best first.
    ///
    /// # Errors
    /// When the object is not this probe's.
    pub fn check(&mut self, hook: Hook) -> Result<Vec<Attempt>, KernelError> {
        hook.programs
            .iter()
            .map(|&program| {
                let refused = match self.attach_one(program) {
                    Ok(_) => None,
                    Err(HookError::Kernel(reason)) => Some(reason),
                    Err(HookError::Mismatch(error)) => return Err(error),
                };
                take_away(self.ebpf);
                Ok(Attempt { program, refused })
            })
            .collect()
    }

    fn attach_one(&mut self, program: Program) -> Result<Option<Filter>, HookError> {
        let Program { name, tracepoint, .. } = program;
        if self.without.iter().any(|without| without == tracepoint) {
            return Err(HookError::Kernel("left out by --without".to_owned()));
        }
        let arguments = self.types.arguments(tracepoint);
        if arguments < program.arguments {
            return Err(HookError::Kernel(format!(
                "the tracepoint has {arguments} arguments here, {} are needed",
                program.arguments
            )));
        }
        match program.access {
            Access::Typed => {
                let btf = self.btf;
                let program: &mut BtfTracePoint = self.program(name)?;
                program.load(tracepoint, btf)?;
                program.attach()?;
            }
            Access::Probed => {
                let program: &mut RawTracePoint = self.program(name)?;
                program.load()?;
                program.attach(tracepoint)?;
            }
            Access::Classifier => {
                let program: &mut SchedClassifier = self.program(name)?;
                program.load()?;
            }
            Access::Entry | Access::Exit if system::may_hang() => {
                return Err(HookError::Kernel(
                    "skipped in a container: on this kernel, a container that runs it can hang when it stops \
                     (fixed in 6.9)"
                        .to_owned(),
                ));
            }
            Access::Entry => {
                let btf = self.btf;
                let program: &mut FEntry = self.program(name)?;
                program.load(tracepoint, btf)?;
                program.attach()?;
            }
            Access::Exit => {
                let btf = self.btf;
                let program: &mut FExit = self.program(name)?;
                program.load(tracepoint, btf)?;
                program.attach()?;
            }
            Access::Filter(family) => {
                let attached = self.filters()?.attach(name, family);
                return attached.map(Some).map_err(|error| self.not_filtered(error));
            }
            Access::Kprobe => {
                let program: &mut KProbe = self.program(name)?;
                program.load()?;
                program.attach(tracepoint, 0).map_err(not_probed)?;
            }
        }
        Ok(None)
    }

    fn filters(&mut self) -> Result<&FilterObject, HookError> {
        let filters = match self.filters.take() {
            Some(filters) => filters,
            None => {
                let bytes = self.types.bytes(self.object).map_err(HookError::Mismatch)?;
                FilterObject::new(bytes, self.ebpf).map_err(|error| self.not_filtered(error))?
            }
        };
        Ok(self.filters.insert(filters))
    }

    fn not_filtered(&self, error: FilterError) -> HookError {
        match error {
            FilterError::Load { source, log } => HookError::Kernel(refusal(&source.to_string(), &log)),
            FilterError::Attach(_) => HookError::Kernel(error.to_string()),
            FilterError::Parse(_) | FilterError::Relocate(_) | FilterError::Mismatch { .. } => {
                HookError::Mismatch(KernelError::Object {
                    feature: self.object.feature,
                    reason: chain(&error),
                })
            }
        }
    }

    fn program<'a, P>(&'a mut self, name: &'static str) -> Result<&'a mut P, HookError>
    where
        &'a mut P: TryFrom<&'a mut aya::programs::Program, Error = ProgramError>,
    {
        let feature = self.object.feature;
        let mismatch = || {
            HookError::Mismatch(KernelError::Mismatch {
                feature,
                kind: "program",
                name,
            })
        };
        self.ebpf
            .program_mut(name)
            .ok_or_else(mismatch)?
            .try_into()
            .map_err(|_| mismatch())
    }
}

/// Detaches and unloads every program of an object that aya holds.
pub fn take_away(ebpf: &mut Ebpf) {
    for (_, program) in ebpf.programs_mut() {
        if let Ok(program) = <&mut BtfTracePoint>::try_from(&mut *program) {
            // What was not loaded can't be unloaded, which is as good.
            let _ = program.unload();
        } else if let Ok(program) = <&mut RawTracePoint>::try_from(&mut *program) {
            let _ = program.unload();
        } else if let Ok(program) = <&mut FEntry>::try_from(&mut *program) {
            let _ = program.unload();
        } else if let Ok(program) = <&mut FExit>::try_from(&mut *program) {
            let _ = program.unload();
        } else if let Ok(program) = <&mut KProbe>::try_from(&mut *program) {
            let _ = program.unload();
        } else if let Ok(program) = <&mut SchedClassifier>::try_from(program) {
            let _ = program.unload();
        }
    }
}

/// Why a hook can't be used.
#[derive(Debug)]
pub enum HookError {
    /// This kernel does not take it.
    Kernel(String),
    /// The object is not this probe's.
    Mismatch(KernelError),
}

impl From<ProgramError> for HookError {
    fn from(error: ProgramError) -> Self {
        Self::Kernel(match &error {
            ProgramError::LoadError {
                io_error,
                verifier_log,
            } => refusal(&io_error.to_string(), &verifier_log.to_string()),
            _ => chain(&error),
        })
    }
}

/// Why a kprobe can't be at a function: what the kernel says of that is "no such file".
fn not_probed(error: ProgramError) -> HookError {
    let told = chain(&error);
    HookError::Kernel(if !Path::new(KPROBES).exists() {
        "this kernel has no kprobes".to_owned()
    } else if told.contains("No such file") {
        "no such function here: its module is not loaded, or this kernel has none".to_owned()
    } else {
        told
    })
}

/// The verifier's last word in one line: before it stand all the instructions it went through.
fn refusal(error: &str, log: &str) -> String {
    const STATISTICS: [&str; 3] = ["processed ", "verification time ", "stack depth "];
    let word = log
        .lines()
        .map(str::trim)
        .rfind(|line| !line.is_empty() && !STATISTICS.iter().any(|start| line.starts_with(start)));
    match word {
        Some(word) => format!("the verifier refuses it: {word} ({error})"),
        None => format!("the kernel refuses it: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::refusal;

    #[test]
    fn the_verifiers_last_word() {
        let log = "0: R1=ctx() R10=fp0\n0: (79) r6 = *(u64 *)(r1 +0)\naccess beyond struct sock at off 9999 size 4\n\
                   verification time 71 usec\nstack depth 0+0\n\
                   processed 3 insns (limit 1000000) max_states_per_insn 0\n\n";
        for (log, expected) in [
            (
                log,
                "the verifier refuses it: access beyond struct sock at off 9999 size 4 (EACCES)",
            ),
            ("", "the kernel refuses it: EACCES"),
            ("processed 0 insns\n", "the kernel refuses it: EACCES"),
        ] {
            assert_eq!(refusal("EACCES", log), expected);
        }
    }
}
