//! Raw arguments → validated settings. What clap can't say about one argument alone is said in [`settings`].

mod agent;
mod bypass;
mod cluster;
mod doctor;
mod generated;
mod pace;
mod path;
mod recordings;
mod settings;
mod vxlan;

use std::path::PathBuf;

use bytesize::ByteSize;
use clap::{
    Args, Parser, Subcommand, ValueEnum,
    builder::{PossibleValue, PossibleValuesParser, Resettable, TypedValueParser},
};
use jiff::SignedDuration;

pub use agent::{Agent, AgentArgs, ConfigError, Log, Task as AgentTask};
pub use bypass::{Bypass, BypassArgs};
pub use cluster::{Agents, ClusterArgs, ClusterLooks, KubeconfigArgs};
pub use doctor::{Doctor, DoctorArgs};
pub use generated::{CompletionsArgs, ManArgs};
pub use pace::Pace;
pub use path::{End, Path, PathArgs, Protocol};
pub use recordings::{EtcdLog, EtcdLogArgs, Who, WhoArgs};
pub use settings::Watch;
pub use vxlan::{Vxlan, VxlanArgs};

use crate::{
    attribution::kube::{Access, Credentials},
    kernel::{btf::VMLINUX, messages::Level, object::Source},
    model::{
        Outcome, Role,
        selector::{PodName, Selector},
    },
    report::Format,
};

const AFTER_HELP: &str = "Exit codes: 0 fine, 1 a fault, 2 usage.";

/// The version with what tells two builds of it apart.
const LONG_VERSION: &str = concat!(
    env!("CARGO_PKG_VERSION"),
    "\ncommit: ",
    env!("PROBE_COMMIT"),
    "\ntarget: ",
    env!("PROBE_TARGET")
);

/// Who opened this connection, what became of it, and what in the packet path is to blame?
#[derive(Debug, Parser)]
#[command(name = "probe", version, long_version = LONG_VERSION, after_help = AFTER_HELP, max_term_width = 100)]
pub struct Cli {
    /// Color the output: only on a terminal, always, or never. NO_COLOR in the environment turns `auto` into `never`
    #[arg(long, global = true, value_enum, value_name = "WHEN", default_value_t = ColorArg::Auto, hide_short_help = true)]
    pub color: ColorArg,

    /// Print messages of the kernel programs to stderr, at most 100 a second: `debug` what is rare (a table is full, a
    /// record is lost), `trace` every connection too. No effect where no kernel program is loaded, as with --cluster
    #[arg(long, global = true, value_enum, value_name = "LEVEL", hide_short_help = true)]
    pub kernel_log: Option<KernelLogArg>,

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

const CHECK_HELP: &str = "\
Exit codes: 0 every command runs, be it degraded; 1 one can't run; 2 usage.";

/// What this kernel can do for probe: every hook and program tried for real
///
/// Loads and attaches every program and takes it away again, says what is used, what this kernel refuses and why, and
/// what is lost then. The last lines say which commands run fully, degraded, or not at all.
#[derive(Args, Debug)]
#[command(after_help = CHECK_HELP)]
pub struct CheckArgs {
    /// A text for people, or one JSON object
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value_t = CheckFormat::Table)]
    pub output: CheckFormat,

    #[command(flatten)]
    pub source: SourceArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum CheckFormat {
    Table,
    Json,
}

/// What `probe check` does.
#[derive(Clone, Debug)]
pub struct Check {
    pub json: bool,
    pub source: Source,
}

impl From<CheckArgs> for Check {
    fn from(args: CheckArgs) -> Self {
        Self {
            json: args.output == CheckFormat::Json,
            source: args.source.into(),
        }
    }
}

const WATCH_EXAMPLES: &str = "\
Examples:
  probe watch --port 2379                       who connects to etcd, and what becomes of it
  probe watch --port 2379 --outcome half-open   only those that send nothing
  probe watch --port 443 --role client --all    every connection that this node opens to port 443
  probe watch --port 443 --outcome unanswered,refused,timed-out   what fails, and why, where that was seen
  probe watch --port 6443 -o json --duration 1m >connections.jsonl
  probe watch --port 443,6443 --all --tls       server names, TLS versions and alerts; who speaks no TLS there
  probe watch --port 2379 --cluster             on all nodes, from anywhere: probe's agents are there

Outcomes:
  half-open         established, closed by the client with FIN, no payload either way
  half-open-reset   the same, ended by the client with RST
  syn-only          server side: SYN answered, handshake never finished
  refused           RST in answer to SYN
  unanswered        no answer to SYN: timed out, or given up by the client
  unreachable       ICMP error in answer to SYN, or the SYN could not be sent
  no-reply          the client sent payload, the server none, then it closed
  reset-by-client   RST by the client after payload
  reset-by-server   RST by the server, established
  timed-out         established, then retransmissions ran out
  closed            an orderly end that is none of the above
  open              still open when probe ends

