//! What the agents of a cluster remember, beside recordings or in their place.

use std::net::SocketAddr;

use anyhow::Result;
use jiff::Timestamp;

use super::{Cluster, local, tell_silent};
use crate::{
    cluster::{
        Agent, AgentError, agents,
        fetch::{Fetched, fetch},
        question::Connections,
    },
    commands::progress::Progress,
    model::{Connection, flow::Flows, history::HistoryEnd},
    recording::read,
    report::{json_line, say},
};

/// How the agents answered.
#[derive(Clone, Debug, Default)]
pub struct Remembered {
    /// Start of the history of each agent that sent all of it.
    pub memories: Vec<(String, HistoryEnd)>,
    /// Some did not answer, or not wholly.
    pub incomplete: bool,
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

    /// Adds the answers to another question.
    pub fn add(&mut self, other: Self) {
        self.incomplete |= other.incomplete;
        for (node, memory) in other.memories {
            if !self.memories.iter().any(|(known, _)| *known == node) {
                self.memories.push((node, memory));
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

/// Adds what the agents remember of a client's address: that of the node which has it as its own, where one is found; for a
/// pod's address the one on the pod's node, and if that knows nothing the others: it may have been another pod's then.
///
/// # Errors
/// When there is no agent to ask.
pub async fn of_client(cluster: &Cluster, address: SocketAddr, flows: &mut Flows) -> Result<Remembered> {
    let mut remembered = Remembered::default();
    let question = Connections {
        address: Some(address),
        ..Connections::default()
    };
    let all = cluster.agents().await?;
    let (first, others) = split(cluster, address, all, &mut remembered).await;
    remembered.ask(cluster, &first, &question, flows).await;
    if flows.near(address, None).is_empty() {
        remembered.ask(cluster, &others, &question, flows).await;
    }
    Ok(remembered)
}

/// Whom to ask first, and whom if they know nothing.
async fn split(
    cluster: &Cluster,
    address: SocketAddr,
    all: Vec<Agent>,
    remembered: &mut Remembered,
) -> (Vec<Agent>, Vec<Agent>) {
    if !cluster.settings.nodes.is_empty() {
        return (all, Vec::new());
    }
    let mut node = agents::node_with(address.ip(), &all, &[]);
    if node.is_none() {
        let hosts = agents::hosts(&cluster.client).await.unwrap_or_default();
        node = agents::node_with(address.ip(), &all, &hosts);
    }
    if let Some(node) = node {
        let its = agents::only(all, std::slice::from_ref(&node));
        if its.is_empty() {
            tell_silent(&node, &AgentError::None);
            remembered.incomplete = true;
        }
        return (its, Vec::new());
    }
    match agents::node_of_pod(&cluster.client, address.ip()).await {
        Some(node) => all.into_iter().partition(|agent| agent.node == node),
        None => (all, Vec::new()),
    }
}

impl Remembered {
    async fn ask(&mut self, cluster: &Cluster, agents: &[Agent], question: &Connections, flows: &mut Flows) {
        let mut progress = Progress::before_answers();
        let (mut line, mut connections) = (Vec::new(), 0_u64);
        let add = |node: &str, connection: &Connection| {
            connections += 1;
            progress.show(format_args!(
                "{connections} connections of {} nodes read",
                agents.len()
            ));
            line.clear();
            // As a recording on that node would have it.
            let recorded = json_line(&mut line, node, connection)
                .ok()
                .and_then(|()| read::line(&line).ok());
            if let Some(recorded) = recorded.flatten() {
                flows.add(recorded);
            }
        };
        let fetched = fetch(&cluster.ways, agents, &question.path(), add).await;
        progress.clear();
        for one in fetched {
            if let Ok(HistoryEnd { scope, unlisted, .. }) = &one.memory {
                scope.iter().for_each(|scope| flows.add_scope(scope.clone()));
                unlisted.iter().for_each(|time| flows.add_unlisted(*time));
            }
            self.took(one);
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
            Ok(memory) => self.memories.push((node, memory)),
            Err(reason) => {
                self.incomplete = true;
                if connections == 0 {
                    tell_silent(&node, &reason);
                } else {
                    say(format_args!(
                        "probe: the history of node {node} is incomplete: {reason}"
                    ));
                }
            }
        }
    }
}
