//! What a runtime said of its containers, bounded; what is gone is remembered for some minutes.

use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;

use super::messages::{Container, PodSandbox};
use crate::model::selector::Labels;

/// How long a removed container keeps its name: its last connections are reported after it.
const REMEMBERED: Duration = Duration::from_secs(600);
/// Containers, and sandboxes, that are kept; those gone for longest make room.
const KEPT: usize = 8192;

/// A pod as its runtime knows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pod {
    pub namespace: String,
    pub name: String,
    pub uid: String,
    pub labels: Arc<Labels>,
    /// When its sandbox was made, if it has an address of its own.
    pub address_since: Option<Timestamp>,
}

/// A container, and its pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// Absent for the sandbox itself (the pause container).
    pub container: Option<String>,
    pub pod: Arc<Pod>,
}

#[derive(Debug)]
struct Kept<T> {
    value: T,
    gone: Option<Instant>,
}

/// By container id; a sandbox is one too.
#[derive(Debug, Default)]
pub struct Table {
    containers: HashMap<String, Kept<Named>>,
    /// Network namespace inode → sandbox id. Pods on the host's network have none.
    netns: HashMap<u32, String>,
    /// Address → sandbox id. A later pod may get the address of one that is gone.
    addresses: HashMap<IpAddr, String>,
    /// Sandboxes whose network namespace was asked for.
    asked: HashSet<String>,
}

impl Table {
    pub fn container(&self, id: &str) -> Option<&Named> {
        self.containers.get(id).map(|kept| &kept.value)
    }

    /// The pod whose network namespace has this inode.
    pub fn netns(&self, inode: u32) -> Option<&Named> {
        self.container(self.netns.get(&inode)?)
    }

    /// Sandboxes whose network namespace was not asked for yet.
    pub fn without_netns(&self, sandboxes: &[PodSandbox]) -> Vec<String> {
        sandboxes
            .iter()
            .filter(|sandbox| !self.asked.contains(&sandbox.id))
            .map(|sandbox| sandbox.id.clone())
            .collect()
    }

    /// The pods that have addresses of their own.
    pub fn addresses(&self) -> impl Iterator<Item = (IpAddr, &Named)> {
        let named = |(address, id): (&IpAddr, &String)| Some((*address, self.container(id)?));
        self.addresses.iter().filter_map(named)
    }

    /// Takes the network namespace of a sandbox and its addresses; a pod on the host's network has none.
    pub fn learn_network(&mut self, inode: Option<u32>, addresses: Vec<IpAddr>, sandbox: String) {
        for address in addresses {
            self.addresses.insert(address, sandbox.clone());
        }
        if let Some(inode) = inode {
            self.netns.insert(inode, sandbox.clone());
        }
        self.asked.insert(sandbox);
    }

    /// Takes all that there is now; what is not in it is gone.
    pub fn list(&mut self, sandboxes: &[PodSandbox], containers: &[Container], now: Instant) {
        for kept in self.containers.values_mut() {
            kept.gone.get_or_insert(now);
        }
        let own: HashSet<String> = self.addresses.values().cloned().collect();
        for sandbox in sandboxes {
            let Some(metadata) = &sandbox.metadata else {
                continue;
            };
            let has_address = own.contains(&sandbox.id);
            let created = (sandbox.created_at > 0).then_some(i128::from(sandbox.created_at));
            let pod = Pod {
                address_since: created
                    .filter(|_| has_address)
                    .and_then(|created| Timestamp::from_nanosecond(created).ok()),
                namespace: metadata.namespace.clone(),
                name: metadata.name.clone(),
                uid: metadata.uid.clone(),
                labels: Arc::new(sandbox.labels.clone()),
            };
            let named = Named {
                container: None,
                pod: Arc::new(pod),
            };
            self.keep(&sandbox.id, named);
        }
        for container in containers {
            // Of a sandbox that was removed between the two lists it may be known from before.
            let Some(sandbox) = self.container(&container.pod_sandbox_id) else {
                continue;
            };
            let named = Named {
                container: container.metadata.as_ref().map(|metadata| metadata.name.clone()),
                pod: Arc::clone(&sandbox.pod),
            };
            self.keep(&container.id, named);
        }
        self.forget(now);
    }

    fn keep(&mut self, id: &str, value: Named) {
        self.containers.insert(id.to_owned(), Kept { value, gone: None });
    }

    fn forget(&mut self, now: Instant) {
        self.containers
            .retain(|_, kept| kept.gone.is_none_or(|gone| now.duration_since(gone) < REMEMBERED));
        if self.containers.len() > KEPT {
            let mut gone: Vec<_> = self
                .containers
                .iter()
                .filter_map(|(id, kept)| Some((kept.gone?, id.clone())))
                .collect();
            gone.sort_unstable();
            let surplus = self.containers.len() - KEPT;
            for (_, id) in gone.into_iter().take(surplus) {
                self.containers.remove(&id);
            }
        }
        let containers = &self.containers;
        self.netns.retain(|_, id| containers.contains_key(id));
        self.addresses.retain(|_, id| containers.contains_key(id));
        self.asked.retain(|id| containers.contains_key(id));
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::messages::{ContainerMetadata, PodSandboxMetadata},
        *,
    };

