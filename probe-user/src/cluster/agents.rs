//! Which agents a cluster has, by the labels of their pods, and on which node each is.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    net::IpAddr,
};

use kube::Client;

use super::ClusterError;
use crate::attribution::kube::{
    listed_pods,
    object::{Host, Pod},
    pages::ListQuery,
};

/// How an agent's pod is known.
pub const LABELS: &str = "app.kubernetes.io/name=probe,app.kubernetes.io/component=agent";
/// The container port that takes questions, by name, and its number where nothing is named so.
const PORT_NAME: &str = "query";
const PORT: u16 = 9470;

/// The agent of one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agent {
    pub node: String,
    pub pod: String,
    /// Tells this pod from one that comes after it.
    pub uid: String,
    /// The node's own address.
    pub address: Option<IpAddr>,
    pub port: u16,
    /// Why it can't be asked.
    pub not_ready: Option<String>,
}

/// Lists them, by node. `may_be_old`: they are listed again soon.
///
/// # Errors
/// When the API does not answer, or does not allow it.
pub async fn list(client: &Client, namespace: &str, may_be_old: bool) -> Result<Vec<Agent>, ClusterError> {
    let query = ListQuery {
        what: "the list of probe's agents",
        labels: Some(LABELS.to_owned()),
        may_be_old,
        ..ListQuery::default()
    };
    Ok(by_node(
        listed_pods(client, Some(namespace), query, candidate).await?,
    ))
}

/// A pod of agents, with its age.
struct Candidate {
    created: Option<i64>,
    agent: Agent,
}

/// `None`: one that no node was found for.
fn candidate(pod: Pod) -> Option<Candidate> {
    let created = pod.metadata.creation_timestamp.as_ref();
    Some(Candidate {
        created: created.map(|created| created.0.as_second()),
        agent: agent(&pod)?,
    })
}

/// One for each node: of several pods there, as while one replaces another, the one that answers, or else the youngest.
fn by_node(candidates: Vec<Candidate>) -> Vec<Agent> {
    let rank = |candidate: &Candidate| (candidate.agent.not_ready.is_none(), candidate.created);
    let mut agents: BTreeMap<String, Candidate> = BTreeMap::new();
    for candidate in candidates {
        match agents.entry(candidate.agent.node.clone()) {
            Entry::Vacant(place) => {
                place.insert(candidate);
            }
            Entry::Occupied(mut place) if rank(place.get()) < rank(&candidate) => {
                place.insert(candidate);
            }
            Entry::Occupied(_) => {}
        }
    }
    agents.into_values().map(|candidate| candidate.agent).collect()
}

fn agent(pod: &Pod) -> Option<Agent> {
    let spec = pod.spec.as_ref()?;
    let status = pod.status.as_ref();
    let ports = spec
        .containers
        .iter()
        .flat_map(|container| container.ports.iter().flatten());
    let port = ports
        .filter(|port| port.name.as_deref() == Some(PORT_NAME))
        .find_map(|port| u16::try_from(port.container_port).ok());
    Some(Agent {
        node: spec.node_name.clone().filter(|node| !node.is_empty())?,
        pod: pod.metadata.name.clone()?,
        uid: pod.metadata.uid.clone().unwrap_or_default(),
        address: status
            .and_then(|status| status.host_ip.as_deref())
            .and_then(|address| address.parse().ok()),
        port: port.unwrap_or(PORT),
        not_ready: not_ready(pod),
    })
}

