//! Raw arguments → validated settings. What clap can't say about one argument alone is said in [`settings`].

mod agent;
mod bypass;
mod cluster;
mod common;
mod doctor;
mod generated;
mod help;
#[cfg(test)]
mod list_tests;
mod pace;
mod path;
mod recordings;
mod settings;
mod vxlan;

use std::path::PathBuf;

use bytesize::ByteSize;
use clap::{Args, Parser, Subcommand, ValueEnum, builder::Resettable};
use probe_ebpf::contract::connection::StormLimit;

pub use agent::{Agent, AgentArgs, ConfigError, Log, Task as AgentTask};
pub use bypass::{Bypass, BypassArgs};
pub use cluster::{Agents, ClusterArgs, ClusterLooks, KubeconfigArgs};
pub use doctor::{Doctor, DoctorArgs};
pub use generated::{CompletionsArgs, ManArgs, SchemaArgs};
pub use pace::Pace;
pub use path::{Path, PathArgs, PathTarget, Protocol};
pub use recordings::{EtcdLog, EtcdLogArgs, Who, WhoArgs};
pub use settings::{Stored, Watch, rate_of};
pub use vxlan::{Vxlan, VxlanArgs};

use self::common::{
    DurationArgs, PodNameArgs, RingArgs, count, format, max_rate, message_level, named, percent, port, role,
    table_or_json,
};
use crate::{
    model::{
        Outcome, Role,
        selector::{PodName, Selector},
        settings::{KernelSource, KubernetesSettings, MessageLevel, VMLINUX},
    },
    report::Format,
};

/// The options that every command has, below its own.
const GLOBAL: &str = "Global options";

/// The version with commit and target.
const LONG_VERSION: &str = concat!(
    env!("CARGO_PKG_VERSION"),
    "\ncommit: ",
    env!("PROBE_COMMIT"),
    "\ntarget: ",
    env!("PROBE_TARGET")
);

/// Trace the connections of a Kubernetes node: owner, outcome, and cause in the packet path
#[derive(Debug, Parser)]
#[command(name = "probe", version, long_version = LONG_VERSION, after_help = help::sections(&[]), max_term_width = 100)]
pub struct Cli {
    /// Color the output: only on a terminal, always, or never. NO_COLOR in the environment turns `auto` into `never`
    #[arg(long, global = true, value_enum, value_name = "WHEN", default_value_t = ColorArg::Auto, hide_short_help = true,
          help_heading = GLOBAL)]
    pub color: ColorArg,

    /// Print messages of the kernel programs to stderr, at most 100 a second: `debug` prints rare events (a table is full, a
    /// record is lost), `trace` every connection too. No effect without kernel programs, as with --cluster
    #[arg(long, global = true, value_name = "LEVEL", value_parser = message_level(), hide_short_help = true,
          help_heading = GLOBAL)]
    pub kernel_log: Option<MessageLevel>,

    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    Watch(Box<WatchArgs>),
    Vxlan(VxlanArgs),
    Bypass(BypassArgs),
    Path(PathArgs),
    Who(WhoArgs),
    EtcdLog(EtcdLogArgs),
    Doctor(DoctorArgs),
    Check(CheckArgs),
    Agent(AgentArgs),
    Schema(SchemaArgs),
    Completions(CompletionsArgs),
    Man(ManArgs),
}

/// When output has colors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ColorArg {
    Auto,
    Always,
    Never,
}

impl From<ColorArg> for anstream::ColorChoice {
    fn from(color: ColorArg) -> Self {
        match color {
            ColorArg::Auto => Self::Auto,
            ColorArg::Always => Self::Always,
            ColorArg::Never => Self::Never,
        }
    }
}

/// Check which hooks and programs this kernel supports
///
/// Loads, attaches and removes every program. Reports the hooks in use, those that the kernel refuses and why, and the data
/// missing without them. The last lines list the commands as running fully, degraded, or not at all; the exit code is 1 if one
/// can't run.
#[derive(Args, Debug)]
#[command(after_help = help::sections(&[]))]
pub struct CheckArgs {
    /// Output format: a text, or one JSON object
    #[arg(short, long, value_name = "FORMAT", default_value = Format::Table.name(), value_parser = table_or_json())]
    pub output: Format,

    #[command(flatten)]
    pub source: SourceArgs,
}

/// What `probe check` does.
#[derive(Clone, Debug)]
pub struct Check {
    pub json: bool,
    pub source: KernelSource,
}

impl From<CheckArgs> for Check {
    fn from(args: CheckArgs) -> Self {
        Self {
            json: args.output == Format::Json,
            source: args.source.into(),
        }
    }
}

