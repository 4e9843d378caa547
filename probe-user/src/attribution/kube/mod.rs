//! Names from Kubernetes: workloads, static pods, and whose node an address is.
//!
//! Optional, and asked for. A thread of its own asks the API, watching the pods of this node only, or the kubelet, which
//! answers also when the API doesn't; nothing waits for it.

pub mod as_kubelet;
mod client;
mod nodes;
pub mod object;
pub mod pages;
mod services;
mod table;

use std::{
    collections::HashMap,
    net::IpAddr,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use futures_util::StreamExt;
use kube::{
    Api, Client,
    runtime::{
        WatchStreamExt,
        watcher::{self, Event, watcher},
    },
};
use tokio::{
    sync::Notify,
    time::{sleep, timeout},
};

pub use self::{
    client::{Access, Credentials, KubeError, hosts, login, pods as listed_pods},
    services::ServiceList,
    table::Pod,
};
use self::{nodes::Nodes, object::Pod as Object, table::Table};
use super::health::{Doing, Health, News};
use crate::{
    error::chain,
    model::{
        Owner, PodSource,
        workload::{Workload, WorkloadSource},
    },
};

/// How often the kubelet is queried while no name is needed, and at most.
const EVERY: Duration = Duration::from_secs(10);
const REST: Duration = Duration::from_millis(200);
/// How long after a failure it is tried again.
const RETRY: Duration = Duration::from_secs(5);
/// How many Jobs are remembered with what they belong to.
const JOBS: usize = 1024;

/// The cluster, and what it said.
#[derive(Clone, Debug)]
pub struct Cluster {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    access: Access,
    /// This node.
    node: String,
    state: Mutex<State>,
    doing: Doing,
    /// A pod is not known.
    pods_wanted: Notify,
    /// An address is not known.
    nodes_wanted: Notify,
}

#[derive(Debug, Default)]
struct State {
    pods: Table,
    nodes: Nodes,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_well(&self) {
        self.doing.is(Health::Well(None));
    }

    fn fails(&self, reason: impl ToString) {
        self.doing.is(Health::Failing(reason.to_string()));
    }
}

impl Cluster {
    /// Begins to query the pods of `node`.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn start(access: Access, node: String) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            access,
            node,
            state: Mutex::default(),
            doing: Doing::default(),
            pods_wanted: Notify::new(),
            nodes_wanted: Notify::new(),
        });
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        // The first answer comes with the pods; later ones when an address is not known.
        shared.state().nodes.asked(Instant::now());
        shared.nodes_wanted.notify_one();
        let theirs = Arc::clone(&shared);
        thread::Builder::new().name("kube".to_owned()).spawn(move || {
            runtime.block_on(async { tokio::join!(keep_pods(&theirs), keep_nodes(&theirs)) })
        })?;
        Ok(Self { shared })
    }

    /// The pod with this uid, which for a static pod is its configuration's hash.
    pub fn pod(&self, uid: &str) -> Option<Arc<Pod>> {
        let pod = self.shared.state().pods.pod(uid).cloned();
        if pod.is_none() {
            self.shared.pods_wanted.notify_one();
        }
        pod
    }

    /// The node that has this address, as an owner; nodes are listed when it is not known.
    pub fn node(&self, address: IpAddr) -> Option<Arc<Owner>> {
        let mut state = self.shared.state();
        let found = state.nodes.find(address).cloned();
        let now = Instant::now();
        if found.is_none() && state.nodes.is_due(now) {
            state.nodes.asked(now);
            self.shared.nodes_wanted.notify_one();
        }
        found
    }

    /// What names from here are marked with.
    pub fn source(&self) -> PodSource {
        match self.shared.access.kubelet {
            Some(_) => PodSource::Kubelet,
            None => PodSource::KubeApi,
        }
    }

    /// Waits until pods are known, or that they will not be.
    pub fn wait(&self, patience: Duration) {
        self.shared.doing.wait(patience);
    }

    /// How it is doing, if that changed since it was last asked.
    pub fn news(&self) -> Option<News> {
        Some(News {
            health: self.shared.doing.news()?,
            who: self.shared.access.description(),
            lost: "names of workloads and other nodes may be missing",
        })
    }
}

