//! The stage that leaves out the connections of other nodes, where nodes share a kernel.

use crate::{
    attribution::{cri::Runtime, node_scope::NodeScope},
    model::Owner,
};

/// Owners in; whether they are of this node. Those of others are counted.
pub struct Scope {
    /// `None`: every connection is reported.
    node: Option<NodeScope>,
    foreign: u64,
}

impl Scope {
    pub fn new(node: Option<NodeScope>) -> Self {
        Self { node, foreign: 0 }
    }

    /// Whether `count` connections of this owner are this node's.
    pub fn has(&mut self, netns: u32, owner: &Owner, runtime: Option<&Runtime>, count: u64) -> bool {
        let has = self
            .node
            .as_mut()
            .is_none_or(|node| node.has(netns, owner, runtime));
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