const WATCH_EXAMPLES: &str = "\
Examples:
  probe watch --port 2379                       clients of etcd, and the outcome of each connection
  probe watch --port 2379 --outcome half-open   only connections without payload
  probe watch --port 443 --role client --all    every connection from this node to port 443
  probe watch --port 443 --outcome unanswered,refused   failed connections with their causes
  probe watch --pod shop/web -l 'app=web,!canary'   connections of selected pods
  probe watch --port 6443 -o json --duration 1m >connections.jsonl
  probe watch --port 443,6443 --all --tls       server names, TLS versions and alerts
  probe watch --port 2379 --cluster             all nodes, by the agents in the cluster";

const WATCH_NOTES: &str = "\
    A failed connection (refused, unanswered, unreachable, reset-by-client, timed-out) is followed by its cause if \
    this node shows one: a rule that drops it or exempts it from conntrack, a Service without endpoints, a silent \
    VXLAN peer. The node's rules and Services are read when a connection fails; nothing is changed. --no-explain \
    turns this off.\n\n\
    SOURCE is always the client. With client and server on one node each connection is reported twice, once per \
    role. `? → etcd` is a client on another node: run probe there, or use --cluster.";

fn watch_help() -> String {
    let outcomes = help::list::<Outcome>("Outcomes");
    help::sections(&[WATCH_EXAMPLES, &outcomes, WATCH_NOTES])
}

/// Options of a watch on this machine. Agents have their own configuration, and do not report labels.
const WATCHED_HERE: [&str; 14] = [
    "selector",
    "ring_size",
    "max_connections",
    "max_rate",
    "max_cpu",
    "pod_logs",
    "netns",
    "no_explain",
    "tls",
    "cri",
    "kubelet",
    "kubelet_insecure_tls",
    "btf",
    "without",
];

/// Report connections: owner, outcome, and cause of failure
///
/// Follows TCP connections in the kernel from SYN to close and names the process, container and pod behind each. Healthy
/// outcomes (`closed`, `open`) are left out without --all or --outcome. Ctrl-C ends with a summary.
#[derive(Args, Debug)]
#[command(
    after_help = watch_help(),
    mut_arg("cluster", |arg| arg.conflicts_with_all(WATCHED_HERE)),
    // Without --cluster it is the former name of --node-name.
    mut_arg("nodes", |arg| arg.requires(Resettable::Reset)),
)]
pub struct WatchArgs {
    /// Watch this server port; repeat or separate by commas, up to 64. Default: every port
    #[arg(short, long = "port", value_name = "PORT", value_delimiter = ',',
          value_parser = port)]
    pub ports: Vec<u16>,

    /// Report one side only: `client` opened the connection, `server` accepted it. Default: both
    #[arg(long, value_name = "ROLE", value_parser = role())]
    pub role: Option<Role>,

    /// Report only this outcome (listed below); repeat or separate by commas
    #[arg(long = "outcome", value_name = "OUTCOME", value_delimiter = ',', value_parser = named::<Outcome>(),
          hide_possible_values = true)]
    pub outcomes: Vec<Outcome>,

    /// Report only connections with a peer in this prefix (10.244.0.0/16) or at this address; repeat or separate by commas
    #[arg(long = "peer", value_name = "PREFIX", value_delimiter = ',', value_parser = prefix)]
    pub peers: Vec<ipnet::IpNet>,

    /// Report only connections of this pod: NAME or NAMESPACE/NAME; a prefix of the name is enough
    #[arg(long, value_name = "POD", value_parser = clap::value_parser!(PodName))]
    pub pod: Option<PodName>,

    /// Report only connections of pods in this namespace
    #[arg(short, long, value_name = "NAMESPACE")]
    pub namespace: Option<String>,

    /// Report only connections of pods with these labels, as kubectl reads them: app=web, app!=web, app, !app, 'app in (a,b)',
    /// 'app notin (a,b)'; several separated by commas must all match. The summary counts connections left out because labels are
    /// unknown. Labels come from the container runtime (--cri), --kubelet or --kubeconfig. Not with --cluster
    #[arg(short = 'l', long, value_name = "SELECTOR", value_parser = clap::value_parser!(Selector))]
    pub selector: Option<Selector>,

    /// Report healthy connections too: `closed`, and `open` at the end
    #[arg(long, conflicts_with = "outcomes")]
    pub all: bool,

    /// Output format: a table that fits the terminal, one line with every field, or one JSON object a line
    #[arg(short, long, value_name = "FORMAT", default_value = Format::Table.name(), value_parser = format())]
    pub output: Format,

    #[command(flatten)]
    pub duration: DurationArgs,

    /// Stop after N connections
    #[arg(long, value_name = "N", value_parser = count)]
    pub count: Option<u64>,

    #[command(flatten)]
    pub ring: RingArgs,

    /// Limit of connections followed at once. Default: 8192 with --port, 65536 without
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(16..=4_194_304))]
    pub max_connections: Option<u32>,

    /// Limit of connections listed per second. Of those beyond it the first 12 of each source are listed, as many again at most, and the
    /// others counted by source. `none`: no limit
    #[arg(long, value_name = "N", default_value = "20000", value_parser = max_rate)]
    pub max_rate: StormLimit,

    /// Limit of the CPU time that probe itself uses, in percent of a core, such as 5%. Where more is needed, fewer connections are
    /// listed, at least 2000 per second, and the others counted as with --max-rate; a line says so. Default: no limit
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    pub max_cpu: Option<f64>,

    /// Record every connection to the watched ports, also those that are not shown, for `probe who` and `probe etcd-log`: JSON,
    /// the older half in FILE.1. Only --port and --peer limit it
    #[arg(long, value_name = "FILE")]
    pub record: Option<PathBuf>,

    /// Limit of the recording's size, both files together
    #[arg(long, value_name = "BYTES", default_value = "100MB", requires = "record")]
    pub record_size: ByteSize,

    /// Name of this node in JSON and recordings. Default: the host name
    #[arg(long, value_name = "NAME", env = "NODE_NAME")]
    pub node_name: Option<String>,

    /// Network namespace of the node, in which conntrack translates the pods' addresses. Default: the current one
    #[arg(long, value_name = "FILE")]
    pub netns: Option<PathBuf>,

    /// Show passwords, tokens and keys on command lines, which are `***` otherwise. Recordings have them then, too
    #[arg(long)]
    pub show_secrets: bool,

    /// Skip the search for causes of failed connections: no hooks for dropped, untracked and VXLAN packets, no rules read
    #[arg(long)]
    pub no_explain: bool,

    /// Read the first messages of each connection and report server name (SNI), TLS version, ALPN and plaintext alerts. Also
    /// reports a ClientHello that is incomplete or has no server name, and protocols other than TLS. A failed handshake is
    /// mostly `closed`: add --all to see it
    #[arg(long)]
    pub tls: bool,

    #[command(flatten)]
    pub names: PodNameArgs,

    #[command(flatten)]
    pub kube: KubeArgs,

    #[command(flatten)]
    pub source: SourceArgs,

    #[command(flatten)]
    pub cluster: ClusterArgs,
}

