//! Who owns one end of a connection: /proc, control groups, the container runtime, pod log directories, Kubernetes.
//!
//! Names are looked up, never guessed: what is not found stays unknown, and is counted.

mod cgroup;
pub mod cri;
pub mod health;
pub mod kube;
pub mod listener;
mod names;
pub mod node_scope;
mod pod_logs;
pub mod procfs;

use std::{
    net::{IpAddr, SocketAddr},
    num::NonZeroUsize,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use lru::LruCache;
use probe_ebpf::contract::connection::Task;

pub use self::listener::{listens, udp_holder, udp_ports};
use self::{
    cgroup::{Placement, placement, placement_of_path},
    cri::Runtime,
    health::News,
    kube::Cluster,
    listener::Listeners,
    names::Names,
    procfs::Proc,
};
use crate::model::{CommandLine, Owner, Pod, PodSource, Process, ProcessSource, Secrets, summary::Tally};

/// Processes remembered.
const KEPT: NonZeroUsize = NonZeroUsize::new(8192).unwrap();
/// How often a pod that has no name yet is looked for.
const RETRY: Duration = Duration::from_secs(1);
/// The same, if the runtime may still report it.
const SOON: Duration = Duration::from_millis(50);

/// Where things are on this node.
#[derive(Clone, Debug)]
pub struct Paths {
    pub proc: PathBuf,
    pub pod_logs: PathBuf,
}

/// A command line as the kernel side took it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelCommand {
    pub arguments: Vec<String>,
    pub cut: bool,
}

/// What the kernel side took at connect time: it is there also when the process or its container is gone.
pub trait KernelNames {
    /// The names of a control group and of those above it, leaf first.
    fn cgroup_names(&self, id: u64) -> Option<Vec<String>>;
    /// The command line of the process `pid` that started at `start_boot_ns`.
    fn command(&self, pid: u32, start_boot_ns: u64) -> Option<KernelCommand>;
}

/// What could not be named.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Misses {
    /// Processes of which not even the command line is known.
    pub processes: u64,
    /// Pods of which only the uid is known.
    pub pods: u64,
    /// Servers' ends whose process was not found.
    pub listeners: u64,
    /// Pods whose name was not kept for lack of room.
    pub overflow: u64,
}

impl Misses {
    /// For the summary.
    pub fn tallies(self) -> Vec<Tally> {
        [
            (
                "processes",
                "processes that exited before their command line was read",
                self.processes,
            ),
            (
                "pods",
                "connections of pods known by uid only: neither the runtime nor --pod-logs names them",
                self.pods,
            ),
            (
                "listeners",
                "server sides whose process was not found",
                self.listeners,
            ),
            ("overflow", "pod names not kept (table full)", self.overflow),
        ]
        .into_iter()
        .map(|(name, what, count)| Tally { name, what, count })
        .collect()
    }
}

/// Answers, and what was learnt for them; every part bounded.
pub struct Attribution {
    proc: Proc,
    names: Names,
    listeners: Listeners,
    secrets: Secrets,
    /// By pid, start and control group.
    owners: LruCache<(u32, u64, u64), CachedOwner>,
    misses: Misses,
}

struct CachedOwner {
    owner: Arc<Owner>,
    /// The pod has no name yet: when to look it up again.
    again: Option<Instant>,
}

impl Attribution {
    pub fn new(paths: Paths, runtime: Option<Runtime>, cluster: Option<Cluster>) -> Self {
        Self {
            proc: Proc::new(paths.proc),
            names: Names::new(paths.pod_logs, runtime, cluster),
            listeners: Listeners::new(),
            secrets: Secrets::default(),
            owners: LruCache::sparse(KEPT),
            misses: Misses::default(),
        }
    }

    /// The owner of an end in the network namespace `netns` whose process the kernel side saw; with pid 0 what its
    /// control group alone says.
    pub fn owner(&mut self, task: &Task, netns: u32, kernel: &impl KernelNames) -> Arc<Owner> {
        let key = (task.pid, task.start_boot_ns, task.cgroup);
        if let Some(known) = self.owners.get_mut(&key) {
            if known.again.is_some_and(|at| Instant::now() >= at) {
                known.again = again(&mut self.names, &mut known.owner, netns);
            }
            return Arc::clone(&known.owner);
        }
        if task.pid == 0 && task.cgroup == 0 {
            return Owner::unknown();
        }
        let process = (task.pid != 0).then(|| self.process(task, kernel));
        let placement = match kernel.cgroup_names(task.cgroup) {
            Some(names) => placement(names.iter().map(String::as_str)),
            None => self.placement(task.pid),
        };
        let mut owner = Arc::new(owner(process, placement));
        let again = again(&mut self.names, &mut owner, netns);
        self.owners.put(
            key,
            CachedOwner {
                owner: Arc::clone(&owner),
                again,
            },
        );
        owner
    }

    /// The process that listens on `server` in the network namespace with inode `netns`.
    pub fn listener(&mut self, netns: u32, server: SocketAddr) -> Option<Arc<Owner>> {
        let Self {
            proc,
            names,
            listeners,
            misses,
            secrets,
            ..
        } = self;
        let found = listeners.find((netns, server), || {
            let pid = listener::search(proc, netns, server)?;
            let (name, start_boot_ns) = proc.identity(pid)?;
            let (command, command_cut) = proc.command(pid);
            let executable = std::fs::read_link(proc.path(pid, "exe")).ok();
            let process = Process {
                pid,
                name,
                command: CommandLine::new(command, *secrets),
                command_cut,
                executable: executable.map(|path| path.to_string_lossy().into_owned()),
                uid: proc.uid(pid),
                started: procfs::started(start_boot_ns),
                source: ProcessSource::Listener,
            };
            let mut owner = Arc::new(owner(Some(process), placement_in(proc, pid)));
            names.name(&mut owner, netns);
            Some(owner)
        });
        misses.listeners += u64::from(found.is_none());
        found
    }

