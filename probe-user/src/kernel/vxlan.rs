//! The VXLAN object: load, attach to underlay devices, read.

use std::collections::{HashMap, HashSet};

use aya::{
    Ebpf,
    maps::{HashMap as AyaMap, MapData, PerCpuArray},
    programs::{
        LinkOrder, SchedClassifier, TcAttachType,
        links::Link as _,
        tc::{NlOptions, SchedClassifierLink, TcAttachOptions, TcHandle, qdisc_add_clsact},
    },
};
use probe_ebpf::contract::{
    hooks::VXLAN,
    vxlan::{
        Counters, DropCount, DropKey, ErrorCount, ErrorKey, Flow, FlowKey, Key, Loss, Settings, global, map,
        program,
    },
};

use super::{
    KernelError,
    gone_peers::{GonePeers, add},
    hooks::{Degraded, take_away},
    losses,
    maps::{PerCpuTable, Table, sum, take},
    messages::Reader,
    object::{self, Checked, Object, Types},
    ports::PortSet,
};
use crate::{error::chain, model::settings::KernelSource};

const FEATURE: &str = "vxlan";

pub(super) static OBJECT: Object = Object {
    name: "vxlan",
    feature: FEATURE,
    plain: include_bytes!(env!("PROBE_OBJECT_VXLAN")),
    with_messages: include_bytes!(env!("PROBE_OBJECT_VXLAN_LOG")),
    hooks: &VXLAN,
    reads: env!("PROBE_READS_VXLAN"),
};

/// What the kernel side counts.
#[derive(Clone, Debug)]
pub struct Options {
    /// Inode of the network namespace.
    pub netns: u32,
    /// Peers counted at once.
    pub peers: u32,
    /// Inner connections counted at once; `None`: none are.
    pub flows: Option<u32>,
    pub source: KernelSource,
}

/// How the programs see a device's packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attached {
    /// Links of this process: they end with it. Kernel 6.6.
    Tcx,
    /// Filters of the device's clsact queue, which outlive a process that is killed. `made`: the queue was not there.
    Clsact { made: bool },
}

/// The loaded object. Dropping it removes it from the kernel.
pub struct VxlanProbe {
    /// Hooks this kernel does not give.
    pub degraded: Vec<Degraded>,
    /// Names of the reasons for drops, by this kernel's numbers; none before 5.17.
    pub reasons: HashMap<u32, String>,
    /// Whether the kernel reports reasons.
    pub has_reasons: bool,
    ports: PortSet,
    devices: AyaMap<MapData, u32, u32>,
    devices_set: HashSet<u32>,
    counters: PerCpuTable<{ size_of::<Key>() }, { size_of::<Counters>() }>,
    gone: GonePeers,
    errors: Table<{ size_of::<ErrorKey>() }, { size_of::<ErrorCount>() }>,
    drops: Table<{ size_of::<DropKey>() }, { size_of::<DropCount>() }>,
    flows: PerCpuTable<{ size_of::<FlowKey>() }, { size_of::<Flow>() }>,
    losses: PerCpuArray<MapData, u64>,
    links: Vec<SchedClassifierLink>,
    ebpf: Ebpf,
    /// After the programs that write them.
    _messages: Option<Reader>,
}

/// Loads every program for real, and takes all of it away again. None is attached to a device.
///
/// # Errors
/// When the kernel has no BTF, a required field is not in it, or its maps can't be made.
pub fn check(source: KernelSource) -> Result<Checked, KernelError> {
    let options = Options {
        netns: 0,
        peers: 1,
        flows: None,
        source,
    };
    let (mut ebpf, types) = load(&options)?;
    types.check(&mut ebpf, &OBJECT, &options.source)
}

/// Places of the kernel's table: a peer that sends and receives has two.
fn places(options: &Options) -> u32 {
    options.peers.saturating_mul(2)
}

fn load(options: &Options) -> Result<(Ebpf, Types), KernelError> {
    let types = OBJECT.types(&options.source)?;
    let settings = Settings {
        netns: options.netns,
        flows: u32::from(options.flows.is_some()),
        reasons: u32::from(types.kernel.has_reasons()),
        coarse: u32::from(types.kernel.coarse_clock),
    };
    let ebpf = OBJECT.load(
        &types,
        &[(global::SETTINGS, bytemuck::bytes_of(&settings))],
        &[
            (map::COUNTERS, places(options)),
            (map::FLOWS, options.flows.unwrap_or(1)),
        ],
    )?;
    Ok((ebpf, types))
}

