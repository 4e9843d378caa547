//! The resolv.conf that each pod's processes read.

use std::{
    collections::{BTreeMap, HashSet},
    net::IpAddr,
    time::SystemTime,
};

use crate::{
    attribution::{Attribution, kube::object as api, procfs::Proc},
    host::{files::Root, resolv},
    model::{
        Owner, PodSource,
        doctor::dns::{DnsPod, Policy},
    },
    namespace,
};

/// More containers than a node has.
const MOST: usize = 8192;
/// A static pod's uid at the kubelet, which the API has under another.
const HASH: &str = "kubernetes.io/config.hash";

/// Of every pod that has a process. `asks`: a runtime is asked, and what it does not know is another node's.
pub fn read(
    attribution: &mut Attribution,
    asks: bool,
    known: &[api::Pod],
    node_written: Option<SystemTime>,
) -> Vec<DnsPod> {
    let proc = Proc::new("/proc".into());
    let inode = |pid: u32, kind: &str| namespace::inode(proc.path(pid, kind));
    let own_mount = namespace::inode("/proc/self/ns/mnt");
    let own_netns = namespace::own_netns();
    let mut mounts: HashSet<u64> = own_mount.into_iter().collect();
    // By uid and servers: the containers of a pod have one file.
    let mut pods: BTreeMap<(String, Vec<IpAddr>), DnsPod> = BTreeMap::new();
    for pid in proc.pids() {
        // A kernel thread has no root; one that can't be read is skipped.
        let (Some(mount), Some(netns)) = (inode(pid, "ns/mnt"), inode(pid, "ns/net")) else {
            continue;
        };
        if mounts.contains(&mount) || mounts.len() >= MOST {
            continue;
        }
        let owner = attribution.of_process(pid, netns as u32);
        let Some(pod) = owner.pod.as_ref() else { continue };
        mounts.insert(mount);
        if asks && pod.source != PodSource::Cri {
            continue;
        }
        let root = Root::new(proc.path(pid, "root"));
        let Ok((text, written)) = root.dated("/etc/resolv.conf") else {
            continue;
        };
        let resolv = resolv::parse(&text);
        let of_api = known.iter().find(|known| is(known, &pod.uid));
        let host_network = Some(netns) == own_netns;
        let key = (pod.uid.clone(), resolv.servers.clone());
        pods.entry(key).or_insert_with(|| DnsPod {
            name: name(&owner),
            policy: of_api.and_then(policy),
            servers: resolv.servers,
            search: resolv.search,
            older: node_written.is_some_and(|node| written < node),
            host_network,
            serves_cluster: serves_cluster(&owner, of_api),
        });
    }
    pods.into_values().collect()
}

fn is(known: &api::Pod, uid: &str) -> bool {
    let metadata = &known.metadata;
    let hash = metadata
        .annotations
        .as_ref()
        .and_then(|annotations| annotations.get(HASH));
    metadata.uid.as_deref() == Some(uid) || hash.is_some_and(|hash| hash == uid)
}

fn name(owner: &Owner) -> String {
    let Some(pod) = &owner.pod else {
        return String::new();
    };
    match (&pod.namespace, &pod.name) {
        (Some(namespace), Some(name)) => format!("{namespace}/{name}"),
        _ => format!("pod {}", pod.uid),
    }
}

/// What the kubelet makes of it.
fn policy(pod: &api::Pod) -> Option<Policy> {
    let spec = pod.spec.as_ref()?;
    let host = spec.host_network.unwrap_or(false);
    Some(match spec.dns_policy.as_deref() {
        Some("None") => Policy::None,
        Some("Default") => Policy::Default,
        Some("ClusterFirstWithHostNet") => Policy::Cluster,
        _ if host => Policy::Default,
        _ => Policy::Cluster,
    })
}

fn serves_cluster(owner: &Owner, known: Option<&api::Pod>) -> bool {
    let labelled = known.and_then(|pod| pod.metadata.labels.as_ref()?.get("k8s-app"));
    let name = owner
        .pod
        .as_ref()
        .and_then(|pod| pod.name.as_deref())
        .unwrap_or_default();
    labelled.is_some_and(|label| label == "kube-dns")
        || name.starts_with("coredns-")
        || name.starts_with("kube-dns-")
}
