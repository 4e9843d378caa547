//! The object of untracked packets: load, read.

use std::collections::HashSet;

use aya::{
    Ebpf,
    maps::{MapData, PerCpuArray},
};
use probe_ebpf::contract::{
    bypass::{Counters, Key, Settings, global, map},
    connection::CgroupPath,
    hooks::{BYPASS, Hook, Program},
    offsets::UNTRACKED,
};

use super::{
    KernelError,
    btf::Absent,
    hooks::{Degraded, take_away},
    maps::{PerCpuTable, Table, sum, take},
    messages::Reader,
    netfilter::Filter,
    object::{Attached, Checked, Object, Types},
    ports::PortSet,
};
use crate::model::settings::KernelSource;

const FEATURE: &str = "bypass";

pub(super) static OBJECT: Object = Object {
    name: "bypass",
    feature: FEATURE,
    plain: include_bytes!(env!("PROBE_OBJECT_BYPASS")),
    with_messages: include_bytes!(env!("PROBE_OBJECT_BYPASS_LOG")),
    hooks: &BYPASS,
    reads: env!("PROBE_READS_BYPASS"),
};

/// What the kernel side counts.
#[derive(Clone, Debug)]
pub struct Options {
    /// Inode of the network namespace.
    pub netns: u32,
    /// Streams counted at once.
    pub streams: u32,
    pub source: KernelSource,
}

/// The loaded object. Dropping it removes it from the kernel.
pub struct BypassProbe {
    /// Which program serves which hook.
    pub used: Vec<(Hook, Program)>,
    /// Hooks this kernel does not give.
    pub degraded: Vec<Degraded>,
    /// Fields this kernel does not have.
    pub absent: Vec<Absent>,
    ports: PortSet,
    streams: PerCpuTable<{ size_of::<Key>() }, { size_of::<Counters>() }>,
    rest: PerCpuArray<MapData, [u8; size_of::<Counters>()]>,
    cgroups: Table<8, { size_of::<CgroupPath>() }>,
    filters: Vec<Filter>,
    ebpf: Ebpf,
    /// After the programs that write them.
    _messages: Option<Reader>,
}

/// Loads every program for real, and takes all of it away again.
///
/// # Errors
/// When the kernel has no BTF, a required field is not in it, or its maps can't be made.
pub fn check(source: KernelSource) -> Result<Checked, KernelError> {
    let options = Options {
        netns: 0,
        streams: 1,
        source,
    };
    let (mut ebpf, types) = load(&options)?;
    types.check(&mut ebpf, &OBJECT, &options.source)
}

fn load(options: &Options) -> Result<(Ebpf, Types), KernelError> {
    let types = OBJECT.types(&options.source)?;
    let settings = Settings {
        netns: options.netns,
        zero: 0,
    };
    let ebpf = OBJECT.load(
        &types,
        &[(global::SETTINGS, bytemuck::bytes_of(&settings))],
        &[(map::STREAMS, options.streams)],
    )?;
    Ok((ebpf, types))
}

impl BypassProbe {
    /// Loads the object and attaches every hook this kernel has.
    ///
    /// # Errors
    /// When the kernel has no BTF, a required field is not in it, or a required program is refused.
    pub fn load(options: &Options) -> Result<Self, KernelError> {
        let (mut ebpf, types) = load(options)?;
        if let Some(absent) = types.absent.iter().find(|absent| absent.lost == UNTRACKED) {
            return Err(KernelError::Hook {
                gives: UNTRACKED,
                reason: format!("this kernel has no conntrack: no {} in its types", absent.what),
            });
        }
        let Attached {
            used,
            degraded,
            absent,
            filters,
            messages,
        } = types.attach(&mut ebpf, &OBJECT, &options.source)?;
        Ok(Self {
            used,
            degraded,
            absent,
            ports: PortSet::take(&mut ebpf, FEATURE, map::PORTS)?,
            streams: PerCpuTable::take(&mut ebpf, FEATURE, map::STREAMS)?,
            rest: take(&mut ebpf, FEATURE, map::REST)?,
            cgroups: Table::take(&mut ebpf, FEATURE, map::CGROUPS)?,
            filters,
            ebpf,
            _messages: messages,
        })
    }

    /// Sets which ports are known to be servers'.
    ///
    /// # Errors
    /// When the kernel's map can't be written.
    pub fn know_ports(&mut self, ports: &HashSet<u16>) -> Result<(), KernelError> {
        self.ports.set(ports)
    }

    /// Every stream with its counters, added up over all CPUs.
    ///
    /// # Errors
    /// When the kernel's map can't be read.
    pub fn streams(&self, mut each: impl FnMut(Key, Counters)) -> Result<(), KernelError> {
        self.streams.each(|key, values| {
            if let Some(sum) = sum(values, add) {
                each(bytemuck::pod_read_unaligned(key), sum);
            }
        })
    }

    /// Makes room for others.
    pub fn forget(&mut self, key: &Key) {
        if let Ok(key) = bytemuck::bytes_of(key).try_into() {
            self.streams.remove(key);
        }
    }

    /// Packets that are in no stream, for lack of room.
    pub fn rest(&self) -> u64 {
        let values = self.rest.get(&0, 0);
        values
            .ok()
            .and_then(|values| sum(&values, add))
            .map_or(0, |sum| sum.packets)
    }

    /// The names of a control group that sends, leaf first.
    pub fn cgroup(&self, id: u64) -> Option<CgroupPath> {
        self.cgroups
            .get(&id.to_ne_bytes())
            .map(|bytes| bytemuck::pod_read_unaligned(&bytes))
    }

    /// Ends the counting; what was counted can still be read.
    pub fn detach(&mut self) {
        self.filters.clear();
        take_away(&mut self.ebpf);
    }
}

fn add(one: Counters, other: Counters) -> Counters {
    let latest = if one.last_ns >= other.last_ns { one } else { other };
    // Of those who know one, the latest.
    let (sender, before) = match (latest.sender, one.sender.max(other.sender)) {
        (0, any) => (any, any),
        (sender, _) => (
            sender,
            if one.sender == sender {
                other.sender
            } else {
                one.sender
            },
        ),
    };
    let first_ns = match (one.first_ns, other.first_ns) {
        (0, first) | (first, 0) => first,
        (one, other) => one.min(other),
    };
    Counters {
        packets: one.packets + other.packets,
        frames: one.frames + other.frames,
        bytes: one.bytes + other.bytes,
        syn: one.syn + other.syn,
        syn_ack: one.syn_ack + other.syn_ack,
        rst: one.rst + other.rst,
        first_ns,
        last_ns: latest.last_ns,
        other_port: latest.other_port,
        sender,
        others: one.others | other.others | u64::from(before != 0 && before != sender),
    }
}

#[cfg(test)]
mod tests {
    use bytemuck::Zeroable;

    use super::*;

    #[test]
    fn the_latest_sender_that_is_known() {
        let counters = |last_ns, sender, others| Counters {
            last_ns,
            sender,
            others,
            ..Counters::zeroed()
        };
        for (one, other, expected) in [
            ((1, 0, 0), (2, 0, 0), (0, 0)),
            ((1, 7, 0), (2, 0, 0), (7, 0)),
            ((1, 7, 0), (2, 7, 0), (7, 0)),
            ((1, 7, 0), (2, 8, 0), (8, 1)),
            ((1, 7, 1), (2, 7, 0), (7, 1)),
        ] {
            let (one, other) = (counters(one.0, one.1, one.2), counters(other.0, other.1, other.2));
            for sum in [add(one, other), add(other, one)] {
                assert_eq!((sum.sender, sum.others), expected);
            }
        }
    }
}
