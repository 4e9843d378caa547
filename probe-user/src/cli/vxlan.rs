//! Arguments of `probe vxlan`.

use std::path::PathBuf;

use clap::Args;

use super::{
    Agents, ClusterLooks, Pace, SourceArgs,
    common::{AgentsArgs, RuntimeArgs, SnapshotArgs},
    help,
};
use crate::model::{
    settings::{KernelSource, RuntimeSocket},
    vxlan::Fault,
};

const EXAMPLES: &str = "\
Examples:
  probe vxlan                          live table of the peers, with the findings below
  probe vxlan --once --duration 5s     for scripts: one report after 5 s, exit code 1 on a finding
  probe vxlan --flows                  inner connections too
  probe vxlan -o json --interval 10s   one object every 10 s
  probe vxlan --cluster                the latest snapshot of every node's agent";

const NOTES: &str = "\
    A finding from packets ends 10 s after the last such packet, with --once at the end of the run. Nothing is \
    changed.";

fn help() -> String {
    help::sections(&[EXAMPLES, &help::list::<Fault>("Findings"), NOTES])
}

/// Peers counted at once, where nothing else is said.
const MAX_PEERS: u32 = 4096;

/// Options of a snapshot of this machine; agents have their own configuration.
const SEEN_HERE: [&str; 9] = [
    "device",
    "underlay",
    "max_peers",
    "flows",
    "max_flows",
    "cri",
    "netns",
    "btf",
    "without",
];

/// Check VXLAN devices and their peers, and report each fault with evidence and a fix
///
/// Compares the settings of every VXLAN device (flannel, Calico, any other) with the packets on the wire: counts packets to and
/// from each peer in the kernel, finds drops, and reports faults with their evidence and a fix.
#[derive(Args, Debug)]
#[command(
    after_help = help(),
    mut_arg("cluster", |arg| arg.conflicts_with_all(SEEN_HERE)),
    mut_arg("cri", |arg| arg.requires("flows")),
)]
pub struct VxlanArgs {
    /// Check only this VXLAN device. Default: all
    #[arg(long, value_name = "DEVICE")]
    pub device: Option<String>,

    /// Count packets on this underlay device. Default: the device of the VXLAN settings and routes
    #[arg(long, value_name = "DEVICE")]
    pub underlay: Option<String>,

    #[command(flatten)]
    pub snapshots: SnapshotArgs,

    /// Limit of peers counted at once, per VNI
    #[arg(long, value_name = "N", default_value_t = MAX_PEERS, value_parser = clap::value_parser!(u32).range(16..=262_144))]
    pub max_peers: u32,

    /// Report inner connections too, with the names of this node's pods
    #[arg(long)]
    pub flows: bool,

    /// Limit of inner connections counted at once, per direction
    #[arg(long, value_name = "N", default_value_t = 16_384, requires = "flows",
          value_parser = clap::value_parser!(u32).range(16..=1_048_576))]
    pub max_flows: u32,

    #[command(flatten)]
    pub runtime: RuntimeArgs,

    #[command(flatten)]
    pub source: SourceArgs,

    #[command(flatten)]
    pub agents: AgentsArgs,
}

impl VxlanArgs {
    /// Whom to ask, where it is not this machine.
    pub fn agents(&self) -> Option<Agents> {
        self.agents.agents()
    }

    /// How the agents are asked, where they are.
    pub fn looks(&self) -> Option<Result<ClusterLooks, clap::Error>> {
        self.agents().map(|agents| self.snapshots.looks(agents))
    }
}

/// What `probe vxlan` does.
#[derive(Clone, Debug)]
pub struct Vxlan {
    pub device: Option<String>,
    pub underlay: Option<String>,
    pub pace: Pace,
    pub max_peers: u32,
    pub flows: bool,
    pub max_flows: u32,
    /// The container runtime's socket.
    pub cri: RuntimeSocket,
    pub netns: Option<PathBuf>,
    pub source: KernelSource,
}

impl Vxlan {
    /// For `watch` and `doctor`: findings of the calling thread's network namespace.
    pub fn faults(source: KernelSource) -> Self {
        Self {
            device: None,
            underlay: None,
            pace: Pace::endless(),
            max_peers: MAX_PEERS,
            flows: false,
            max_flows: 0,
            cri: RuntimeSocket::Off,
            netns: None,
            source,
        }
    }
}

impl TryFrom<VxlanArgs> for Vxlan {
    type Error = clap::Error;

    fn try_from(args: VxlanArgs) -> Result<Self, clap::Error> {
        Ok(Self {
            device: args.device,
            underlay: args.underlay,
            pace: args.snapshots.pace()?,
            max_peers: args.max_peers,
            flows: args.flows,
            max_flows: args.max_flows,
            cri: args.runtime.cri.into(),
            netns: args.snapshots.node.netns,
            source: args.source.into(),
        })
    }
}
