//! Settings that make sense as a whole.

use std::{path::PathBuf, time::Duration};

use bytesize::ByteSize;
use clap::{CommandFactory, error::ErrorKind};
use ipnet::IpNet;
use jiff::SignedDuration;
use probe_ebpf::contract::connection::StormLimit;

use super::{Cli, WatchArgs};
use crate::{
    model::{
        Connection, Outcome, Role, Secrets,
        outcome::{has_side, unhealthy},
        recording_scope::RecordingScope,
        selector::{PodFilter, PodName, Selection, Selector},
        settings::{ConnectionOptions, KernelSource, KubernetesSettings, RuntimeSocket},
    },
    report::Format,
};

/// Ports that one run watches.
const MAX_PORTS: usize = 64;
/// Connections followed at once, of ports that were named.
const MAX_CONNECTIONS: u32 = 8192;
/// Connections listed in a second: more than a busy node makes, and about a tenth of a core.
pub const MAX_RATE: u32 = 20_000;
/// Of each source beyond it.
const SAMPLES: u64 = 12;
/// The smallest and the largest ring, bytes: a page, and what a 32-bit size of a power of two holds.
const RING_BYTES: std::ops::RangeInclusive<u64> = 4096..=1 << 30;

/// Connections listed in a second, 0: all.
pub fn storm_limit(rate: u32) -> StormLimit {
    match rate {
        0 => StormLimit::NONE,
        rate => StormLimit::of(rate.into(), SAMPLES),
    }
}

/// Connections listed in a second at the most; `None`: all.
pub fn rate_of(limit: StormLimit) -> Option<u64> {
    // Back from seconds of 2^30 ns.
    (limit != StormLimit::NONE).then(|| ((u128::from(limit.records) * 1_000_000_000) >> 30) as u64)
}

/// What `probe watch` does.
#[derive(Clone, Debug)]
pub struct Watch {
    pub kernel: ConnectionOptions,
    /// The role asked for; the kernel side may follow the other too, to name it.
    pub role: Option<Role>,
    /// Outcomes to show.
    pub outcomes: Vec<Outcome>,
    /// Filters that only user space can apply.
    pub pods: PodFilter,
    /// What is stored besides what is shown.
    pub stored: Stored,
    pub format: Format,
    pub duration: Option<Duration>,
    pub count: Option<u64>,
    pub pod_logs: PathBuf,
    /// What becomes of secrets on command lines.
    pub secrets: Secrets,
    /// Where to record.
    pub record: Option<PathBuf>,
    pub record_bytes: u64,
    /// The node's name; `None`: the host's.
    pub node: Option<String>,
    pub cri: RuntimeSocket,
    pub kube: KubernetesSettings,
    /// The node's network namespace, where that is not this process's own.
    pub netns: Option<PathBuf>,
    /// Whether causes of failed connections are looked for.
    pub explain: bool,
    /// Whether what connections begin with is looked at.
    pub tls: bool,
    /// CPU time that it may use, percent of a core; `None`: any.
    pub max_cpu: Option<f64>,
}

/// The connections that a recording or a history has besides those that are shown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Stored {
    /// None: there is no recording.
    #[default]
    Shown,
    /// Every watched one.
    Watched,
    /// Every one of these server ports.
    Ports(Vec<u16>),
}

impl Stored {
    /// Whether one of this server port is stored, whatever became of it.
    pub fn has(&self, port: u16) -> bool {
        match self {
            Self::Shown => false,
            Self::Watched => true,
            Self::Ports(ports) => ports.contains(&port),
        }
    }
}

impl Watch {
    /// Both ends and every outcome that is worth telling, of these server ports, by the calling thread's network namespace.
    pub fn of(ports: Vec<u16>, source: KernelSource) -> Self {
        let outcomes: Vec<_> = unhealthy().collect();
        Self {
            kernel: ConnectionOptions {
                max_connections: MAX_CONNECTIONS,
                storm_limit: storm_limit(MAX_RATE),
                ports,
                peers: Vec::new(),
                roles: Role::ALL.to_vec(),
                outcomes: outcomes.clone(),
                ring_bytes: 1 << 20,
                source,
            },
            role: None,
            outcomes,
            pods: PodFilter::default(),
            stored: Stored::Shown,
            format: Format::Json,
            duration: None,
            count: None,
            pod_logs: PathBuf::from("/var/log/pods"),
            secrets: Secrets::Hidden,
            record: None,
            record_bytes: 0,
            node: None,
            cri: RuntimeSocket::Off,
            kube: KubernetesSettings::default(),
            netns: None,
            explain: true,
            tls: false,
            max_cpu: None,
        }
    }

