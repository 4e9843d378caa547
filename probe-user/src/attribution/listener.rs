//! Which process holds a listening socket: for connections that ended without the process doing anything.

use std::{
    collections::HashSet,
    fs,
    net::{Ipv6Addr, SocketAddr},
    num::NonZeroUsize,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use lru::LruCache;

use super::procfs::Proc;
use crate::{
    host::{
        proc_net::ProcNet,
        sockets::{Doing, Socket},
    },
    model::Owner,
};

const KEPT: NonZeroUsize = NonZeroUsize::new(1024).unwrap();
/// How long an answer holds.
const FOUND: Duration = Duration::from_secs(5);
const NOT_FOUND: Duration = Duration::from_secs(1);
/// The rest after each search of all of /proc, and how many are made at once before it: connections that end together are
/// often of a few servers, all of whom have a name.
const SEARCH: Duration = Duration::from_millis(100);
const AT_ONCE: u32 = 8;

/// A listening socket: network namespace and local address.
type Key = (u32, SocketAddr);

/// Who listens there, as far as is known.
struct Remembered {
    at: Instant,
    answer: Option<Arc<Owner>>,
    /// The owner in the record that gave the answer.
    learnt_of: Option<Arc<Owner>>,
}

/// Answers so far.
pub struct Listeners {
    known: LruCache<Key, Remembered>,
    /// When all searches so far would have been done, with [`SEARCH`] after each.
    searched_until: Option<Instant>,
}

impl Listeners {
    pub(super) fn new() -> Self {
        Self {
            known: LruCache::sparse(KEPT),
            searched_until: None,
        }
    }

    /// The answer, from memory or by `search`; `None` too where it would be searched for too often.
    pub fn find(&mut self, key: Key, search: impl FnOnce() -> Option<Arc<Owner>>) -> Option<Arc<Owner>> {
        let now = Instant::now();
        if let Some(Remembered { at, answer, .. }) = self.known.get(&key) {
            let holds = if answer.is_some() { FOUND } else { NOT_FOUND };
            if now.duration_since(*at) < holds {
                return answer.clone();
            }
        }
        // A storm on many ports must not become a search of /proc for each record.
        let until = self.searched_until.unwrap_or(now).max(now);
        if until.duration_since(now) > SEARCH * (AT_ONCE - 1) {
            return self.known.get(&key).and_then(|known| known.answer.clone());
        }
        let answer = search();
        self.searched_until = Some(until + now.elapsed() + SEARCH);
        let remembered = Remembered {
            at: now,
            answer: answer.clone(),
            learnt_of: None,
        };
        self.known.put(key, remembered);
        answer
    }

    /// Takes the answer that a record gave at `now`: what `listener` makes of its owner, once for all records of that owner.
    pub fn learn(
        &mut self,
        key: Key,
        owner: &Arc<Owner>,
        now: Instant,
        listener: impl FnOnce(&Owner) -> Owner,
    ) {
        let is_of = |known: &&mut Remembered| {
            let of = known.learnt_of.as_ref();
            of.is_some_and(|of| Arc::ptr_eq(of, owner))
        };
        if let Some(known) = self.known.get_mut(&key).filter(is_of) {
            known.at = now;
            return;
        }
        let remembered = Remembered {
            at: now,
            answer: Some(Arc::new(listener(owner))),
            learnt_of: Some(Arc::clone(owner)),
        };
        self.known.put(key, remembered);
    }
}

/// The pid that holds the listening socket of `server` in the network namespace with inode `netns`; the lowest,
/// where several share it. Processes of that namespace first: a socket may have been handed to one outside.
pub fn search(proc: &Proc, netns: u32, server: SocketAddr) -> Option<u32> {
    search_with_queue(proc, netns, server).map(|(pid, _)| pid)
}

/// The same, and how many connections wait there to be accepted.
pub fn search_with_queue(proc: &Proc, netns: u32, server: SocketAddr) -> Option<(u32, u32)> {
    let namespace = format!("net:[{netns}]");
    let is_inside = |pid: &u32| is_link(&proc.path(*pid, "ns/net"), &namespace);
    let (inside, outside): (Vec<u32>, Vec<u32>) = proc.pids().into_iter().partition(is_inside);
    let any = *inside.first()?;
    let Listening { inode, waiting, .. } = listening(&ProcNet::at(proc.path(any, "net")).tcp(), server)?;
    let socket = format!("socket:[{inode}]");
    let holds = |pid: &u32| {
        let descriptors = fs::read_dir(proc.path(*pid, "fd"))
            .into_iter()
            .flatten()
            .flatten();
        descriptors
            .into_iter()
            .any(|entry| is_link(&entry.path(), &socket))
    };
    let pid = inside.iter().chain(&outside).copied().find(holds)?;
    Some((pid, waiting))
}

/// The process, `nginx (pid 4242)`, that has a UDP port of this thread's network namespace, if one has: the kernel's own
/// sockets belong to none.
pub fn udp_holder(port: u16) -> Option<String> {
    let proc = Proc::new("/proc".into());
    let sockets = ProcNet::own().udp().into_iter();
    let inodes: Vec<String> = sockets
        .filter(|socket| socket.local.port() == port)
        .map(|socket| format!("socket:[{}]", socket.inode))
        .collect();
    if inodes.is_empty() {
        return None;
    }
    let holds = |pid: &u32| {
        let descriptors = fs::read_dir(proc.path(*pid, "fd"));
        descriptors
            .into_iter()
            .flatten()
            .flatten()
            .any(|entry| inodes.iter().any(|inode| is_link(&entry.path(), inode)))
    };
    let pid = proc.pids().into_iter().find(holds)?;
    let name = proc.identity(pid).map(|(name, _)| name).unwrap_or_default();
    Some(format!("{name} (pid {pid})"))
}

/// The UDP ports of this thread's network namespace that a socket has, the kernel's own too.
pub fn udp_ports() -> HashSet<u16> {
    let sockets = ProcNet::own().udp().into_iter();
    sockets.map(|socket| socket.local.port()).collect()
}

/// Whether this TCP port has a listener in this thread's network namespace.
pub fn listens(port: u16) -> bool {
    let sockets = ProcNet::own().tcp();
    listeners(&sockets).any(|socket| socket.local.port() == port)
}

fn is_link(path: &Path, to: &str) -> bool {
    fs::read_link(path).is_ok_and(|link| link.as_os_str() == to)
}

/// A socket that listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Listening {
    /// Its address is the very one.
    specific: bool,
    inode: u64,
    /// Connections that wait to be accepted.
    waiting: u32,
}