async fn keep_pods(shared: &Shared) {
    loop {
        if let Err(error) = pods(shared).await {
            shared.fails(error);
        }
        sleep(RETRY).await;
    }
}

/// Follows the pods until that fails.
async fn pods(shared: &Shared) -> Result<(), KubeError> {
    let api = shared.access.api().await?;
    let mut jobs = Jobs::default();
    if let Some(kubelet) = shared.access.kubelet().await? {
        loop {
            let listed = client::kubelet_pods(&kubelet).await?;
            shared
                .state()
                .pods
                .list(listed, WorkloadSource::Kubelet, Instant::now());
            shared.is_well();
            if let Some(api) = &api {
                jobs.resolve(api, shared).await;
            }
            sleep(REST).await;
            // Either way it is time.
            let _ = timeout(EVERY, shared.pods_wanted.notified()).await;
        }
    }
    let Some(api) = api else { return Ok(()) };
    // From the API server's memory: etcd has no index by node, and would read the pods of all nodes for each agent.
    let config = watcher::Config {
        // With a limit kube leaves the version out.
        page_size: None,
        ..watcher::Config::default()
    };
    let config = config
        .any_semantic()
        .fields(&format!("spec.nodeName={}", shared.node));
    let mut events = pin!(watcher(Api::<Object>::all(api.clone()), config).default_backoff());
    let mut listed = Vec::new();
    while let Some(event) = events.next().await {
        let now = Instant::now();
        match event {
            Ok(Event::Init) => listed.clear(),
            Ok(Event::InitApply(pod)) => {
                listed.push(pod);
                continue;
            }
            Ok(Event::InitDone) => {
                let listed = std::mem::take(&mut listed);
                shared.state().pods.list(listed, WorkloadSource::KubeApi, now);
                shared.is_well();
            }
            Ok(Event::Apply(pod)) => shared.state().pods.apply(pod, WorkloadSource::KubeApi, now),
            Ok(Event::Delete(pod)) => shared.state().pods.delete(&pod, now),
            Err(error @ (watcher::Error::InitialListFailed(_) | watcher::Error::WatchStartFailed(_))) => {
                shared.fails(format!(
                    "the pods of node {} can't be read: {}",
                    shared.node,
                    chain(&error)
                ));
            }
            // A watch ends now and then, and is started again.
            Err(_) => {}
        }
        jobs.resolve(&api, shared).await;
    }
    Ok(())
}

/// What Jobs belong to, asked once each.
#[derive(Default)]
struct Jobs {
    known: HashMap<(String, String), Option<Workload>>,
}

impl Jobs {
    async fn resolve(&mut self, api: &Client, shared: &Shared) {
        let jobs = shared.state().pods.jobs();
        for (namespace, name) in jobs {
            let key = (namespace, name);
            if !self.known.contains_key(&key) {
                if self.known.len() >= JOBS {
                    self.known.clear();
                }
                // One that must not be read stays a Job.
                let owner = client::owner_of_job(api, &key.0, &key.1).await.ok().flatten();
                self.known.insert(key.clone(), owner);
            }
            if let Some(Some(owner)) = self.known.get(&key) {
                shared.state().pods.learn_job(&key.0, &key.1, owner);
            }
        }
    }
}

/// Lists the nodes when an unknown one is looked up.
async fn keep_nodes(shared: &Shared) {
    sleep(shared.access.delay()).await;
    loop {
        shared.nodes_wanted.notified().await;
        let Ok(Some(api)) = shared.access.api().await else {
            continue;
        };
        // What may not be read, as with the kubelet's own credentials, stays an address.
        if let Ok(hosts) = hosts(&api, true).await {
            shared.state().nodes.list(hosts);
        }
    }
}