    /// Whether a connection is selected.
    pub fn select(&self, connection: &Connection) -> Selection {
        let other = match connection.role {
            Role::Client => connection.destination.ip(),
            Role::Server => connection.source.ip(),
        };
        if !self.wants_kind(connection.role, connection.outcome, other) {
            return Selection::NotSelected;
        }
        let owner = self.pods.select(&connection.owner);
        match &connection.peer {
            Some(peer) => owner.or(self.pods.select(peer)),
            None => owner,
        }
    }

    /// Whether a connection of this kind can be selected, as far as the kernel's counters show.
    pub fn wants_kind(&self, role: Role, outcome: Outcome, other: std::net::IpAddr) -> bool {
        self.role.is_none_or(|asked| asked == role)
            && self.outcomes.contains(&outcome)
            && (self.kernel.peers.is_empty() || self.kernel.peers.iter().any(|peer| peer.contains(&other)))
    }

    /// What a recording of this run leaves out.
    pub fn recording_scope(&self) -> RecordingScope {
        RecordingScope {
            ports: self.kernel.ports.clone(),
            peers: self.kernel.peers.iter().map(IpNet::to_string).collect(),
            ..RecordingScope::default()
        }
    }

    /// What the history of an agent leaves out of connections to the `asked` server ports; none: to any.
    pub fn history_scope(&self, asked: &[u16]) -> RecordingScope {
        let is_whole = match &self.stored {
            Stored::Shown => false,
            Stored::Watched => true,
            Stored::Ports(ports) => !asked.is_empty() && asked.iter().all(|port| ports.contains(port)),
        };
        let hidden = Outcome::ALL
            .into_iter()
            .filter(|outcome| !is_whole && !self.outcomes.contains(outcome));
        RecordingScope {
            without: hidden.map(|outcome| outcome.name().to_owned()).collect(),
            ..self.recording_scope()
        }
    }

    /// In words that follow "watching" or "watched".
    pub fn description(&self) -> String {
        let list = |items: Vec<String>| items.join(", ");
        let mut text = match self.kernel.ports.as_slice() {
            [] => "every port".to_owned(),
            [port] => format!("port {port}"),
            ports => format!("ports {}", list(ports.iter().map(u16::to_string).collect())),
        };
        text.push_str(match self.role {
            None => ", both sides",
            Some(Role::Client) => ", client side",
            Some(Role::Server) => ", server side",
        });
        if !self.kernel.peers.is_empty() {
            let peers = self.kernel.peers.iter().map(IpNet::to_string).collect();
            text.push_str(&format!(", peers {}", list(peers)));
        }
        let hidden = Outcome::ALL.len() - self.outcomes.len();
        if hidden == 0 {
            text.push_str(", every outcome");
        } else if hidden <= 2 {
            text.push_str(", every outcome but closed and open");
        } else {
            let outcomes = self
                .outcomes
                .iter()
                .map(|outcome| outcome.name().to_owned())
                .collect();
            text.push_str(&format!(", outcome {}", list(outcomes)));
        }
        if let Some(pod) = &self.pods.name {
            text.push_str(&format!(", pod {pod}"));
        }
        if let Some(namespace) = &self.pods.namespace {
            text.push_str(&format!(", namespace {namespace}"));
        }
        if let Some(selector) = &self.pods.selector {
            text.push_str(&format!(", labels {selector}"));
        }
        text
    }
}

impl TryFrom<WatchArgs> for Watch {
    type Error = clap::Error;

