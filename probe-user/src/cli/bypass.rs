//! Arguments of `probe bypass`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use jiff::SignedDuration;

use super::{
    Agents, ClusterArgs, ClusterLooks, SourceArgs,
    pace::{EVERY, Pace},
};
use crate::{attribution::kube::Access, kernel::object::Source};

const HELP: &str = "\
Examples:
  probe bypass                          a live table of what slips past conntrack, the rules, and what they break
  probe bypass --once --duration 5s     for scripts: looks for 5 s, exit code 1 if anything slips past unintended
  probe bypass -o json --interval 10s   one object each 10 s
  probe bypass --cluster                what the agents on all nodes see, once
  kubectl exec ... -- curl https://SERVICE/   meanwhile: what nobody sends, nobody sees

Findings:
  untracked-request   packets to a Service's address leave untranslated: nobody answers, connections time out
  untracked-reply     packets of a Service's endpoint come back untranslated: the client resets them
  untracked           other packets, which are not translated or masqueraded: pods lose the world outside

A rule is named when all it asks for is met by the packets, no rule before it lets them go, and its counter moved. Rules
that nothing has hit are listed as latent; they are no finding, nor is what NodeLocal DNSCache and Cilium leave untracked.
A finding ends when no packet showed it for 10 s, in a run --once at its end. No rule is changed. Exit codes: 0 no finding
at the end, 1 a finding, a fault, or with --cluster a node that did not answer, 2 usage.";

/// Streams counted at once, where nothing else is said.
const MAX_STREAMS: u32 = 8192;

/// What a look at this machine takes, and agents have in their own configuration.
const SEEN_HERE: [&str; 6] = ["max_streams", "cri", "pod_logs", "netns", "btf", "without"];

/// What slips past conntrack: the traffic, the rule that lets it, the Service it breaks
///
/// Counts in the kernel every packet that passed conntrack untracked (NOTRACK, CT --notrack, nft notrack), names the rule
/// with its counter, and the Service whose requests leave without translation or whose replies come back without it.
#[derive(Args, Debug)]
#[command(visible_alias = "notrack", after_help = HELP, mut_arg("cluster", |arg| arg.conflicts_with_all(SEEN_HERE)))]
pub struct BypassArgs {
    /// Print one table at the end; the exit code is 1 when there is a finding. Takes --duration, default 5s
    #[arg(long)]
    pub once: bool,

    /// End after this time: 10s, 5m, 1h30m
    #[arg(long, value_name = "TIME")]
    pub duration: Option<SignedDuration>,

    /// How often to look. Default: 1s; with --cluster once
    #[arg(long, value_name = "TIME")]
    pub interval: Option<SignedDuration>,

    /// Streams counted at once: a client, a server's port, one way
    #[arg(long, value_name = "N", default_value_t = MAX_STREAMS, value_parser = clap::value_parser!(u32).range(16..=1_048_576))]
    pub max_streams: u32,

    /// The container runtime's socket (CRI), which tells names of pods; `none`: ask none. Default: the first that is there
    #[arg(long, value_name = "SOCKET")]
    pub cri: Option<PathBuf>,

    /// Where the kubelet keeps the pods' logs, whose directories tell pod names
    #[arg(long, value_name = "DIR", default_value = "/var/log/pods")]
    pub pod_logs: PathBuf,

    /// A table, or one JSON object a look
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value_t = BypassFormat::Table)]
    pub output: BypassFormat,

    /// Name of this node in JSON. Default: the host name
    #[arg(long, value_name = "NAME", env = "NODE_NAME")]
    pub node_name: Option<String>,

    /// The node's network namespace. Default: the one probe runs in
    #[arg(long, value_name = "FILE")]
    pub netns: Option<PathBuf>,

    /// Ask the Kubernetes API for the names of Services, with these credentials; on a node, /etc/kubernetes/kubelet.conf
    /// does. `none`: don't ask. Default: not, but in a pod with its service account. With --cluster the cluster's credentials, by
    /// default as kubectl has them
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
    pub cri: Option<PathBuf>,
    pub pod_logs: PathBuf,
    pub netns: Option<PathBuf>,
    /// How Kubernetes is asked.
    pub kube: Option<Access>,
    pub source: Source,
}

impl Bypass {
    /// What the agent and `doctor` look for: faults, in the calling thread's network namespace.
    pub fn faults(source: Source) -> Self {
        Self {
            pace: Pace::endless(),
            max_streams: MAX_STREAMS,
            cri: None,
            pod_logs: PathBuf::from("/var/log/pods"),
            netns: None,
            kube: None,
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
            cri: super::settings::runtime(args.cri),
            pod_logs: args.pod_logs,
            netns: args.netns,
            kube: super::KubeArgs::services(args.kubeconfig),
            source: args.source.into(),
        })
    }
}
