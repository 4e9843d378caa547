//! Which connections are this node's, where nodes share a kernel.

use crate::{
    attribution::{Attribution, node_scope::NodeScope},
    model::Owner,
};

/// Leaves out the connections of other nodes, and counts them.
pub struct Scope {
    /// `None`: every connection is reported.
    home: Option<NodeScope>,
    foreign: u64,
}

impl Scope {
    pub fn new(home: Option<NodeScope>) -> Self {
        Self { home, foreign: 0 }
    }

    /// Whether `count` connections of this owner are this node's.
    pub fn has(&mut self, netns: u32, owner: &Owner, attribution: &Attribution, count: u64) -> bool {
        let runtime = attribution.runtime();
        let has = self
            .home
            .as_mut()
            .is_none_or(|home| home.has(netns, owner, runtime));
        if !has {
            self.foreign += count;
        }
        has
    }

    /// Connections of other nodes.
    pub fn foreign(&self) -> u64 {
        self.foreign
    }
}