    fn try_from(args: WatchArgs) -> Result<Self, clap::Error> {
        let former_node_name = args.former_node_name().cloned();
        let role = args.role;
        let ports =
            ports(args.ports).map_err(|why| usage(format!("{why}: omit --port to watch every port")))?;
        let mut outcomes = args.outcomes;
        outcomes.sort_unstable();
        outcomes.dedup();
        if let Some(role) = role {
            let unseen: Vec<_> = outcomes
                .iter()
                .filter(|outcome| !has_side(**outcome, role))
                .collect();
            if !outcomes.is_empty() && unseen.len() == outcomes.len() {
                let names: Vec<_> = unseen.iter().map(|outcome| outcome.name()).collect();
                return Err(usage(format!(
                    "--role {} never sees --outcome {}: no connection would be shown",
                    role.name(),
                    names.join(",")
                )));
            }
        }
        if args.all {
            outcomes = Outcome::ALL.to_vec();
        } else if outcomes.is_empty() {
            outcomes = unhealthy().collect();
        }
        // A recording answers later questions: filters of the display do not limit it.
        let records = args.record.is_some();
        let pods = pod_filter(args.pod, args.namespace, args.selector)?;
        let ring_bytes = args.ring.bytes()?;
        let duration = args.duration.checked()?;
        Ok(Self {
            kernel: ConnectionOptions {
                max_connections: args.max_connections.unwrap_or(if ports.is_empty() {
                    65_536
                } else {
                    MAX_CONNECTIONS
                }),
                storm_limit: args.max_rate,
                ports,
                peers: args.peers,
                // A server's record names a local client by that client's own: both ends are followed for it.
                roles: match role {
                    Some(Role::Client) if !records => vec![Role::Client],
                    Some(Role::Client | Role::Server) | None => Role::ALL.to_vec(),
                },
                outcomes: if records {
                    Outcome::ALL.to_vec()
                } else {
                    outcomes.clone()
                },
                ring_bytes,
                source: args.source.into(),
            },
            role,
            outcomes,
            pods,
            stored: if records { Stored::Watched } else { Stored::Shown },
            format: args.output,
            duration,
            count: args.count,
            pod_logs: args.names.pod_logs,
            secrets: Secrets::of(args.show_secrets),
            record: args.record,
            record_bytes: args.record_size.as_u64(),
            node: former_node_name.or(args.node_name),
            explain: !args.no_explain,
            tls: args.tls,
            max_cpu: args.max_cpu,
            netns: args.netns,
            cri: args.names.runtime.cri.into(),
            kube: args.kube.into(),
        })
    }
}

/// The pods that a pod's name, a namespace and labels select together.
fn pod_filter(
    pod: Option<PodName>,
    namespace: Option<String>,
    selector: Option<Selector>,
) -> Result<PodFilter, clap::Error> {
    let (of_pod, name) = pod.map_or((None, None), |pod| (pod.namespace, Some(pod.name)));
    if let (Some(one), Some(other)) = (&of_pod, &namespace)
        && one != other
    {
        return Err(usage(format!(
            "--pod is of namespace {one}, --namespace is {other}: no pod is in both"
        )));
    }
    Ok(PodFilter {
        name,
        namespace: of_pod.or(namespace),
        selector,
    })
}

/// Ports to watch, each once.
pub(super) fn ports(mut ports: Vec<u16>) -> Result<Vec<u16>, String> {
    ports.sort_unstable();
    ports.dedup();
    if ports.len() > MAX_PORTS {
        return Err(format!(
            "{} ports given, at most {MAX_PORTS} can be watched",
            ports.len()
        ));
    }
    Ok(ports)
}

/// The size of the ring: a power of two.
pub(super) fn ring(size: ByteSize) -> Result<u32, String> {
    if !RING_BYTES.contains(&size.as_u64()) {
        return Err(format!("{size} is not between 4 KiB and 1 GiB"));
    }
    Ok(u32::try_from(size.as_u64().next_power_of_two()).unwrap_or(1 << 30))
}

/// A time greater than zero.
pub fn positive(option: &str, time: SignedDuration) -> Result<Duration, clap::Error> {
    let time = Duration::try_from(time)
        .map_err(|_| usage(format!("{option} is negative: it must be greater than zero")))?;
    if time.is_zero() {
        return Err(usage(format!("{option} must be greater than zero")));
    }
    Ok(time)
}

