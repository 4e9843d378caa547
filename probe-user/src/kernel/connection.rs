//! The connection object: load, attach, read.

use std::{
    borrow::BorrowMut,
    net::{IpAddr, Ipv6Addr},
    ops::ControlFlow,
    os::fd::{AsFd, OwnedFd},
    path::Path,
};

use aya::{
    Ebpf,
    maps::{Array, LpmTrie, MapData, MapError, PerCpuArray, RingBuf, lpm_trie::Key},
};
use ipnet::IpNet;
use probe_ebpf::contract::{
    connection::{
        CgroupPath, Connection, Counter, CounterKey, Handshake, HandshakeKey, Loss, MAX_COUNTERS,
        MAX_HANDSHAKES, Ports, Process, Settings, Slot, StormLimit, WAYS, global, map,
    },
    hooks::WATCH,
    outcome::Role,
};

use super::{
    KernelError,
    batched::Slots,
    btf::Absent,
    cgroup,
    hooks::{Degraded, take_away},
    losses::{self, Run},
    maps::{Table, take},
    messages::Reader,
    object::{Attached, Checked, Object, Types},
};
use crate::{
    error::chain,
    model::settings::{ConnectionOptions, KernelSource},
};

const FEATURE: &str = "watch";

pub(super) static OBJECT: Object = Object {
    name: "connection",
    feature: FEATURE,
    plain: include_bytes!(env!("PROBE_OBJECT_CONNECTION")),
    with_messages: include_bytes!(env!("PROBE_OBJECT_CONNECTION_LOG")),
    hooks: &WATCH,
    reads: env!("PROBE_READS_CONNECTION"),
};

/// The loaded object, its ring not yet mapped. Dropping it, or the end of the process however it comes, removes all of it
/// from the kernel.
pub struct ConnectionHooks {
    /// Fields this kernel does not have.
    pub absent: Vec<Absent>,
    /// Hooks this kernel does not give.
    pub degraded: Vec<Degraded>,
    ebpf: Ebpf,
    messages: Option<Reader>,
}

/// The same with its ring mapped, and its tables.
pub struct ConnectionProbe {
    pub records: Records,
    pub tables: Tables,
    /// Once detached.
    skipped: Option<u64>,
    ebpf: Ebpf,
    /// After the programs that write them.
    _messages: Option<Reader>,
}

/// Loads every program for real, and takes all of it away again.
///
/// # Errors
/// When the kernel has no BTF, a required field is not in it, or its maps can't be made.
pub fn check(source: KernelSource) -> Result<Checked, KernelError> {
    let options = ConnectionOptions {
        ports: Vec::new(),
        peers: Vec::new(),
        roles: Role::ALL.to_vec(),
        outcomes: Vec::new(),
        ring_bytes: 4096,
        max_connections: 16,
        storm_limit: StormLimit::NONE,
        source,
    };
    let (mut ebpf, types) = load(&options)?;
    types.check(&mut ebpf, &OBJECT, &options.source)
}

/// The object with its maps, its programs not yet loaded.
fn load(options: &ConnectionOptions) -> Result<(Ebpf, Types), KernelError> {
    let types = OBJECT.types(&options.source)?;
    let slots = options.max_connections.next_power_of_two();
    let settings = Settings {
        outcomes: options
            .outcomes
            .iter()
            .fold(0, |mask, outcome| mask | outcome.bit()),
        roles: options.roles.iter().fold(0, |mask, role| mask | role.bit()),
        by_port: u32::from(!options.ports.is_empty()),
        by_prefix: u32::from(!options.peers.is_empty()),
        wake_bytes: options.ring_bytes / 4,
        buckets_mask: slots / WAYS as u32 - 1,
        cgroup_subsystem: cgroup::subsystem(Path::new("/proc/self/mountinfo"), &types.kernel),
    };
    let ports = Ports::new(options.ports.iter().copied());
    let ebpf = OBJECT.load(
        &types,
        &[
            (global::SETTINGS, bytemuck::bytes_of(&settings)),
            (global::PORTS, bytemuck::bytes_of(&ports)),
        ],
        &[
            (map::RECORDS, options.ring_bytes),
            (map::SLOTS, slots),
            (map::BUCKETS, slots / WAYS as u32),
            // For the few that find their slots taken while others are free.
            (map::CONNECTIONS, (slots / 4).max(16)),
        ],
    )?;
    Ok((ebpf, types))
}

/// The ring of finished connections.
pub struct Records {
    ring: RingBuf<MapData>,
}

