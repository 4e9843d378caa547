//! Arguments of `probe doctor`.

use std::{path::PathBuf, time::Duration};

use clap::{Args, ValueEnum};
use jiff::SignedDuration;

use super::{Agents, ClusterArgs, KubeconfigArgs, SourceArgs, named, settings};
use crate::{kernel::object::Source, model::doctor::Check};

const HELP: &str = "\
Examples:
  probe doctor                     all checks of this node, in some 6 s
  probe doctor --check bridge      only that one; --list tells all and what they look at
  probe doctor -o json             one JSON object a check
  probe doctor --cluster           of every node, by the agents there
  probe doctor --root /host        from a container that has the node's files there

A verdict is ok, warning, failed, or not-applicable with the reason. Remedies are told and never run; nothing is changed, and
nothing outside the node is asked but the API server that its kubelet has. docs/doctor.md has a section a check.
Exit codes: 0 no check failed, 1 one failed, 2 usage.";

/// How long an agent's doctor watches what comes and goes.
const DURATION: Duration = Duration::from_secs(5);

/// What a look at this machine takes, and agents have in their own configuration.
const SEEN_HERE: [&str; 6] = ["duration", "root", "cri", "netns", "btf", "without"];

/// The runbook as one command: what is wrong with this node, what shows it, and what to do
#[derive(Args, Debug)]
#[command(after_help = HELP, mut_arg("cluster", |arg| arg.conflicts_with_all(SEEN_HERE)))]
pub struct DoctorArgs {
    /// Only this check; repeat or separate by commas
    #[arg(long = "check", value_name = "NAME", value_delimiter = ',', value_parser = named(&Check::ALL, Check::name))]
    pub checks: Vec<Check>,

    /// Only say which checks there are, and what each looks at
    #[arg(long)]
    pub list: bool,

    /// How long to watch for what comes and goes: etcd's clients, VXLAN, untracked packets, DNS, kubelet's connections
    #[arg(long, value_name = "TIME", default_value = "5s")]
    pub duration: SignedDuration,

    /// A text for people, or one JSON object a check
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value_t = DoctorFormat::Table)]
    pub output: DoctorFormat,

    /// Name of this node in JSON. Default: the host name
    #[arg(long, value_name = "NAME", env = "NODE_NAME")]
    pub node_name: Option<String>,

    /// Where the node's files are
    #[arg(long, value_name = "DIR", default_value = "/")]
    pub root: PathBuf,

    /// The container runtime's socket (CRI), which tells names of pods; `none`: ask none. Default: the first that is there
    #[arg(long, value_name = "SOCKET")]
    pub cri: Option<PathBuf>,

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

impl DoctorArgs {
    /// Whom to ask, where it is not this machine.
    pub fn agents(&self) -> Option<Agents> {
        self.cluster.agents(self.access.kubeconfig.as_ref())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum DoctorFormat {
    Table,
    Json,
}

/// What `probe doctor` does.
#[derive(Clone, Debug)]
pub struct Doctor {
    /// In the order in which they are told.
    pub checks: Vec<Check>,
    pub list: bool,
    /// How long what comes and goes is watched.
    pub duration: Duration,
    pub json: bool,
    pub node: String,
    pub root: PathBuf,
    /// The container runtime's socket.
    pub cri: Option<PathBuf>,
    pub netns: Option<PathBuf>,
    pub source: Source,
}

impl Doctor {
    /// These checks, of the node that the calling thread is in.
    pub fn of_agent(node: String, checks: Vec<Check>, cri: Option<PathBuf>, source: Source) -> Self {
        Self {
            checks,
            list: false,
            duration: DURATION,
            json: true,
            node,
            root: PathBuf::from("/"),
            cri,
            netns: None,
            source,
        }
    }
}

impl TryFrom<DoctorArgs> for Doctor {
    type Error = clap::Error;

    fn try_from(args: DoctorArgs) -> Result<Self, clap::Error> {
        let asked = |check: &Check| args.checks.is_empty() || args.checks.contains(check);
        Ok(Self {
            checks: Check::ALL.into_iter().filter(asked).collect(),
            list: args.list,
            duration: settings::positive("--duration", args.duration)?,
            json: args.output == DoctorFormat::Json,
            node: args.node_name.unwrap_or_else(settings::host_name),
            root: args.root,
            cri: settings::runtime(args.cri),
            netns: args.netns,
            source: args.source.into(),
        })
    }
}
