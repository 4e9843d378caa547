//! The object of connections' first messages: load, read.

use aya::{
    Ebpf,
    maps::{
        MapData, PerCpuArray,
        perf::{PerfEvent, PerfEventArray, PerfEventArrayBuffer},
    },
    util::online_cpus,
};
use probe_ebpf::contract::{
    connection::{self, Ports},
    hooks::TLS,
    tls::{Settings, global, map},
};

use super::{
    KernelError,
    connection::prefixes,
    hooks::{Degraded, take_away},
    losses,
    maps::take,
    messages::Reader,
    object::{Attached, Checked, Object, Types},
};
use crate::{
    error::chain,
    model::settings::{ConnectionOptions, KernelSource},
};

const FEATURE: &str = "watch --tls";

pub(super) static OBJECT: Object = Object {
    name: "tls",
    feature: FEATURE,
    plain: include_bytes!(env!("PROBE_OBJECT_TLS")),
    with_messages: include_bytes!(env!("PROBE_OBJECT_TLS_LOG")),
    hooks: &TLS,
    reads: env!("PROBE_READS_TLS"),
};

/// Memory of the buffers of all CPUs together, bytes; each has a power of two of it.
const BUFFERS: usize = 16 << 20;
/// The least and the most for one. The kernel lets everybody have so much of it (`perf_event_mlock_kb`).
const LEAST_BUFFER: usize = 64 << 10;
const MOST_BUFFER: usize = 512 << 10;

/// The loaded object. Dropping it removes it from the kernel.
pub struct TlsProbe {
    buffers: Vec<PerfEventArrayBuffer<MapData>>,
    /// Holds the buffers in the kernel.
    _segments: PerfEventArray<MapData>,
    lost: PerCpuArray<MapData, u64>,
    /// Where a segment goes round the end of its buffer, it is put together here.
    whole: Vec<u8>,
    /// Hooks this kernel does not give.
    pub degraded: Vec<Degraded>,
    /// Once detached.
    skipped: Option<u64>,
    ebpf: Ebpf,
    /// After the programs that write them.
    _messages: Option<Reader>,
}

/// Loads the programs for real, and takes them away again.
///
/// # Errors
/// When the kernel has no BTF, a required field is not in it, or its maps can't be made.
pub fn check(source: &KernelSource) -> Result<Checked, KernelError> {
    let settings = Settings {
        roles: 0,
        by_port: 0,
        by_prefix: 0,
    };
    let (mut ebpf, types) = load(source, settings, &[])?;
    types.check(&mut ebpf, &OBJECT, source)
}

fn load(source: &KernelSource, settings: Settings, ports: &[u16]) -> Result<(Ebpf, Types), KernelError> {
    let types = OBJECT.types(source)?;
    let ports = Ports::new(ports.iter().copied());
    let ebpf = OBJECT.load(
        &types,
        &[
            (global::SETTINGS, bytemuck::bytes_of(&settings)),
            (connection::global::PORTS, bytemuck::bytes_of(&ports)),
        ],
        &[],
    )?;
    Ok((ebpf, types))
}

impl TlsProbe {
    /// Loads the object and attaches it, for the connections that `options` are about.
    ///
    /// # Errors
    /// When the kernel has no BTF, a required field is not in it, its buffers can't be made, or it takes no program at all.
    pub fn load(options: &ConnectionOptions) -> Result<Self, KernelError> {
        let settings = Settings {
            roles: options.roles.iter().fold(0, |mask, role| mask | role.bit()),
            by_port: u32::from(!options.ports.is_empty()),
            by_prefix: u32::from(!options.peers.is_empty()),
        };
        let (mut ebpf, types) = load(&options.source, settings, &options.ports)?;
        prefixes(&mut ebpf, FEATURE, map::PREFIXES, &options.peers)?;
        let mut segments = take(&mut ebpf, FEATURE, map::SEGMENTS)?;
        // Before the programs run, so that their output has a destination.
        let buffers = buffers(&mut segments)?;
        let lost = take(&mut ebpf, FEATURE, map::LOST)?;
        let Attached {
            used,
            degraded,
            messages,
            ..
        } = types.attach(&mut ebpf, &OBJECT, &options.source)?;
        if used.is_empty() {
            let reasons: Vec<_> = degraded.into_iter().map(|degraded| degraded.reason).collect();
            return Err(KernelError::Hook {
                gives: "TLS messages",
                reason: reasons.join("; "),
            });
        }
        Ok(Self {
            buffers,
            _segments: segments,
            lost,
            whole: Vec::new(),
            degraded,
            skipped: None,
            ebpf,
            _messages: messages,
        })
    }

    /// Hands every segment that waits to `each`, as raw bytes: those of one CPU in the order of time.
    pub fn drain(&mut self, mut each: impl FnMut(&[u8])) {
        let whole = &mut self.whole;
        for buffer in &mut self.buffers {
            buffer.for_each(|event| match event {
                PerfEvent::Sample { head, tail: [] } => each(head),
                PerfEvent::Sample { head, tail } => {
                    whole.clear();
                    whole.extend_from_slice(head);
                    whole.extend_from_slice(tail);
                    each(whole);
                }
                // The kernel side counts them.
                PerfEvent::Lost { .. } => {}
            });
        }
    }

    /// Segments that found no room in the buffers.
    pub fn lost(&self) -> u64 {
        losses::total(&self.lost, 0)
    }

    /// How often a program did not run because it was already running on that CPU.
    pub fn skipped(&self) -> u64 {
        self.skipped.unwrap_or_else(|| losses::skipped(&self.ebpf, &[]))
    }

    /// Ends it; what the buffers hold can still be read.
    pub fn detach(&mut self) {
        self.skipped = Some(self.skipped());
        take_away(&mut self.ebpf);
    }
}

/// A buffer for each CPU.
fn buffers(
    segments: &mut PerfEventArray<MapData>,
) -> Result<Vec<PerfEventArrayBuffer<MapData>>, KernelError> {
    let error = |reason: String| KernelError::Map {
        map: map::SEGMENTS,
        reason,
    };
    let cpus = online_cpus().map_err(|(what, source)| error(format!("{what}: {source}")))?;
    let page = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE)
        .ok()
        .flatten()
        .and_then(|size| usize::try_from(size).ok())
        .unwrap_or(4096);
    let pages = (buffer(cpus.len()) / page).max(1);
    cpus.into_iter()
        .map(|cpu| {
            segments
                .open(cpu, Some(pages))
                .map_err(|source| error(chain(&source)))
        })
        .collect()
}

/// Bytes of each buffer of so many.
fn buffer(count: usize) -> usize {
    let share = (BUFFERS / count.max(1)).clamp(LEAST_BUFFER, MOST_BUFFER);
    1 << share.ilog2()
}

#[cfg(test)]
mod tests {
    use super::buffer;

    #[test]
    fn buffers_are_bounded_together() {
        for (cpus, expected) in [
            (0, 512 << 10),
            (2, 512 << 10),
            (32, 512 << 10),
            (48, 256 << 10),
            (64, 256 << 10),
            (256, 64 << 10),
            (4096, 64 << 10),
        ] {
            assert_eq!(buffer(cpus), expected, "{cpus}");
        }
    }
}
