//! Which program serves which hook on this kernel.

use aya::{
    Btf, Ebpf,
    programs::{BtfTracePoint, ProgramError, RawTracePoint},
};
use probe_ebpf::contract::connection::Hook;

use super::{KernelError, chain};

/// How a hook is served.
#[derive(Debug)]
pub struct Served {
    pub program: &'static str,
    /// The better programs that this kernel did not take, and why.
    pub refused: Vec<String>,
}

/// A hook in use.
#[derive(Debug)]
pub struct Attached {
    pub hook: Hook,
    pub served: Served,
}

/// A hook this kernel does not give, and what is lost without it.
#[derive(Debug)]
pub struct Degraded {
    pub hook: Hook,
    pub reason: String,
}

/// Loads and attaches the best program for `hook`.
///
/// # Errors
/// When neither program loads and attaches: with the reasons of both, in the kernel's words.
pub fn attach(ebpf: &mut Ebpf, btf: &Btf, feature: &'static str, hook: Hook) -> Result<Served, HookError> {
    let mut refusals = Vec::new();
    for name in hook.typed {
        match typed(ebpf, btf, feature, name, hook.tracepoint) {
            Ok(()) => {
                return Ok(Served {
                    program: name,
                    refused: refusals,
                });
            }
            Err(HookError::Kernel(reason)) => refusals.push(format!("{name}: {reason}")),
            Err(error) => return Err(error),
        }
    }
    match raw(ebpf, feature, hook.raw, hook.tracepoint) {
        Ok(()) => Ok(Served {
            program: hook.raw,
            refused: refusals,
        }),
        Err(HookError::Kernel(reason)) => {
            refusals.push(format!("{}: {reason}", hook.raw));
            Err(HookError::Kernel(refusals.join("; ")))
        }
        Err(error) => Err(error),
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
        Self::Kernel(chain(&error))
    }
}

fn typed(
    ebpf: &mut Ebpf,
    btf: &Btf,
    feature: &'static str,
    name: &'static str,
    tracepoint: &str,
) -> Result<(), HookError> {
    let program: &mut BtfTracePoint = program(ebpf, feature, name)?;
    program.load(tracepoint, btf)?;
    program.attach()?;
    Ok(())
}

fn raw(
    ebpf: &mut Ebpf,
    feature: &'static str,
    name: &'static str,
    tracepoint: &str,
) -> Result<(), HookError> {
    let program: &mut RawTracePoint = program(ebpf, feature, name)?;
    program.load()?;
    program.attach(tracepoint)?;
    Ok(())
}

fn program<'a, P>(
    ebpf: &'a mut Ebpf,
    feature: &'static str,
    name: &'static str,
) -> Result<&'a mut P, HookError>
where
    &'a mut P: TryFrom<&'a mut aya::programs::Program, Error = ProgramError>,
{
    let mismatch = || {
        HookError::Mismatch(KernelError::Mismatch {
            feature,
            kind: "program",
            name,
        })
    };
    ebpf.program_mut(name)
        .ok_or_else(mismatch)?
        .try_into()
        .map_err(|_| mismatch())
}
