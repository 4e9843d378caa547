//! `probe watch`: connections as they end.

mod counter_delta;
mod decode;
pub(super) mod explain;
mod handshakes;
mod names;
mod open;
mod owner;
mod pairing;
pub(super) mod pipeline;
mod reporting;
mod scope;
mod selection;
pub(super) mod session;
mod shedding;
pub(super) mod sink;
mod status;
mod storage;
mod tls;
mod translation;

use std::{
    io::{self, Write},
    time::Duration,
};

use anyhow::{Context, Result};

use self::{
    explain::{ExplainConfig, Explainer},
    pipeline::OwnerSources,
    session::Hooks,
    sink::Output,
};
use super::{pods, privileges, quiet_if_closed, until::Until};
use crate::{
    attribution::kube::{Access, Cluster},
    cli::Watch,
    host::node_name,
    kernel::capabilities,
    model::recording_scope::RecordingScope,
    recording::write::Recording,
    report::{self, Format, Reporter, say, scope_line},
};

/// How long to wait for the cluster's first answer, who was asked for.
const FIRST_ANSWER_OF_CLUSTER: Duration = Duration::from_secs(2);

/// Runs until Ctrl-C, SIGTERM, `--duration` or `--count`, then prints the summary.
///
/// # Errors
/// Missing privileges, a kernel that can't do it, or an output that can't be written.
pub async fn run(settings: Watch) -> Result<()> {
    privileges::check("watch", &capabilities::WATCH)?;
    let until = Until::signals()?;
    let types = session::types(&settings)?;
    // Its thread attaches other hooks meanwhile.
    let explainer = settings
        .explain
        .then(|| Explainer::start(ExplainConfig::of(&settings)))
        .transpose();
    let explainer = explainer.context("can't start the thread that finds causes")?;
    let hooks = Hooks::attach(&settings, types)?;
    for lack in &hooks.lacks {
        say(format_args!("probe: watch runs without {lack}"));
    }
    let recorder = recorder(&settings, &settings.recording_scope())?;
    if settings.record.is_some() && settings.kernel.ports.is_empty() {
        say(format_args!(
            "probe: recording every connection of this node, healthy ones too: some 600 bytes each, the \
             latest {} are kept. --port limits it to a server's port",
            bytesize::ByteSize(settings.record_bytes).display().si()
        ));
    }
    let output = Output::new(reporter(&settings), recorder);
    let sources = OwnerSources {
        runtime: pods::runtime(&settings.cri)?,
        cluster: cluster(&settings)?,
        scope: None,
    };
    let duration = settings.duration;
    let watched = settings.description();
    let mut session = hooks.session(settings, output, sources, explainer)?;
    say(format_args!("watching {watched} (Ctrl-C ends with a summary)"));
    let mut until = until.or_after(duration);
    match session.run(until.over()).await {
        Ok(()) => session.finish().or_else(quiet_if_closed),
        Err(error) => quiet_if_closed(error),
    }
}

/// Writes to standard output.
pub fn reporter(settings: &Watch) -> Reporter<Box<dyn Write>> {
    let width = terminal_size::terminal_size_of(io::stdout())
        .map(|(width, _)| usize::from(width.0))
        .or_else(|| std::env::var("COLUMNS").ok()?.parse().ok());
    Reporter::new(
        settings.format,
        width,
        report::colour(),
        Box::new(io::stdout().lock()) as Box<dyn Write>,
    )
    .node(node_name(settings.node.as_deref()))
}

/// Writes the recording, where one is asked for, under a header that says what it has.
///
/// # Errors
/// When its file can't be made.
pub fn recorder(settings: &Watch, scope: &RecordingScope) -> Result<Option<Reporter<Recording>>> {
    let Some(path) = &settings.record else {
        return Ok(None);
    };
    let header = scope_line(scope, &node_name(settings.node.as_deref()))?;
    let recording = Recording::open(path, settings.record_bytes, header)
        .with_context(|| format!("can't record to {}", path.display()))?;
    Ok(Some(
        Reporter::new(Format::Json, None, false, recording).node(node_name(settings.node.as_deref())),
    ))
}

/// Kubernetes, where it is to be asked, with its first answer where that comes soon.
fn cluster(settings: &Watch) -> Result<Option<Cluster>> {
    let Some(access) = Access::find(&settings.kube) else {
        return Ok(None);
    };
    let cluster = Cluster::start(access, node_name(settings.node.as_deref()))
        .context("can't start the thread that queries Kubernetes")?;
    cluster.wait(FIRST_ANSWER_OF_CLUSTER);
    Ok(Some(cluster))
}
