//! Whether pods' resolvers are those that the node has now, and whether their queries are answered.

pub mod queries;
#[cfg(test)]
mod tests;

use std::net::IpAddr;

use self::queries::Asked;
use super::{Answer, Check, Finding, Kind};
use crate::plural::counted;

const KIND: Kind = Kind::Doctor(Check::Dns);

/// As many pods are named.
const NAMED: usize = 50;

/// Who chose a pod's resolvers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// The node: a copy of its own, of when the pod was made. Also of a pod on the host's network that asked for the cluster's.
    Default,
    Cluster,
    /// The pod itself.
    None,
}

/// A pod, and what its containers read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DnsPod {
    /// `namespace/name`, or its uid where no name is known.
    pub name: String,
    /// `None`: no source for it.
    pub policy: Option<Policy>,
    pub servers: Vec<IpAddr>,
    pub search: Vec<String>,
    /// Its file was written before the node's.
    pub older: bool,
    pub host_network: bool,
    /// It is the cluster's DNS server.
    pub serves_cluster: bool,
}

/// All that was looked at.
#[derive(Clone, Debug, Default)]
pub struct DnsFacts {
    /// The file that the kubelet copies to pods; its servers; `None`: it copies none.
    pub node: Option<(String, Result<Vec<IpAddr>, String>)>,
    /// What the kubelet gives to pods as the cluster's DNS.
    pub cluster: Vec<IpAddr>,
    pub domain: Option<String>,
    /// Addresses of Services, as the node's rules have them.
    pub services: Vec<IpAddr>,
    pub pods: Vec<DnsPod>,
    /// `None`: it was not watched.
    pub asked: Option<Asked>,
    /// What could not be looked at, and why.
    pub unknown: Vec<String>,
}

impl DnsPod {
    /// Whether its search list is the cluster's.
    fn searches_cluster(&self, domain: &str) -> bool {
        let ending = format!("svc.{domain}");
        self.search
            .iter()
            .any(|name| name.trim_end_matches('.').ends_with(&ending))
    }

    fn policy(&self, seen: &DnsFacts) -> Option<Policy> {
        self.policy.or_else(|| {
            let domain = seen.domain.as_deref().unwrap_or("cluster.local");
            let cluster = self.servers.iter().any(|server| seen.cluster.contains(server))
                || self.searches_cluster(domain);
            // A file younger than the node's, and not the same: somebody chose it.
            if cluster {
                Some(Policy::Cluster)
            } else {
                self.older.then_some(Policy::Default)
            }
        })
    }
}

/// What it comes to.
pub fn judge(seen: &DnsFacts) -> Answer {
    let mut faults = Vec::new();
    let mut unknown = seen.unknown.clone();
    if let Some((file, Err(why))) = &seen.node {
        let fault = Finding::failed(
            KIND,
            "the kubelet can't copy the node's resolvers: no pod with dnsPolicy Default can start",
        );
        faults.push(fault.seen(format!("{file}: {why}")).advise(format!(
            "Restore {file}, or set another file as resolvConf of the kubelet and restart it."
        )));
    }
    faults.extend(loopback(seen));
    faults.extend(former_resolver(seen));
    faults.extend(former_cluster_dns(seen));
    if let Some(asked) = &seen.asked {
        faults.extend(queries::faults(asked));
        if asked.lost > 0 {
            unknown.push(format!(
                "{} DNS packets lost (too many at once): some answers may be missing",
                asked.lost
            ));
        }
        if asked.malformed > 0 {
            unknown.push(format!("{} packets to port 53 are not DNS", asked.malformed));
        }
    }
    if seen
        .pods
        .iter()
        .any(|pod| pod.policy.is_none() && pod.policy(seen) == Some(Policy::Default))
    {
        unknown.push(
            "the pods' dnsPolicy: a pod with its own dnsConfig can't be distinguished from one with \
             outdated servers"
                .to_owned(),
        );
    }
    Answer::of(Check::Dns, summary(seen), faults).without(unknown)
}

fn node_servers(seen: &DnsFacts) -> &[IpAddr] {
    match &seen.node {
        Some((_, Ok(servers))) => servers,
        _ => &[],
    }
}

fn join(servers: &[IpAddr]) -> String {
    let servers: Vec<_> = servers.iter().map(ToString::to_string).collect();
    if servers.is_empty() {
        "none".to_owned()
    } else {
        servers.join(", ")
    }
}