impl VxlanProbe {
    /// Loads the object, and attaches what is attached to no device.
    ///
    /// # Errors
    /// When the kernel has no BTF, a required field is not in it, or a required program is refused.
    pub fn load(options: &Options) -> Result<Self, KernelError> {
        let (mut ebpf, types) = load(options)?;
        let has_reasons = types.kernel.has_reasons();
        let reasons = types.kernel.reasons.clone();
        let object::Attached {
            degraded, messages, ..
        } = types.attach(&mut ebpf, &OBJECT, &options.source)?;
        Ok(Self {
            degraded,
            reasons,
            has_reasons,
            ports: PortSet::take(&mut ebpf, FEATURE, map::PORTS)?,
            devices: take(&mut ebpf, FEATURE, map::DEVICES)?,
            devices_set: HashSet::new(),
            counters: PerCpuTable::take(&mut ebpf, FEATURE, map::COUNTERS)?,
            gone: GonePeers::beside(places(options)),
            errors: Table::take(&mut ebpf, FEATURE, map::ERRORS)?,
            drops: Table::take(&mut ebpf, FEATURE, map::DROPS)?,
            flows: PerCpuTable::take(&mut ebpf, FEATURE, map::FLOWS)?,
            losses: take(&mut ebpf, FEATURE, map::LOSSES)?,
            links: Vec::new(),
            ebpf,
            _messages: messages,
        })
    }

    /// Attaches both programs to a device of this thread's network namespace. They run first, and every other program
    /// after them. With clsact their filters have the number `handle`, and one bit more where the queue was made for them.
    ///
    /// # Errors
    /// When the kernel takes neither way.
    pub fn attach(&mut self, device: &str, handle: u32) -> Result<Attached, KernelError> {
        match self.attach_both(device, || TcAttachOptions::TcxOrder(LinkOrder::first())) {
            Ok(()) => return Ok(Attached::Tcx),
            Err(error) if !is_kernel(&error) => return Err(error),
            // Before 6.6 there is no tcx.
            Err(_) => {}
        }
        let made = qdisc_add_clsact(device).is_ok();
        let handle = if made { handle | MADE_QUEUE } else { handle };
        let filter = |priority| {
            move || {
                TcAttachOptions::Netlink(NlOptions {
                    priority,
                    handle: TcHandle::from(handle),
                    ..NlOptions::default()
                })
            }
        };
        // Filters of another kind may have the first priority for themselves.
        self.attach_both(device, filter(1))
            .or_else(|_| self.attach_both(device, filter(0)))?;
        Ok(Attached::Clsact { made })
    }

    fn attach_both(
        &mut self,
        device: &str,
        options: impl Fn() -> TcAttachOptions,
    ) -> Result<(), KernelError> {
        let mut first = None;
        for (name, way) in [
            (program::IN, TcAttachType::Ingress),
            (program::OUT, TcAttachType::Egress),
        ] {
            let mismatch = || KernelError::Mismatch {
                feature: FEATURE,
                kind: "program",
                name,
            };
            let program: &mut SchedClassifier = self
                .ebpf
                .program_mut(name)
                .ok_or_else(mismatch)?
                .try_into()
                .map_err(|_| mismatch())?;
            let link = program.attach_with_options(device, way, options());
            let link = link.and_then(|id| program.take_link(id));
            match link {
                Ok(link) => match first.take() {
                    None => first = Some(link),
                    Some(other) => self.links.extend([other, link]),
                },
                Err(error) => {
                    if let Some(first) = first {
                        // Not one without the other.
                        let _ = first.detach();
                    }
                    return Err(KernelError::Attach {
                        device: device.to_owned(),
                        reason: chain(&error),
                    });
                }
            }
        }
        Ok(())
    }

    /// Sets which UDP ports carry VXLAN.
    ///
    /// # Errors
    /// When the kernel's map can't be written.
    pub fn watch_ports(&mut self, ports: &HashSet<u16>) -> Result<(), KernelError> {
        self.ports.set(ports)
    }

    /// Sets which devices are VXLAN devices, by index.
    ///
    /// # Errors
    /// When the kernel's map can't be written.
    pub fn watch_devices(&mut self, devices: &HashSet<u32>) -> Result<(), KernelError> {
        let error = |error: aya::maps::MapError| KernelError::Map {
            map: map::DEVICES,
            reason: chain(&error),
        };
        for gone in self.devices_set.difference(devices) {
            // Gone already is as good.
            let _ = self.devices.remove(gone);
        }
        for new in devices.difference(&self.devices_set) {
            self.devices.insert(new, 1, 0).map_err(error)?;
        }
        self.devices_set.clone_from(devices);
        Ok(())
    }

