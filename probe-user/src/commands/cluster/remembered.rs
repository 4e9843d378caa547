//! What the agents of a cluster remember, beside recordings or in their place.

use std::{
    collections::{BTreeMap, HashSet},
    net::{IpAddr, SocketAddr},
};

use anyhow::Result;
use jiff::Timestamp;

use super::{Cluster, local, progress::NodeProgress, tell_silent};
use crate::{
    attribution::kube::{hosts, object::Host},
    cluster::{
        Agent, AgentError, agents,
        fetch::{Fetch, Fetched, fetch},
        question::Connections,
    },
    model::{flow::Flows, history::HistoryEnd},
    recording::read,
    report::{json_line, say},
};

/// How the agents answered.
#[derive(Debug, Default)]
pub struct Remembered {
    /// Start of the history of each agent that sent all of it.
    pub memories: BTreeMap<String, HistoryEnd>,
    /// Some did not answer, or not wholly.
    pub incomplete: bool,
    /// Those of which that was said.
    silent: HashSet<String>,
}

impl Remembered {
    /// Says whose memory does not reach back to `began`.
    pub fn tell_younger_than(&self, began: Timestamp) {
        for (node, memory) in &self.memories {
            if let Some(oldest) = memory.oldest.filter(|oldest| *oldest > began) {
                say(format_args!(
                    "probe: the history of node {node} starts at {}, the log at {}",
                    local(oldest),
                    local(began)
                ));
            }
        }
    }

    /// Says how far back each goes.
    pub fn tell_memories(&self) {
        for (node, memory) in &self.memories {
            if let Some(oldest) = memory.oldest {
                say(format_args!(
                    "probe: the history of node {node} starts at {}",
                    local(oldest)
                ));
            }
        }
    }
}

/// Adds all that the agents remember of servers with these ports, since then if that is said.
///
/// # Errors
/// When there is no agent to ask.
pub async fn of_ports(
    cluster: &Cluster,
    ports: &[u16],
    since: Option<Timestamp>,
    flows: &mut Flows,
) -> Result<Remembered> {
    let agents = cluster.agents().await?;
    cluster.tell_nodes_without(&agents).await;
    let question = Connections {
        ports: ports.to_vec(),
        since,
        ..Connections::default()
    };
    let mut remembered = Remembered::default();
    remembered.ask(cluster, &agents, &question, flows).await;
    Ok(remembered)
}

/// Adds what the agents remember of clients' addresses: for one that a node has as its own, that node's; for a pod's address the
/// one on the pod's node, and if that knows nothing the others: it may have been another pod's then. Agents and nodes are listed
/// once for all addresses.
///
/// # Errors
/// When there is no agent to ask.
pub async fn of_clients(
    cluster: &Cluster,
    addresses: &[SocketAddr],
    flows: &mut Flows,
) -> Result<Remembered> {
    let mut remembered = Remembered::default();
    let mut known = KnownNodes {
        cluster,
        agents: cluster.agents().await?,
        hosts: None,
    };
    for address in addresses {
        let question = Connections {
            address: Some(*address),
            ..Connections::default()
        };
        let (first, others) = known.split(address.ip(), &mut remembered).await;
        remembered.ask(cluster, &first, &question, flows).await;
        if flows.near(*address, None).is_empty() {
            remembered.ask(cluster, &others, &question, flows).await;
        }
    }
    Ok(remembered)
}

/// Nodes and their agents, listed when they are needed first.
struct KnownNodes<'a> {
    cluster: &'a Cluster,
    agents: Vec<Agent>,
    hosts: Option<Vec<Host>>,
}

impl KnownNodes<'_> {
    /// Whom to ask first, and whom if they know nothing.
    async fn split(&mut self, address: IpAddr, remembered: &mut Remembered) -> (Vec<Agent>, Vec<Agent>) {
        let all = self.agents.clone();
        if !self.cluster.settings.nodes.is_empty() {
            return (all, Vec::new());
        }
        let mut node = agents::node_with(address, &all, &[]);
        if node.is_none() {
            node = agents::node_with(address, &all, self.hosts().await);
        }
        if let Some(node) = node {
            let its = agents::only(all, std::slice::from_ref(&node));
            if its.is_empty() {
                remembered.is_silent(&node, &AgentError::None);
            }
            return (its, Vec::new());
        }
        match agents::node_of_pod(&self.cluster.client, address).await {
            Some(node) => all.into_iter().partition(|agent| agent.node == node),
            None => (all, Vec::new()),
        }
    }

    async fn hosts(&mut self) -> &[Host] {
        if self.hosts.is_none() {
            let listed = hosts(&self.cluster.client, false).await;
            let listed = listed.unwrap_or_else(|error| {
                say(format_args!(
                    "probe: addresses of nodes without an agent are not known: {error}"
                ));
                Vec::new()
            });
            self.hosts = Some(listed);
        }
        self.hosts.as_deref().unwrap_or_default()
    }
}

impl Remembered {
    async fn ask(&mut self, cluster: &Cluster, agents: &[Agent], question: &Connections, flows: &mut Flows) {
        if agents.is_empty() {
            return;
        }
        let mut progress = NodeProgress::new(agents.len());
        let (mut line, mut connections) = (Vec::new(), 0_u64);
        let mut fetching = fetch(&cluster.ways, agents, &question.path());
        while let Some(next) = progress.during(fetching.next()).await {
            match next {
                Fetch::Connection(node, connection) => {
                    connections += 1;
                    progress.connections(connections);
                    line.clear();
                    // As a recording on that node would have it.
                    let recorded = json_line(&mut line, &node, &connection)
                        .ok()
                        .and_then(|()| read::line(&line).ok());
                    if let Some(recorded) = recorded.flatten() {
                        flows.add(recorded);
                    }
                }
                Fetch::Ended(fetched) => {
                    if let Ok(HistoryEnd { scope, unlisted, .. }) = &fetched.memory {
                        scope.iter().for_each(|scope| flows.add_scope(scope.clone()));
                        unlisted.iter().for_each(|time| flows.add_unlisted(*time));
                    }
                    progress.ended(fetched.memory.is_ok());
                    progress.clear();
                    self.took(fetched);
                }
            }
        }
    }

    fn took(&mut self, fetched: Fetched) {
        let Fetched {
            node,
            memory,
            connections,
            malformed,
        } = fetched;
        if malformed > 0 {
            say(format_args!(
                "probe: node {node}: {malformed} lines of its answer are not probe's JSON and were skipped"
            ));
        }
        match memory {
            Ok(memory) => {
                self.memories.insert(node, memory);
            }
            Err(reason) if connections == 0 => self.is_silent(&node, &reason),
            Err(reason) => {
                self.incomplete = true;
                say(format_args!(
                    "probe: the history of node {node} is incomplete: {reason}"
                ));
            }
        }
    }

    /// Says it once of each node, not for each address.
    fn is_silent(&mut self, node: &str, reason: &AgentError) {
        self.incomplete = true;
        if self.silent.insert(node.to_owned()) {
            tell_silent(node, reason);
        }
    }
}
