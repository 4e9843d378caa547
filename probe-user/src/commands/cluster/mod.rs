//! `--cluster`: commands that ask the agents of a cluster instead of this machine's kernel.

pub mod doctor;
mod files;
mod progress;
pub mod remembered;
pub mod snapshots;
pub mod watch;

use std::{collections::HashSet, sync::Arc};

use anyhow::Result;
use jiff::{Timestamp, tz::TimeZone};
use kube::Client;

use crate::{
    attribution::kube::{hosts, login},
    cli::Agents as Settings,
    cluster::{Agent, AgentError, Forward, agents, all::AT_ONCE},
    report::say,
};

/// Nodes without an agent that are named.
const NAMED: usize = 100;

/// A cluster, and the way to its agents.
pub struct Cluster {
    client: Client,
    ways: Arc<Forward>,
    settings: Settings,
}

impl Cluster {
    /// # Errors
    /// Credentials that can't be read.
    pub async fn open(settings: Settings) -> Result<Self> {
        let client = login(settings.kubeconfig.as_deref(), settings.context.as_deref()).await?;
        Ok(Self {
            ways: Arc::new(Forward::new(client.clone(), &settings.namespace)),
            client,
            settings,
        })
    }

    /// The agents to ask.
    ///
    /// # Errors
    /// When they can't be listed, there are none, or not on all nodes that were asked for.
    pub async fn agents(&self) -> Result<Vec<Agent>> {
        files::allow(AT_ONCE)?;
        let all = agents::list(&self.client, &self.settings.namespace, false).await?;
        Ok(agents::on(all, &self.settings.nodes, &self.settings.namespace)?)
    }

    /// The current agents, or those of shortly before: they change during a watch.
    ///
    /// # Errors
    /// When they can't be listed.
    pub async fn agents_now(&self) -> Result<Vec<Agent>> {
        let all = agents::list(&self.client, &self.settings.namespace, true).await?;
        Ok(agents::only(all, &self.settings.nodes))
    }

    /// Says which nodes have no agent, or that it is not known.
    pub async fn tell_nodes_without(&self, agents: &[Agent]) {
        if !self.settings.nodes.is_empty() {
            return;
        }
        let hosts = match hosts(&self.client, false).await {
            Ok(hosts) => hosts,
            Err(error) => {
                say(format_args!(
                    "probe: nodes without an agent are not known: {error}"
                ));
                return;
            }
        };
        let with: HashSet<_> = agents.iter().map(|agent| agent.node.as_str()).collect();
        let mut without = hosts.iter().filter(|host| !with.contains(host.name.as_str()));
        for host in without.by_ref().take(NAMED) {
            say(format_args!("probe: node {}: no agent", host.name));
        }
        let more = without.count();
        if more > 0 {
            say(format_args!("probe: {more} more nodes: no agent"));
        }
    }
}

/// Says that a node did not answer a question that is asked once.
fn tell_silent(node: &str, reason: &AgentError) {
    say(format_args!("probe: node {node} did not answer: {reason}"));
}

/// `10:14:03` where the operator is, with the date where that is not today.
fn local(time: Timestamp) -> String {
    let zone = TimeZone::system();
    let (time, now) = (zone.to_datetime(time), zone.to_datetime(Timestamp::now()));
    let format = if time.date() == now.date() {
        "%H:%M:%S"
    } else {
        "%Y-%m-%d %H:%M:%S"
    };
    time.strftime(format).to_string()
}
