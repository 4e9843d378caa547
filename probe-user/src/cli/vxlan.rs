//! Arguments of `probe vxlan`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use jiff::SignedDuration;

use super::{
    Agents, ClusterArgs, ClusterLooks, KubeconfigArgs, SourceArgs,
    pace::{EVERY, Pace},
};
use crate::kernel::object::Source;

const HELP: &str = "\
Examples:
  probe vxlan                          a live table of the peers, and under it what is wrong
  probe vxlan --once --duration 5s     for scripts: looks for 5 s, says what is wrong, exit code 1 if anything is
  probe vxlan --flows                  the inner connections too
  probe vxlan -o json --interval 10s   one object each 10 s
  probe vxlan --cluster                what the agents on all nodes see, once

Faults:
  port-mismatch       a peer sends to another UDP port than the device here listens on
  vni-mismatch        a peer sends another VNI
  filtered            a rule of iptables or nft on this node drops or rejects VXLAN packets: it is named
  refused             a peer answers with an ICMP error
  no-answer           packets leave, nothing comes back, and no reason for it is on this node
  missing-route, missing-neighbour, missing-forwarding
                      an entry for a peer is not there
  dead-vtep           nobody answers for a peer's address on the underlay
  stale-mac           one end has an old link layer address of the other's device
  bad-checksum        packets arrive with a wrong outer checksum
  mtu                 the device's MTU is larger than the way carries
  malformed-header    packets that are not VXLAN arrive on its port
  port-taken          another socket has the device's UDP port
  device-down         the device is not up
  dropped             VXLAN packets are dropped here for another reason

A fault that shows in packets ends when none showed it for 10 s, in a run --once at its end. Exit codes: 0 no fault at
the end, 1 a fault, or with --cluster a node that did not answer, 2 usage.";

/// What a look at this machine takes, and agents have in their own configuration.
const SEEN_HERE: [&str; 8] = [
    "device",
    "underlay",
    "flows",
    "max_flows",
    "cri",
    "netns",
    "btf",
    "without",
];

/// Is the overlay healthy, and if not, why
///
/// Compares what every VXLAN device is set to (flannel, Calico, any other) with what is on the wire: counts packets to and
/// from each peer in the kernel, finds those that are dropped, and names what is wrong, with the evidence and what to do.
#[derive(Args, Debug)]
#[command(after_help = HELP, mut_arg("cluster", |arg| arg.conflicts_with_all(SEEN_HERE)))]
pub struct VxlanArgs {
    /// Only this VXLAN device. Default: all
    #[arg(long, value_name = "DEVICE")]
    pub device: Option<String>,

    /// Count on this device instead of the one that the settings and routes name
    #[arg(long, value_name = "DEVICE")]
    pub underlay: Option<String>,

    /// Print one table at the end; the exit code is 1 when there is a finding. Takes --duration, default 5s
    #[arg(long)]
    pub once: bool,

    /// End after this time: 10s, 5m, 1h30m
    #[arg(long, value_name = "TIME")]
    pub duration: Option<SignedDuration>,

    /// How often to look. Default: 1s; with --cluster once
    #[arg(long, value_name = "TIME")]
    pub interval: Option<SignedDuration>,

    /// Inner connections too, with the names of this node's pods
    #[arg(long)]
    pub flows: bool,

    /// Inner connections counted at once, one each way
    #[arg(long, value_name = "N", default_value_t = 16_384, requires = "flows",
          value_parser = clap::value_parser!(u32).range(16..=1_048_576))]
    pub max_flows: u32,

    /// The container runtime's socket (CRI), which tells names of pods; `none`: ask none. Default: the first that is there
    #[arg(long, value_name = "SOCKET", requires = "flows")]
    pub cri: Option<PathBuf>,

    /// A table, or one JSON object a look
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value_t = VxlanFormat::Table)]
    pub output: VxlanFormat,

    /// Name of this node in JSON. Default: the host name
    #[arg(long, value_name = "NAME", env = "NODE_NAME")]
    pub node_name: Option<String>,

    /// The node's network namespace. Default: the one probe runs in
    #[arg(long, value_name = "FILE")]
    pub netns: Option<PathBuf>,

    #[command(flatten)]
    pub source: SourceArgs,

    #[command(flatten)]
    pub cluster: ClusterArgs,

    #[command(flatten)]
    pub access: KubeconfigArgs,
}

impl VxlanArgs {
    /// Whom to ask, where it is not this machine.
    pub fn agents(&self) -> Option<Agents> {
        self.cluster.agents(self.access.kubeconfig.as_ref())
    }

    /// How the agents are asked, where they are.
    pub fn looks(&self) -> Option<Result<ClusterLooks, clap::Error>> {
        let json = self.output == VxlanFormat::Json;
        let agents = self.agents()?;
        Some(ClusterLooks::of(
            agents,
            json,
            self.once,
            self.interval,
            self.duration,
        ))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum VxlanFormat {
    Table,
    Json,
}

/// What `probe vxlan` does.
#[derive(Clone, Debug)]
pub struct Vxlan {
    pub device: Option<String>,
    pub underlay: Option<String>,
    pub pace: Pace,
    pub flows: bool,
    pub max_flows: u32,
    /// The container runtime's socket.
    pub cri: Option<PathBuf>,
    pub netns: Option<PathBuf>,
    pub source: Source,
}

impl Vxlan {
    /// What `watch` and `doctor` look for: faults, in the calling thread's network namespace.
    pub fn faults(source: Source) -> Self {
        Self {
            device: None,
            underlay: None,
            pace: Pace::endless(),
            flows: false,
            max_flows: 0,
            cri: None,
            netns: None,
            source,
        }
    }
}

impl TryFrom<VxlanArgs> for Vxlan {
    type Error = clap::Error;

    fn try_from(args: VxlanArgs) -> Result<Self, clap::Error> {
        let pace = Pace::of(
            args.once,
            args.duration,
            args.interval.unwrap_or(EVERY),
            args.output == VxlanFormat::Json,
            args.node_name,
        )?;
        Ok(Self {
            device: args.device,
            underlay: args.underlay,
            pace,
            flows: args.flows,
            max_flows: args.max_flows,
            cri: super::settings::runtime(args.cri),
            netns: args.netns,
            source: args.source.into(),
        })
    }
}
