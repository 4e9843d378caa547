//! Evidence: packets that bypass conntrack.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use anyhow::Result;
use probe_ebpf::contract::bypass::Counters;

use crate::{
    capture::bypass as capture,
    cli::Bypass,
    commands::{
        bypass::{self, NameSources, Presence},
        periodic::{Looks, now_ns},
        rule_book::RuleBook,
    },
    kernel::{
        KernelError,
        bypass::{BypassProbe, Options},
    },
    model::{
        bypass::{
            View,
            stream::{self, UntrackedCount, UntrackedStream},
        },
        network::Device,
        settings::KernelSource,
    },
};

/// Streams of untracked packets counted at once.
const STREAMS: u32 = 1024;
/// One without a packet for so long makes room for others.
const IDLE: Duration = Duration::from_secs(60);
const TCP: u8 = 6;

/// The kernel side, and who else uses it.
pub enum Untracked {
    Off,
    /// Read when a connection fails; when idle streams were last removed.
    Counted(Box<BypassProbe>, Instant),
    /// The same, and reported at every interval.
    Polled(Box<bypass::Poller>),
}

impl Untracked {
    /// Counts only; what this kernel lacks, in sentences.
    ///
    /// # Errors
    /// A kernel that can't do it.
    pub fn count(
        netns: u32,
        source: &KernelSource,
        ports: &HashSet<u16>,
    ) -> Result<(Vec<String>, Self), KernelError> {
        let mut probe = BypassProbe::load(&Options {
            netns,
            streams: STREAMS,
            source: source.clone(),
        })?;
        probe.know_ports(ports)?;
        let degraded = probe.degraded.iter();
        let lacks = degraded.map(|degraded| format!("{} ({})", degraded.hook.gives, degraded.reason));
        Ok((lacks.collect(), Self::Counted(Box::new(probe), Instant::now())))
    }

    /// Counts, and reports at every interval; what this kernel lacks, in sentences.
    ///
    /// # Errors
    /// A kernel that can't do it, or tables that can't be read.
    pub fn poll_all(settings: &Bypass, names: NameSources, book: RuleBook) -> Result<(Vec<String>, Self)> {
        let poller = bypass::Poller::new(settings, names, book, Presence::OnNeed)?;
        Ok((poller.degraded(), Self::Polled(Box::new(poller))))
    }

    pub fn is_off(&self) -> bool {
        matches!(self, Self::Off)
    }

    /// Whether it is for causes only, and no untracked packet was seen for a while.
    pub fn is_idle(&self) -> bool {
        let Self::Counted(probe, _) = self else {
            return false;
        };
        let (mut is_idle, now) = (true, now_ns());
        let read = probe.streams(|_, counters| is_idle &= is_old(&counters, now));
        read.is_ok() && is_idle
    }

    fn probe(&self) -> Option<&BypassProbe> {
        match self {
            Self::Off => None,
            Self::Counted(probe, _) => Some(probe),
            Self::Polled(poller) => poller.counting().probe(),
        }
    }

    /// The one that reports at every interval, and has rules of its own.
    pub fn poller(&self) -> Option<&bypass::Poller> {
        match self {
            Self::Off | Self::Counted(..) => None,
            Self::Polled(poller) => Some(poller),
        }
    }

    pub fn poller_mut(&mut self) -> Option<&mut bypass::Poller> {
        match self {
            Self::Off | Self::Counted(..) => None,
            Self::Polled(poller) => Some(poller),
        }
    }

    /// The view of this interval, where one is reported; otherwise makes room for new streams.
    ///
    /// # Errors
    /// When the kernel can't be read.
    pub fn poll(&mut self) -> Result<Option<View>> {
        match self {
            Self::Off => Ok(None),
            Self::Polled(poller) => poller.look(true).map(Some),
            Self::Counted(probe, tidied) => {
                if tidied.elapsed() > IDLE {
                    *tidied = Instant::now();
                    tidy(probe);
                }
                Ok(None)
            }
        }
    }

    /// Streams of TCP, each once.
    pub fn tcp_streams(&self, devices: &[Device]) -> Vec<(UntrackedStream, UntrackedCount)> {
        let mut streams = Vec::new();
        if let Some(probe) = self.probe() {
            let _ = probe.streams(|key, counters| {
                if key.protocol == TCP {
                    streams.extend(capture::stream(&key, &counters));
                }
            });
        }
        stream::once(streams, devices)
    }

    /// Adds ports of servers, where they are not kept current by the poller itself.
    pub fn know_ports(&mut self, ports: impl FnOnce() -> HashSet<u16>) {
        if let Self::Counted(probe, _) = self {
            let _ = probe.know_ports(&ports());
        }
    }

    /// Untracked packets that found no room.
    pub fn lost(&self) -> u64 {
        match self {
            Self::Off => 0,
            Self::Counted(probe, _) => probe.rest(),
            Self::Polled(poller) => poller.counting().rest(),
        }
    }
}

fn is_old(counters: &Counters, now: u64) -> bool {
    Duration::from_nanos(now.saturating_sub(counters.last_ns)) > IDLE
}

fn tidy(probe: &mut BypassProbe) {
    let mut idle = Vec::new();
    let now = now_ns();
    let _ = probe.streams(|key, counters| {
        if is_old(&counters, now) {
            idle.push(key);
        }
    });
    for key in idle {
        probe.forget(&key);
    }
}

impl Drop for Untracked {
    fn drop(&mut self) {
        // A poller does so itself.
        if let Self::Counted(probe, _) = self {
            probe.detach();
        }
    }
}