impl WatchArgs {
    /// Whom to ask, where it is not this machine.
    pub fn agents(&self) -> Option<Agents> {
        self.cluster.agents(self.kube.kubeconfig.as_ref())
    }

    /// The name of this node by the former name of its option, `--node`, which selects nodes of a cluster.
    pub fn former_node_name(&self) -> Option<&String> {
        self.cluster.nodes.first().filter(|_| !self.cluster.cluster)
    }
}

/// What is asked of Kubernetes.
#[derive(Args, Clone, Debug)]
pub struct KubeArgs {
    /// Kubeconfig for the Kubernetes API, the source of workload names (Deployment, CronJob, ...) and other nodes' names; on a
    /// node use /etc/kubernetes/kubelet.conf; `none` disables it. Default: the service account in a pod, else none. With
    /// --cluster: the cluster's credentials, by default as kubectl finds them
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,

    /// Read this node's pods from the kubelet instead of the API: https://127.0.0.1:10250, or http://127.0.0.1:10255
    #[arg(long, value_name = "URL")]
    pub kubelet: Option<http::Uri>,

    /// Skip verification of the kubelet's certificate, which is mostly self-signed
    #[arg(long, requires = "kubelet", hide_short_help = true)]
    pub kubelet_insecure_tls: bool,
}

impl KubeArgs {
    /// The API alone, for what is of no node.
    fn services(kubeconfig: Option<PathBuf>) -> KubernetesSettings {
        KubernetesSettings {
            kubeconfig: kubeconfig.into(),
            ..KubernetesSettings::default()
        }
    }
}

impl From<KubeArgs> for KubernetesSettings {
    fn from(args: KubeArgs) -> Self {
        Self {
            kubeconfig: args.kubeconfig.into(),
            kubelet: args.kubelet.map(|url| url.to_string()),
            kubelet_insecure_tls: args.kubelet_insecure_tls,
        }
    }
}

/// What is taken of the kernel.
#[derive(Args, Clone, Debug)]
pub struct SourceArgs {
    /// File with the running kernel's type information (BTF), for kernels that do not export it
    #[arg(long, value_name = "FILE", default_value = VMLINUX)]
    pub btf: PathBuf,

    /// Leave out this tracepoint, function or netfilter hook, as on a kernel without it; repeat or separate by commas
    #[arg(
        long,
        value_name = "TRACEPOINT",
        value_delimiter = ',',
        hide_short_help = true
    )]
    pub without: Vec<String>,
}

impl From<SourceArgs> for KernelSource {
    fn from(args: SourceArgs) -> Self {
        Self {
            btf: args.btf,
            without: args.without,
        }
    }
}

/// A prefix, or an address as a prefix of its own.
fn prefix(text: &str) -> Result<ipnet::IpNet, String> {
    text.parse::<ipnet::IpNet>()
        .or_else(|_| text.parse::<std::net::IpAddr>().map(ipnet::IpNet::from))
        .map_err(|_| "neither an address nor a prefix such as 10.244.0.0/16 or fd00::/8".to_owned())
}
