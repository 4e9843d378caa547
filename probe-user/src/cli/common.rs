//! Options that several commands have, each group once.

use std::{path::PathBuf, time::Duration};

use bytesize::ByteSize;
use clap::{
    Args,
    builder::{PossibleValue, PossibleValuesParser, TypedValueParser},
};
use jiff::SignedDuration;
use probe_ebpf::contract::connection::StormLimit;

use super::{Agents, ClusterArgs, ClusterLooks, KubeconfigArgs, Pace, settings};
use crate::{
    model::{Listed, Role, settings::MessageLevel},
    report::Format,
};

/// The formats of `-o` where there is nothing wider than the table.
const TABLE_OR_JSON: [Format; 2] = [Format::Table, Format::Json];

/// One of these values by its name, with clap's suggestion of a near one.
fn by_name<T: Copy + Send + Sync + 'static>(
    values: &'static [T],
    name: fn(T) -> &'static str,
    possible: impl Fn(T) -> PossibleValue,
) -> impl TypedValueParser<Value = T> {
    let possible: Vec<_> = values.iter().map(|value| possible(*value)).collect();
    PossibleValuesParser::new(possible).try_map(move |wanted| {
        let mut values = values.iter().copied();
        values.find(|value| name(*value) == wanted).ok_or("no such name")
    })
}

/// One of a set whose values are listed with their descriptions.
pub fn named<T: Listed>() -> impl TypedValueParser<Value = T> {
    by_name(T::ALL, T::name, |value| {
        PossibleValue::new(value.name()).help(value.description())
    })
}

/// A format of a command that has all.
pub fn format() -> impl TypedValueParser<Value = Format> {
    by_name(&Format::ALL, Format::name, |format| {
        PossibleValue::new(format.name())
    })
}

/// A format of a command with one kind of text.
pub fn table_or_json() -> impl TypedValueParser<Value = Format> {
    by_name(&TABLE_OR_JSON, Format::name, |format| {
        PossibleValue::new(format.name())
    })
}

pub fn role() -> impl TypedValueParser<Value = Role> {
    by_name(&Role::ALL, Role::name, |role| PossibleValue::new(role.name()))
}

pub fn message_level() -> impl TypedValueParser<Value = MessageLevel> {
    by_name(&MessageLevel::ALL, MessageLevel::name, |level| {
        PossibleValue::new(level.name())
    })
}

/// A port. The type's own parser says of a name that a digit is invalid.
pub fn port(text: &str) -> Result<u16, String> {
    match text.parse() {
        Ok(port) if port > 0 => Ok(port),
        _ => Err("not a port number in 1..=65535".to_owned()),
    }
}

/// Connections a second, or `none`.
pub fn max_rate(text: &str) -> Result<StormLimit, String> {
    match text.parse() {
        Ok(rate) if rate > 0 => Ok(settings::storm_limit(rate)),
        Err(_) if text == "none" => Ok(StormLimit::NONE),
        _ => Err("neither a number of connections greater than zero nor `none`".to_owned()),
    }
}

/// Part of a core, such as 5%.
pub fn percent(text: &str) -> Result<f64, String> {
    match text.strip_suffix('%').unwrap_or(text).trim().parse() {
        Ok(percent) if (0.1..=10_000.0).contains(&percent) => Ok(percent),
        _ => Err("not a percentage of a core such as 5% or 0.5%".to_owned()),
    }
}

/// A time, such as 5m.
pub fn duration(text: &str) -> Result<SignedDuration, String> {
    text.parse()
        .map_err(|_| "not a time such as 10s, 5m or 1h30m".to_owned())
}

/// How many of something.
pub fn count(text: &str) -> Result<u64, String> {
    match text.parse() {
        Ok(count) if count > 0 => Ok(count),
        _ => Err("not a number greater than zero".to_owned()),
    }
}

