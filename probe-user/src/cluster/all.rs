//! All agents at once, a few at a time.

use std::sync::Arc;

use tokio::{sync::Semaphore, task::JoinSet};

use super::{Agent, ask::Connect};

/// Agents asked at a time.
const AT_ONCE: usize = 16;

/// Turns to ask an agent.
pub fn turns() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(AT_ONCE))
}

/// Agents that are being asked.
pub struct Asked<T>(JoinSet<(String, T)>);

/// Begins to ask each of `agents`.
pub fn each<C: Connect, T, F>(ways: &Arc<C>, agents: &[Agent], ask: impl Fn(Arc<C>, Agent) -> F) -> Asked<T>
where
    T: Send + 'static,
    F: Future<Output = T> + Send + 'static,
{
    let turns = turns();
    let mut tasks = JoinSet::new();
    for agent in agents {
        let turns = Arc::clone(&turns);
        let node = agent.node.clone();
        let asked = ask(Arc::clone(ways), agent.clone());
        tasks.spawn(async move {
            // It is never closed.
            let _turn = turns.acquire().await;
            (node, asked.await)
        });
    }
    Asked(tasks)
}

impl<T: 'static> Asked<T> {
    /// What each answered, by the name of its node.
    pub async fn by_node(self) -> Vec<(String, T)> {
        let mut answers = self.0.join_all().await;
        answers.sort_by(|(one, _), (other, _)| one.cmp(other));
        answers
    }
}