    fn sandbox(id: &str, name: &str) -> PodSandbox {
        PodSandbox {
            id: id.to_owned(),
            metadata: Some(PodSandboxMetadata {
                name: name.to_owned(),
                uid: format!("uid-of-{name}"),
                namespace: "shop".to_owned(),
            }),
            ..PodSandbox::default()
        }
    }

    fn container(id: &str, sandbox: &str, name: &str) -> Container {
        Container {
            id: id.to_owned(),
            pod_sandbox_id: sandbox.to_owned(),
            metadata: Some(ContainerMetadata {
                name: name.to_owned(),
            }),
        }
    }

    fn names(table: &Table, id: &str) -> Option<(String, Option<String>)> {
        let named = table.container(id)?;
        Some((named.pod.name.clone(), named.container.clone()))
    }

    #[test]
    fn what_is_gone_is_remembered_for_a_while() {
        let (mut table, start) = (Table::default(), Instant::now());
        let sandboxes = [sandbox("s1", "cart"), sandbox("s2", "till")];
        let containers = [
            container("c1", "s1", "app"),
            container("c2", "s1", "proxy"),
            container("c3", "nowhere", "lost"),
        ];
        table.list(&sandboxes, &containers, start);
        assert_eq!(table.without_netns(&sandboxes), ["s1", "s2"]);
        let address: IpAddr = "10.244.1.2".parse().unwrap();
        table.learn_network(Some(7), vec![address], "s1".to_owned());
        let with_addresses = |table: &Table| {
            let pods = table
                .addresses()
                .map(|(address, named)| (address, named.pod.name.clone()));
            pods.collect::<Vec<_>>()
        };
        assert_eq!(with_addresses(&table), [(address, "cart".to_owned())]);
        assert_eq!(table.without_netns(&sandboxes), ["s2"]);
        let app = Some(("cart".to_owned(), Some("app".to_owned())));
        assert_eq!(names(&table, "c1"), app);
        assert_eq!(
            names(&table, "c2"),
            Some(("cart".to_owned(), Some("proxy".to_owned())))
        );
        assert_eq!(names(&table, "s2"), Some(("till".to_owned(), None)));
        assert_eq!(names(&table, "c3"), None);
        assert_eq!(table.netns(7).map(|named| named.pod.name.as_str()), Some("cart"));

        // Gone, and a minute later still known.
        table.list(&sandboxes[1..], &[], start + Duration::from_secs(1));
        table.list(&sandboxes[1..], &[], start + Duration::from_secs(60));
        assert_eq!(names(&table, "c1"), app);
        assert!(table.netns(7).is_some());
        // Much later no more; what is still there stays.
        table.list(&sandboxes[1..], &[], start + REMEMBERED + Duration::from_secs(2));
        assert_eq!((names(&table, "c1"), table.netns(7)), (None, None));
        assert_eq!(with_addresses(&table), []);
        assert!(names(&table, "s2").is_some());
    }

    /// The address of a pod is as old as its sandbox; that of its node is not the pod's.
    #[test]
    fn since_when_a_pod_has_its_address() {
        let mut table = Table::default();
        let created = |id: &str, created_at| PodSandbox {
            created_at,
            ..sandbox(id, id)
        };
        let second = 1_795_000_000_000_000_000;
        let sandboxes = [
            created("own", second),
            created("of-node", second),
            created("unknown", 0),
        ];
        table.learn_network(Some(7), vec!["10.244.1.2".parse().unwrap()], "own".to_owned());
        table.learn_network(Some(8), vec!["10.244.1.3".parse().unwrap()], "unknown".to_owned());
        table.learn_network(Some(9), Vec::new(), "of-node".to_owned());
        table.list(&sandboxes, &[container("c", "own", "app")], Instant::now());
        for (id, since) in [
            ("own", Timestamp::from_second(1_795_000_000).ok()),
            ("c", Timestamp::from_second(1_795_000_000).ok()),
            ("of-node", None),
            ("unknown", None),
        ] {
            assert_eq!(table.container(id).unwrap().pod.address_since, since, "{id}");
        }
    }

    #[test]
    fn those_gone_for_longest_make_room() {
        let (mut table, start) = (Table::default(), Instant::now());
        let mut all = (0..KEPT + 10).map(|number| sandbox(&format!("s{number}"), "x"));
        for (round, count) in [KEPT / 2, KEPT / 2, 10].into_iter().enumerate() {
            let sandboxes: Vec<_> = all.by_ref().take(count).collect();
            table.list(&sandboxes, &[], start + Duration::from_secs(round as u64));
        }
        assert_eq!(table.containers.len(), KEPT);
        assert!(names(&table, &format!("s{KEPT}")).is_some());
        let first = (0..KEPT / 2).filter(|number| names(&table, &format!("s{number}")).is_some());
        assert_eq!(first.count(), KEPT / 2 - 10);
    }
}