/// Why a pod can't be asked, in as many words as Kubernetes has for it.
fn not_ready(pod: &Pod) -> Option<String> {
    if pod.metadata.deletion_timestamp.is_some() {
        return Some("it ends".to_owned());
    }
    let Some(status) = &pod.status else {
        return Some("it has not started".to_owned());
    };
    let ready = status
        .conditions
        .iter()
        .flatten()
        .find(|condition| condition.type_ == "Ready");
    if ready.is_some_and(|condition| condition.status == "True") {
        return None;
    }
    let waiting = status.container_statuses.iter().flatten().find_map(|container| {
        let state = container.state.as_ref()?;
        let waiting = state.waiting.as_ref().and_then(|waiting| waiting.reason.clone());
        waiting.or_else(|| state.terminated.as_ref()?.reason.clone())
    });
    let said = waiting
        .or_else(|| status.reason.clone())
        .or_else(|| ready?.reason.clone())
        .or_else(|| status.phase.clone().filter(|phase| phase != "Running"));
    Some(said.unwrap_or_else(|| "its readiness probe fails".to_owned()))
}

/// Those on the nodes asked for; with none asked for all.
///
/// # Errors
/// When there are none, or none on a node that was asked for.
pub fn on(agents: Vec<Agent>, nodes: &[String], namespace: &str) -> Result<Vec<Agent>, ClusterError> {
    if agents.is_empty() {
        return Err(ClusterError::NoAgents(namespace.to_owned()));
    }
    let has = |node: &String| agents.iter().any(|agent| agent.node == *node);
    if let Some(node) = nodes.iter().find(|node| !has(node)) {
        let others: Vec<_> = agents.iter().map(|agent| agent.node.as_str()).collect();
        return Err(ClusterError::NoSuchNode {
            node: node.clone(),
            others: others.join(", "),
        });
    }
    Ok(only(agents, nodes))
}

/// The same without complaint.
pub fn only(mut agents: Vec<Agent>, nodes: &[String]) -> Vec<Agent> {
    agents.retain(|agent| nodes.is_empty() || nodes.contains(&agent.node));
    agents
}

/// The node that has this address, from the agents' pods and the list of nodes.
pub fn node_with(address: IpAddr, agents: &[Agent], hosts: &[Host]) -> Option<String> {
    let by_agent = agents.iter().find(|agent| agent.address == Some(address));
    let by_host = || hosts.iter().find(|host| host.addresses.contains(&address));
    by_agent
        .map(|agent| agent.node.clone())
        .or_else(|| by_host().map(|host| host.name.clone()))
}

