//! Arguments of `probe bypass`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use jiff::SignedDuration;

use super::{
    Agents, ClusterArgs, ClusterLooks, SourceArgs, help,
    pace::{EVERY, Pace},
};
use crate::model::{
    bypass::finding::Fault,
    settings::{KernelSource, KubernetesSettings, RuntimeSocket},
};

const EXAMPLES: &str = "\
Examples:
  probe bypass                          live table of untracked traffic, the rules and the findings
  probe bypass --once --duration 5s     for scripts: one report after 5 s, exit code 1 on a finding
  probe bypass -o json --interval 10s   one object every 10 s
  probe bypass --cluster                the latest snapshot of every node's agent
  kubectl exec ... -- curl https://SERVICE/   meanwhile: a finding needs traffic";

const NOTES: &str = "\
    A rule is named if the packets match all of it, no earlier rule accepts them, and its counter moved. Rules \
    without hits are listed as latent; they are not findings, nor is the untracked traffic of NodeLocal DNSCache and \
    Cilium. A finding ends 10 s after the last such packet, with --once at the end of the run. No rule is changed.";

fn help() -> String {
    help::sections(&[EXAMPLES, &help::list::<Fault>("Findings"), NOTES])
}

/// Streams counted at once, where nothing else is said.
const MAX_STREAMS: u32 = 8192;

/// Options of a snapshot of this machine; agents have their own configuration.
const SEEN_HERE: [&str; 6] = ["max_streams", "cri", "pod_logs", "netns", "btf", "without"];

/// Find traffic that bypasses conntrack (NOTRACK), the rule responsible and the Services it breaks
///
/// Counts every untracked packet in the kernel (NOTRACK, CT --notrack, nft notrack). Reports the rule with its counter, and the
/// Services with requests or replies that skip NAT.
#[derive(Args, Debug)]
#[command(visible_alias = "notrack", after_help = help(), mut_arg("cluster", |arg| arg.conflicts_with_all(SEEN_HERE)))]
pub struct BypassArgs {
    /// Print one report after --duration (default 5s) and stop
    #[arg(long)]
    pub once: bool,

    /// Stop after this time: 10s, 5m, 1h30m
    #[arg(long, value_name = "TIME")]
    pub duration: Option<SignedDuration>,

    /// Interval between snapshots. Default: 1s; with --cluster one snapshot
    #[arg(long, value_name = "TIME")]
    pub interval: Option<SignedDuration>,

    /// Limit of streams counted at once: one client, one server port, one direction
    #[arg(long, value_name = "N", default_value_t = MAX_STREAMS, value_parser = clap::value_parser!(u32).range(16..=1_048_576))]
    pub max_streams: u32,

    /// Socket of the container runtime (CRI), the source of pod names; `none` disables it. Default: the first existing one
    #[arg(long, value_name = "SOCKET")]
    pub cri: Option<PathBuf>,

    /// Directory of the kubelet's pod logs, a source of pod names
    #[arg(long, value_name = "DIR", default_value = "/var/log/pods")]
    pub pod_logs: PathBuf,

    /// Output format: a table, or one JSON object a snapshot
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value_t = BypassFormat::Table)]
    pub output: BypassFormat,

    /// Name of this node in JSON. Default: the host name
    #[arg(long, value_name = "NAME", env = "NODE_NAME")]
    pub node_name: Option<String>,

    /// Network namespace of the node. Default: the current one
    #[arg(long, value_name = "FILE")]
    pub netns: Option<PathBuf>,

    /// Kubeconfig for the Kubernetes API, the source of Service names; on a node use /etc/kubernetes/kubelet.conf; `none`
    /// disables it. Default: the service account in a pod, else none. With --cluster: the cluster's credentials, by default as
    /// kubectl finds them
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,

    #[command(flatten)]
    pub source: SourceArgs,

    #[command(flatten)]
    pub cluster: ClusterArgs,
}

impl BypassArgs {
    /// Whom to ask, where it is not this machine.
    pub fn agents(&self) -> Option<Agents> {
        self.cluster.agents(self.kubeconfig.as_ref())
    }

    /// How the agents are asked, where they are.
    pub fn looks(&self) -> Option<Result<ClusterLooks, clap::Error>> {
        let json = self.output == BypassFormat::Json;
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
pub enum BypassFormat {
    Table,
    Json,
}

/// What `probe bypass` does.
#[derive(Clone, Debug)]
pub struct Bypass {
    pub pace: Pace,
    pub max_streams: u32,
    /// The container runtime's socket.
    pub cri: RuntimeSocket,
    pub pod_logs: PathBuf,
    pub netns: Option<PathBuf>,
    /// How Kubernetes is asked.
    pub kube: KubernetesSettings,
    pub source: KernelSource,
}

impl Bypass {
    /// What the agent and `doctor` look for: faults, in the calling thread's network namespace.
    pub fn faults(source: KernelSource) -> Self {
        Self {
            pace: Pace::endless(),
            max_streams: MAX_STREAMS,
            cri: RuntimeSocket::Off,
            pod_logs: PathBuf::from("/var/log/pods"),
            netns: None,
            kube: KubernetesSettings::default(),
            source,
        }
    }
}

impl TryFrom<BypassArgs> for Bypass {
    type Error = clap::Error;

    fn try_from(args: BypassArgs) -> Result<Self, clap::Error> {
        Ok(Self {
            pace: Pace::of(
                args.once,
                args.duration,
                args.interval.unwrap_or(EVERY),
                args.output == BypassFormat::Json,
                args.node_name,
            )?,
            max_streams: args.max_streams,
            cri: args.cri.into(),
            pod_logs: args.pod_logs,
            netns: args.netns,
            kube: super::KubeArgs::services(args.kubeconfig),
            source: args.source.into(),
        })
    }
}
