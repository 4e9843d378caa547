//! Which program serves which hook on this kernel. The table itself is the contract's (`contract/hooks.rs`).
//!
//! Typed loads come first, whose offsets the verifier proves, then a raw tracepoint that probes; the tracepoint that
//! reports most first, then what older kernels have.

use std::{
    collections::HashMap,
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
};

use aya::{
    Ebpf,
    programs::{BtfTracePoint, FEntry, FExit, KProbe, ProgramError, RawTracePoint, SchedClassifier},
};
use probe_ebpf::contract::hooks::{Access, Hook, Program};

use super::{
    KernelError,
    netfilter::{Filter, FilterError, FilterObject},
    object::{Object, Types},
    system,
    types::KernelTypes,
};
use crate::error::chain;

/// There where the kernel can have kprobes without tracefs.
const KPROBES: &str = "/sys/bus/event_source/devices/kprobe";

/// As many programs are verified at once.
const THREADS: usize = 4;

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
    pub object: &'a Object,
    /// Tracepoints, functions and netfilter hooks to do without, as if the kernel did not have them.
    pub without: &'a [String],
    pub types: &'a Types,
    /// The object for its netfilter programs, once there is one to be attached.
    pub filters: Option<FilterObject>,
    /// Programs that were loaded ahead, and how.
    pub ahead: HashMap<&'static str, Result<(), ProgramError>>,
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

    /// Loads the best program of each hook, several at once: the verifier takes two thirds of the time of a start, and its lock
    /// (`bpf_check()`) is only for processes without CAP_BPF. What failed is reported when it is to be attached.
    pub fn load_ahead(&mut self, hooks: &[Hook]) {
        let threads = thread::available_parallelism()
            .map_or(1, usize::from)
            .min(THREADS);
        let best = |hook: &Hook| {
            let mut programs = hook.programs.iter();
            programs
                .find(|program| self.left_out(**program).is_none())
                .copied()
        };
        let best: HashMap<&str, Program> = hooks
            .iter()
            .filter_map(|hook| best(hook).map(|program| (program.name, program)))
            .collect();
        if threads < 2 || best.len() < 2 {
            return;
        }
        let kernel = &self.types.kernel;
        let waiting: Vec<_> = self
            .ebpf
            .programs_mut()
            .filter_map(|(name, loaded)| Some((*best.get(name)?, loaded)))
            .collect();
        let (waiting, done) = (Mutex::new(waiting), Mutex::new(HashMap::new()));
        let next = || lock(&waiting).pop();
        let work = || {
            while let Some((program, loaded)) = next() {
                let result = load(program, loaded, kernel);
                lock(&done).insert(program.name, result);
            }
        };
        thread::scope(|scope| {
            for _ in 1..threads.min(best.len()) {
                // This thread does what another can't.
                let _ = thread::Builder::new().spawn_scoped(scope, work);
            }
            work();
        });
        self.ahead = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    }

    /// Why a program is not even tried.
    fn left_out(&self, program: Program) -> Option<String> {
        let Program { tracepoint, .. } = program;
        if self.without.iter().any(|without| without == tracepoint) {
            return Some("left out by --without".to_owned());
        }
        let arguments = self.types.kernel.arguments(tracepoint);
        if arguments < program.arguments {
            return Some(format!(
                "the tracepoint has {arguments} arguments here, {} are needed",
                program.arguments
            ));
        }
        let hangs = matches!(program.access, Access::Entry | Access::Exit) && system::may_hang();
        hangs.then(|| {
            "skipped in a container: on this kernel, a container that runs it can hang when it stops (fixed in 6.9)"
                .to_owned()
        })
    }

    fn attach_one(&mut self, program: Program) -> Result<Option<Filter>, HookError> {
        let Program { name, tracepoint, .. } = program;
        if let Some(reason) = self.left_out(program) {
            return Err(HookError::Kernel(reason));
        }
        if let Access::Filter(family) = program.access {
            let attached = self.filters()?.attach(name, family);
            return attached.map(Some).map_err(|error| self.not_filtered(error));
        }
        let mismatch = self.mismatch(name);
        let loaded = match self.ahead.remove(name) {
            Some(loaded) => loaded,
            None => match self.ebpf.program_mut(name) {
                Some(loaded) => load(program, loaded, &self.types.kernel),
                None => return Err(mismatch),
            },
        };
        match loaded {
            Ok(()) => {}
            Err(ProgramError::UnexpectedProgramType) => return Err(mismatch),
            Err(error) => return Err(error.into()),
        }
        match program.access {
            Access::Typed => {
                self.program::<BtfTracePoint>(name)?.attach()?;
            }
            Access::Probed => {
                self.program::<RawTracePoint>(name)?.attach(tracepoint)?;
            }
            Access::Entry => {
                self.program::<FEntry>(name)?.attach()?;
            }
            Access::Exit => {
                self.program::<FExit>(name)?.attach()?;
            }
            Access::Kprobe => {
                let program: &mut KProbe = self.program(name)?;
                program.attach(tracepoint, 0).map_err(not_probed)?;
            }
            // To devices, later.
            Access::Classifier | Access::Filter(_) => {}
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
        let mismatch = self.mismatch(name);
        let program = self.ebpf.program_mut(name);
        program
            .and_then(|program| program.try_into().ok())
            .ok_or(mismatch)
    }

    fn mismatch(&self, name: &'static str) -> HookError {
        HookError::Mismatch(KernelError::Mismatch {
            feature: self.object.feature,
            kind: "program",
            name,
        })
    }
}

/// Loads a program that aya holds.
fn load(
    program: Program,
    loaded: &mut aya::programs::Program,
    kernel: &KernelTypes,
) -> Result<(), ProgramError> {
    let Program { tracepoint, .. } = program;
    match program.access {
        Access::Typed => <&mut BtfTracePoint>::try_from(loaded)?.load(tracepoint, &kernel.ids),
        Access::Probed => <&mut RawTracePoint>::try_from(loaded)?.load(),
        Access::Classifier => <&mut SchedClassifier>::try_from(loaded)?.load(),
        Access::Entry => <&mut FEntry>::try_from(loaded)?.load(tracepoint, &kernel.ids),
        Access::Exit => <&mut FExit>::try_from(loaded)?.load(tracepoint, &kernel.ids),
        Access::Kprobe => <&mut KProbe>::try_from(loaded)?.load(),
        // aya holds none.
        Access::Filter(_) => Ok(()),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
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
