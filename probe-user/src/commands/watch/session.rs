//! A run of `watch`: hooks, ring and pipeline, until it is stopped.

use std::{ops::ControlFlow, os::fd::OwnedFd, sync::Arc, time::Duration};

use anyhow::{Context, Result};
use tokio::{
    io::{Interest, unix::AsyncFd},
    select,
    time::{MissedTickBehavior, interval},
};

use super::{
    explain::Explainer,
    pipeline::{OwnerSources, Pipeline},
    sink::Sink,
    tls::TlsCapture,
};
use crate::{
    cli::Watch,
    kernel::{self, btf::Absent, connection::ConnectionHooks, hooks::Degraded, types::KernelTypes},
};

/// How often the ring is read when the kernel side does not ask for it earlier.
const TICK: Duration = Duration::from_millis(50);
/// The same with `--tls`: what connections begin with fills its buffers sooner.
const TLS_TICK: Duration = Duration::from_millis(10);

/// This kernel's types, read once for all objects of a run that are loaded while somebody holds them.
///
/// # Errors
/// When the kernel has none, or a required field is not in them.
pub fn types(settings: &Watch) -> Result<Arc<KernelTypes>> {
    KernelTypes::hold(&settings.kernel.source)
        .with_context(|| format!("watch can't run on kernel {}", kernel::release()))
}

/// The hooks, and what they lack.
pub struct Hooks {
    types: Arc<KernelTypes>,
    connections: ConnectionHooks,
    tls: Option<TlsCapture>,
    /// What this kernel does not give, in sentences.
    pub lacks: Vec<String>,
}

impl Hooks {
    /// Attaches them.
    ///
    /// # Errors
    /// A kernel that can't do it.
    pub fn attach(settings: &Watch, types: Arc<KernelTypes>) -> Result<Self> {
        let kernel = kernel::release();
        let tls = settings
            .tls
            .then(|| TlsCapture::attach(&settings.kernel, &kernel));
        let tls = tls.transpose()?;
        let connections = ConnectionHooks::attach(&settings.kernel)
            .with_context(|| format!("watch can't run on kernel {kernel}"))?;
        let of_tls = tls.iter().flat_map(|tls| tls.lacks(&kernel));
        Ok(Self {
            types,
            lacks: lacks(&connections, &kernel).into_iter().chain(of_tls).collect(),
            tls,
            connections,
        })
    }

    /// The run that goes on with them, once the explainer's hooks are attached as well.
    ///
    /// # Errors
    /// When the ring can't be mapped, or this process has no descriptor left.
    pub fn session<S: Sink>(
        self,
        settings: Watch,
        sink: S,
        sources: OwnerSources,
        explainer: Option<Explainer>,
    ) -> Result<Session<S>> {
        if let Some(explainer) = &explainer {
            explainer.wait();
        }
        drop(self.types);
        let probe = self.connections.open()?;
        let ring = probe
            .records
            .descriptor()
            .context("can't duplicate the ring buffer's descriptor")?;
        // SAFETY: an owned descriptor stays open, and the same, until the AsyncFd that holds it is dropped.
        let ring = unsafe { AsyncFd::register_with_interest(ring, Interest::READABLE) }
            .context("can't wait for the kernel's ring buffer")?;
        Ok(Session {
            tick: if self.tls.is_some() { TLS_TICK } else { TICK },
            pipeline: Pipeline::new(settings, (probe, self.tls), sink, sources, explainer),
            ring,
        })
    }
}

fn lacks(hooks: &ConnectionHooks, kernel: &str) -> Vec<String> {
    let is_degraded = |lost: &str| hooks.degraded.iter().any(|degraded| degraded.hook.gives == lost);
    let absent = hooks.absent.iter().filter(|absent| !is_degraded(absent.lost));
    absent
        .map(|Absent { what, lost, .. }| {
            format!("{lost} on kernel {kernel}, whose type information has no {what}")
        })
        .chain(
            hooks
                .degraded
                .iter()
                .map(|Degraded { hook, reason }| format!("{} on kernel {kernel}: {reason}", hook.gives)),
        )
        .collect()
}

/// A run under way.
pub struct Session<S: Sink> {
    pub pipeline: Pipeline<S>,
    ring: AsyncFd<OwnedFd>,
    tick: Duration,
}

impl<S: Sink> Session<S> {
    /// Goes on until `end` is there or `--count` is reached.
    ///
    /// # Errors
    /// When the kernel can't be asked, or the sink's.
    pub async fn run(&mut self, end: impl Future<Output = ()>) -> Result<()> {
        let mut tick = interval(self.tick);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        tokio::pin!(end);
        loop {
            select! {
                () = &mut end => return Ok(()),
                _ = tick.tick() => {}
                ready = self.ring.readable() => {
                    ready.context("can't wait for the kernel's ring buffer")?.clear_ready();
                }
            }
            if let ControlFlow::Break(()) = self.pipeline.pump()? {
                return Ok(());
            }
        }
    }

    /// What waits, what is still open, and the summary.
    ///
    /// # Errors
    /// When the kernel can't be asked, or the sink's.
    pub fn finish(self) -> Result<()> {
        self.pipeline.finish()
    }
}