#[derive(Args, Clone, Debug)]
pub struct DurationArgs {
    /// Stop after this time: 10s, 5m, 1h30m
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub duration: Option<SignedDuration>,
}

impl DurationArgs {
    /// # Errors
    /// A time that is none.
    pub fn checked(&self) -> Result<Option<Duration>, clap::Error> {
        let positive = |time| settings::positive("--duration", time);
        self.duration.map(positive).transpose()
    }
}

#[derive(Args, Clone, Debug)]
pub struct RingArgs {
    /// Size of the ring buffer between kernel and probe, rounded up to a power of two
    #[arg(long, value_name = "BYTES", default_value = "4MiB")]
    pub ring_size: ByteSize,
}

impl RingArgs {
    /// # Errors
    /// A size that no ring can have.
    pub fn bytes(&self) -> Result<u32, clap::Error> {
        settings::ring(self.ring_size).map_err(|why| settings::usage(format!("--ring-size {why}")))
    }
}

#[derive(Args, Clone, Debug)]
pub struct RuntimeArgs {
    /// Socket of the container runtime (CRI), the source of pod and container names; `none` disables it. Default: the first
    /// existing socket of containerd, CRI-O, cri-dockerd, k3s, k0s and MicroK8s
    #[arg(long, value_name = "SOCKET")]
    pub cri: Option<PathBuf>,
}

/// Where this node has names of pods.
#[derive(Args, Clone, Debug)]
pub struct PodNameArgs {
    /// Directory of the kubelet's pod logs, a source of pod names
    #[arg(long, value_name = "DIR", default_value = "/var/log/pods")]
    pub pod_logs: PathBuf,

    #[command(flatten)]
    pub runtime: RuntimeArgs,
}

/// Which node this is.
#[derive(Args, Clone, Debug)]
pub struct NodeArgs {
    /// Name of this node in JSON. Default: the host name
    #[arg(long, value_name = "NAME", env = "NODE_NAME")]
    pub node_name: Option<String>,

    /// Network namespace of the node. Default: the current one
    #[arg(long, value_name = "FILE")]
    pub netns: Option<PathBuf>,
}

/// Of commands that print one snapshot after the other.
#[derive(Args, Clone, Debug)]
pub struct SnapshotArgs {
    /// Print one report after --duration (default 5s) and stop
    #[arg(long)]
    pub once: bool,

    #[command(flatten)]
    pub duration: DurationArgs,

    /// Interval between snapshots. Default: 1s; with --cluster one snapshot
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub interval: Option<SignedDuration>,

    /// Output format: a table, or one JSON object a snapshot
    #[arg(short, long, value_name = "FORMAT", default_value = Format::Table.name(), value_parser = table_or_json())]
    pub output: Format,

    #[command(flatten)]
    pub node: NodeArgs,
}

impl SnapshotArgs {
    /// Of this machine.
    ///
    /// # Errors
    /// A time that is none.
    pub fn pace(&self) -> Result<Pace, clap::Error> {
        Pace::of(
            self.once,
            self.duration.checked()?,
            self.interval,
            self.output == Format::Json,
            self.node.node_name.clone(),
        )
    }

    /// Of the agents.
    ///
    /// # Errors
    /// A time that is none, or that has nothing to be the time of.
    pub fn looks(&self, agents: Agents) -> Result<ClusterLooks, clap::Error> {
        let json = self.output == Format::Json;
        ClusterLooks::of(agents, json, self.once, self.interval, self.duration.checked()?)
    }
}

/// Of commands that query nothing of Kubernetes but the agents.
#[derive(Args, Clone, Debug)]
pub struct AgentsArgs {
    #[command(flatten)]
    pub cluster: ClusterArgs,

    #[command(flatten)]
    pub access: KubeconfigArgs,
}

impl AgentsArgs {
    /// Whom to ask, where it is not this machine.
    pub fn agents(&self) -> Option<Agents> {
        self.cluster.agents(self.access.kubeconfig.as_ref())
    }
}
