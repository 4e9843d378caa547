//! The object of dropped TCP packets: load, read.

use std::{collections::HashSet, ops::ControlFlow};

use aya::{
    Ebpf,
    maps::{Array, MapData, PerCpuArray},
};
use probe_ebpf::contract::{
    drops::{Count, Key, Place, Places, QUEUES, RECEIVERS, Settings, global, map},
    hooks::DROPS,
};

use super::{
    KernelError,
    hooks::{Degraded, take_away},
    losses,
    maps::{Table, take},
    messages::Reader,
    object::{Attached, Checked, Object, Reasons, Types},
    ports::PortSet,
    symbols,
};
use crate::{error::chain, model::settings::KernelSource};

const FEATURE: &str = "drops";

pub(super) static OBJECT: Object = Object {
    name: "drops",
    feature: FEATURE,
    plain: include_bytes!(env!("PROBE_OBJECT_DROPS")),
    with_messages: include_bytes!(env!("PROBE_OBJECT_DROPS_LOG")),
    hooks: &DROPS,
    reads: env!("PROBE_READS_DROPS"),
};

/// The loaded object. Dropping it removes it from the kernel.
pub struct DropsProbe {
    pub reasons: Reasons,
    drops: Table<{ size_of::<Key>() }, { size_of::<Count>() }>,
    lost: PerCpuArray<MapData, u64>,
    places: Array<MapData, [u8; size_of::<Places>()]>,
    ebpf: Ebpf,
    /// After the programs that write them.
    _messages: Option<Reader>,
}

/// Loads the program for real, and takes it away again.
///
/// # Errors
/// When the kernel has no BTF, a required field is not in it, or its maps can't be made.
pub fn check(source: KernelSource) -> Result<Checked, KernelError> {
    let (mut ebpf, types, _) = load(&source, &HashSet::new())?;
    types.check(&mut ebpf, &OBJECT, &source)
}

fn load(source: &KernelSource, ports: &HashSet<u16>) -> Result<(Ebpf, Types, Reasons), KernelError> {
    let types = OBJECT.types(source)?;
    let reasons = types.reasons();
    let settings = Settings {
        every_port: u32::from(ports.is_empty()),
        reasons: u32::from(reasons.is_some()),
    };
    let ebpf = OBJECT.load(&types, &[(global::SETTINGS, bytemuck::bytes_of(&settings))], &[])?;
    Ok((ebpf, types, reasons))
}

impl DropsProbe {
    /// Loads the object and attaches it. `ports`: of servers; none: all are watched.
    ///
    /// # Errors
    /// When the kernel has no BTF, a required field is not in it, or the program is refused.
    pub fn load(source: &KernelSource, ports: &HashSet<u16>) -> Result<Self, KernelError> {
        let (mut ebpf, types, reasons) = load(source, ports)?;
        // Held until the program is loaded, which holds it from then on.
        let mut set = PortSet::take(&mut ebpf, FEATURE, map::PORTS)?;
        set.set(ports)?;
        let drops = Table::take(&mut ebpf, FEATURE, map::DROPS)?;
        let lost = take(&mut ebpf, FEATURE, map::LOST)?;
        let places = take(&mut ebpf, FEATURE, map::PLACES)?;
        let Attached {
            mut degraded,
            messages,
            ..
        } = types.attach(&mut ebpf, &OBJECT, source)?;
        if let Some(Degraded { hook, reason }) = degraded.pop() {
            let gives = hook.gives;
            return Err(KernelError::Hook { gives, reason });
        }
        Ok(Self {
            reasons,
            drops,
            lost,
            places,
            ebpf,
            _messages: messages,
        })
    }

    /// Every entry.
    ///
    /// # Errors
    /// When the kernel's map can't be read.
    pub fn drops(&self, mut each: impl FnMut(Key, Count)) -> Result<(), KernelError> {
        self.drops.each(|key, value| {
            each(
                bytemuck::pod_read_unaligned(key),
                bytemuck::pod_read_unaligned(value),
            );
            ControlFlow::Continue(())
        })
    }

    /// Leaves out what functions of the kernel let go of that packets reach at their end. Finding these takes some 50 ms; where
    /// their addresses don't show, for lack of CAP_SYSLOG, such packets are counted as before, which is dearer and no fault.
    ///
    /// # Errors
    /// When the kernel's map can't be written.
    pub fn leave_out_settled(&mut self) -> Result<(), KernelError> {
        let found = symbols::functions(QUEUES.into_iter().chain(RECEIVERS));
        let place = |name: &&str| {
            found
                .get(*name)
                .map_or(Place::default(), |&(start, end)| Place { start, end })
        };
        let places = Places {
            queues: QUEUES.each_ref().map(place),
            receivers: RECEIVERS.each_ref().map(place),
        };
        self.places
            .set(0, bytemuck::cast::<Places, [u8; size_of::<Places>()]>(places), 0)
            .map_err(|error| KernelError::Map {
                map: map::PLACES,
                reason: chain(&error),
            })
    }

    /// Drops that found no room.
    pub fn lost(&self) -> u64 {
        losses::total(&self.lost, 0)
    }

    /// Ends the counting; what was counted can still be read.
    pub fn detach(&mut self) {
        take_away(&mut self.ebpf);
    }
}
