//! All agents at once, a few at a time.

use std::sync::Arc;

use tokio::{sync::Semaphore, task::JoinSet};

use super::{Agent, ask::Connect};

/// Agents asked at a time.
pub const AT_ONCE: usize = 16;

/// Begins to ask each of `agents`.
pub fn each<C: Connect, T, F>(ways: &Arc<C>, agents: &[Agent], ask: impl Fn(Arc<C>, Agent) -> F) -> JoinSet<T>
where
    T: Send + 'static,
    F: Future<Output = T> + Send + 'static,
{
    let turns = Arc::new(Semaphore::new(AT_ONCE));
    let mut tasks = JoinSet::new();
    for agent in agents {
        let turns = Arc::clone(&turns);
        let asked = ask(Arc::clone(ways), agent.clone());
        tasks.spawn(async move {
            // It is never closed.
            let _turn = turns.acquire().await;
            asked.await
        });
    }
    tasks
}