A failed connection (refused, unanswered, unreachable, reset-by-client, timed-out) has its cause under it where something on this
node shows it: a rule that exempts it from conntrack or drops it, a Service without endpoints, a VXLAN peer that is silent. The
rules and Services of the node are read when a connection fails; nothing is changed. --no-explain leaves all of it out.

SOURCE is always the client's end. Both ends on one node give two records, one for each role. `? → etcd` is
an unknown client of etcd, on another node: run probe there. Exit codes: 0 fine, 1 a fault, 2 usage.";

/// Options of a watch on this machine. Agents have their own configuration, and do not report labels.
const WATCHED_HERE: [&str; 12] = [
    "selector",
    "ring_size",
    "max_connections",
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

/// Connections: who opened each, and what became of it
///
/// Follows TCP connections in the kernel from SYN to end and names the process, container and pod behind each.
/// Without --outcome and --all it leaves out what is healthy: `closed` and `open`. Ctrl-C ends with a summary.
#[derive(Args, Debug)]
#[command(
    after_help = WATCH_EXAMPLES,
    mut_arg("cluster", |arg| arg.conflicts_with_all(WATCHED_HERE)),
    // Without --cluster it is the former name of --node-name.
    mut_arg("nodes", |arg| arg.requires(Resettable::Reset)),
)]
pub struct WatchArgs {
    /// Server port to watch; repeat or separate by commas, up to 64. Default: every port
    #[arg(short, long = "port", value_name = "PORT", value_delimiter = ',',
          value_parser = clap::value_parser!(u16).range(1..))]
    pub ports: Vec<u16>,

    /// Only this end: `client` opened the connection, `server` accepted it. Default: both
    #[arg(long, value_enum, value_name = "ROLE")]
    pub role: Option<RoleArg>,

    /// Only these outcomes (below); repeat or separate by commas
    #[arg(long = "outcome", value_name = "OUTCOME", value_delimiter = ',', value_parser = named(&Outcome::ALL, Outcome::name))]
    pub outcomes: Vec<Outcome>,

    /// Only where the other end is in this prefix (10.244.0.0/16) or is this address; repeat or separate by commas
    #[arg(long = "peer", value_name = "PREFIX", value_delimiter = ',', value_parser = prefix)]
    pub peers: Vec<ipnet::IpNet>,

    /// Report only connections of this pod: NAME or NAMESPACE/NAME; a prefix of the name is enough
    #[arg(long, value_name = "POD", value_parser = clap::value_parser!(PodName))]
    pub pod: Option<PodName>,

    /// Only connections of pods in this namespace
    #[arg(short, long, value_name = "NAMESPACE")]
    pub namespace: Option<String>,

    /// Report only connections of pods with these labels, as kubectl reads them: app=web, app!=web, app, !app, 'app in (a,b)',
    /// 'app notin (a,b)'; all of several separated by commas. The summary counts connections left out because labels are
    /// unknown. Labels come from the container runtime (--cri), --kubelet or --kubeconfig. Not with --cluster
    #[arg(short = 'l', long, value_name = "SELECTOR", value_parser = clap::value_parser!(Selector))]
    pub selector: Option<Selector>,

    /// Healthy connections too: `closed`, and at the end `open`
    #[arg(long, conflicts_with = "outcomes")]
    pub all: bool,

    /// Table that fits the terminal, all that is known in one line each, or one JSON object a line
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value_t = FormatArg::Table)]
    pub output: FormatArg,

    /// End after this time: 10s, 5m, 1h30m
    #[arg(long, value_name = "TIME")]
    pub duration: Option<SignedDuration>,

    /// End after so many connections were shown
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,

    /// Memory for records on their way from the kernel, rounded up to a power of two
    #[arg(long, value_name = "BYTES", default_value = "4MiB")]
    pub ring_size: ByteSize,

    /// Connections followed at once. Default: 8192 with --port, 65536 without
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(16..=4_194_304))]
    pub max_connections: Option<u32>,

    /// Where the kubelet keeps the pods' logs, whose directories tell pod names
    #[arg(long, value_name = "DIR", default_value = "/var/log/pods")]
    pub pod_logs: PathBuf,

    /// Record to this file too, for probe who and probe etcd-log: JSON, the older half in FILE.1
    #[arg(long, value_name = "FILE")]
    pub record: Option<PathBuf>,

    /// How large the recording may become, both files together
    #[arg(long, value_name = "BYTES", default_value = "100MB", requires = "record")]
    pub record_size: ByteSize,

    /// Name of this node in JSON and recordings. Default: the host name
    #[arg(long, value_name = "NAME", env = "NODE_NAME")]
    pub node_name: Option<String>,

    /// The node's network namespace, whose conntrack translates the pods' addresses. Default: the one probe runs in
    #[arg(long, value_name = "FILE")]
    pub netns: Option<PathBuf>,

    /// Look for no causes of failed connections: no hooks for dropped, untracked and VXLAN packets, no rules read
    #[arg(long)]
    pub no_explain: bool,

    /// Read what connections begin with, and add server name (SNI), version and ALPN of TLS, and alerts in the clear. Says
    /// where a ClientHello has no server name or is incomplete, and what begins with something else than TLS. A handshake
    /// that fails is mostly `closed`: --all shows it
    #[arg(long)]
    pub tls: bool,

    /// The container runtime's socket (CRI), which tells names of pods and containers; `none`: ask none. Default: the
    /// first that is there of containerd's, CRI-O's, cri-dockerd's, and those of k3s, k0s and MicroK8s
    #[arg(long, value_name = "SOCKET")]
    pub cri: Option<PathBuf>,

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
    /// Ask the Kubernetes API for workloads (Deployment, CronJob, ...) and the names of other nodes, with these
    /// credentials; on a node, /etc/kubernetes/kubelet.conf does. `none`: don't ask. Default: not, but in a pod with its
    /// service account. With --cluster the cluster's credentials, by default as kubectl has them
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,

    /// Ask the kubelet for this node's pods instead of the API: https://127.0.0.1:10250, or http://127.0.0.1:10255
    #[arg(long, value_name = "URL")]
    pub kubelet: Option<http::Uri>,

    /// Don't check the kubelet's certificate, which mostly is its own
    #[arg(long, requires = "kubelet", hide_short_help = true)]
    pub kubelet_insecure_tls: bool,
}