    /// What becomes of secrets on command lines from now on; without this they are hidden.
    #[must_use]
    pub fn secrets(mut self, secrets: Secrets) -> Self {
        self.secrets = secrets;
        self
    }

    /// The owner of a live process in the network namespace `netns`, as its control groups say, without the process itself.
    pub fn of_process(&mut self, pid: u32, netns: u32) -> Arc<Owner> {
        let mut owner = Arc::new(owner(None, placement_in(&self.proc, pid)));
        self.names.name(&mut owner, netns);
        owner
    }

    /// Takes the owner of a server's end that the kernel side saw by `now`: the next end there may come without one.
    pub fn learned(&mut self, netns: u32, server: SocketAddr, owner: &Arc<Owner>, now: Instant) {
        if owner.process.is_none() {
            return;
        }
        self.listeners.learn((netns, server), owner, now, |owner| {
            let mut listener = owner.clone();
            if let Some(process) = &mut listener.process {
                process.source = ProcessSource::Listener;
            }
            listener
        });
    }

    /// Names a side's owner again, just before it is reported: the runtime may have answered meanwhile.
    pub fn last_look(&mut self, owner: &mut Arc<Owner>, netns: u32) {
        let unnamed = |owner: &Owner| owner.pod.as_ref().is_some_and(|pod| pod.name.is_none());
        if unnamed(owner) || self.names.hopes(owner) {
            self.names.name(owner, netns);
            self.misses.pods += u64::from(unnamed(owner));
        }
    }

    /// Whether a side is better reported later: its container is not known yet, and the runtime has not answered since
    /// `since`.
    pub fn is_worth_waiting(&self, owner: &Owner, since: Instant) -> bool {
        self.names.hopes(owner)
            && self
                .names
                .runtime()
                .is_some_and(|runtime| !runtime.answered(since))
    }

    /// The node that has this address, where Kubernetes knows one.
    pub fn node(&self, address: IpAddr) -> Option<Arc<Owner>> {
        self.names.node(address)
    }

    /// How one of those who are asked for names is doing, where that changed.
    pub fn news(&self) -> Option<News> {
        self.names.news()
    }

    /// The container runtime, where one is asked.
    pub fn runtime(&self) -> Option<&Runtime> {
        self.names.runtime()
    }

    /// What could not be named so far.
    pub fn misses(&self) -> Misses {
        Misses {
            overflow: self.names.overflow(),
            ..self.misses
        }
    }

    fn process(&mut self, task: &Task, kernel: &impl KernelNames) -> Process {
        let name = task.name.split(|byte| *byte == 0).next().unwrap_or_default();
        let mut process = Process {
            pid: task.pid,
            name: String::from_utf8_lossy(name).into_owned(),
            command: CommandLine::default(),
            command_cut: false,
            started: procfs::started(task.start_boot_ns),
            executable: None,
            uid: Some(task.uid),
            source: ProcessSource::Kernel,
        };
        if let Some(details) = self.proc.details(task.pid, task.start_boot_ns) {
            process.command = CommandLine::new(details.command, self.secrets);
            process.command_cut = details.command_cut;
            process.executable = details.executable;
        }
        // Gone already, or on its way: then /proc has no command line any more.
        if process.command.is_empty()
            && let Some(command) = kernel.command(task.pid, task.start_boot_ns)
        {
            process.command = CommandLine::new(command.arguments, self.secrets);
            process.command_cut = command.cut;
        }
        self.misses.processes += u64::from(process.command.is_empty());
        process
    }

    fn placement(&self, pid: u32) -> Placement {
        if pid == 0 {
            Placement::default()
        } else {
            placement_in(&self.proc, pid)
        }
    }
}

/// The most specific control group of a live process.
fn placement_in(proc: &Proc, pid: u32) -> Placement {
    proc.cgroups(pid)
        .iter()
        .map(|path| placement_of_path(path))
        .max_by_key(|placement| (placement.container.is_some(), placement.pod_uid.is_some()))
        .unwrap_or_default()
}

fn owner(process: Option<Process>, placement: Placement) -> Owner {
    let Placement {
        container,
        pod_uid,
        qos,
    } = placement;
    let pod = pod_uid.map(|uid| Pod {
        uid,
        namespace: None,
        name: None,
        qos,
        workload: None,
        labels: None,
        address_since: None,
        source: PodSource::Cgroup,
    });
    Owner {
        process,
        container,
        pod,
        node: None,
    }
}

/// Names container and pod; when to try again, where something is left to hope for.
fn again(names: &mut Names, owner: &mut Arc<Owner>, netns: u32) -> Option<Instant> {
    let unnamed = names.name(owner, netns);
    if names.hopes(owner) {
        Some(Instant::now() + SOON)
    } else {
        (unnamed || names.may_learn(owner) || names.lacks_address(owner)).then(|| Instant::now() + RETRY)
    }
}

#[cfg(test)]
mod tests;
