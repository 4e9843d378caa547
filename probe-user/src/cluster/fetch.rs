//! All that agents remember of some connections, asked once.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::{
    Agent, AgentError, all,
    answer::{AnswerLine, line},
    ask::{Connect, lines},
    body::BodyLine,
};
use crate::model::{Connection, history::HistoryEnd};

/// Connections on their way.
const WAITING: usize = 64;
/// More than this no agent remembers.
const MOST: u64 = 2 << 30;

/// How one agent answered.
#[derive(Debug)]
pub struct Fetched {
    pub node: String,
    /// Its history, or why it is incomplete.
    pub memory: Result<HistoryEnd, AgentError>,
    pub connections: u64,
    /// Lines that are none of an agent's.
    pub malformed: u64,
}

/// Asks all `agents` and hands each connection to `each`, with the node it is of; then how each answered, by node.
pub async fn fetch<C: Connect>(
    ways: &Arc<C>,
    agents: &[Agent],
    path: &str,
    mut each: impl FnMut(&str, &Connection),
) -> Vec<Fetched> {
    let (sender, mut receiver) = mpsc::channel(WAITING);
    let path: Arc<str> = path.into();
    let asked = all::each(ways, agents, |ways, agent| {
        let (path, sender) = (Arc::clone(&path), sender.clone());
        async move { fetch_one(&*ways, agent, &path, &sender).await }
    });
    drop(sender);
    while let Some((node, connection)) = receiver.recv().await {
        let (node, connection): (Arc<str>, Box<Connection>) = (node, connection);
        each(&node, &connection);
    }
    let fetched = asked.by_node().await;
    fetched.into_iter().map(|(_, fetched)| fetched).collect()
}

async fn fetch_one<C: Connect>(
    ways: &C,
    agent: Agent,
    path: &str,
    sender: &mpsc::Sender<(Arc<str>, Box<Connection>)>,
) -> Fetched {
    let mut fetched = Fetched {
        node: agent.node.clone(),
        memory: Err(AgentError::CutOff),
        connections: 0,
        malformed: 0,
    };
    fetched.memory = read(ways, &agent, path, sender, &mut fetched).await;
    fetched
}

async fn read<C: Connect>(
    ways: &C,
    agent: &Agent,
    path: &str,
    sender: &mpsc::Sender<(Arc<str>, Box<Connection>)>,
    fetched: &mut Fetched,
) -> Result<HistoryEnd, AgentError> {
    let node: Arc<str> = agent.node.as_str().into();
    let mut answer = lines(ways, agent, path, false).await?;
    while let Some(next) = answer.lines.next().await? {
        if answer.lines.bytes > MOST {
            return Err(AgentError::TooLong(MOST));
        }
        let BodyLine::Whole(text) = next else {
            fetched.malformed += 1;
            continue;
        };
        match line(&text) {
            Ok(AnswerLine::Connection(connection)) => {
                fetched.connections += 1;
                if sender.send((Arc::clone(&node), connection)).await.is_err() {
                    return Err(AgentError::CutOff);
                }
            }
            Ok(AnswerLine::End(memory)) => return Ok(memory),
            Ok(AnswerLine::Alive(_) | AnswerLine::Gap(_) | AnswerLine::Other) => {}
            Err(_) => fetched.malformed += 1,
        }
    }
    Err(AgentError::CutOff)
}
