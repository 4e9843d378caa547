//! Who here needs the API, what connections they have, and how those end.

use std::{collections::HashSet, fs, sync::mpsc::Sender, time::Duration};

use super::{
    super::{
        CheckContext,
        kubelet::is_here,
        watching::{self, WatchScope},
    },
    server::DIAL,
};
use crate::{
    attribution::procfs::Proc,
    host::{kubelet::PROCESSES, proc_net::ProcNet, sockets::Doing},
    model::{
        Connection, Role,
        doctor::node::{Ended, FailedDial, User},
    },
    namespace::own_netns,
};

/// The longest time from the end of a connection to its report.
const SETTLE: Duration = Duration::from_millis(700);
/// What else on a node needs the API for its network.
const OTHERS: [&str; 2] = ["kube-proxy", "flanneld"];

fn needs(name: &str) -> bool {
    PROCESSES.contains(&name) || OTHERS.contains(&name)
}

/// The processes, and the connections to these ports that each has.
pub fn users(ports: &[u16]) -> Vec<User> {
    let proc = Proc::new("/proc".into());
    let sockets = ProcNet::own().tcp().into_iter();
    let sockets: Vec<_> = sockets
        .filter(|socket| ports.contains(&socket.remote.port()))
        .collect();
    let named = proc.pids().into_iter().filter_map(|pid| {
        let (name, _) = proc.identity(pid)?;
        (needs(&name) && is_here(&proc, pid)).then_some((pid, name))
    });
    named
        .map(|(pid, name)| {
            let held = held(&proc, pid);
            let of = |doing| {
                let held = held.as_ref();
                sockets
                    .iter()
                    .filter(move |socket| socket.doing == doing)
                    .filter(move |socket| held.is_some_and(|held| held.contains(&socket.inode)))
            };
            User {
                open: held.as_ref().map(|_| of(Doing::Established).count()),
                dials: of(Doing::Dials).map(|socket| socket.remote).collect(),
                name,
                pid,
                ended: Vec::new(),
            }
        })
        .collect()
}

/// Inodes of the sockets that a process holds.
fn held(proc: &Proc, pid: u32) -> Option<HashSet<u64>> {
    let descriptors = fs::read_dir(proc.path(pid, "fd")).ok()?;
    let inode = |entry: fs::DirEntry| {
        let link = fs::read_link(entry.path()).ok()?;
        let link = link.to_str()?.strip_prefix("socket:[")?;
        link.strip_suffix(']')?.parse().ok()
    };
    Some(descriptors.flatten().filter_map(inode).collect())
}

/// Watches connections to these ports end badly. Once it does, it drops `ready`.
///
/// # Errors
/// Why that could not be watched, in words.
pub fn watch(node: &CheckContext, ports: &[u16], ready: Sender<()>) -> Result<Vec<Connection>, String> {
    let question = WatchScope {
        role: Some(Role::Client),
        explain: true,
        // This process dials meanwhile, and the outcomes of that are evidence, too.
        duration: node.settings.duration.max(DIAL + SETTLE),
        ..WatchScope::of(node, ports)
    };
    watching::watch(node, &question, || drop(ready))
        .map(|seen| seen.connections)
        .map_err(|error| format!("{error:#}"))
}

/// Why dials from this namespace failed, this process's own among them.
pub fn causes(ended: &[Connection]) -> Vec<FailedDial> {
    let here = own_netns();
    let mut causes: Vec<FailedDial> = Vec::new();
    for connection in ended {
        let to = connection.asked();
        let Some(cause) = &connection.cause else { continue };
        if here == Some(u64::from(connection.netns)) && causes.iter().all(|why| why.to != to) {
            causes.push(FailedDial {
                to,
                what: cause.what.clone(),
                fixes: cause.fixes.clone(),
            });
        }
    }
    causes
}

/// Adds to each process how its connections ended.
pub fn add(users: &mut [User], ended: Vec<Connection>) {
    let here = own_netns();
    for connection in ended {
        let process = connection.owner.process.as_ref();
        // By name: the kernel's process ids are not those of a container's /proc.
        let user = users
            .iter_mut()
            .find(|user| process.is_some_and(|process| process.name == user.name));
        let Some(user) = user.filter(|_| here == Some(u64::from(connection.netns))) else {
            continue;
        };
        let (to, outcome) = (connection.asked(), connection.outcome);
        let same = user
            .ended
            .iter_mut()
            .find(|ended| (ended.to, ended.outcome) == (to, outcome));
        let cause = connection.cause.as_ref().map(|cause| cause.what.clone());
        match same {
            Some(same) => {
                same.times += 1;
                same.cause = same.cause.take().or(cause);
            }
            None => user.ended.push(Ended {
                to,
                outcome,
                times: 1,
                cause,
            }),
        }
    }
}