/// 127.0.0.53 in a pod is the pod itself.
fn loopback(seen: &DnsFacts) -> Option<Finding> {
    let node = node_servers(seen);
    let hit: Vec<&DnsPod> = seen
        .pods
        .iter()
        .filter(|pod| !pod.host_network && !matches!(pod.policy, Some(Policy::None | Policy::Cluster)))
        .filter(|pod| {
            pod.servers
                .iter()
                .any(|server| server.is_loopback() && node.contains(server))
        })
        .collect();
    if hit.is_empty() {
        return None;
    }
    let file = seen.node.as_ref().map_or("", |(file, _)| file);
    let fault = Finding::failed(
        KIND,
        format!(
            "{} configured with the node's stub resolver, a loopback address that in a pod is the pod itself",
            counted(hit.len(), "pod was", "pods were")
        ),
    )
    .seen(format!("{file}: {}", join(node)));
    let fault = named(fault, &hit, |pod| {
        format!("{} has {}", pod.name, join(&pod.servers))
    });
    let fault = fault
        .advise("Set resolvConf to /run/systemd/resolve/resolv.conf in the kubelet's configuration, /var/lib/kubelet/config.yaml.")
        .run(["systemctl", "restart", "kubelet"], "after that");
    Some(renewed(fault, &hit))
}

/// A copy of what the node no longer has.
fn former_resolver(seen: &DnsFacts) -> Option<Finding> {
    let Some((file, Ok(now))) = &seen.node else {
        return None;
    };
    let is_former = |server: &IpAddr| !now.contains(server) && !seen.cluster.contains(server);
    let mut hit: Vec<&DnsPod> = seen
        .pods
        .iter()
        .filter(|pod| pod.policy(seen) == Some(Policy::Default) && pod.servers.iter().any(is_former))
        .collect();
    if hit.is_empty() {
        return None;
    }
    hit.sort_by_key(|pod| (!pod.serves_cluster, pod.name.clone()));
    let dns = hit.iter().filter(|pod| pod.serves_cluster).count();
    let worst = match dns {
        0 => "",
        _ => "; the cluster's DNS is among them, so lookups of external names fail or are slow for every pod",
    };
    let fault = Finding::failed(
        KIND,
        format!(
            "{} resolvers that this node no longer uses{worst}",
            counted(hit.len(), "pod still queries", "pods still query")
        ),
    )
    .seen(format!("the node has {} ({file})", join(now)));
    let fault = named(fault, &hit, |pod| {
        format!("{} has {}", pod.name, join(&pod.servers))
    });
    Some(renewed(fault, &hit))
}

/// The cluster's DNS had another address when the pod was made, and no Service has that now.
fn former_cluster_dns(seen: &DnsFacts) -> Option<Finding> {
    if seen.cluster.is_empty() {
        return None;
    }
    let serves = |server: &IpAddr| seen.cluster.contains(server) || seen.services.contains(server);
    let hit: Vec<&DnsPod> = seen
        .pods
        .iter()
        .filter(|pod| !pod.host_network && pod.policy(seen) == Some(Policy::Cluster))
        .filter(|pod| !pod.servers.is_empty() && !pod.servers.iter().any(serves))
        .collect();
    if hit.is_empty() {
        return None;
    }
    let fault = Finding::failed(
        KIND,
        format!(
            "{} a former address of the cluster's DNS",
            counted(hit.len(), "pod asks", "pods ask")
        ),
    )
    .seen(format!("the kubelet sets {} (clusterDNS)", join(&seen.cluster)));
    let fault = named(fault, &hit, |pod| {
        format!("{} has {}", pod.name, join(&pod.servers))
    });
    Some(renewed(fault, &hit))
}

fn named(fault: Finding, pods: &[&DnsPod], says: impl Fn(&DnsPod) -> String) -> Finding {
    let fault = pods
        .iter()
        .take(NAMED)
        .fold(fault, |fault, pod| fault.seen(says(pod)));
    match pods.len().saturating_sub(NAMED) {
        0 => fault,
        more => fault.seen(format!("and {more} more")),
    }
}

/// The file is the sandbox's: a restarted container keeps it.
fn renewed(fault: Finding, pods: &[&DnsPod]) -> Finding {
    let mut fault = fault;
    if pods.iter().any(|pod| pod.serves_cluster) {
        fault = fault.run(
            [
                "kubectl",
                "-n",
                "kube-system",
                "rollout",
                "restart",
                "deployment",
                "coredns",
            ],
            "first: all other pods depend on it",
        );
    }
    let first = pods.iter().find(|pod| !pod.serves_cluster);
    match first.map(|pod| pod.name.split_once('/')) {
        Some(Some((namespace, pod))) => {
            let more = if pods.len() > 1 {
                ", and likewise the others"
            } else {
                ""
            };
            fault.run(
                ["kubectl", "-n", namespace, "delete", "pod", pod],
                format!("a restarted container keeps the file{more}"),
            )
        }
        Some(None) => fault.advise("Delete those pods: a restarted container keeps the file."),
        None => fault,
    }
}

fn summary(seen: &DnsFacts) -> String {
    let mut parts = vec![format!(
        "resolv.conf of {}",
        counted(seen.pods.len(), "pod", "pods")
    )];
    if let Some((file, Ok(servers))) = &seen.node {
        parts.push(format!("the node has {} ({file})", join(servers)));
    }
    if !seen.cluster.is_empty() {
        parts.push(format!("the cluster's DNS is {}", join(&seen.cluster)));
    }
    if let Some(asked) = &seen.asked {
        parts.push(asked.summary());
    }
    parts.join("; ")
}
