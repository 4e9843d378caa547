//! The latest snapshot of every agent.

use std::sync::Arc;

use super::{
    Agent, AgentError,
    all::each,
    ask::{AgentSnapshot, Connect, look},
};

/// Asks all `agents`; what each said, by node.
pub async fn snapshots<C: Connect>(
    ways: &Arc<C>,
    agents: &[Agent],
    path: &str,
) -> Vec<(String, Result<AgentSnapshot, AgentError>)> {
    let path: Arc<str> = path.into();
    let asked = each(ways, agents, |ways, agent| {
        let path = Arc::clone(&path);
        async move { look(&*ways, &agent, &path).await }
    });
    asked.by_node().await
}
