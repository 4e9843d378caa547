//! `probe watch`: connections as they end.

mod ends;
mod explain;
mod join;
mod names;
mod pipeline;

use std::{
    io::{self, IsTerminal, Write},
    ops::ControlFlow,
    time::Duration,
};

use anyhow::{Context, Result};
use tokio::{
    io::{Interest, unix::AsyncFd},
    select,
    signal::unix::{SignalKind, signal},
    time::{MissedTickBehavior, interval, sleep},
};

use self::{explain::Explainer, pipeline::Pipeline};
use super::{privileges, quiet_if_closed};
use crate::{
    attribution::{cri::Runtime, kube::Cluster},
    cli::Watch,
    kernel::{self, btf::Absent, capabilities, connection::ConnectionProbe, hooks::Degraded},
    recording::write::Recording,
    report::{Format, Reporter, say},
};

/// How often the ring is read when the kernel side does not ask for it earlier.
const TICK: Duration = Duration::from_millis(50);

/// How long to wait for the container runtime's first answer.
const FIRST_ANSWER: Duration = Duration::from_millis(300);
/// The same for the cluster's, who was asked for.
const FIRST_ANSWER_OF_CLUSTER: Duration = Duration::from_secs(2);

/// Runs until Ctrl-C, SIGTERM, `--duration` or `--count`, then prints the summary.
///
/// # Errors
/// Missing privileges, a kernel that can't do it, or an output that can't be written.
pub async fn run(settings: Watch) -> Result<()> {
    privileges::check("watch", &capabilities::WATCH)?;
    let mut interrupt = signal(SignalKind::interrupt()).context("can't handle SIGINT")?;
    let mut terminate = signal(SignalKind::terminate()).context("can't handle SIGTERM")?;

    let kernel = kernel::release();
    let probe = ConnectionProbe::load(&settings.kernel)
        .with_context(|| format!("watch can't run on kernel {kernel}"))?;
    let told = |lost: &str| probe.degraded.iter().any(|degraded| degraded.hook.gives == lost);
    for Absent { what, lost } in probe.absent.iter().filter(|absent| !told(absent.lost)) {
        say(format_args!(
            "probe: watch runs without {lost} on kernel {kernel}, whose type information has no {what}"
        ));
    }
    for Degraded { hook, reason } in &probe.degraded {
        say(format_args!(
            "probe: watch runs without {} on kernel {kernel}: {reason}",
            hook.gives
        ));
    }
    let ring = probe
        .records
        .descriptor()
        .context("can't duplicate the ring buffer's descriptor")?;
    // SAFETY: an owned descriptor stays open, and the same, until the AsyncFd that holds it is dropped.
    let ring = unsafe { AsyncFd::register_with_interest(ring, Interest::READABLE) }
        .context("can't wait for the kernel's ring buffer")?;
    let explainer = settings.explain.then(|| Explainer::start(&settings)).transpose();
    let explainer = explainer.context("can't start the thread that looks for causes")?;
    let recorder = recorder(&settings)?;
    let runtime = runtime(&settings)?;
    let cluster = cluster(&settings)?;
    let reporter = reporter(&settings);
    let duration = settings.duration;
    let watched = settings.description();
    let mut pipeline = Pipeline::new(settings, probe, reporter, recorder, runtime, cluster, explainer);
    say(format_args!("watching {watched} (Ctrl-C ends with a summary)"));

    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let end = async {
        match duration {
            Some(duration) => sleep(duration).await,
            None => std::future::pending().await,
        }
    };
    tokio::pin!(end);
    loop {
        let ended = select! {
            _ = interrupt.recv() => true,
            _ = terminate.recv() => true,
            () = &mut end => true,
            _ = tick.tick() => false,
            ready = ring.readable() => {
                ready.context("can't wait for the kernel's ring buffer")?.clear_ready();
                false
            }
        };
        if ended {
            break;
        }
        match pipeline.pump() {
            Ok(ControlFlow::Continue(())) => {}
            Ok(ControlFlow::Break(())) => break,
            Err(error) => return quiet_if_closed(error),
        }
    }
    pipeline.finish().or_else(quiet_if_closed)
}

fn reporter(settings: &Watch) -> Reporter<Box<dyn Write>> {
    let terminal = io::stdout().is_terminal();
    let width = terminal_size::terminal_size_of(io::stdout())
        .map(|(width, _)| usize::from(width.0))
        .or_else(|| std::env::var("COLUMNS").ok()?.parse().ok());
    let colour = terminal && anstream::AutoStream::choice(&io::stdout()) != anstream::ColorChoice::Never;
    Reporter::new(
        settings.format,
        width,
        colour,
        Box::new(io::stdout().lock()) as Box<dyn Write>,
    )
    .node(settings.node.clone())
}

fn recorder(settings: &Watch) -> Result<Option<Reporter<Recording>>> {
    let Some(path) = &settings.record else {
        return Ok(None);
    };
    let recording = Recording::open(path, settings.record_bytes)
        .with_context(|| format!("can't record to {}", path.display()))?;
    Ok(Some(
        Reporter::new(Format::Json, None, false, recording).node(settings.node.clone()),
    ))
}

/// The container runtime, with its first answer where that comes soon: pods that are there already have names at once.
fn runtime(settings: &Watch) -> Result<Option<Runtime>> {
    let Some(socket) = &settings.cri else {
        return Ok(None);
    };
    let runtime = Runtime::start(socket).context("can't start the thread that asks the container runtime")?;
    runtime.wait(FIRST_ANSWER);
    Ok(Some(runtime))
}

/// Kubernetes, where it is to be asked, with its first answer where that comes soon.
fn cluster(settings: &Watch) -> Result<Option<Cluster>> {
    let Some(access) = &settings.kube else {
        return Ok(None);
    };
    let cluster = Cluster::start(access.clone(), settings.node.clone())
        .context("can't start the thread that asks Kubernetes")?;
    cluster.wait(FIRST_ANSWER_OF_CLUSTER);
    Ok(Some(cluster))
}
