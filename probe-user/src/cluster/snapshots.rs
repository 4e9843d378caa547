//! The latest snapshot of every agent.

use std::sync::Arc;

use super::{
    Agent, AgentError,
    all::{Asked, each},
    ask::{AgentSnapshot, Connect, look},
    room::Room,
};

/// Asks all `agents`; what each said, as it comes.
pub fn snapshots<'a, C: Connect>(
    ways: &Arc<C>,
    agents: &'a [Agent],
    path: &str,
) -> Asked<'a, Result<AgentSnapshot, AgentError>> {
    let (ways, room) = (Arc::clone(ways), Arc::new(Room::default()));
    let path: Arc<str> = path.into();
    each(agents, move |agent| {
        let (ways, room, path) = (Arc::clone(&ways), Arc::clone(&room), Arc::clone(&path));
        async move { look(&*ways, &agent, &path, &room).await }
    })
}
