//! The stage that finds the owner of a side. It holds what names come from; the other stages that need it are lent it.

use std::{sync::Arc, time::Instant};

use probe_ebpf::contract::connection::{CounterKey, Task};

use crate::{
    attribution::Attribution,
    capture::connection::Side,
    kernel::connection::Tables,
    model::{Connection, Owner, Role},
};

/// A side in, its owner out.
pub struct Owners {
    pub attribution: Attribution,
    /// When this round began.
    round: Instant,
}

impl Owners {
    pub fn new(attribution: Attribution) -> Self {
        Self {
            attribution,
            round: Instant::now(),
        }
    }

    pub fn next_round(&mut self, now: Instant) {
        self.round = now;
    }

    /// The process that has this side; of a server's, where the kernel saw none, the one that listens there.
    pub fn find(&mut self, side: &Side, tables: &Tables) -> Arc<Owner> {
        let netns = side.netns();
        let Some(task) = side.task() else {
            return self
                .attribution
                .listener(netns, side.server())
                .unwrap_or_else(Owner::unknown);
        };
        let owner = self.attribution.owner(task, netns, tables);
        if side.role == Role::Server {
            self.attribution.learned(netns, side.server(), &owner, self.round);
        }
        owner
    }

    /// The owner of the control group of connections that are only counted.
    pub fn of_group(&mut self, key: &CounterKey, tables: &Tables) -> Arc<Owner> {
        let task = Task {
            cgroup: key.cgroup,
            ..bytemuck::Zeroable::zeroed()
        };
        self.attribution.owner(&task, key.netns, tables)
    }

    /// Adds the names that arrived since, and the node of a client that no side here belongs to.
    pub fn complete(&mut self, connection: &mut Connection) {
        self.attribution
            .last_look(&mut connection.owner, connection.netns);
        if connection.role == Role::Server && connection.actor().is_none() {
            connection.peer = self.attribution.node(connection.source.ip());
        }
    }
}
