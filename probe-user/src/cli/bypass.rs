//! Arguments of `probe bypass`.

use std::path::PathBuf;

use clap::Args;

use super::{
    Agents, ClusterArgs, ClusterLooks, Pace, SourceArgs,
    common::{PodNameArgs, SnapshotArgs},
    help,
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
    #[command(flatten)]
    pub snapshots: SnapshotArgs,

    /// Limit of streams counted at once: one client, one server port, one direction
    #[arg(long, value_name = "N", default_value_t = MAX_STREAMS, value_parser = clap::value_parser!(u32).range(16..=1_048_576))]
    pub max_streams: u32,

    #[command(flatten)]
    pub names: PodNameArgs,

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
        self.agents().map(|agents| self.snapshots.looks(agents))
    }
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
    /// For the agent and `doctor`: findings of the calling thread's network namespace.
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
            pace: args.snapshots.pace()?,
            max_streams: args.max_streams,
            cri: args.names.runtime.cri.into(),
            pod_logs: args.names.pod_logs,
            netns: args.snapshots.node.netns,
            kube: super::KubeArgs::services(args.kubeconfig),
            source: args.source.into(),
        })
    }
}
