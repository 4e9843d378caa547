//! What `probe agent` is made of, and how each part is doing.

crate::names! {
    /// A part: it runs, or does not, whatever the others do.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
    pub enum Part {
        /// Connections.
        Watch = "watch",
        /// VXLAN devices.
        Vxlan = "vxlan",
        /// Packets that slip past conntrack.
        Bypass = "bypass",
        /// Dropped packets, which tell why connections failed.
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
