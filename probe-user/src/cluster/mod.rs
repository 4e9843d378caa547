//! The agents of a cluster, from outside of it: who they are, how each is asked, and what all of them say in one order.
//!
//! Nothing but the Kubernetes API is needed: its port-forward reaches an agent's questions (docs/cluster.md). What an agent
//! sends is not trusted: every answer is bounded and read into model types, and an agent reports its own node only.

pub mod agents;
pub mod all;
pub mod answer;
pub mod ask;
mod body;
mod channels;
mod dedup;
pub mod doctor;
pub mod fetch;
pub mod follow;
pub mod forward;
pub mod merge;
pub mod question;
pub mod room;
pub mod snapshots;
#[cfg(test)]
mod tests;

pub use self::{agents::Agent, forward::Forward};
use crate::attribution::kube::KubeError;

/// Why the agents of a cluster can't be found.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    #[error(transparent)]
    Kube(#[from] KubeError),
    #[error("no probe agent in namespace {0}: install it there, or set --agent-namespace")]
    NoAgents(String),
    #[error("no agent runs on node {node} (--node); agents run on {others}")]
    NoSuchNode { node: String, others: String },
}

/// Why one agent did not answer.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    #[error("no agent runs there")]
    None,
    #[error("its agent {pod} is not ready: {reason}")]
    NotReady { pod: String, reason: String },
    #[error("no data for {0} s")]
    Silent(u64),
    #[error("port-forward to its agent: {0}")]
    Forward(String),
    #[error("{0}")]
    Http(String),
    #[error("its agent answered {status}: {text}")]
    Refused { status: u16, text: String },
    #[error("its answer is cut off")]
    CutOff,
    #[error("its answer is longer than {0} bytes")]
    TooLong(u64),
    #[error("its answer is not from a probe agent: {0}")]
    Malformed(String),
}
