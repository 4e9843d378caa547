//! All that agents remember of some connections, asked once.

use std::{collections::VecDeque, sync::Arc};

use tokio::sync::mpsc;

use super::{
    Agent, AgentError,
    all::{self, Asked},
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

/// What comes of asking many.
#[derive(Debug)]
pub enum Fetch {
    /// A connection, and the node it is of.
    Connection(Arc<str>, Box<Connection>),
    /// One agent has answered, or failed to.
    Ended(Fetched),
}

/// Agents that are asked for what they remember.
pub struct Fetching<'a> {
    asked: Asked<'a, Fetched>,
    connections: mpsc::Receiver<(Arc<str>, Box<Connection>)>,
    /// Of the last agents, whose connections may still be on their way.
    ended: VecDeque<Fetched>,
    all_ended: bool,
}

/// Asks all `agents`; what comes, as it comes, with the end of an agent's answer after its connections.
pub fn fetch<'a, C: Connect>(ways: &Arc<C>, agents: &'a [Agent], path: &str) -> Fetching<'a> {
    let (sender, connections) = mpsc::channel(WAITING);
    let (ways, path): (_, Arc<str>) = (Arc::clone(ways), path.into());
    Fetching {
        asked: all::each(agents, move |agent| {
            let (ways, path, sender) = (Arc::clone(&ways), Arc::clone(&path), sender.clone());
            async move { fetch_one(&*ways, agent, &path, &sender).await }
        }),
        connections,
        ended: VecDeque::new(),
        all_ended: false,
    }
}

impl Fetching<'_> {
    /// The next; `None` at the end. Nothing is lost if it is not waited for to the end.
    pub async fn next(&mut self) -> Option<Fetch> {
        loop {
            // What an agent sent before its end is in the channel by then.
            if let Ok((node, connection)) = self.connections.try_recv() {
                return Some(Fetch::Connection(node, connection));
            }
            if let Some(ended) = self.ended.pop_front() {
                return Some(Fetch::Ended(ended));
            }
            if self.all_ended {
                return None;
            }
            tokio::select! {
                Some((node, connection)) = self.connections.recv() => {
                    return Some(Fetch::Connection(node, connection));
                }
                ended = self.asked.next() => match ended {
                    Some((_, ended)) => self.ended.push_back(ended),
                    None => self.all_ended = true,
                }
            }
        }
    }
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
