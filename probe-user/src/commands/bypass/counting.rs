//! The kernel side of a poller: there for as long as it runs, or only while there may be untracked packets.

use std::collections::HashSet;

use probe_ebpf::contract::{
    bypass::{Counters, Key},
    hooks::{Hook, Program},
};

use crate::{
    kernel::{
        KernelError,
        btf::Absent,
        bypass::{BypassProbe, Options},
        hooks::Degraded,
    },
    netfilter::rules::exemptions::Exemptions,
};

/// When the kernel side is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// For as long as the poller.
    Always,
    /// While a rule or IPVS may exempt packets: programs cost time with every packet, and tables memory on every CPU.
    OnNeed,
}

/// Counters of untracked packets. What this kernel gives is known also while nothing is counted.
pub struct Counting {
    options: Options,
    /// `None`: nothing may be untracked.
    probe: Option<BypassProbe>,
    used: Vec<(Hook, Program)>,
    degraded: Vec<Degraded>,
    absent: Vec<Absent>,
    /// `None`: it stays.
    exemptions: Option<Exemptions>,
    ports: HashSet<u16>,
    /// Packets without a stream of kernel sides that are gone.
    rest: u64,
}

impl Counting {
    /// Attaches its hooks, also where they may be taken away at once: what the kernel refuses is known then.
    ///
    /// # Errors
    /// A kernel that can't do it.
    pub fn start(options: Options, presence: Presence) -> Result<Self, KernelError> {
        let mut probe = BypassProbe::load(&options)?;
        Ok(Self {
            options,
            used: std::mem::take(&mut probe.used),
            degraded: std::mem::take(&mut probe.degraded),
            absent: std::mem::take(&mut probe.absent),
            probe: Some(probe),
            exemptions: (presence == Presence::OnNeed).then(Exemptions::default),
            ports: HashSet::new(),
            rest: 0,
        })
    }

    /// Has it there if something may be untracked in the calling thread's network namespace, and takes it away if nothing may and
    /// no stream is left.
    ///
    /// # Errors
    /// A kernel that can't do it any more, or can't be read.
    pub fn adapt(&mut self) -> Result<(), KernelError> {
        let Some(exemptions) = &mut self.exemptions else {
            return Ok(());
        };
        let may_exist = exemptions.may_exist();
        if may_exist && self.probe.is_none() {
            let mut probe = BypassProbe::load(&self.options)?;
            probe.know_ports(&self.ports)?;
            self.probe = Some(probe);
        } else if !may_exist && self.is_empty()? {
            self.rest = self.rest();
            self.detach();
            self.probe = None;
        }
        Ok(())
    }

    fn is_empty(&self) -> Result<bool, KernelError> {
        let mut is_empty = true;
        self.streams(|_, _| is_empty = false)?;
        Ok(is_empty)
    }

    /// The kernel side; without it there is no stream.
    pub fn probe(&self) -> Option<&BypassProbe> {
        self.probe.as_ref()
    }

    /// Which program serves which hook.
    pub fn used(&self) -> &[(Hook, Program)] {
        &self.used
    }

    /// Hooks this kernel does not give.
    pub fn degraded(&self) -> &[Degraded] {
        &self.degraded
    }

    /// Fields this kernel does not have.
    pub fn absent(&self) -> &[Absent] {
        &self.absent
    }

    /// Sets which ports are known to be servers'.
    ///
    /// # Errors
    /// When the kernel's map can't be written.
    pub fn know_ports(&mut self, ports: HashSet<u16>) -> Result<(), KernelError> {
        self.ports = ports;
        let probe = self.probe.as_mut();
        probe.map_or(Ok(()), |probe| probe.know_ports(&self.ports))
    }

    /// Every stream with its counters.
    ///
    /// # Errors
    /// When the kernel's map can't be read.
    pub fn streams(&self, each: impl FnMut(Key, Counters)) -> Result<(), KernelError> {
        self.probe.as_ref().map_or(Ok(()), |probe| probe.streams(each))
    }

    /// Makes room for others.
    pub fn forget(&mut self, key: &Key) {
        if let Some(probe) = &mut self.probe {
            probe.forget(key);
        }
    }

    /// Packets that are in no stream, for lack of room.
    pub fn rest(&self) -> u64 {
        self.rest + self.probe.as_ref().map_or(0, BypassProbe::rest)
    }

    /// Ends the counting; what was counted can still be read.
    pub fn detach(&mut self) {
        if let Some(probe) = &mut self.probe {
            probe.detach();
        }
    }
}
