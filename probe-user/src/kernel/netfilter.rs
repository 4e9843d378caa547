//! Netfilter programs. aya has none: they are taken out of its object once more, given the maps that aya made, and loaded
//! and attached with bpf(2).

use std::{
    collections::HashSet,
    ffi::CStr,
    io, mem,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
};

use aya::{Ebpf, maps::Map};
use aya_obj::{
    Object, ParseError,
    generated::{bpf_attach_type, bpf_attr, bpf_cmd, bpf_insn, bpf_prog_type},
    relocation::EbpfRelocationError,
};
use probe_ebpf::contract::hooks::Family;

use super::bpf_syscall::bpf;

/// `NF_INET_LOCAL_IN`, user interface of the kernel.
const LOCAL_IN: u32 = 1;
/// Behind all rules. The very last place is conntrack's own, and the kernel gives it to no program; each other one to one
/// program only, so that a second probe takes the one before.
const PRIORITIES: std::ops::Range<i32> = i32::MAX - 64..i32::MAX;
/// Newer kernels keep the end of a log that is longer.
const LOG_BYTES: usize = 64 * 1024;

/// A netfilter program that sees what is delivered in one network namespace. Dropping it takes it away, and so does the end
/// of the process however it comes.
pub struct Filter {
    _link: OwnedFd,
    /// The link holds it as well; open, it shows in `/proc` what it costs, as all others do.
    _program: OwnedFd,
}