/// What the kernel side keeps besides.
pub struct Tables {
    slots: Slots<{ size_of::<Slot>() }>,
    connections: Table<8, { size_of::<Connection>() }>,
    counters: Table<{ size_of::<CounterKey>() }, { size_of::<Counter>() }>,
    handshakes: Table<{ size_of::<HandshakeKey>() }, { size_of::<Handshake>() }>,
    cgroups: Table<8, { size_of::<CgroupPath>() }>,
    processes: Table<4, { size_of::<Process>() }>,
    losses: PerCpuArray<MapData, u64>,
    storm_limit: Array<MapData, [u8; size_of::<StormLimit>()]>,
}

impl ConnectionHooks {
    /// Loads the object and attaches every hook this kernel has.
    ///
    /// # Errors
    /// When the kernel has no BTF, a required field is not in it, or a required hook can't be attached.
    pub fn attach(options: &ConnectionOptions) -> Result<Self, KernelError> {
        let (mut ebpf, types) = load(options)?;
        prefixes(&mut ebpf, FEATURE, map::PREFIXES, &options.peers)?;
        limit_storms(&mut ebpf, options.storm_limit)?;
        let Attached {
            absent,
            degraded,
            messages,
            ..
        } = types.attach(&mut ebpf, &OBJECT, &options.source)?;
        Ok(Self {
            absent,
            degraded,
            ebpf,
            messages,
        })
    }

    /// Maps the ring, which counts twice. So this comes after all objects are loaded: the peak is then the larger of the two,
    /// not their sum.
    ///
    /// # Errors
    /// When the kernel does not map it.
    pub fn open(self) -> Result<ConnectionProbe, KernelError> {
        let mut ebpf = self.ebpf;
        Ok(ConnectionProbe {
            records: Records {
                ring: take(&mut ebpf, FEATURE, map::RECORDS)?,
            },
            tables: Tables {
                slots: Slots::take(&mut ebpf, FEATURE, map::SLOTS)?,
                connections: Table::take(&mut ebpf, FEATURE, map::CONNECTIONS)?,
                counters: Table::take(&mut ebpf, FEATURE, map::COUNTERS)?,
                handshakes: Table::take(&mut ebpf, FEATURE, map::HANDSHAKES)?,
                cgroups: Table::take(&mut ebpf, FEATURE, map::CGROUPS)?,
                processes: Table::take(&mut ebpf, FEATURE, map::PROCESSES)?,
                losses: take(&mut ebpf, FEATURE, map::LOSSES)?,
                storm_limit: take(&mut ebpf, FEATURE, map::STORM_LIMIT)?,
            },
            skipped: None,
            ebpf,
            _messages: self.messages,
        })
    }
}

impl ConnectionProbe {
    /// Ends the watching; what the tables and the ring hold can still be read, and no longer changes.
    pub fn detach(&mut self) {
        self.skipped = Some(self.skipped());
        take_away(&mut self.ebpf);
    }

    /// How often a hook did not run because it was already running on that CPU.
    pub fn skipped(&self) -> u64 {
        self.skipped
            .unwrap_or_else(|| losses::skipped(&self.ebpf, &["conn_state", "conn_state_raw"]))
    }

    /// How long the kernel ran its programs, while it counts that.
    pub fn runs(&self) -> Vec<Run> {
        losses::runs(&self.ebpf)
    }
}

impl Records {
    /// Hands every record in the ring to `each`, as raw bytes.
    pub fn drain(&mut self, mut each: impl FnMut(&[u8])) {
        while let Some(record) = self.ring.next() {
            each(&record);
        }
    }

    /// To wait for: readable when the kernel side asks for a reader.
    ///
    /// # Errors
    /// When this process has no descriptor left.
    pub fn descriptor(&self) -> std::io::Result<OwnedFd> {
        self.ring.as_fd().try_clone_to_owned()
    }
}

impl Tables {
    /// Every connection under way, until `each` says no more.
    ///
    /// # Errors
    /// When the kernel's map can't be read.
    pub fn connections(
        &self,
        mut each: impl FnMut(&Connection) -> ControlFlow<()>,
    ) -> Result<(), KernelError> {
        let flow = self.slots.each(|slot| {
            let slot: Slot = bytemuck::pod_read_unaligned(slot);
            if slot.socket == 0 {
                ControlFlow::Continue(())
            } else {
                each(&slot.connection)
            }
        })?;
        if flow.is_break() {
            return Ok(());
        }
        self.connections
            .each(|_, value| each(&bytemuck::pod_read_unaligned(value)))
    }

    /// The connections without a record.
    ///
    /// # Errors
    /// When the kernel's map can't be read.
    pub fn counters(&self, mut each: impl FnMut(CounterKey, Counter)) -> Result<(), KernelError> {
        self.counters.each(|key, value| {
            each(
                bytemuck::pod_read_unaligned(key),
                bytemuck::pod_read_unaligned(value),
            );
            ControlFlow::Continue(())
        })
    }

    /// Takes a counter out, once what it counted was taken over.
    pub fn forget_counter(&mut self, key: &CounterKey) {
        if let Ok(key) = bytemuck::bytes_of(key).try_into() {
            self.counters.remove(key);
        }
    }

