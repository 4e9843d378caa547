//! Settings that make sense as a whole.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use bytesize::ByteSize;
use clap::{CommandFactory, error::ErrorKind};
use ipnet::IpNet;
use jiff::SignedDuration;

use super::{Cli, WatchArgs};
use crate::{
    attribution::{cri, kube::Access},
    kernel::{connection::Options, object::Source},
    model::{Connection, Outcome, Owner, Role},
    report::Format,
};

/// Ports that one run watches.
const MAX_PORTS: usize = 64;
/// Connections followed at once, of ports that were named.
const MAX_CONNECTIONS: u32 = 8192;
/// The smallest and the largest ring, bytes: a page, and what a 32-bit size of a power of two holds.
const RING_BYTES: std::ops::RangeInclusive<u64> = 4096..=1 << 30;

/// What `probe watch` does.
#[derive(Clone, Debug)]
pub struct Watch {
    pub kernel: Options,
    /// The role asked for; the kernel side may follow the other too, to name it.
    pub role: Option<Role>,
    /// Outcomes to show.
    pub outcomes: Vec<Outcome>,
    pub names: Names,
    pub format: Format,
    pub duration: Option<Duration>,
    pub count: Option<u64>,
    pub pod_logs: PathBuf,
    /// Where to record.
    pub record: Option<PathBuf>,
    pub record_bytes: u64,
    /// The node's name.
    pub node: String,
    /// The container runtime's socket.
    pub cri: Option<PathBuf>,
    /// How Kubernetes is asked.
    pub kube: Option<Access>,
    /// The node's network namespace, where that is not this process's own.
    pub netns: Option<PathBuf>,
    /// Whether causes of failed connections are looked for.
    pub explain: bool,
    /// Whether what connections begin with is looked at.
    pub tls: bool,
}

/// Filters on names, which only user space knows.
#[derive(Clone, Debug, Default)]
pub struct Names {
    pub pod: Option<String>,
    pub namespace: Option<String>,
}

impl Names {
    /// Whether an end's owner is asked for.
    pub fn allow(&self, owner: &Owner) -> bool {
        if self.pod.is_none() && self.namespace.is_none() {
            return true;
        }
        let Some(pod) = &owner.pod else { return false };
        let named = |asked: &Option<String>, is: fn(&str, &str) -> bool, name: &Option<String>| {
            asked
                .as_deref()
                .is_none_or(|asked| name.as_deref().is_some_and(|name| is(name, asked)))
        };
        named(&self.pod, |name, asked| name.starts_with(asked), &pod.name)
            && named(&self.namespace, |name, asked| name == asked, &pod.namespace)
    }
}

impl Watch {
    /// Both ends and every outcome that is worth telling, of these server ports, by the calling thread's network namespace.
    pub fn of(ports: Vec<u16>, source: Source) -> Self {
        let outcomes: Vec<_> = unhealthy().collect();
        Self {
            kernel: Options {
                max_connections: MAX_CONNECTIONS,
                ports,
                peers: Vec::new(),
                roles: Role::ALL.to_vec(),
                outcomes: outcomes.clone(),
                ring_bytes: 1 << 20,
                source,
            },
            role: None,
            outcomes,
            names: Names::default(),
            format: Format::Json,
            duration: None,
            count: None,
            pod_logs: PathBuf::from("/var/log/pods"),
            record: None,
            record_bytes: 0,
            node: String::new(),
            cri: None,
            kube: None,
            netns: None,
            explain: true,
            tls: false,
        }
    }

    /// Whether a connection is what was asked for.
    pub fn wants(&self, connection: &Connection) -> bool {
        let other = match connection.role {
            Role::Client => connection.destination.ip(),
            Role::Server => connection.source.ip(),
        };
        self.wants_kind(connection.role, connection.outcome, other)
            && (self.names.allow(&connection.owner)
                || connection
                    .peer
                    .as_deref()
                    .is_some_and(|peer| self.names.allow(peer)))
    }

    /// The same, as far as the kernel's counters tell.
    pub fn wants_kind(&self, role: Role, outcome: Outcome, other: std::net::IpAddr) -> bool {
        self.role.is_none_or(|asked| asked == role)
            && self.outcomes.contains(&outcome)
            && (self.kernel.peers.is_empty() || self.kernel.peers.iter().any(|peer| peer.contains(&other)))
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
            None => ", both ends",
            Some(Role::Client) => ", client ends",
            Some(Role::Server) => ", server ends",
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
        if let Some(pod) = &self.names.pod {
            text.push_str(&format!(", pod {pod}"));
        }
        if let Some(namespace) = &self.names.namespace {
            text.push_str(&format!(", namespace {namespace}"));
        }
        text
    }
}

impl TryFrom<WatchArgs> for Watch {
    type Error = clap::Error;

