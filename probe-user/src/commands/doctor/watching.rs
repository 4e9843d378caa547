//! Connections that come and go while the doctor looks.

use std::{io, time::Duration};

use anyhow::Result;
use tokio::time::sleep;

use super::Node;
use crate::{
    cli::Watch,
    commands::{
        pods, privileges,
        watch::{
            explain::{Explainer, Subject},
            pipeline::Who,
            session::Hooks,
            sink::Sink,
        },
    },
    kernel::capabilities,
    model::{Connection, Summary},
};

/// Connections kept; what comes after is in the summary alone.
const KEPT: usize = 4096;

/// What was seen.
#[derive(Debug, Default)]
pub struct Seen {
    pub connections: Vec<Connection>,
    pub summary: Option<Summary>,
    /// What this kernel does not show, in sentences.
    pub lacks: Vec<String>,
}

/// Watches connections to these ports for as long as the doctor looks; `explain`: looks for causes of failures, too.
///
/// # Errors
/// Missing privileges, or a kernel that can't do it.
pub fn watch(node: &Node, ports: &[u16], explain: bool) -> Result<Seen> {
    let settings = Watch {
        duration: Some(node.settings.duration),
        cri: node.settings.cri.clone(),
        netns: node.settings.netns.clone(),
        explain,
        ..Watch::of(ports.to_vec(), node.settings.source.clone())
    };
    privileges::check("doctor", &capabilities::WATCH)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(run(settings))
}

async fn run(settings: Watch) -> Result<Seen> {
    let hooks = Hooks::attach(&settings)?;
    let lacks = hooks.lacks.clone();
    let explainer = settings
        .explain
        .then(|| Explainer::start(Subject::of(&settings)))
        .transpose()?;
    let who = Who {
        runtime: pods::runtime(settings.cri.as_deref())?,
        cluster: None,
        home: None,
    };
    let duration: Duration = settings.duration.unwrap_or_default();
    let (sender, receiver) = std::sync::mpsc::channel();
    let mut session = hooks.session(settings, Collected(Seen::default(), sender), who, explainer);
    session.run(sleep(duration)).await?;
    session.finish()?;
    let seen = receiver.try_recv().unwrap_or_default();
    Ok(Seen { lacks, ..seen })
}

/// Keeps them, and hands them over at the end.
struct Collected(Seen, std::sync::mpsc::Sender<Seen>);

impl Sink for Collected {
    fn connection(&mut self, connection: &Connection) -> io::Result<()> {
        if self.0.connections.len() < KEPT {
            self.0.connections.push(connection.clone());
        }
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
