//! What `probe agent` is made of, and how each part is doing.

use std::collections::BTreeMap;

use serde::Serialize;

crate::names! {
    /// A part: it runs, or does not, whatever the others do.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
    pub enum Part {
        /// Connections.
        Watch = "watch",
        /// VXLAN devices.
        Vxlan = "vxlan",
        /// Packets that bypass conntrack.
        Bypass = "bypass",
        /// Dropped packets, the evidence for causes of failed connections.
        Drops = "drops",
    }
}

/// How a part is doing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum State {
    /// Switched off by the configuration.
    Off,
    #[default]
    Starts,
    /// Without these, each a sentence.
    Runs { lacks: Vec<String> },
    /// For this reason.
    Failed(String),
}

impl State {
    /// The name in JSON.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Starts => "starts",
            Self::Runs { .. } => "runs",
            Self::Failed(_) => "failed",
        }
    }
}

/// What the agent of a node answers about itself.
#[derive(Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct AgentStatus<'a> {
    /// The name of the node.
    pub node: &'a str,
    /// The version of probe.
    pub version: &'static str,
    /// The kernel's release.
    pub kernel: &'a str,
    /// Each part by its name: `watch`, `vxlan`, `bypass`, `drops`.
    pub parts: BTreeMap<&'static str, PartStatus<'a>>,
}

/// How a part of the agent is doing.
#[derive(Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct PartStatus<'a> {
    /// `off`, `starts`, `runs` or `failed`.
    state: &'static str,
    /// What is missing, if it runs.
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    lacks: &'a [String],
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
}

impl<'a> From<&'a State> for PartStatus<'a> {
    fn from(state: &'a State) -> Self {
        let (lacks, reason) = match state {
            State::Runs { lacks } => (lacks.as_slice(), None),
            State::Failed(reason) => (Default::default(), Some(reason.as_str())),
            State::Off | State::Starts => (Default::default(), None),
        };
        Self {
            state: state.name(),
            lacks,
            reason,
        }
    }
}
