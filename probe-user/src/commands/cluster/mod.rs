//! `--cluster`: commands that ask the agents of a cluster instead of this machine's kernel.

pub mod doctor;
pub mod remembered;
pub mod snapshots;
pub mod watch;

use std::sync::Arc;

use anyhow::Result;
use jiff::{Timestamp, tz::TimeZone};
use kube::Client;

use crate::{
    attribution::kube::login,
    cli::Agents as Settings,
    cluster::{
        Agent, AgentError, Forward,
        agents::{self, Host},
    },
    report::say,
};

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
        let all = agents::list(&self.client, &self.settings.namespace).await?;
        Ok(agents::on(all, &self.settings.nodes, &self.settings.namespace)?)
    }

    /// The current agents: they change during a watch.
    ///
    /// # Errors
    /// When they can't be listed.
    pub async fn agents_now(&self) -> Result<Vec<Agent>> {
        let all = agents::list(&self.client, &self.settings.namespace).await?;
        Ok(agents::only(all, &self.settings.nodes))
    }

    /// Says which nodes have no agent, where the user may list nodes.
    pub async fn tell_nodes_without(&self, agents: &[Agent]) {
        if !self.settings.nodes.is_empty() {
            return;
        }
        let hosts = agents::hosts(&self.client).await.unwrap_or_default();
        let has = |host: &&Host| !agents.iter().any(|agent| agent.node == host.name);
        for host in hosts.iter().filter(has) {
            say(format_args!("probe: node {}: no agent", host.name));
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
