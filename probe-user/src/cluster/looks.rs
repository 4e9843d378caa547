//! The latest look of every agent.

use std::sync::Arc;

use tokio::{sync::Semaphore, task::JoinSet};

use super::{
    Agent, AgentError,
    ask::{Connect, Look, look},
    fetch::AT_ONCE,
};

/// Asks all `agents`; what each said, by node.
pub async fn looks<C: Connect>(
    ways: &Arc<C>,
    agents: &[Agent],
    path: &str,
) -> Vec<(String, Result<Look, AgentError>)> {
    let turns = Arc::new(Semaphore::new(AT_ONCE));
    let mut tasks = JoinSet::new();
    for agent in agents {
        let (ways, turns) = (Arc::clone(ways), Arc::clone(&turns));
        let (agent, path) = (agent.clone(), path.to_owned());
        tasks.spawn(async move {
            // It is never closed.
            let _turn = turns.acquire().await;
            let look = look(&*ways, &agent, &path).await;
            (agent.node, look)
        });
    }
    let mut looks = tasks.join_all().await;
    looks.sort_by(|(a, _), (b, _)| a.cmp(b));
    looks
}
