//! Connections during the doctor's run.

use std::{
    io,
    sync::mpsc::{Sender, channel},
    time::Duration,
};

use anyhow::{Result, bail};
use tokio::time::sleep;

use super::CheckContext;
use crate::{
    cli::Watch,
    commands::{
        pods,
        watch::{
            explain::{ExplainConfig, Explainer},
            pipeline::OwnerSources,
            session::{Hooks, types},
            sink::Sink,
        },
    },
    kernel::capabilities::{self, Need},
    model::{Connection, Outcome, Role, Summary, unlisted_time::UnlistedTime},
};

/// Connections kept: a storm is reported by its beginning, and by the summary.
const KEPT: usize = 4096;

/// Which connections.
pub struct WatchScope<'a> {
    /// Server ports.
    pub ports: &'a [u16],
    /// None: both ends.
    pub role: Option<Role>,
    /// Healthy ones too.
    pub all: bool,
    /// Looks for causes of failures.
    pub explain: bool,
    /// Reads how they begin with TLS.
    pub tls: bool,
    pub duration: Duration,
}

impl<'a> WatchScope<'a> {
    /// Connections that send nothing or fail, during the doctor's run.
    pub fn of(node: &CheckContext, ports: &'a [u16]) -> Self {
        Self {
            ports,
            role: None,
            all: false,
            explain: false,
            tls: false,
            duration: node.settings.duration,
        }
    }
}

/// What was seen.
#[derive(Debug, Default)]
pub struct Watched {
    pub connections: Vec<Connection>,
    pub summary: Option<Summary>,
    /// What this kernel does not show, in sentences.
    pub lacks: Vec<String>,
}

/// Fails where the kernel would not load a program for this process.
pub fn allowed(needs: &[Need]) -> Result<()> {
    let missing = capabilities::missing(needs);
    let names: Vec<_> = missing
        .iter()
        .filter(|need| need.lost.is_none())
        .map(|need| need.capability.to_string())
        .collect();
    if names.is_empty() {
        return Ok(());
    }
    bail!("not permitted without {}: run it with sudo", names.join(", "))
}

/// Watches; calls `ready` once it does.
///
/// # Errors
/// Missing privileges, or a kernel that can't do it.
pub fn watch(node: &CheckContext, question: &WatchScope<'_>, ready: impl FnOnce()) -> Result<Watched> {
    allowed(&capabilities::WATCH)?;
    let mut settings = Watch {
        duration: Some(question.duration),
        role: question.role,
        pod_logs: node.root.path("/var/log/pods"),
        cri: node.settings.cri.clone(),
        netns: node.settings.netns.clone(),
        explain: question.explain,
        tls: question.tls,
        ..Watch::of(question.ports.to_vec(), node.settings.source.clone())
    };
    if question.role == Some(Role::Client) {
        settings.kernel.roles = vec![Role::Client];
    }
    if question.all {
        settings.outcomes = Outcome::ALL.to_vec();
        settings.kernel.outcomes = settings.outcomes.clone();
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(run(settings, question.duration, ready))
}

async fn run(settings: Watch, duration: Duration, ready: impl FnOnce()) -> Result<Watched> {
    let types = types(&settings)?;
    // Its thread attaches other hooks meanwhile.
    let explainer = settings
        .explain
        .then(|| Explainer::start(ExplainConfig::of(&settings)))
        .transpose()?;
    let hooks = Hooks::attach(&settings, types)?;
    let lacks = hooks.lacks.clone();
    let sources = OwnerSources {
        runtime: pods::runtime(&settings.cri)?,
        cluster: None,
        scope: None,
    };
    let (sender, receiver) = channel();
    let mut session = hooks.session(
        settings,
        Collected(Watched::default(), sender),
        sources,
        explainer,
    )?;
    ready();
    session.run(sleep(duration)).await?;
    session.finish()?;
    let seen = receiver.try_recv().unwrap_or_default();
    Ok(Watched { lacks, ..seen })
}

/// Keeps them, and hands them over at the end.
struct Collected(Watched, Sender<Watched>);

impl Sink for Collected {
    fn connection(&mut self, connection: &Connection) -> io::Result<()> {
        if self.0.connections.len() < KEPT {
            self.0.connections.push(connection.clone());
        }
        Ok(())
    }

    fn unlisted(&mut self, _: &UnlistedTime) -> io::Result<()> {
        // The summary has how many there were.
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        Ok(())
    }

    fn summary(&mut self, summary: &Summary) -> Result<()> {
        let mut seen = std::mem::take(&mut self.0);
        seen.summary = Some(summary.clone());
        // Who asked is there, or wants it no more.
        let _ = self.1.send(seen);
        Ok(())
    }
}
