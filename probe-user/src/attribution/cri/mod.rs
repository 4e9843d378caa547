//! Names from the container runtime (CRI), over its socket on this node.
//!
//! A thread of its own asks, so that a runtime that is slow, restarts or is gone holds up nothing: names are then taken
//! from elsewhere. All is listed every few seconds, and at once when a container is met that is not in the list.

mod client;
mod messages;
mod netns;
mod table;

use std::{
    collections::HashMap,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use tokio::{sync::Notify, time::timeout};

pub use self::table::{Named, Pod};
use self::{
    client::{Client, CriError},
    table::Table,
};
use super::health::{Doing, Health, News};
use crate::model::settings::RuntimeSocket;

/// Where runtimes listen: containerd, CRI-O, cri-dockerd, and those of k3s, k0s and MicroK8s.
pub const SOCKETS: [&str; 6] = [
    "/run/containerd/containerd.sock",
    "/run/crio/crio.sock",
    "/run/cri-dockerd.sock",
    "/run/k3s/containerd/containerd.sock",
    "/run/k0s/containerd.sock",
    "/var/snap/microk8s/common/run/containerd.sock",
];

/// How often everything is listed without a query.
const EVERY: Duration = Duration::from_secs(5);
/// How often at the most.
const REST: Duration = Duration::from_millis(20);
/// How long after a failure it is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// The runtime of this node, and what it said.
#[derive(Clone, Debug)]
pub struct Runtime {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    socket: PathBuf,
    state: Mutex<State>,
    doing: Doing,
    asked: Notify,
}

#[derive(Debug, Default)]
struct State {
    table: Table,
    /// When the latest complete list was begun.
    listed: Option<Instant>,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The socket that is named, or the first of the well-known ones that exists.
pub fn socket(named: &RuntimeSocket) -> Option<PathBuf> {
    match named {
        RuntimeSocket::Auto => SOCKETS.iter().map(PathBuf::from).find(|path| path.exists()),
        RuntimeSocket::Off => None,
        RuntimeSocket::At(socket) => Some(socket.clone()),
    }
}

impl Runtime {
    /// Begins to query the runtime behind `socket`.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn start(socket: &Path) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            socket: socket.to_owned(),
            state: Mutex::default(),
            doing: Doing::default(),
            asked: Notify::new(),
        });
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let theirs = Arc::clone(&shared);
        thread::Builder::new()
            .name("cri".to_owned())
            .spawn(move || runtime.block_on(keep_asking(&theirs)))?;
        Ok(Self { shared })
    }

    /// The container with this id, or the sandbox.
    pub fn container(&self, id: &str) -> Option<Named> {
        self.shared.state().table.container(id).cloned()
    }

    /// The pod whose network namespace has this inode.
    pub fn netns(&self, inode: u32) -> Option<Named> {
        self.shared.state().table.netns(inode).cloned()
    }

    /// Asks for a list now, because something is not in the latest.
    pub fn ask(&self) {
        self.shared.asked.notify_one();
    }

    /// The pods that have addresses of their own, by these.
    pub fn addresses(&self) -> HashMap<IpAddr, Named> {
        let state = self.shared.state();
        let pods = state.table.addresses();
        pods.map(|(address, named)| (address, named.clone())).collect()
    }

    /// Whether a list that was begun after `since` is there, or none can be hoped for.
    pub fn answered(&self, since: Instant) -> bool {
        self.shared.doing.is_failing() || self.shared.state().listed.is_some_and(|listed| listed >= since)
    }

    /// Whether a list is there that was begun after `since`.
    pub fn listed_since(&self, since: Instant) -> bool {
        self.shared.state().listed.is_some_and(|listed| listed >= since)
    }

    /// Waits until the first list is there, or it is known that there will be none.
    pub fn wait(&self, patience: Duration) {
        self.shared.doing.wait(patience);
    }

    /// How it is doing, if that changed since it was last asked.
    pub fn news(&self) -> Option<News> {
        Some(News {
            health: self.shared.doing.news()?,
            who: format!("the container runtime at {}", self.shared.socket.display()),
            lost: "containers have no names",
        })
    }
}

async fn keep_asking(shared: &Shared) {
    let mut client = None;
    loop {
        let begun = Instant::now();
        let result = match &mut client {
            Some(client) => list(client, shared, begun).await,
            None => match Client::connect(&shared.socket).await {
                Ok(new) => list(client.insert(new), shared, begun).await,
                Err(error) => Err(error),
            },
        };
        if let Err(error) = result {
            client = None;
            shared.doing.is(Health::Failing(error.to_string()));
            tokio::time::sleep(RETRY).await;
            continue;
        }
        tokio::time::sleep(REST).await;
        // Either way it is time.
        let _ = timeout(EVERY, shared.asked.notified()).await;
    }
}

async fn list(client: &mut Client, shared: &Shared, begun: Instant) -> Result<(), CriError> {
    let sandboxes = client.sandboxes().await?.items;
    let containers = client.containers().await?.containers;
    let without = {
        let mut state = shared.state();
        state.table.list(&sandboxes, &containers, begun);
        state.listed = Some(begun);
        state.table.without_netns(&sandboxes)
    };
    shared.doing.is(Health::Well(Some(client.runtime.clone())));
    let is_new = !without.is_empty();
    for id in without {
        // It may be gone already; then it is not in the next list.
        let Ok(status) = client.sandbox(&id).await else {
            continue;
        };
        let inode = status.info.get("info").and_then(|info| netns::inode(info));
        let network = status
            .status
            .and_then(|status| status.network)
            .unwrap_or_default();
        let addresses = std::iter::once(network.ip)
            .chain(network.additional_ips.into_iter().map(|more| more.ip))
            .filter_map(|address| address.parse().ok());
        shared.state().table.learn_network(inode, addresses.collect(), id);
    }
    if is_new {
        // Which pods have addresses of their own is known now.
        shared.state().table.list(&sandboxes, &containers, begun);
    }
    Ok(())
}