    /// Tables that may get full: name, entries, and how many have room.
    ///
    /// # Errors
    /// When the kernel's maps can't be read.
    pub fn fill(&self) -> Result<[(&'static str, u64, u64); 3], KernelError> {
        let (mut connections, mut handshakes, mut counters) = (0, 0, 0);
        self.connections(|_| {
            connections += 1;
            ControlFlow::Continue(())
        })?;
        self.handshakes(|_, _| handshakes += 1)?;
        self.counters(|_, _| counters += 1)?;
        Ok([
            ("connections", connections, u64::from(self.slots.len())),
            ("handshakes", handshakes, u64::from(MAX_HANDSHAKES)),
            ("counters", counters, u64::from(MAX_COUNTERS)),
        ])
    }

    /// Every handshake that the server answered more than once and the client did not finish.
    ///
    /// # Errors
    /// When the kernel's map can't be read.
    pub fn handshakes(&self, mut each: impl FnMut(HandshakeKey, Handshake)) -> Result<(), KernelError> {
        self.handshakes.each(|key, value| {
            each(
                bytemuck::pod_read_unaligned(key),
                bytemuck::pod_read_unaligned(value),
            );
            ControlFlow::Continue(())
        })
    }

    /// Takes a handshake out, once it was reported.
    pub fn forget_handshake(&mut self, key: &HandshakeKey) {
        if let Ok(key) = bytemuck::bytes_of(key).try_into() {
            self.handshakes.remove(key);
        }
    }

    /// The names of a control group seen at connect time, leaf first.
    pub fn cgroup(&self, id: u64) -> Option<CgroupPath> {
        self.cgroups
            .get(&id.to_ne_bytes())
            .map(|bytes| bytemuck::pod_read_unaligned(&bytes))
    }

    /// What was taken of a process at connect time.
    pub fn process(&self, pid: u32) -> Option<Process> {
        self.processes
            .get(&pid.to_ne_bytes())
            .map(|bytes| bytemuck::pod_read_unaligned(&bytes))
    }

    /// Sets how many records are told one by one, from now on.
    ///
    /// # Errors
    /// When the kernel's map can't be written.
    pub fn limit_storms(&mut self, limit: StormLimit) -> Result<(), KernelError> {
        write_limit(&mut self.storm_limit, limit)
    }

    /// How much of one kind the kernel side could not keep.
    pub fn lost(&self, loss: Loss) -> u64 {
        losses::total(&self.losses, loss as u32)
    }
}

/// Before the programs are attached: all zero, the limit would tell nothing.
fn limit_storms(ebpf: &mut Ebpf, limit: StormLimit) -> Result<(), KernelError> {
    let map = ebpf.map_mut(map::STORM_LIMIT).ok_or(KernelError::Mismatch {
        feature: FEATURE,
        kind: "map",
        name: map::STORM_LIMIT,
    })?;
    let mut map: Array<&mut MapData, [u8; size_of::<StormLimit>()]> =
        map.try_into().map_err(|error: MapError| KernelError::Map {
            map: map::STORM_LIMIT,
            reason: chain(&error),
        })?;
    write_limit(&mut map, limit)
}

fn write_limit<T: BorrowMut<MapData>>(
    map: &mut Array<T, [u8; size_of::<StormLimit>()]>,
    limit: StormLimit,
) -> Result<(), KernelError> {
    map.set(
        0,
        bytemuck::cast::<StormLimit, [u8; size_of::<StormLimit>()]>(limit),
        0,
    )
    .map_err(|error| KernelError::Map {
        map: map::STORM_LIMIT,
        reason: chain(&error),
    })
}

/// Fills the trie `name` of an object.
pub(super) fn prefixes(
    ebpf: &mut Ebpf,
    feature: &'static str,
    name: &'static str,
    peers: &[IpNet],
) -> Result<(), KernelError> {
    let error = |error: MapError| KernelError::Map {
        map: name,
        reason: chain(&error),
    };
    let missing = KernelError::Mismatch {
        feature,
        kind: "map",
        name,
    };
    // Borrowed, not moved: a map without an owner is gone before the programs that use it are loaded.
    let mut trie: LpmTrie<&mut MapData, [u8; 16], u8> =
        ebpf.map_mut(name).ok_or(missing)?.try_into().map_err(error)?;
    for peer in peers {
        let (address, length) = match peer.network() {
            IpAddr::V4(v4) => (v4.to_ipv6_mapped(), u32::from(peer.prefix_len()) + 96),
            IpAddr::V6(v6) => (v6, u32::from(peer.prefix_len())),
        };
        trie.insert(&Key::new(length, Ipv6Addr::octets(&address)), 1, 0)
            .map_err(error)?;
    }
    Ok(())
}