/// The node of the pod that has this address now, where the user may list pods.
pub async fn node_of_pod(client: &Client, address: IpAddr) -> Option<String> {
    let query = ListQuery {
        what: "the pods of this address",
        fields: Some(format!("status.podIP={address}")),
        ..ListQuery::default()
    };
    let nodes = listed_pods(client, None, query, |pod: Pod| Some(pod.spec?.node_name)).await;
    let mut nodes = nodes.ok()?.into_iter();
    // If several pods had it, such as those of a finished Job, the owner is unknown.
    let (node, other) = (nodes.next()?, nodes.next());
    node.filter(|_| other.is_none())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(name: &str, node: &str, status: Value) -> Pod {
        let ports =
            json!([{"name": "metrics", "containerPort": 9471}, {"name": "query", "containerPort": 9999}]);
        serde_json::from_value(json!({
            "metadata": {"name": name, "uid": format!("uid-{name}"), "creationTimestamp": "2026-11-23T09:00:00Z"},
            "spec": {"nodeName": node, "containers": [{"name": "agent", "ports": ports}]},
            "status": status,
        }))
        .unwrap()
    }

    fn ready() -> Value {
        json!({"phase": "Running", "hostIP": "192.168.88.12", "conditions": [{"type": "Ready", "status": "True"}]})
    }

    fn found(pods: &[Pod]) -> Vec<Agent> {
        by_node(pods.iter().cloned().filter_map(candidate).collect())
    }

    #[test]
    fn what_is_known_of_an_agent() {
        let agents = found(&[pod("probe-b", "beta", ready())]);
        assert_eq!(
            agents,
            [Agent {
                node: "beta".to_owned(),
                pod: "probe-b".to_owned(),
                uid: "uid-probe-b".to_owned(),
                address: Some("192.168.88.12".parse().unwrap()),
                port: 9999,
                not_ready: None,
            }]
        );
    }

    #[test]
    fn why_an_agent_can_not_be_asked() {
        let unready = json!([{"type": "Ready", "status": "False", "reason": "ContainersNotReady"}]);
        let waiting = json!([{"name": "agent", "ready": false, "restartCount": 1, "image": "", "imageID": "",
                              "state": {"waiting": {"reason": "CrashLoopBackOff"}}}]);
        for (status, reason) in [
            (ready(), None),
            (json!({"phase": "Pending"}), Some("Pending")),
            (json!({"phase": "Failed", "reason": "Evicted"}), Some("Evicted")),
            (
                json!({"phase": "Running", "conditions": unready}),
                Some("ContainersNotReady"),
            ),
            (
                json!({"phase": "Running", "conditions": unready, "containerStatuses": waiting}),
                Some("CrashLoopBackOff"),
            ),
            (json!({"phase": "Running"}), Some("its readiness probe fails")),
        ] {
            let agents = found(&[pod("probe-b", "beta", status.clone())]);
            assert_eq!(agents[0].not_ready.as_deref(), reason, "{status}");
        }
        let mut ending = pod("probe-b", "beta", ready());
        ending.metadata.deletion_timestamp = ending.metadata.creation_timestamp.clone();
        assert_eq!(found(&[ending])[0].not_ready.as_deref(), Some("it ends"));
    }

    #[test]
    fn one_agent_a_node() {
        let old = pod("old", "beta", ready());
        let mut young = pod("young", "beta", json!({"phase": "Pending"}));
        young.metadata.creation_timestamp = serde_json::from_value(json!("2026-11-23T10:00:00Z")).unwrap();
        let mut nowhere = pod("nowhere", "", json!({"phase": "Pending"}));
        nowhere.spec.as_mut().unwrap().node_name = None;
        let names = |pods: &[Pod]| -> Vec<String> {
            let agents = found(pods).into_iter();
            agents.map(|agent| agent.pod).collect()
        };
        assert_eq!(names(&[young.clone(), old.clone(), nowhere]), ["old"]);
        young.status = serde_json::from_value(ready()).unwrap();
        assert_eq!(names(&[young, old.clone()]), ["young"]);
        assert_eq!(names(&[old, pod("other", "alpha", ready())]), ["other", "old"]);
    }

    #[test]
    fn which_nodes_are_asked() {
        let agents = found(&[pod("a", "alpha", ready()), pod("b", "beta", ready())]);
        let nodes = |asked: &[&str]| {
            let asked: Vec<_> = asked.iter().map(|node| (*node).to_owned()).collect();
            let found = on(agents.clone(), &asked, "probe").map_err(|error| error.to_string())?;
            Ok::<_, String>(found.into_iter().map(|agent| agent.node).collect::<Vec<_>>())
        };
        assert_eq!(nodes(&[]).unwrap(), ["alpha", "beta"]);
        assert_eq!(nodes(&["beta"]).unwrap(), ["beta"]);
        let error = nodes(&["beta", "gamma"]).unwrap_err();
        assert!(
            error.contains("node gamma") && error.contains("alpha, beta"),
            "{error}"
        );
        let error = on(Vec::new(), &[], "tools").unwrap_err().to_string();
        assert!(error.contains("namespace tools"), "{error}");
    }

    #[test]
    fn whose_address_it_is() {
        let agents = found(&[pod("b", "beta", ready())]);
        let hosts = [Host {
            name: "alpha".to_owned(),
            addresses: vec!["192.168.88.11".parse().unwrap(), "fd00::11".parse().unwrap()],
        }];
        for (address, node) in [
            ("192.168.88.12", Some("beta")),
            ("192.168.88.11", Some("alpha")),
            ("fd00::11", Some("alpha")),
            ("10.244.2.2", None),
        ] {
            let found = node_with(address.parse().unwrap(), &agents, &hosts);
            assert_eq!(found.as_deref(), node, "{address}");
        }
    }
}
