//! Arguments of `probe agent`, and its configuration.

mod file;

use bytesize::ByteSize;
use std::{
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::Args;

use self::file::{DEFAULT, File, Namespaces};
use super::{Bypass, Doctor, KubeArgs, SourceArgs, Stored, Vxlan, Watch, help, settings};
use crate::model::{
    Outcome, Role,
    doctor::Check,
    outcome::unhealthy,
    settings::{
        ConnectionOptions, HistoryBounds, KernelSource, KubernetesSettings, RuntimeSocket, StoreBounds,
    },
};

const EXAMPLES: &str = "\
Examples:
  probe agent                              with /etc/probe/agent.toml if it exists, else defaults
  probe agent --print-config >agent.toml   every option with its default and description
  probe agent --check-config agent.toml    validation of a file
  kubectl apply -k deploy/                 on every node of a cluster, for `probe watch --cluster`";

const NOTES: &str = "\
    Standard output has findings and connections, one JSON object a line. Queries are answered on 127.0.0.1:9470, \
    which a port-forward reaches; /metrics, /healthz and /readyz are on port 9471. SIGHUP or a change of the file \
    reloads the configuration; an invalid one is reported, and the previous one stays in force. SIGTERM or Ctrl-C \
    ends the agent with exit code 0.";

/// Run on a node permanently: observe, keep a history, answer queries, export metrics
///
/// Started by a DaemonSet or systemd. Observes connections, VXLAN devices and packets that bypass conntrack, keeps their history,
/// answers queries of `probe ... --cluster`, and exports metrics for Prometheus.
#[derive(Args, Debug)]
#[command(after_help = help::sections(&[EXAMPLES, NOTES]))]
pub struct AgentArgs {
    /// Configuration file. Default: /etc/probe/agent.toml if it exists
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Print the default configuration with descriptions, and stop
    #[arg(long, exclusive = true)]
    pub print_config: bool,

    /// Validate a configuration file, and stop
    #[arg(long, value_name = "FILE", exclusive = true)]
    pub check_config: Option<PathBuf>,

    #[command(flatten)]
    pub source: SourceArgs,
}

/// The least size of a history on disk.
const DISK: ByteSize = ByteSize::mib(1);

/// What `probe agent` is asked to do.
pub enum Task {
    /// To run, with the configuration in this file; `None`: in the usual one, if it exists, else the defaults.
    Run(Option<PathBuf>, KernelSource),
    Print(&'static str),
    Check(PathBuf),
}

impl From<AgentArgs> for Task {
    fn from(args: AgentArgs) -> Self {
        if args.print_config {
            return Self::Print(DEFAULT);
        }
        if let Some(file) = args.check_config {
            return Self::Check(file);
        }
        Self::Run(args.config, args.source.into())
    }
}

/// A configuration that can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("can't read the configuration {}: {source}", file.display())]
    Read { file: PathBuf, source: io::Error },
    #[error("{}: {reason}", file.display())]
    Wrong { file: PathBuf, reason: String },
}

/// What `probe agent` does.
#[derive(Clone, Debug)]
pub struct Agent {
    /// The node's name.
    pub node: String,
    /// It goes to the node's namespaces.
    pub enter: bool,
    pub watch: Option<Watch>,
    pub vxlan: Option<Vxlan>,
    pub bypass: Option<Bypass>,
    pub interval: Duration,
    pub memory: HistoryBounds,
    /// The history on disk.
    pub store: Option<StoreBounds>,
    pub log: Log,
    pub query: SocketAddr,
    pub metrics: Option<SocketAddr>,
    pub max_series: usize,
    pub program_time: bool,
    pub kube: KubernetesSettings,
    /// To be found in the node's mounts.
    pub cri: RuntimeSocket,
    /// Sections of the file with a former name, and their name.
    pub former_sections: Vec<(&'static str, &'static str)>,
    source: KernelSource,
}

/// What is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Log {
    pub connections: bool,
    pub findings: bool,
    /// Connections a second.
    pub rate: u32,
}

impl Agent {
    /// The configuration in `file`, or the defaults; of the node `host` where no other is named.
    ///
    /// # Errors
    /// When it can't be read, or is wrong.
    pub fn read(file: Option<&Path>, source: &KernelSource, host: &str) -> Result<Self, ConfigError> {
        let Some(path) = file else {
            return Self::of(File::default(), source, host).map_err(|reason| ConfigError::Wrong {
                file: "the defaults".into(),
                reason,
            });
        };
        let text = fs::read_to_string(path).map_err(|source| ConfigError::Read {
            file: path.to_owned(),
            source,
        })?;
        let former_sections = file::former_sections(&text);
        let file: Result<File, _> = toml::from_str(&text);
        file.map_err(|error| error.to_string())
            .and_then(|file| Self::of(file, source, host))
            .map(|agent| Self {
                former_sections,
                ..agent
            })
            .map_err(|reason| ConfigError::Wrong {
                file: path.to_owned(),
                reason: reason.trim_end().to_owned(),
            })
    }