    fn try_from(args: WatchArgs) -> Result<Self, clap::Error> {
        let role = args.role.map(Role::from);
        let ports =
            ports(args.ports).map_err(|why| usage(format!("{why}: leave --port out to watch all")))?;
        let mut outcomes = args.outcomes;
        outcomes.sort_unstable();
        outcomes.dedup();
        if let Some(role) = role {
            let unseen: Vec<_> = outcomes
                .iter()
                .filter(|outcome| !seen_by(role, **outcome))
                .collect();
            if !outcomes.is_empty() && unseen.len() == outcomes.len() {
                let names: Vec<_> = unseen.iter().map(|outcome| outcome.name()).collect();
                return Err(usage(format!(
                    "--role {} never sees --outcome {}: nothing would be shown",
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
        let ring_bytes = ring(args.ring_size).map_err(|why| usage(format!("--ring-size {why}")))?;
        let duration = args
            .duration
            .map(|time| positive("--duration", time))
            .transpose()?;
        Ok(Self {
            kernel: Options {
                max_connections: args.max_connections.unwrap_or(if ports.is_empty() {
                    65_536
                } else {
                    MAX_CONNECTIONS
                }),
                ports,
                peers: args.peers,
                // A server's record names a local client by that client's own: both ends are followed for it.
                roles: match role {
                    Some(Role::Client) => vec![Role::Client],
                    Some(Role::Server) | None => Role::ALL.to_vec(),
                },
                outcomes: outcomes.clone(),
                ring_bytes,
                source: args.source.into(),
            },
            role,
            outcomes,
            names: Names {
                pod: args.pod,
                namespace: args.namespace,
            },
            format: args.output.into(),
            duration,
            count: args.count,
            pod_logs: args.pod_logs,
            record: args.record,
            record_bytes: args.record_size.as_u64(),
            node: args.node.unwrap_or_else(host_name),
            explain: !args.no_explain,
            tls: args.tls,
            netns: args.netns,
            cri: runtime(args.cri),
            kube: args.kube.access(in_pod()),
        })
    }
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

/// Outcomes that are worth telling unasked.
pub(super) fn unhealthy() -> impl Iterator<Item = Outcome> {
    let healthy = |outcome: &Outcome| matches!(outcome, Outcome::Closed | Outcome::Open);
    Outcome::ALL.into_iter().filter(move |outcome| !healthy(outcome))
}

/// The container runtime's socket that was named, or found; `none`: no.
pub fn runtime(socket: Option<PathBuf>) -> Option<PathBuf> {
    match socket {
        None => cri::find(),
        Some(socket) => Some(socket).filter(|socket| socket.as_os_str() != "none"),
    }
}

/// A time that is more than none.
pub fn positive(option: &str, time: SignedDuration) -> Result<Duration, clap::Error> {
    let time = Duration::try_from(time).map_err(|_| usage(format!("{option} is negative")))?;
    if time.is_zero() {
        return Err(usage(format!("{option} is zero: nothing would be seen")));
    }
    Ok(time)
}

/// Whether this process runs in a pod that has a service account.
pub(super) fn in_pod() -> bool {
    std::env::var_os("KUBERNETES_SERVICE_HOST").is_some()
        && Path::new("/var/run/secrets/kubernetes.io/serviceaccount/token").exists()
}

/// The kubelet names its node so, where nothing else was asked for.
pub fn host_name() -> String {
    nix::unistd::gethostname()
        .map(|name| name.to_string_lossy().to_lowercase())
        .unwrap_or_default()
}

/// Some outcomes show at one end only.
fn seen_by(role: Role, outcome: Outcome) -> bool {
    match outcome {
        Outcome::SynOnly => role == Role::Server,
        Outcome::Unanswered | Outcome::Unreachable => role == Role::Client,
        Outcome::HalfOpen
        | Outcome::HalfOpenReset
        | Outcome::Refused
        | Outcome::NoReply
        | Outcome::ResetByClient
        | Outcome::ResetByServer
        | Outcome::TimedOut
        | Outcome::Closed
        | Outcome::Open => true,
    }
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
            ("--port 0", "0 is not in 1..=65535"),
            ("--port 70000", "70000 is not in 1..=65535"),
            ("--port etcd", "invalid digit"),
            ("--outcome halfopen", "'half-open'"),
            ("--all --outcome closed", "cannot be used with"),
            ("--role server --outcome unanswered", "never sees"),
            ("--role client --outcome syn-only", "never sees"),
            ("--peer 10.0.0.0/33", "neither an address nor a prefix"),
            ("--duration 0s", "zero"),
            ("--duration=-5s", "negative"),
            ("--count 0", "0 is not in 1.."),
            ("--ring-size 1KiB", "between"),
            (&format!("--port {}", many.join(",")), "at most 64"),
        ] {
            let error = watch(arguments).expect_err(arguments);
            assert!(error.contains(says), "{arguments}: {error}");
        }
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