/// Why there is none.
#[derive(Debug, thiserror::Error)]
pub enum FilterError {
    #[error("the object can't be read: {0}")]
    Parse(#[from] ParseError),
    #[error("the object can't be relocated: {0}")]
    Relocate(#[from] EbpfRelocationError),
    #[error("the object has no {kind} {name}")]
    Mismatch { kind: &'static str, name: String },
    #[error("the kernel refuses it: {source}")]
    Load {
        source: io::Error,
        /// The verifier's; empty when the kernel did not get so far.
        log: String,
    },
    #[error("the kernel does not attach it: {0}")]
    Attach(io::Error),
}

/// An object with netfilter programs, given the maps that aya made of it.
pub struct FilterObject(Object);

impl FilterObject {
    /// Of the object of which `ebpf` was made, and which still has all its maps.
    ///
    /// # Errors
    /// When it is another one.
    pub fn new(object: &[u8], ebpf: &Ebpf) -> Result<Self, FilterError> {
        let mut object = Object::parse(object)?;
        let maps = mem::take(&mut object.maps);
        let mut with_maps = Vec::with_capacity(maps.len());
        for (name, map) in &maps {
            with_maps.push((name.as_str(), descriptor(ebpf, name)?.as_raw_fd(), map));
        }
        let sections: HashSet<usize> = object.functions.keys().map(|(section, _)| *section).collect();
        object.relocate_maps(with_maps.into_iter(), &sections)?;
        object.relocate_calls(&sections)?;
        Ok(Self(object))
    }

    /// Loads the program `name`, and attaches it in this thread's network namespace. Kernel 6.4, `CONFIG_NETFILTER_BPF_LINK`,
    /// `CAP_NET_ADMIN`.
    ///
    /// # Errors
    /// When the kernel does not take it, or the object has no such program.
    pub fn attach(&self, name: &str, family: Family) -> Result<Filter, FilterError> {
        let Self(object) = self;
        let function = object
            .programs
            .get(name)
            .and_then(|program| object.functions.get(&program.function_key()))
            .ok_or_else(|| FilterError::Mismatch {
                kind: "program",
                name: name.to_owned(),
            })?;
        let program = load(name, &function.instructions, &object.license)?;
        let mut links = PRIORITIES
            .rev()
            .map(|priority| link(program.as_fd(), family, priority))
            .skip_while(|link| matches!(link, Err(error) if error.kind() == io::ErrorKind::ResourceBusy));
        let link = links
            .next()
            .unwrap_or_else(|| Err(io::ErrorKind::ResourceBusy.into()))
            .map_err(FilterError::Attach)?;
        Ok(Filter {
            _link: link,
            _program: program,
        })
    }
}

/// Of a map of any kind that an object with such programs has.
fn descriptor<'a>(ebpf: &'a Ebpf, name: &str) -> Result<BorrowedFd<'a>, FilterError> {
    match ebpf.map(name) {
        Some(
            Map::Array(map)
            | Map::LruHashMap(map)
            | Map::PerCpuArray(map)
            | Map::PerCpuHashMap(map)
            | Map::RingBuf(map),
        ) => Ok(map.fd().as_fd()),
        Some(_) | None => Err(FilterError::Mismatch {
            kind: "map",
            name: name.to_owned(),
        }),
    }
}

fn load(name: &str, instructions: &[bpf_insn], license: &CStr) -> Result<OwnedFd, FilterError> {
    let load = |log: &mut [u8]| {
        // SAFETY: all its members are integers.
        let mut attributes: bpf_attr = unsafe { mem::zeroed() };
        // SAFETY: the same; any of its variants is valid.
        let program = unsafe { &mut attributes.__bindgen_anon_3 };
        program.prog_type = bpf_prog_type::BPF_PROG_TYPE_NETFILTER as u32;
        program.expected_attach_type = bpf_attach_type::BPF_NETFILTER as u32;
        program.insns = instructions.as_ptr().addr() as u64;
        program.insn_cnt = instructions.len() as u32;
        program.license = license.as_ptr().addr() as u64;
        // Ends with a zero byte, which is there already.
        let room = program.prog_name.len() - 1;
        for (to, from) in program.prog_name.iter_mut().take(room).zip(name.bytes()) {
            // C's char is signed on some architectures only.
            *to = from as libc::c_char;
        }
        if !log.is_empty() {
            program.log_level = 1;
            program.log_buf = log.as_mut_ptr().addr() as u64;
            program.log_size = log.len() as u32;
        }
        // SAFETY: instructions, licence and log outlive the call, and have the lengths given here.
        unsafe { make(bpf_cmd::BPF_PROG_LOAD, &mut attributes) }
    };
    load(&mut []).map_err(|source| {
        let mut log = vec![0; LOG_BYTES];
        // Only for the reason: if it is accepted this time, it is closed.
        drop(load(&mut log));
        let log = CStr::from_bytes_until_nul(&log).map(|log| log.to_string_lossy().into_owned());
        FilterError::Load {
            source,
            log: log.unwrap_or_default(),
        }
    })
}

fn link(program: BorrowedFd<'_>, family: Family, priority: i32) -> io::Result<OwnedFd> {
    // SAFETY: all its members are integers.
    let mut attributes: bpf_attr = unsafe { mem::zeroed() };
    // SAFETY: the same; any of its variants is valid.
    let link = unsafe { &mut attributes.link_create };
    link.__bindgen_anon_1.prog_fd = program.as_raw_fd() as u32;
    link.attach_type = bpf_attach_type::BPF_NETFILTER as u32;
    // SAFETY: the same.
    let netfilter = unsafe { &mut link.__bindgen_anon_3.netfilter };
    netfilter.pf = family as u32;
    netfilter.hooknum = LOCAL_IN;
    netfilter.priority = priority;
    // SAFETY: it points to nothing.
    unsafe { make(bpf_cmd::BPF_LINK_CREATE, &mut attributes) }
}

/// bpf(2), of a command that gives a descriptor.
///
/// # Safety
/// `command` gives a descriptor, and what `attributes` points to is there.
unsafe fn make(command: bpf_cmd, attributes: &mut bpf_attr) -> io::Result<OwnedFd> {
    // SAFETY: the caller's.
    let descriptor = unsafe { bpf(command, attributes) }?;
    // SAFETY: the kernel just created it, and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}