/// The best listening socket for `server`: the most specific address is the one that the kernel chooses.
fn listening(sockets: &[Socket], server: SocketAddr) -> Option<Listening> {
    listeners(sockets)
        .filter(|socket| socket.local.port() == server.port())
        .filter_map(|socket| {
            let (ip, wanted) = (socket.local.ip(), server.ip().to_canonical());
            // A socket on `::` serves IPv4 as well.
            let serves =
                ip == wanted || ip == Ipv6Addr::UNSPECIFIED || (ip.is_unspecified() && wanted.is_ipv4());
            serves.then_some(Listening {
                specific: ip == wanted,
                inode: socket.inode,
                waiting: socket.waiting,
            })
        })
        .max_by_key(|socket| socket.specific)
}

fn listeners(sockets: &[Socket]) -> impl Iterator<Item = &Socket> {
    sockets.iter().filter(|socket| socket.doing == Doing::Listens)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::sockets::parse;

    const HEAD: &str =
        "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n";

    fn row(local: &str, state: &str, inode: u64) -> String {
        format!(
            "   0: {local} 00000000:0000 {state} 00000000:00000000 00:00000000 00000000     0        0 {inode} 1\n"
        )
    }

    #[test]
    fn which_socket_listens() {
        let any4 = row("00000000:094B", "0A", 1);
        let own4 = row("0B58A8C0:094B", "0A", 2);
        let open = row("0B58A8C0:094B", "01", 3);
        let other = row("00000000:1F90", "0A", 4);
        let any6 = row("00000000000000000000000000000000:094B", "0A", 5);
        let v4 = "192.168.88.11:2379".parse().unwrap();
        let v6 = "[fd00::1]:2379".parse().unwrap();
        for (rows, server, expected) in [
            (vec![&any4, &open, &other], v4, Some((false, 1))),
            (vec![&any4, &own4], v4, Some((true, 2))),
            (vec![&open, &other], v4, None),
            (vec![&any6], v4, Some((false, 5))),
            (vec![&any6], v6, Some((false, 5))),
            (vec![&any4], v6, None),
        ] {
            let table: String = std::iter::once(HEAD)
                .chain(rows.into_iter().map(String::as_str))
                .collect();
            let found = listening(&parse(&table), server).map(|socket| (socket.specific, socket.inode));
            assert_eq!(found, expected, "{table}{server}");
        }
    }

    #[test]
    fn malformed_tables() {
        for table in [
            "",
            "\n",
            "x\ny\n",
            "h\n 0: zz:094B 0 0A",
            "h\n 0: 0B58A8C0:094B",
            "h\n 0: 0B58é8C0:094B 0 0A 1 2 3 4 5",
        ] {
            assert_eq!(listening(&parse(table), "1.2.3.4:2379".parse().unwrap()), None);
        }
    }

    #[test]
    fn a_few_are_searched_for_at_once() {
        let mut listeners = Listeners::new();
        let mut searched = 0;
        for port in 0..100 {
            listeners.find((1, SocketAddr::from(([1, 2, 3, 4], port))), || {
                searched += 1;
                None
            });
        }
        // More only on a machine that takes 100 ms for it.
        assert!((AT_ONCE..AT_ONCE + 8).contains(&searched), "{searched}");
    }

    #[test]
    fn an_answer_is_kept_and_a_miss_not_searched_for_again_at_once() {
        let mut listeners = Listeners::new();
        let key = (1, "1.2.3.4:5".parse().unwrap());
        assert_eq!(listeners.find(key, || None), None);
        assert_eq!(listeners.find(key, || panic!("searched again")), None);
        let owner = Arc::new(Owner::default());
        listeners.learn(key, &owner, Instant::now(), Owner::clone);
        assert_eq!(listeners.find(key, || panic!("searched again")), Some(owner));
    }

    /// Records of one owner come by the thousand: its strings are copied once.
    #[test]
    fn of_each_owner_is_learnt_once() {
        let mut listeners = Listeners::new();
        let key = (1, "1.2.3.4:5".parse().unwrap());
        let (one, other) = (Arc::<Owner>::default(), Arc::<Owner>::default());
        let long_ago = Instant::now().checked_sub(2 * FOUND).unwrap();
        let mut made = 0;
        for (owner, at, expected) in [
            (&one, long_ago, 1),
            (&one, Instant::now(), 1),
            (&other, Instant::now(), 2),
            (&one, Instant::now(), 3),
        ] {
            listeners.learn(key, owner, at, |owner| {
                made += 1;
                owner.clone()
            });
            assert_eq!(made, expected);
        }
        let mut searched = false;
        listeners.learn(key, &one, long_ago, Owner::clone);
        listeners.find(key, || {
            searched = true;
            None
        });
        assert!(searched, "an old answer holds");
        listeners.learn(key, &one, Instant::now(), Owner::clone);
        assert!(listeners.find(key, || panic!("searched again")).is_some());
    }
}