pub(super) fn usage(message: String) -> clap::Error {
    Cli::command().error(ErrorKind::ValueValidation, message)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::Command;

    fn watch(arguments: &str) -> Result<Watch, String> {
        let words = ["probe", "watch"].into_iter().chain(arguments.split_whitespace());
        let cli = Cli::try_parse_from(words).map_err(|error| error.to_string())?;
        let Command::Watch(args) = cli.command else {
            return Err("not watch".to_owned());
        };
        Watch::try_from(*args).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_refused_and_how() {
        let many: Vec<_> = (1..=65).map(|port: u16| port.to_string()).collect();
        for (arguments, says) in [
            ("--port 0", "not a port number in 1..=65535"),
            ("--port 70000", "not a port number in 1..=65535"),
            ("--port etcd", "not a port number in 1..=65535"),
            ("--outcome halfopen", "'half-open'"),
            ("--all --outcome closed", "cannot be used with"),
            ("--pod shop/", "neither a pod's name"),
            ("--pod shop/web --namespace bank", "no pod is in both"),
            ("-l app==,=", "expected"),
            ("--selector app=web,", "expected a label key"),
            ("--role server --outcome unanswered", "never sees"),
            ("--role client --outcome syn-only", "never sees"),
            ("--peer 10.0.0.0/33", "neither an address nor a prefix"),
            ("--duration 0s", "zero"),
            ("--duration=-5s", "negative"),
            ("--count 0", "not a number greater than zero"),
            ("--ring-size 1KiB", "between"),
            (&format!("--port {}", many.join(",")), "at most 64"),
        ] {
            let error = watch(arguments).expect_err(arguments);
            assert!(error.contains(says), "{arguments}: {error}");
        }
    }

    #[test]
    fn pods_by_name_namespace_and_labels() {
        let text = |text: &str| Some(text.to_owned());
        for (arguments, name, namespace, selector) in [
            ("", None, None, None),
            ("--pod web", text("web"), None, None),
            ("--pod shop/web", text("web"), text("shop"), None),
            ("--pod shop/web -n shop", text("web"), text("shop"), None),
            (
                "-n shop -l app=web,!canary",
                None,
                text("shop"),
                Some("app=web,!canary"),
            ),
        ] {
            let filter = PodFilter {
                name,
                namespace,
                selector: selector.map(|selector| selector.parse().unwrap()),
            };
            assert_eq!(watch(arguments).unwrap().pods, filter, "{arguments}");
        }
        let description = watch("--pod shop/web -l app=web").unwrap().description();
        assert!(
            description.ends_with(", pod web, namespace shop, labels app=web"),
            "{description}"
        );
    }

    #[test]
    fn what_is_asked_of_the_kernel() {
        let settings = watch("--port 2379,2380 --port 2379").unwrap();
        assert_eq!(settings.kernel.ports, [2379, 2380]);
        assert_eq!(settings.kernel.roles, Role::ALL);
        assert!(!settings.outcomes.contains(&Outcome::Closed));
        assert_eq!(settings.kernel.max_connections, 8192);
        assert_eq!(watch("--role client").unwrap().kernel.roles, [Role::Client]);
        assert_eq!(watch("--role server").unwrap().kernel.roles, Role::ALL);
        assert_eq!(watch("--all").unwrap().outcomes, Outcome::ALL);
        // What is shown does not limit a recording.
        for filters in ["", "--outcome refused", "--role client", "--pod web", "--all"] {
            let settings = watch(&format!("--port 2379 --record flows.jsonl {filters}")).unwrap();
            assert_eq!(settings.kernel.outcomes, Outcome::ALL, "{filters}");
            assert_eq!(settings.kernel.roles, Role::ALL, "{filters}");
            assert!(settings.stored.has(1) && !settings.recording_scope().is_partial());
            assert_eq!(settings.recording_scope().ports, [2379]);
        }
        let settings = watch("--record flows.jsonl --peer ::1").unwrap();
        assert_eq!(settings.recording_scope().peers, ["::1/128"]);
        assert!(!watch("--all").unwrap().stored.has(2379));
        assert_eq!(watch("--ring-size 65KiB").unwrap().kernel.ring_bytes, 131_072);
        assert_eq!(
            watch("--peer ::1").unwrap().kernel.peers[0].to_string(),
            "::1/128"
        );
        assert_eq!(
            watch("--duration 1m30s").unwrap().duration,
            Some(Duration::from_secs(90))
        );
    }
}
