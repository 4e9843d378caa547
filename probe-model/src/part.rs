//! What `probe agent` is made of, and how each part is doing.

/// A part: it runs, or does not, whatever the others do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Part {
    /// Connections.
    Watch,
    /// VXLAN devices.
    Vxlan,
    /// Packets that slip past conntrack.
    Bypass,
    /// Dropped packets, which tell why connections failed.
    Drops,
}

impl Part {
    pub const ALL: [Self; 4] = [Self::Watch, Self::Vxlan, Self::Bypass, Self::Drops];

    /// The name in metrics, in JSON and for people.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Watch => "watch",
            Self::Vxlan => "vxlan",
            Self::Bypass => "bypass",
            Self::Drops => "drops",
        }
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
