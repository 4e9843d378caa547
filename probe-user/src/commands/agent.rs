//! `probe agent`: all of it on a node, for as long as the node runs.

mod answers;
mod collector;
mod config;
mod doctor;
mod log;
mod node;
mod observer;
mod parts;
mod query;
mod rate;
mod shared;
mod stored;

use std::{
    io::{self, Write},
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, LazyLock},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result};
use nix::sys::resource::{UsageWho, getrusage};
use tokio::{
    net::TcpListener,
    select,
    signal::unix::{SignalKind, signal},
    time::{MissedTickBehavior, interval},
};

use self::{
    answers::{Questions, Scrapes},
    config::Config,
    log::Log,
    parts::{Names, Parts},
    shared::Shared,
};
use super::{quiet_if_closed, until::Until};
use crate::{
    attribution::kube::{Access, Cluster, Credentials, ServiceList},
    cli::{Agent, AgentTask},
    host,
    kernel::{memory, statistics::Statistics},
    model::settings::KernelSource,
    report::say,
    serve::{Limits, serve},
};

/// The configuration, where no other file is named and this one exists.
const USUAL: &str = "/etc/probe/agent.toml";
/// How often it is looked whether the configuration has changed.
const CONFIG_EVERY: Duration = Duration::from_secs(2);

/// Questions come through port-forwards, which all have the same address.
const QUESTIONS: Limits = Limits {
    all: 64,
    of_peer: 64,
    whole: None,
};
/// The kubelet, Prometheus, and any other client that reaches the pod.
const SCRAPES: Limits = Limits {
    all: 128,
    of_peer: 8,
    whole: Some(Duration::from_secs(30)),
};

/// When the agent began.
static BEGAN: LazyLock<f64> = LazyLock::new(|| {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.unwrap_or_default().as_secs_f64()
});

/// Runs until SIGTERM or Ctrl-C; or prints or checks a configuration.
///
/// # Errors
/// A configuration that is wrong, or ports that can't be had. What the kernel refuses ends nothing.
pub async fn run(task: AgentTask) -> Result<()> {
    match task {
        AgentTask::Print(text) => io::stdout()
            .write_all(text.as_bytes())
            .map_err(anyhow::Error::from)
            .or_else(quiet_if_closed),
        AgentTask::Check(file) => {
            let agent = Agent::read(Some(&file), &KernelSource::default(), &host::node_name(None))?;
            config::warn_of_former_names(&agent);
            say(format_args!("{} is valid", file.display()));
            Ok(())
        }
        AgentTask::Run(file, source) => {
            let usual = || Some(PathBuf::from(USUAL)).filter(|usual| usual.exists());
            let (config, settings) = Config::read(file.or_else(usual), source)?;
            serve_node(config, settings).await
        }
    }
}

async fn serve_node(mut config: Config, mut settings: Agent) -> Result<()> {
    LazyLock::force(&BEGAN);
    let mut until = Until::signals()?;
    let mut hangup = signal(SignalKind::hangup()).context("can't handle SIGHUP")?;
    let shared = Arc::new(Shared::new(
        settings.node.clone(),
        settings.memory,
        settings.max_series,
    ));
    shared.watches(settings.watch.clone());
    let stores = "can't start the thread that writes the history";
    shared.stores(settings.store.clone()).context(stores)?;
    // Before any thread goes elsewhere: these stay where the agent is reached.
    let questions = listen("query.listen", settings.query).await?;
    let answers = Questions::new(Arc::clone(&shared), settings.clone());
    tokio::spawn(serve(questions, QUESTIONS, Arc::new(answers)));
    if let Some(address) = settings.metrics {
        let scrapes = Scrapes::new(Arc::clone(&shared), process);
        tokio::spawn(serve(
            listen("metrics.listen", address).await?,
            SCRAPES,
            Arc::new(scrapes),
        ));
    }
    let log = Log::start().context("can't start the thread that logs")?;
    let names = names(&settings)?;
    let mut statistics = statistics(&settings);
    let start = |settings: &Agent| {
        Parts::start(settings.clone(), Arc::clone(&shared), log.clone(), names.clone())
            .context("can't start the thread that watches")
    };
    let mut parts = Some(start(&settings)?);
    say(format_args!(
        "probe agent of node {}: queries on {}, metrics on {}",
        settings.node,
        settings.query,
        settings
            .metrics
            .map_or("no port".to_owned(), |address| address.to_string()),
    ));
    let mut tick = interval(CONFIG_EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let reload = select! {
            () = until.over() => break,
            _ = hangup.recv() => true,
            _ = tick.tick() => config.has_changed(),
        };
        if parts.as_ref().is_some_and(Parts::have_ended) {
            anyhow::bail!("the watching thread has ended");
        }
        if !reload {
            continue;
        }
        match config.again() {
            Err(error) => say(format_args!("probe: the configuration is unchanged: {error}")),
            Ok(new) => {
                for what in needs_restart(&settings, &new) {
                    say(format_args!(
                        "probe: {what} takes effect after a restart of the agent"
                    ));
                }
                // The old ones end before new ones begin: hooks are not there twice.
                drop(parts.take());
                shared.bound(new.memory, new.max_series);
                shared.watches(new.watch.clone());
                shared.stores(new.store.clone()).context(stores)?;
                drop(statistics);
                statistics = self::statistics(&new);
                parts = Some(start(&new)?);
                settings = new;
                say(format_args!("probe: the configuration was reloaded"));
            }
        }
    }
    drop(parts);
    Ok(())
}

async fn listen(option: &str, address: SocketAddr) -> Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .with_context(|| format!("can't listen on {address} ({option})"))
}

/// Lists of the whole cluster begin within this time: with a rollout the agents of many nodes start at once.
const SPREAD: Duration = Duration::from_secs(30);

/// Threads that ask with the agent's own credentials.
fn names(settings: &Agent) -> Result<Names> {
    let access = Access::find(&settings.kube).map(|access| Access {
        spread: SPREAD,
        ..access
    });
    // Services are read from the API alone.
    let api = access.clone();
    let api = api.filter(|access| access.credentials != Credentials::Nobody);
    let cluster = access.map(|access| Cluster::start(access, settings.node.clone()));
    let services = api.map(ServiceList::start);
    let thread = "can't start the threads that query Kubernetes";
    Ok(Names {
        cluster: cluster.transpose().context(thread)?,
        services: services.transpose().context(thread)?,
    })
}

/// What only a new process can change.
fn needs_restart(old: &Agent, new: &Agent) -> Vec<&'static str> {
    let same = [
        ("node.name", old.node == new.node),
        ("query.listen", old.query == new.query),
        ("metrics.listen", old.metrics == new.metrics),
        ("names.kubernetes or names.kubelet", old.kube == new.kube),
    ];
    same.into_iter()
        .filter(|(_, same)| !same)
        .map(|(what, _)| what)
        .collect()
}

/// Has the kernel measure programs, where that is asked for.
fn statistics(settings: &Agent) -> Option<Statistics> {
    if !settings.program_time {
        return None;
    }
    Statistics::enable()
        .map_err(|error| {
            say(format_args!(
                "probe: the kernel does not measure programs: {error}"
            ));
        })
        .ok()
}

/// What this process takes.
fn process(shared: &Shared) {
    let seconds = |time: nix::sys::time::TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    let cpu = getrusage(UsageWho::RUSAGE_SELF)
        .map(|usage| seconds(usage.user_time()) + seconds(usage.system_time()))
        .unwrap_or_default();
    shared.metrics.process(memory::resident(), cpu, *BEGAN);
}
