//! All agents, a few at a time.

use std::{panic, pin::Pin, slice, sync::Arc};

use tokio::{sync::Semaphore, task::JoinSet};

use super::Agent;

/// Agents asked at a time.
pub const AT_ONCE: usize = 16;

/// Turns to ask an agent.
pub fn turns() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(AT_ONCE))
}

type Answering<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Agents that are being asked. One more is asked when an answer is taken, so that no more than [`AT_ONCE`] answers are held.
pub struct Asked<'a, T> {
    agents: slice::Iter<'a, Agent>,
    ask: Box<dyn Fn(Agent) -> Answering<T> + Send + 'a>,
    asked: JoinSet<(String, T)>,
}

/// Asks each of `agents`, the first when the first answer is waited for.
pub fn each<'a, T, F>(agents: &'a [Agent], ask: impl Fn(Agent) -> F + Send + 'a) -> Asked<'a, T>
where
    T: Send + 'static,
    F: Future<Output = T> + Send + 'static,
{
    Asked {
        agents: agents.iter(),
        ask: Box::new(move |agent| Box::pin(ask(agent))),
        asked: JoinSet::new(),
    }
}

impl<T: Send + 'static> Asked<'_, T> {
    /// The next answer that comes, with the name of its node; `None` when all have answered. Nothing is lost if it is not
    /// waited for to the end.
    pub async fn next(&mut self) -> Option<(String, T)> {
        while self.asked.len() < AT_ONCE
            && let Some(agent) = self.agents.next()
        {
            let node = agent.node.clone();
            let answering = (self.ask)(agent.clone());
            self.asked.spawn(async move { (node, answering.await) });
        }
        match self.asked.join_next().await? {
            Ok(answered) => Some(answered),
            // None is aborted: a panic of one is a panic here.
            Err(error) => panic::resume_unwind(error.into_panic()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test]
    async fn answers_are_taken_as_they_come_and_few_are_held() {
        let agents: Vec<_> = (0..50)
            .map(|number: u16| Agent {
                node: format!("node-{number:02}"),
                pod: String::new(),
                uid: String::new(),
                address: None,
                port: number,
                not_ready: None,
            })
            .collect();
        let begun = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&begun);
        let mut asked = each(&agents, move |agent| {
            counted.fetch_add(1, Ordering::Relaxed);
            async move {
                // The first never answers before the others.
                let wait = if agent.port == 0 { 500 } else { 1 };
                tokio::time::sleep(std::time::Duration::from_millis(wait)).await;
                agent.port
            }
        });
        assert_eq!(begun.load(Ordering::Relaxed), 0);
        let mut nodes = Vec::new();
        while let Some((node, port)) = asked.next().await {
            assert_eq!(node, format!("node-{port:02}"));
            nodes.push(port);
            assert!(begun.load(Ordering::Relaxed) < nodes.len() + AT_ONCE);
        }
        assert_eq!(nodes.len(), 50);
        assert_eq!(nodes.last(), Some(&0));
    }
}