    /// Every key with its counters, added up over all CPUs and since the beginning; `now_ns`: `CLOCK_MONOTONIC` nanoseconds.
    ///
    /// # Errors
    /// When the kernel's map can't be read.
    pub fn counters(&mut self, now_ns: u64, mut each: impl FnMut(Key, Counters)) -> Result<(), KernelError> {
        let Self { counters, gone, .. } = self;
        let mut idle = Vec::new();
        let mut present = HashSet::new();
        counters.each(|raw, values| {
            let Some(sum) = sum(values, add) else { return };
            let key = bytemuck::pod_read_unaligned(raw);
            if GonePeers::is_idle(&sum, now_ns) {
                idle.push(*raw);
                return;
            }
            if gone.has(&key) {
                present.insert(key);
            }
            each(key, gone.added(&key, sum));
        })?;
        for raw in idle {
            // Read again at the last moment: what comes after it, and before the place is free, is not counted.
            if let Some(sum) = counters.get(&raw).and_then(|values| sum(&values, add)) {
                counters.remove(&raw);
                gone.take(bytemuck::pod_read_unaligned(&raw), sum);
            }
        }
        gone.without(&present)
            .for_each(|(key, counters)| each(key, counters));
        Ok(())
    }

    /// Peers that were gone for so long that their counters made room for those of others.
    pub fn forgotten_peers(&self) -> u64 {
        self.gone.forgotten()
    }

    /// # Errors
    /// When the kernel's map can't be read.
    pub fn errors(&self, mut each: impl FnMut(ErrorKey, ErrorCount)) -> Result<(), KernelError> {
        self.errors.each(|key, value| {
            each(
                bytemuck::pod_read_unaligned(key),
                bytemuck::pod_read_unaligned(value),
            );
            std::ops::ControlFlow::Continue(())
        })
    }

    /// # Errors
    /// When the kernel's map can't be read.
    pub fn drops(&self, mut each: impl FnMut(DropKey, DropCount)) -> Result<(), KernelError> {
        self.drops.each(|key, value| {
            each(
                bytemuck::pod_read_unaligned(key),
                bytemuck::pod_read_unaligned(value),
            );
            std::ops::ControlFlow::Continue(())
        })
    }

    /// Every inner connection's direction, added up over all CPUs.
    ///
    /// # Errors
    /// When the kernel's map can't be read.
    pub fn flows(&self, mut each: impl FnMut(FlowKey, Flow)) -> Result<(), KernelError> {
        self.flows.each(|key, values| {
            if let Some(sum) = sum(values, add_flow) {
                each(bytemuck::pod_read_unaligned(key), sum);
            }
        })
    }

    /// Makes room for others.
    pub fn forget_flow(&mut self, key: &FlowKey) {
        if let Ok(key) = bytemuck::bytes_of(key).try_into() {
            self.flows.remove(key);
        }
    }

    /// How much of one kind the kernel side could not keep.
    pub fn lost(&self, loss: Loss) -> u64 {
        losses::total(&self.losses, loss as u32)
    }

    /// Drops that the kernel did not show, because an interrupt brought them while the program ran.
    pub fn skipped(&self) -> u64 {
        losses::skipped(&self.ebpf, &[])
    }

    /// Ends the counting; what was counted can still be read.
    pub fn detach(&mut self) {
        for link in self.links.drain(..) {
            // A device that is gone took it along.
            let _ = link.detach();
        }
        take_away(&mut self.ebpf);
    }
}

/// In a filter's handle: its clsact queue was made for it.
pub const MADE_QUEUE: u32 = 1 << 31;

fn is_kernel(error: &KernelError) -> bool {
    matches!(error, KernelError::Attach { .. })
}

fn add_flow(one: Flow, other: Flow) -> Flow {
    let first_ns = match (one.first_ns, other.first_ns) {
        (0, first) | (first, 0) => first,
        (one, other) => one.min(other),
    };
    Flow {
        packets: one.packets + other.packets,
        bytes: one.bytes + other.bytes,
        first_ns,
        last_ns: one.last_ns.max(other.last_ns),
        flags: one.flags | other.flags,
    }
}