impl KubeArgs {
    /// The API alone, for what is of no node.
    fn services(kubeconfig: Option<PathBuf>) -> Option<Access> {
        let args = Self {
            kubeconfig,
            kubelet: None,
            kubelet_insecure_tls: false,
        };
        args.access(settings::in_pod())
    }

    /// Whom to ask, and as whom; `in_pod`: whether this process is a pod's.
    fn access(self, in_pod: bool) -> Option<Access> {
        let credentials = match self.kubeconfig {
            Some(file) if file.as_os_str() == "none" => Credentials::Nobody,
            Some(file) => Credentials::Kubeconfig(file),
            None if in_pod => Credentials::ServiceAccount,
            None => Credentials::Nobody,
        };
        if credentials == Credentials::Nobody && self.kubelet.is_none() {
            return None;
        }
        Some(Access {
            credentials,
            kubelet: self.kubelet,
            kubelet_insecure_tls: self.kubelet_insecure_tls,
        })
    }
}

/// What is taken of the kernel.
#[derive(Args, Clone, Debug)]
pub struct SourceArgs {
    /// The running kernel's type information (BTF), where the kernel itself does not show it
    #[arg(long, value_name = "FILE", default_value = VMLINUX)]
    pub btf: PathBuf,

    /// Do without this tracepoint, function or netfilter hook, as on a kernel that does not have it; repeat or separate by
    /// commas
    #[arg(
        long,
        value_name = "TRACEPOINT",
        value_delimiter = ',',
        hide_short_help = true
    )]
    pub without: Vec<String>,
}

impl From<SourceArgs> for Source {
    fn from(args: SourceArgs) -> Self {
        Self {
            btf: args.btf,
            without: args.without,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum KernelLogArg {
    Debug,
    Trace,
}

impl From<KernelLogArg> for Level {
    fn from(level: KernelLogArg) -> Self {
        match level {
            KernelLogArg::Debug => Self::Debug,
            KernelLogArg::Trace => Self::Trace,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum RoleArg {
    Client,
    Server,
}

impl From<RoleArg> for Role {
    fn from(role: RoleArg) -> Self {
        match role {
            RoleArg::Client => Self::Client,
            RoleArg::Server => Self::Server,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum FormatArg {
    Table,
    Wide,
    Json,
}

impl From<FormatArg> for Format {
    fn from(format: FormatArg) -> Self {
        match format {
            FormatArg::Table => Self::Table,
            FormatArg::Wide => Self::Wide,
            FormatArg::Json => Self::Json,
        }
    }
}

/// One of `all` by its name, with clap's suggestion of the near one.
fn named<T: Copy + Send + Sync + 'static>(
    all: &'static [T],
    name: fn(T) -> &'static str,
) -> impl TypedValueParser<Value = T> {
    PossibleValuesParser::new(all.iter().map(|value| PossibleValue::new(name(*value)))).try_map(
        move |wanted| {
            let mut all = all.iter().copied();
            all.find(|value| name(*value) == wanted).ok_or("no such name")
        },
    )
}

/// A prefix, or an address as a prefix of its own.
fn prefix(text: &str) -> Result<ipnet::IpNet, String> {
    text.parse::<ipnet::IpNet>()
        .or_else(|_| text.parse::<std::net::IpAddr>().map(ipnet::IpNet::from))
        .map_err(|_| "neither an address nor a prefix such as 10.244.0.0/16 or fd00::/8".to_owned())
}