    fn of(file: File, source: &KernelSource, host: &str) -> Result<Self, String> {
        let outcomes = outcomes(file.watch.outcomes);
        let ring_bytes =
            settings::ring(file.watch.ring_size).map_err(|why| format!("watch.ring_size {why}"))?;
        let ports = settings::ports(file.watch.ports).map_err(|why| format!("watch.ports: {why}"))?;
        let all_of =
            settings::ports(file.history.ports.clone()).map_err(|why| format!("history.ports: {why}"))?;
        let stored = match file.history.connections {
            0 => Stored::Shown,
            _ if !ports.is_empty() => Stored::Watched,
            _ if all_of.is_empty() => Stored::Shown,
            _ => Stored::Ports(all_of),
        };
        let within = |name: &str, value: u32, from: u32, to: u32| {
            if (from..=to).contains(&value) {
                Ok(value)
            } else {
                Err(format!("{name} is {value}, not from {from} to {to}"))
            }
        };
        let node = match file.node.name {
            name if name.is_empty() => std::env::var("NODE_NAME").unwrap_or_else(|_| host.to_owned()),
            name => name,
        };
        let kube = KubeArgs {
            kubeconfig: not_auto(file.names.kubernetes),
            kubelet: file.names.kubelet,
            kubelet_insecure_tls: file.names.kubelet_insecure_tls,
        };
        let watch = Watch {
            kernel: ConnectionOptions {
                ports,
                peers: file.watch.peers,
                roles: Role::ALL.to_vec(),
                outcomes: if stored == Stored::Shown {
                    outcomes.clone()
                } else {
                    Outcome::ALL.to_vec()
                },
                ring_bytes,
                max_connections: within("watch.max_connections", file.watch.max_connections, 16, 4_194_304)?,
                storm_limit: settings::storm_limit(file.watch.max_rate),
                source: source.clone(),
            },
            outcomes,
            stored,
            pod_logs: file.names.pod_logs.clone(),
            secrets: crate::model::Secrets::of(file.names.show_secrets),
            node: Some(node.clone()),
            max_cpu: (file.limits.cpu > 0.0).then_some(file.limits.cpu),
            ..Watch::of(Vec::new(), source.clone())
        };
        let bypass = Bypass {
            max_streams: within("bypass.max_streams", file.bypass.max_streams, 16, 1_048_576)?,
            pod_logs: file.names.pod_logs,
            ..Bypass::faults(source.clone())
        };
        let vxlan = Vxlan {
            max_peers: within("vxlan.max_peers", file.vxlan.max_peers, 16, 262_144)?,
            ..Vxlan::faults(source.clone())
        };
        let least = Duration::from_millis(100);
        Ok(Self {
            node,
            enter: file.node.namespaces == Namespaces::Auto,
            watch: file.watch.enabled.then_some(watch),
            vxlan: file.vxlan.enabled.then_some(vxlan),
            bypass: file.bypass.enabled.then_some(bypass),
            interval: file.snapshots.interval.unsigned_abs().max(least),
            memory: HistoryBounds {
                connections: within("history.connections", file.history.connections, 0, 1_000_000)? as usize,
                size: usize::try_from(file.history.size.as_u64()).unwrap_or(usize::MAX),
                age: file.history.age.unsigned_abs(),
            },
            store: store(&file.history)?,
            log: Log {
                connections: file.log.connections,
                findings: file.log.findings,
                rate: file.log.rate,
            },
            query: file.query.listen,
            metrics: file.metrics.listen,
            max_series: within("metrics.max_series", file.metrics.max_series, 100, 1_000_000)? as usize,
            program_time: file.metrics.program_time,
            kube: kube.into(),
            cri: not_auto(file.names.cri).into(),
            former_sections: Vec::new(),
            source: source.clone(),
        })
    }

    /// The settings of a doctor that is asked by way of this agent.
    pub fn doctor(&self, checks: Vec<Check>) -> Doctor {
        Doctor::of_agent(self.node.clone(), checks, self.cri.clone(), self.source.clone())
    }
}

