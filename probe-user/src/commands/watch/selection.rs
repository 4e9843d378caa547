//! The stage that leaves out what was not asked for.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use crate::{
    cli::Watch,
    model::{Connection, Outcome, Owner, Role, selector::Selection, summary::Tally},
};

/// Connections in, those that the filters select out; those whose labels are unknown are counted.
#[derive(Default)]
pub struct Filter {
    unlabelled: u64,
}

impl Filter {
    pub fn has(&mut self, settings: &Watch, connection: &Connection) -> bool {
        self.is_selected(settings.select(connection), 1)
    }

    /// Whether `count` connections of this kind are selected that were only counted.
    pub fn has_counted(
        &mut self,
        settings: &Watch,
        (role, outcome, (client, server)): (Role, Outcome, (IpAddr, SocketAddr)),
        owner: &Arc<Owner>,
        count: u64,
    ) -> bool {
        let peer = match role {
            Role::Client => server.ip(),
            Role::Server => client,
        };
        settings.wants_kind(role, outcome, peer) && self.is_selected(settings.pods.select(owner), count)
    }

    fn is_selected(&mut self, selection: Selection, count: u64) -> bool {
        match selection {
            Selection::Selected => true,
            Selection::NotSelected => false,
            Selection::LabelsUnknown => {
                self.unlabelled += count;
                false
            }
        }
    }

    /// Where labels are asked for.
    pub fn misses(&self, settings: &Watch) -> Option<Tally> {
        settings.pods.selector.as_ref().map(|_| Tally {
            name: "labels",
            what: "connections left out by --selector: their pod's labels are unknown",
            count: self.unlabelled,
        })
    }
}
