//! The stream of one node's agent: a broken connection is opened again, and what was missed meanwhile
//! is asked for as far as the agent still has it.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use tokio::{
    sync::{Semaphore, mpsc, watch},
    time::sleep,
};

use super::{
    Agent, AgentError,
    answer::{AnswerLine, line},
    ask::{Connect, lines},
    body::BodyLine,
    dedup::Dedup,
    question::Connections,
};
use crate::{model::Connection, recording::connection::LineError};

/// How long after a failure it is tried again: twice as long each time, up to the longest.
const RETRY: Duration = Duration::from_millis(500);
const LONGEST_RETRY: Duration = Duration::from_secs(10);
/// A way that held for so long begins with the shortest wait again.
const HELD: Duration = Duration::from_secs(10);

/// What a node says, or what becomes of it.
#[derive(Debug)]
pub enum Heard {
    /// Of so many bytes.
    Connection(Box<Connection>, usize),
    /// Nothing earlier is to come.
    Alive(Timestamp),
    /// So many were left out.
    Gap(u64),
    /// A line that is none of an agent's, and why; `None`: it is too long.
    Malformed(Option<LineError>),
    /// It answers; `again`: since it was last said that it does not, and whether by another agent.
    Answers { again: Option<Again> },
    /// It does not answer.
    Silent {
        /// When anything came from it last; `None`: never.
        since: Option<Timestamp>,
        reason: AgentError,
    },
}

/// Who answers again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Again {
    Same,
    /// What the one before remembered is gone.
    Another,
}

/// Who says it.
#[derive(Debug)]
pub struct News {
    pub node: Arc<str>,
    pub heard: Heard,
}

/// One node, and its listener.
pub struct Follower<C> {
    pub ways: Arc<C>,
    /// How many may be asked at a time: an answer that has begun is none of them.
    pub turns: Arc<Semaphore>,
    pub node: Arc<str>,
    /// The agents there are now.
    pub agents: watch::Receiver<Vec<Agent>>,
    pub question: Connections,
    /// Told of, at the first time, from then on.
    pub since: Option<Timestamp>,
    pub news: mpsc::Sender<News>,
}

/// Nobody listens any more.
struct Unheard;

impl<C: Connect> Follower<C> {
    /// Until there is no listener.
    pub async fn run(mut self) {
        // Only a listener that is gone ends it.
        let _ = self.follow().await;
    }

    async fn follow(&mut self) -> Result<(), Unheard> {
        let began = Timestamp::now();
        let mut state = State {
            seen: Dedup::new(),
            heard: None,
            answered_by: None,
            silent: false,
        };
        let mut retry = RETRY;
        loop {
            let agent = self.agent();
            let at = Instant::now();
            let since = state
                .seen
                .since()
                // One that never said anything may hold what came since it was first asked.
                .or(self.since)
                .or_else(|| state.asked().then_some(began));
            let failed = match &agent {
                None => AgentError::None,
                Some(agent) => match self.listen(agent, since, &mut state).await {
                    Ok(failed) => failed,
                    Err(unheard) => return Err(unheard),
                },
            };
            if !state.silent {
                state.silent = true;
                let since = state.heard;
                self.tell(Heard::Silent {
                    since,
                    reason: failed,
                })
                .await?;
            }
            retry = if at.elapsed() >= HELD { RETRY } else { retry };
            self.rest(retry, agent.as_ref()).await?;
            retry = (2 * retry).min(LONGEST_RETRY);
        }
    }

    fn agent(&mut self) -> Option<Agent> {
        let agents = self.agents.borrow_and_update();
        agents.iter().find(|agent| agent.node == *self.node).cloned()
    }

    /// Waits, but not for longer than until there is another agent.
    async fn rest(&mut self, patience: Duration, was: Option<&Agent>) -> Result<(), Unheard> {
        let over = sleep(patience);
        tokio::pin!(over);
        loop {
            tokio::select! {
                () = &mut over => return Ok(()),
                () = self.news.closed() => return Err(Unheard),
                changed = self.agents.changed() => {
                    if changed.is_err() {
                        return Err(Unheard);
                    }
                    if self.agent().as_ref() != was {
                        return Ok(());
                    }
                }
            }
        }
    }

    async fn tell(&self, heard: Heard) -> Result<(), Unheard> {
        let news = News {
            node: Arc::clone(&self.node),
            heard,
        };
        self.news.send(news).await.map_err(|_| Unheard)
    }

    /// Hands on what the agent says until it says no more, and why that is.
    async fn listen(
        &self,
        agent: &Agent,
        since: Option<Timestamp>,
        state: &mut State,
    ) -> Result<AgentError, Unheard> {
        let question = Connections {
            since,
            follow: true,
            ..self.question.clone()
        };
        let path = question.path();
        let ask = async {
            // It is never closed.
            let _turn = self.turns.acquire().await;
            lines(&*self.ways, agent, &path, true).await
        };
        let asked = tokio::select! {
            asked = ask => asked,
            () = self.news.closed() => return Err(Unheard),
        };
        let mut answer = match asked {
            Ok(answer) => answer,
            Err(error) => return Ok(error),
        };
        let again = std::mem::take(&mut state.silent).then(|| match &state.answered_by {
            Some(uid) if *uid != agent.uid => Again::Another,
            Some(_) | None => Again::Same,
        });
        state.answered_by = Some(agent.uid.clone());
        state.heard = Some(Timestamp::now());
        self.tell(Heard::Answers { again }).await?;
        loop {
            let next = tokio::select! {
                next = answer.lines.next() => next,
                () = self.news.closed() => return Err(Unheard),
            };
            let text = match next {
                Ok(Some(BodyLine::Whole(text))) => text,
                Ok(Some(BodyLine::TooLong)) => {
                    self.tell(Heard::Malformed(None)).await?;
                    continue;
                }
                Ok(None) => return Ok(AgentError::CutOff),
                Err(error) => return Ok(error),
            };
            state.heard = Some(Timestamp::now());
            match line(&text) {
                Ok(AnswerLine::Connection(connection)) => {
                    if state.seen.is_new(&connection) {
                        self.tell(Heard::Connection(connection, text.len())).await?;
                    }
                }
                Ok(AnswerLine::Alive(time)) => {
                    state.seen.clock(time);
                    self.tell(Heard::Alive(time)).await?;
                }
                Ok(AnswerLine::Gap(lost)) => self.tell(Heard::Gap(lost)).await?,
                Ok(AnswerLine::End(_) | AnswerLine::Other) => {}
                Err(error) => self.tell(Heard::Malformed(Some(error))).await?,
            }
        }
    }
}

/// What is known of a node from one try to the next.
struct State {
    seen: Dedup,
    /// When anything came from it last, by the clock here.
    heard: Option<Timestamp>,
    /// The pod's uid.
    answered_by: Option<String>,
    /// It was said that it does not answer.
    silent: bool,
}

impl State {
    /// Whether it was asked before.
    fn asked(&self) -> bool {
        self.silent || self.answered_by.is_some()
    }
}