/// Where the history is on disk; [`None`] where no directory is named.
fn store(history: &file::History) -> Result<Option<StoreBounds>, String> {
    if history.directory.as_os_str().is_empty() {
        return Ok(None);
    }
    if !history.directory.is_absolute() {
        let directory = history.directory.display();
        return Err(format!("history.directory is {directory}: not an absolute path"));
    }
    if history.disk_size < DISK {
        return Err(format!(
            "history.disk_size is {}: less than {DISK}",
            history.disk_size
        ));
    }
    Ok(Some(StoreBounds {
        directory: history.directory.clone(),
        size: history.disk_size.as_u64(),
        age: history.disk_age.unsigned_abs(),
    }))
}

/// As an option has it: `auto` names nothing.
fn not_auto(path: PathBuf) -> Option<PathBuf> {
    Some(path).filter(|path| path.as_os_str() != "auto")
}

/// Those named; none: what is not healthy.
fn outcomes(mut outcomes: Vec<Outcome>) -> Vec<Outcome> {
    outcomes.sort_unstable();
    outcomes.dedup();
    if outcomes.is_empty() {
        unhealthy().collect()
    } else {
        outcomes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agent(text: &str) -> Result<Agent, String> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("agent.toml");
        fs::write(&file, text).unwrap();
        Agent::read(Some(&file), &KernelSource::default(), "alpha").map_err(|error| error.to_string())
    }

    #[test]
    fn what_the_file_says() {
        let all = agent("").unwrap();
        assert!(all.watch.is_some() && all.vxlan.is_some() && all.bypass.is_some() && all.enter);
        let watch = all.watch.unwrap();
        assert!(!watch.outcomes.contains(&Outcome::Closed) && watch.outcomes.contains(&Outcome::HalfOpen));
        let some = agent(
            "[node]\nname = \"beta\"\nnamespaces = \"own\"\n[watch]\nports = [2379, 2380, 2379]\nring_size = \"65KiB\"\n\
             outcomes = [\"closed\"]\n[vxlan]\nenabled = false\n[metrics]\nlisten = \"\"\n[names]\nkubernetes = \"none\"\n",
        )
        .unwrap();
        let watch = some.watch.unwrap();
        assert_eq!(watch.kernel.ports, [2379, 2380]);
        assert_eq!(watch.kernel.ring_bytes, 131_072);
        assert_eq!(watch.outcomes, [Outcome::Closed]);
        assert_eq!(
            (watch.stored, watch.kernel.outcomes.len()),
            (Stored::Watched, Outcome::ALL.len())
        );
        for (text, stored) in [
            ("", Stored::Ports(vec![2379, 2380])),
            ("[memory]\nports = [5432]\n", Stored::Ports(vec![5432])),
            ("[memory]\nports = []\n", Stored::Shown),
            ("[memory]\nconnections = 0\n", Stored::Shown),
            ("[watch]\nports = [443]\n", Stored::Watched),
        ] {
            assert_eq!(agent(text).unwrap().watch.unwrap().stored, stored, "{text}");
        }
        for (text, asked, partial) in [
            ("", &[2379, 2380][..], false),
            ("", &[2379, 443], true),
            ("", &[], true),
            ("[watch]\nports = [443]\n", &[], false),
            ("[history]\nconnections = 0\n", &[2379], true),
        ] {
            let scope = agent(text).unwrap().watch.unwrap().history_scope(asked);
            assert_eq!(scope.is_partial(), partial, "{text} {asked:?}: {scope}");
            let says = if partial { "without closed" } else { "" };
            assert!(scope.to_string().starts_with(says), "{scope}");
        }
        assert_eq!(some.node, "beta");
        assert!(
            some.vxlan.is_none()
                && some.metrics.is_none()
                && some.kube == KubernetesSettings::default()
                && !some.enter
        );
    }

    #[test]
    fn what_is_refused_and_how() {
        let many: Vec<_> = (1..=65).map(|port: u16| port.to_string()).collect();
        for (text, says) in [
            (
                "[watch]\nring_size = \"1KiB\"\n",
                "watch.ring_size 1.0 KiB is not between",
            ),
            (
                "[watch]\nmax_connections = 1\n",
                "watch.max_connections is 1, not from 16",
            ),
            ("[bypass]\nmax_streams = 1\n", "bypass.max_streams is 1"),
            ("[vxlan]\nmax_peers = 1\n", "vxlan.max_peers is 1"),
            ("[metrics]\nmax_series = 1\n", "metrics.max_series is 1"),
            (
                &format!("[watch]\nports = [{}]\n", many.join(",")),
                "watch.ports: 65 ports given",
            ),
            ("watch = 3\n", "agent.toml: "),
        ] {
            let error = agent(text).expect_err(text);
            assert!(error.contains(says), "{text}: {error}");
        }
    }
}
