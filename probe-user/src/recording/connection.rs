//! A line of `probe watch -o json` (docs/json.md) as the connection it was: what agents of other nodes send.
//!
//! A field that is not known is left out, so that a newer probe may say more; a name in place of which only some are
//! known (a role, a source) has to be one of these.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use serde::Deserialize;

use super::tls::Object;
use crate::model::{
    self, Cadence, Outcome, PodSource, ProcessSource, Qos, Role, Runtime,
    cause::CauseKind,
    connection::Payload,
    translation::Untranslated,
    workload::{Workload, WorkloadSource},
};

/// Why a line is no connection.
#[derive(Debug, thiserror::Error)]
pub enum LineError {
    #[error("no JSON of probe watch: {0}")]
    Json(#[from] serde_json::Error),
    #[error("another event than a connection")]
    Event,
    #[error("an unknown {what}: perhaps of another version of probe")]
    Unknown { what: &'static str },
}

/// Reads one line.
///
/// # Errors
/// When it is not, or not wholly, a connection.
pub fn read(line: &[u8]) -> Result<model::Connection, LineError> {
    serde_json::from_slice::<Connection>(line)?.model()
}

#[derive(Deserialize)]
struct Connection {
    event: String,
    time: Timestamp,
    role: String,
    outcome: String,
    source: Option<End>,
    destination: End,
    bytes_sent: Option<u64>,
    bytes_received: Option<u64>,
    duration_us: u64,
    process: Option<Process>,
    container: Option<Container>,
    pod: Option<Pod>,
    every_ms: Option<u64>,
    #[serde(default)]
    netns: u32,
    peer: Option<Peer>,
    every_spread_ms: Option<u64>,
    count: Option<u64>,
    seen_as: Option<End>,
    dialled: Option<End>,
    untranslated: Option<String>,
    cause: Option<Cause>,
    tls: Option<Object>,
}

#[derive(Clone, Copy, Deserialize)]
struct End {
    address: Option<IpAddr>,
    #[serde(default)]
    port: u16,
}

#[derive(Deserialize)]
struct Peer {
    process: Option<Process>,
    container: Option<Container>,
    pod: Option<Pod>,
    node: Option<Node>,
}

#[derive(Deserialize)]
struct Node {
    name: String,
}

#[derive(Deserialize)]
struct Process {
    pid: u32,
    #[serde(default)]
    name: String,
    #[serde(default)]
    command: Vec<String>,
    uid: Option<u32>,
    executable: Option<String>,
    source: String,
    #[serde(default)]
    command_cut: bool,
}

#[derive(Deserialize)]
struct Container {
    id: String,
    runtime: Option<String>,
    name: Option<String>,
}

#[derive(Deserialize)]
struct Pod {
    namespace: Option<String>,
    name: Option<String>,
    uid: String,
    source: String,
    qos: Option<String>,
    workload: Option<PodWorkload>,
}

#[derive(Deserialize)]
struct PodWorkload {
    kind: String,
    name: String,
    source: String,
}

#[derive(Deserialize)]
struct Cause {
    kind: String,
    what: String,
    rule: Option<String>,
    service: Option<String>,
    reason: Option<String>,
    remedy: Option<String>,
    certain: bool,
}

impl Connection {
    fn model(self) -> Result<model::Connection, LineError> {
        if self.event != "connection" {
            return Err(LineError::Event);
        }
        let owner = owner(self.process, self.container, self.pod, None)?;
        let peer = self
            .peer
            .map(|peer| owner_of_peer(peer).map(Arc::new))
            .transpose()?;
        let payload = self
            .bytes_sent
            .zip(self.bytes_received)
            .map(|(sent, received)| Payload { sent, received });
        let cadence = self.count.map(|count| Cadence {
            count,
            every: self.every_ms.map(Duration::from_millis),
            spread: Duration::from_millis(self.every_spread_ms.unwrap_or_default()),
        });
        Ok(model::Connection {
            time: self.time,
            duration: Duration::from_micros(self.duration_us),
            role: one_of("role", &Role::ALL, Role::name, &self.role)?,
            outcome: one_of("outcome", &Outcome::ALL, Outcome::name, &self.outcome)?,
            source: End::address(self.source),
            destination: End::address(Some(self.destination)),
            dialled: self.dialled.map(|end| End::address(Some(end))),
            seen_as: self.seen_as.map(|end| End::address(Some(end))),
            untranslated: self
                .untranslated
                .map(|name| one_of("untranslated", &Untranslated::ALL, Untranslated::name, &name))
                .transpose()?,
            payload,
            netns: self.netns,
            owner: Arc::new(owner),
            peer,
            tls: self.tls.map(Object::model).transpose()?.map(Box::new),
            cause: self.cause.map(Cause::model).transpose()?.map(Box::new),
            cadence,
        })
    }
}

impl End {
    /// Zeros for what was never chosen.
    fn address(end: Option<Self>) -> SocketAddr {
        let unknown = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        end.map_or(SocketAddr::new(unknown, 0), |end| {
            SocketAddr::new(end.address.unwrap_or(unknown), end.port)
        })
    }
}

fn owner_of_peer(peer: Peer) -> Result<model::Owner, LineError> {
    owner(peer.process, peer.container, peer.pod, peer.node)
}

fn owner(
    process: Option<Process>,
    container: Option<Container>,
    pod: Option<Pod>,
    node: Option<Node>,
) -> Result<model::Owner, LineError> {
    Ok(model::Owner {
        process: process.map(Process::model).transpose()?,
        container: container.map(Container::model).transpose()?,
        pod: pod.map(Pod::model).transpose()?,
        node: node.map(|node| model::Node { name: node.name }),
    })
}

impl Process {
    fn model(self) -> Result<model::Process, LineError> {
        Ok(model::Process {
            pid: self.pid,
            name: self.name,
            command: self.command,
            command_cut: self.command_cut,
            executable: self.executable,
            uid: self.uid,
            source: one_of(
                "source of a process",
                &ProcessSource::ALL,
                ProcessSource::name,
                &self.source,
            )?,
        })
    }
}

impl Container {
    fn model(self) -> Result<model::Container, LineError> {
        let runtime = |name: String| one_of("container runtime", &Runtime::ALL, Runtime::name, &name);
        Ok(model::Container {
            id: self.id,
            runtime: self.runtime.map(runtime).transpose()?,
            name: self.name,
        })
    }
}

impl Pod {
    fn model(self) -> Result<model::Pod, LineError> {
        let workload = |workload: PodWorkload| {
            Ok::<_, LineError>(Workload {
                source: one_of(
                    "source of a workload",
                    &WorkloadSource::ALL,
                    WorkloadSource::name,
                    &workload.source,
                )?,
                kind: workload.kind.into(),
                name: workload.name,
            })
        };
        Ok(model::Pod {
            uid: self.uid,
            namespace: self.namespace,
            name: self.name,
            qos: self
                .qos
                .map(|name| one_of("QoS class", &Qos::ALL, Qos::name, &name))
                .transpose()?,
            workload: self.workload.map(workload).transpose()?,
            labels: None,
            source: one_of("source of a pod", &PodSource::ALL, PodSource::name, &self.source)?,
        })
    }
}

impl Cause {
    fn model(self) -> Result<model::Cause, LineError> {
        Ok(model::Cause {
            kind: one_of("kind of cause", &CauseKind::ALL, CauseKind::name, &self.kind)?,
            what: self.what,
            rule: self.rule,
            service: self.service,
            reason: self.reason,
            remedy: self.remedy,
            certain: self.certain,
        })
    }
}

/// The one of `all` that has this name.
pub(super) fn one_of<T: Copy>(
    what: &'static str,
    all: &[T],
    name_of: impl Fn(T) -> &'static str,
    name: &str,
) -> Result<T, LineError> {
    all.iter()
        .copied()
        .find(|one| name_of(*one) == name)
        .ok_or(LineError::Unknown { what })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{json_line, samples};

    fn json(connection: &model::Connection) -> String {
        let mut line = Vec::new();
        json_line(&mut line, "beta", connection).unwrap();
        String::from_utf8(line).unwrap()
    }

    /// Every field that JSON has, at least once.
    fn samples() -> Vec<model::Connection> {
        let address = |text: &str| Some(text.parse().unwrap());
        let mut translated = samples::incident();
        translated.seen_as = address("192.168.88.12:62134");
        translated.dialled = address("[fd00::1]:2379");
        let mut least = samples::incident();
        (least.owner, least.payload, least.cadence, least.netns) = (Arc::default(), None, None, 0);
        least.source = "0.0.0.0:0".parse().unwrap();
        let mut no_port = samples::incident();
        no_port.source.set_port(0);
        let mut owner = samples::pod("shop", "web-0", "nginx", 7);
        let pod = owner.pod.as_mut().unwrap();
        pod.workload = Some(Workload {
            kind: "StatefulSet".into(),
            name: "web".to_owned(),
            source: WorkloadSource::Labels,
        });
        owner.container.as_mut().unwrap().name = Some("nginx".to_owned());
        owner.process.as_mut().unwrap().command_cut = true;
        let mut of_node = samples::incident();
        of_node.peer = Some(Arc::new(model::Owner {
            node: Some(model::Node {
                name: "alpha".to_owned(),
            }),
            ..model::Owner::default()
        }));
        let mut all = vec![translated, least, no_port, of_node, samples::failed()];
        all.push(model::Connection {
            owner: Arc::new(owner),
            ..samples::incident()
        });
        let untranslated = Untranslated::ALL.map(|reason| model::Connection {
            untranslated: Some(reason),
            ..samples::incident()
        });
        all.extend(untranslated);
        all.extend(samples::tls().into_iter().map(|tls| model::Connection {
            tls: Some(Box::new(tls)),
            ..samples::incident()
        }));
        all.extend(samples::all());
        all
    }

    #[test]
    fn what_is_read_is_what_was_written() {
        for connection in samples() {
            let line = json(&connection);
            let read = read(line.as_bytes()).unwrap();
            assert_eq!(json(&read), line);
        }
    }

    /// Names that are one of a few come back as they went.
    #[test]
    fn every_name_is_known() {
        let mut connection = samples::incident();
        let with = |owner: model::Owner, connection: &model::Connection| {
            let line = json(&model::Connection {
                owner: Arc::new(owner),
                ..connection.clone()
            });
            assert_eq!(json(&read(line.as_bytes()).unwrap()), line);
        };
        for source in PodSource::ALL {
            let mut owner = samples::unnamed_pod("sh", 1);
            owner.pod.as_mut().unwrap().source = source;
            with(owner, &connection);
        }
        for runtime in Runtime::ALL {
            let mut owner = samples::unnamed_pod("sh", 1);
            owner.container.as_mut().unwrap().runtime = Some(runtime);
            with(owner, &connection);
        }
        for kind in CauseKind::ALL {
            let mut cause = samples::cause();
            cause.kind = kind;
            connection.cause = Some(Box::new(cause));
            with(samples::host("sh", 1), &connection);
        }
        for outcome in Outcome::ALL {
            connection.outcome = outcome;
            with(samples::host("sh", 1), &connection);
        }
    }

    #[test]
    fn what_is_no_connection_is_refused() {
        let line = json(&samples::incident());
        let with = |from: &str, to: &str| {
            assert!(line.contains(from), "{from}");
            line.replacen(from, to, 1)
        };
        for (line, says) in [
            (String::new(), "no JSON"),
            ("42".to_owned(), "no JSON"),
            (line[..line.len() / 2].to_owned(), "no JSON"),
            (with("\"connection\"", "\"summary\""), "another event"),
            (with("\"client\"", "\"bystander\""), "unknown role"),
            (with("\"half-open\"", "\"\""), "unknown outcome"),
            (with("\"kernel\"", "\"guess\""), "unknown source of a process"),
            (with("\"pod-log-dir\"", "\"guess\""), "unknown source of a pod"),
            (with("2026-11-23T09:10:14.145123Z", "yesterday"), "no JSON"),
            (with("192.168.88.11", "etcd"), "no JSON"),
            (with("4242", "-1"), "no JSON"),
            (
                with("{", "{\"tls\":{\"version\":\"TLS 0.9\"},"),
                "unknown version of TLS",
            ),
        ] {
            let error = read(line.as_bytes()).expect_err(&line).to_string();
            assert!(error.contains(says), "{error}: {line}");
        }
    }

    /// What a newer probe adds is left out, and nothing else.
    #[test]
    fn more_fields_do_no_harm() {
        let line = json(&samples::incident());
        let more = line.replacen('{', "{\"colour\":{\"a\":[1]},", 1);
        assert_eq!(json(&read(more.as_bytes()).unwrap()), line);
    }
}
