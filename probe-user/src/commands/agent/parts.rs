//! The parts, in threads of their own: one watches connections, one polls VXLAN devices, untracked packets and rules. A failure is
//! reported and retried; the others go on.

use std::{
    io,
    path::Path,
    sync::Arc,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use tokio::{select, sync::watch, time::sleep};

use super::{
    collector::{self, Collector},
    log::Log,
    node,
    observer::{Watcher, tell},
    shared::Shared,
};
use crate::{
    attribution::{
        cri::Runtime,
        kube::{Cluster, ServiceList},
        node_scope::NodeScope,
    },
    cli::Agent,
    commands::{
        bypass::NameSources,
        pods,
        watch::{
            explain::{ExplainConfig, Explainer, Observed},
            pipeline::OwnerSources,
            session::{Hooks, types},
        },
    },
    kernel::memory,
    model::part::{Part, State},
};

/// How often what the kernel side counts is taken over.
const COUNT_EVERY: Duration = Duration::from_secs(10);
/// How often freed memory is given back to the system: a flood needs more than what follows.
const GIVE_BACK_EVERY: Duration = Duration::from_secs(60);
/// After how long what failed is tried again; each time twice as long.
const RETRY: Duration = Duration::from_secs(10);
const RETRY_AT_MOST: Duration = Duration::from_secs(600);

/// Who answers from outside the node: asked by threads that stay where the agent's credentials are.
#[derive(Clone, Default)]
pub struct Names {
    pub cluster: Option<Cluster>,
    pub services: Option<ServiceList>,
}

/// The parts at work; dropped, they end.
pub struct Parts {
    /// `None` at the end.
    stop: Option<watch::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Parts {
    /// Begins.
    ///
    /// # Errors
    /// When this process may not have another thread.
    pub fn start(settings: Agent, shared: Arc<Shared>, log: Log, names: Names) -> io::Result<Self> {
        let (stop, stopped) = watch::channel(());
        let wanted = [
            (Part::Watch, settings.watch.is_some()),
            (Part::Vxlan, settings.vxlan.is_some()),
            (Part::Bypass, settings.bypass.is_some()),
            (Part::Drops, settings.watch.is_some()),
        ];
        for (part, wanted) in wanted {
            shared.is(part, if wanted { State::Starts } else { State::Off });
        }
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let thread = thread::Builder::new().name("node".to_owned()).spawn(move || {
            let node = NodeParts {
                settings,
                shared,
                log,
                names,
                stopped,
            };
            runtime.block_on(node.run());
        })?;
        Ok(Self {
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// Whether they ended by themselves, which they never should.
    pub fn have_ended(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }
}

impl Drop for Parts {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct NodeParts {
    settings: Agent,
    shared: Arc<Shared>,
    log: Log,
    names: Names,
    /// The other half is dropped at the end.
    stopped: watch::Receiver<()>,
}

impl NodeParts {
    async fn run(mut self) {
        let entered = if self.settings.enter {
            node::enter()
        } else {
            Ok(())
        };
        if let Err(error) = entered {
            let reason = format!("{error:#}");
            for part in [Part::Vxlan, Part::Bypass] {
                self.is(part, State::Failed(reason.clone()));
            }
            (self.settings.vxlan, self.settings.bypass) = (None, None);
        }
        let runtime = pods::runtime(&self.settings.cri).unwrap_or_default();
        let mut wait = RETRY;
        while !self.is_stopped() {
            let looks = match Explainer::start(self.subject(runtime.clone())) {
                Ok(looks) => looks,
                Err(error) => {
                    self.is(
                        Part::Drops,
                        State::Failed(format!("can't start a thread: {error}")),
                    );
                    self.rest(&mut wait).await;
                    continue;
                }
            };
            if self.settings.watch.is_none() {
                // The other thread polls.
                let _ = self.stopped.changed().await;
                return;
            }
            if let Err(error) = self.watch(looks, runtime.clone()).await {
                self.is(Part::Watch, State::Failed(format!("{error:#}")));
                self.rest(&mut wait).await;
            }
        }
    }

    fn is_stopped(&self) -> bool {
        self.stopped.has_changed().is_err()
    }

    async fn rest(&mut self, wait: &mut Duration) {
        select! {
            _ = self.stopped.changed() => {}
            () = sleep(*wait) => {}
        }
        *wait = (*wait * 2).min(RETRY_AT_MOST);
    }

    fn is(&self, part: Part, state: State) {
        tell(part, &state);
        self.shared.is(part, state);
    }

    fn subject(&self, runtime: Option<Runtime>) -> ExplainConfig {
        let subject = match &self.settings.watch {
            Some(watch) => ExplainConfig::of(watch),
            None => ExplainConfig::default(),
        };
        let log = self.settings.log.findings.then(|| self.log.clone());
        subject.observed(Observed {
            every: self.settings.interval,
            vxlan: self.settings.vxlan.clone(),
            bypass: self.settings.bypass.clone(),
            known: NameSources {
                runtime,
                services: self.names.services.clone(),
            },
            by: Box::new(Watcher::new(Arc::clone(&self.shared), log)),
        })
    }

    /// Watches connections until all is to end.
    async fn watch(&mut self, looks: Explainer, runtime: Option<Runtime>) -> Result<()> {
        let attach = |settings| Hooks::attach(settings, types(settings)?);
        let settings = self.settings.watch.clone().context("not enabled")?;
        let hooks = match attach(&settings) {
            Ok(hooks) => hooks,
            Err(error) => {
                // Looking goes on meanwhile.
                self.is(Part::Watch, State::Failed(format!("{error:#}")));
                let mut wait = RETRY;
                loop {
                    self.rest(&mut wait).await;
                    if self.is_stopped() {
                        return Ok(());
                    }
                    if let Ok(hooks) = attach(&settings) {
                        break hooks;
                    }
                }
            }
        };
        let lacks = hooks.lacks.clone();
        let collector = Collector::new(Arc::clone(&self.shared), self.log.clone(), self.settings.log);
        let sources = OwnerSources {
            runtime,
            cluster: self.names.cluster.clone(),
            scope: self.settings.enter.then(|| NodeScope::new(Path::new("/proc"))),
        };
        let mut session = hooks.session(settings, collector, sources, Some(looks))?;
        self.shared.watched();
        self.is(Part::Watch, State::Runs { lacks });
        let mut given_back = Instant::now();
        while !self.is_stopped() {
            let stopped = &mut self.stopped;
            let end = async {
                select! {
                    _ = stopped.changed() => {}
                    () = sleep(COUNT_EVERY) => {}
                }
            };
            session.run(end).await?;
            collector::count(&mut session.pipeline, &self.shared)?;
            if given_back.elapsed() >= GIVE_BACK_EVERY {
                given_back = Instant::now();
                memory::give_back();
            }
        }
        session.finish()
    }
}
