//! Arguments of `probe doctor`.

use std::{path::PathBuf, time::Duration};

use clap::Args;
use jiff::SignedDuration;

use super::{
    Agents, SourceArgs,
    common::{AgentsArgs, NodeArgs, RuntimeArgs, duration, named, table_or_json},
    help, settings,
};
use crate::{
    model::{
        doctor::Check,
        settings::{KernelSource, RuntimeSocket},
    },
    report::Format,
};

const EXAMPLES: &str = "\
Examples:
  probe doctor                     all checks of this node, in about 6 s
  probe doctor --check bridge      only this check
  probe doctor -o json             one JSON object per check
  probe doctor --cluster           all checks on every node, by its agent
  probe doctor --root /host        in a container with the node's files at /host";

const NOTES: &str = "\
    A verdict is ok, warning, failed, unknown (not all could be verified), or not-applicable with the \
    reason. Fixes are \
    printed and never run; nothing is changed, and nothing is sent without --active. Outside the node only kubelet's API server is queried. docs/doctor.md has a section for each check.";

fn help() -> String {
    help::sections(&[EXAMPLES, &help::list::<Check>("Checks"), NOTES])
}

/// How long an agent's doctor watches what comes and goes.
const DURATION: Duration = Duration::from_secs(5);

/// Options of a run on this machine; agents have their own configuration.
const SEEN_HERE: [&str; 7] = ["active", "duration", "root", "cri", "netns", "btf", "without"];

/// Check this node for known faults, and report each with evidence and a fix
#[derive(Args, Debug)]
#[command(after_help = help(), mut_arg("cluster", |arg| arg.conflicts_with_all(SEEN_HERE)))]
pub struct DoctorArgs {
    /// Run only this check (listed below); repeat or separate by commas
    #[arg(long = "check", value_name = "NAME", value_delimiter = ',', value_parser = named::<Check>(),
          hide_possible_values = true)]
    pub checks: Vec<Check>,

    /// List the checks and stop
    #[arg(long)]
    pub list: bool,

    /// Time to observe traffic: etcd's clients, VXLAN, untracked packets, DNS, kubelet's connections
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = duration)]
    pub duration: SignedDuration,

    /// Ping silent VXLAN peers through the overlay, twice a second until they answer; then measure the path MTU
    #[arg(long)]
    pub active: bool,

    /// Output format: a text, or one JSON object per check
    #[arg(short, long, value_name = "FORMAT", default_value = Format::Table.name(), value_parser = table_or_json())]
    pub output: Format,

    #[command(flatten)]
    pub node: NodeArgs,

    /// Root directory of the node's files
    #[arg(long, value_name = "DIR", default_value = "/")]
    pub root: PathBuf,

    #[command(flatten)]
    pub runtime: RuntimeArgs,

    #[command(flatten)]
    pub source: SourceArgs,

    #[command(flatten)]
    pub agents: AgentsArgs,
}

impl DoctorArgs {
    /// Whom to ask, where it is not this machine.
    pub fn agents(&self) -> Option<Agents> {
        self.agents.agents()
    }
}

/// What `probe doctor` does.
#[derive(Clone, Debug)]
pub struct Doctor {
    /// In the order of the report.
    pub checks: Vec<Check>,
    pub list: bool,
    /// How long what comes and goes is watched.
    pub duration: Duration,
    /// Whether VXLAN's peers are pinged.
    pub active: bool,
    pub json: bool,
    pub node: Option<String>,
    pub root: PathBuf,
    /// The container runtime's socket.
    pub cri: RuntimeSocket,
    pub netns: Option<PathBuf>,
    pub source: KernelSource,
}

impl Doctor {
    /// These checks, of the node that the calling thread is in.
    pub fn of_agent(node: String, checks: Vec<Check>, cri: RuntimeSocket, source: KernelSource) -> Self {
        Self {
            checks,
            list: false,
            duration: DURATION,
            active: false,
            json: true,
            node: Some(node),
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
            active: args.active,
            json: args.output == Format::Json,
            node: args.node.node_name,
            root: args.root,
            cri: args.runtime.cri.into(),
            netns: args.node.netns,
            source: args.source.into(),
        })
    }
}
