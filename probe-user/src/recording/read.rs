//! Reads recordings, from one or many nodes.

use std::{
    borrow::Cow,
    fs::File,
    io::{self, BufRead, BufReader},
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
};

use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::write::older;
use crate::model::{
    Outcome, Role,
    flow::{Client, Identity, Objects, Recorded},
    outcome::is_healthy,
    recording_scope::RecordingScope,
    secret,
    unlisted_time::{UnlistedTime, UnlistedTimes},
};

/// A line longer than this is no record.
const LONGEST: u64 = 1 << 20;

/// A recording can't be read.
#[derive(Debug, thiserror::Error)]
#[error("can't read the recording {}: {source}", path.display())]
pub struct RecordingError {
    path: PathBuf,
    source: io::Error,
}

/// What was in recordings besides connections.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Read {
    pub connections: u64,
    /// How they were filtered, each way once.
    pub scopes: Vec<RecordingScope>,
    /// When connections are missing in them.
    pub unlisted: UnlistedTimes,
    /// Lines that are no JSON of `probe watch`: cut off, or another's.
    pub malformed: u64,
}

/// Hands every connection in `path`, and in the older half beside it, to `each`.
///
/// # Errors
/// When a file can't be read.
pub fn read(path: &Path, mut each: impl FnMut(Recorded)) -> Result<Read, RecordingError> {
    let mut total = Read::default();
    let older = older(path);
    let error = |path: &Path| {
        let path = path.to_owned();
        move |source| RecordingError { path, source }
    };
    if older.exists() {
        lines(&older, &mut total, &mut each).map_err(error(&older))?;
    }
    lines(path, &mut total, &mut each).map_err(error(path))?;
    Ok(total)
}

impl Read {
    fn add_scope(&mut self, scope: RecordingScope) {
        if !self.scopes.contains(&scope) {
            self.scopes.push(scope);
        }
    }
}

fn lines(path: &Path, total: &mut Read, each: &mut impl FnMut(Recorded)) -> io::Result<()> {
    let mut reader = BufReader::with_capacity(1 << 18, File::open(path)?);
    let mut line = Vec::new();
    // Of connections above any header: whether there are any, and healthy ones.
    let mut unnamed = None;
    let mut has_header = false;
    loop {
        line.clear();
        if io::Read::take(&mut reader, LONGEST).read_until(b'\n', &mut line)? == 0 {
            break;
        }
        match serde_json::from_slice::<Line<'_>>(&line) {
            Ok(line) if line.event == "recording" => has_header = true,
            Ok(found) if found.event == "unlisted" => {
                match serde_json::from_slice::<UnlistedTime>(&line) {
                    Ok(time) => total.unlisted.add(time),
                    Err(_) => total.malformed += 1,
                }
                continue;
            }
            Ok(line) => {
                let Some(recorded) = line.connection() else {
                    continue;
                };
                total.connections += 1;
                if !has_header {
                    *unnamed.get_or_insert(false) |= is_healthy(recorded.outcome);
                }
                each(recorded);
                continue;
            }
            Err(_) => {
                total.malformed += 1;
                continue;
            }
        }
        if let Ok(scope) = serde_json::from_slice(&line) {
            total.add_scope(scope);
        }
    }
    if let Some(has_healthy) = unnamed {
        total.add_scope(RecordingScope::unnamed(has_healthy));
    }
    Ok(())
}

/// Reads one line: a connection that may be looked up, or something else that probe records.
///
/// # Errors
/// When it is no JSON of `probe watch`.
pub fn line(bytes: &[u8]) -> serde_json::Result<Option<Recorded>> {
    let line: Line<'_> = serde_json::from_slice(bytes)?;
    Ok(line.connection())
}

/// Of all events; those other than a connection have few of these.
#[derive(Deserialize)]
struct Line<'a> {
    #[serde(borrow)]
    event: Cow<'a, str>,
    #[serde(borrow, default)]
    time: Cow<'a, str>,
    #[serde(borrow, default)]
    role: Cow<'a, str>,
    #[serde(borrow, default)]
    outcome: Cow<'a, str>,
    duration_us: Option<i64>,
    source: Option<End>,
    destination: Option<End>,
    dialled: Option<End>,
    seen_as: Option<End>,
    #[serde(borrow)]
    untranslated: Option<Cow<'a, str>>,
    #[serde(borrow)]
    node: Option<Cow<'a, str>>,
    #[serde(borrow)]
    process: Option<&'a RawValue>,
    #[serde(borrow)]
    container: Option<&'a RawValue>,
    #[serde(borrow)]
    pod: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct End {
    address: IpAddr,
    port: u16,
}

impl End {
    fn address(&self) -> SocketAddr {
        SocketAddr::new(self.address, self.port)
    }
}

/// What an object of a record is called.
#[derive(Default, Deserialize)]
struct Named {
    namespace: Option<String>,
    name: Option<String>,
    uid: Option<serde_json::Value>,
    id: Option<String>,
    started: Option<Timestamp>,
    address_since: Option<Timestamp>,
    #[serde(default)]
    command: Vec<String>,
}

/// A process with the secrets of its command line hidden, as an earlier version did not; `None`: it has none.
fn hidden(process: &RawValue, mut command: Vec<String>) -> Option<Box<str>> {
    if !secret::hide(&mut command) {
        return None;
    }
    let mut process: serde_json::Map<String, serde_json::Value> = serde_json::from_str(process.get()).ok()?;
    process.insert("command".to_owned(), command.into());
    // Who prints it escapes it, as what is read.
    Some(serde_json::Value::Object(process).to_string().into())
}

impl Line<'_> {
    /// Without a SYN there is no port: no server saw it, so it is never looked up.
    fn connection(&self) -> Option<Recorded> {
        (self.event == "connection").then(|| self.recorded()).flatten()
    }

    fn recorded(&self) -> Option<Recorded> {
        let ended: Timestamp = self.time.parse().ok()?;
        let began = ended
            .checked_sub(SignedDuration::from_micros(self.duration_us?))
            .ok()?;
        Some(Recorded {
            began,
            ended,
            destination: self.destination.as_ref()?.address(),
            source: self.source.as_ref()?.address(),
            dialled: self.dialled.as_ref().map(End::address),
            seen_as: self.seen_as.as_ref().map(End::address),
            translated: self.untranslated.is_none(),
            outcome: Outcome::ALL
                .into_iter()
                .find(|outcome| outcome.name() == self.outcome)?,
            client: (self.role == Role::Client.name()).then(|| self.client()),
            node: self.node.as_deref().map(str::to_owned),
        })
    }

    fn client(&self) -> Client {
        let named = |object: Option<&RawValue>| -> Named {
            object
                .and_then(|object| serde_json::from_str(object.get()).ok())
                .unwrap_or_default()
        };
        let text = |object: Option<&RawValue>| object.map(|object| object.get().into());
        let (process, container, pod) = (named(self.process), named(self.container), named(self.pod));
        let hidden = self.process.and_then(|object| hidden(object, process.command));
        let uid = pod
            .uid
            .as_ref()
            .and_then(serde_json::Value::as_str)
            .map(str::to_owned);
        let node = self.node.as_deref().map(str::to_owned);
        let identity = Identity {
            node: node.clone().filter(|_| self.pod.is_none()),
            namespace: pod.namespace,
            pod: pod.name.or(uid),
            container: container.name.or(container.id),
            process: process.name,
        };
        let objects = Objects {
            process: hidden.or_else(|| text(self.process)),
            container: text(self.container),
            pod: text(self.pod),
        };
        Client {
            identity,
            node,
            objects,
            process_started: process.started,
            address_since: pod.address_since,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{Format, Reporter, json_line, samples, scope_line};

    fn lines_of(outcomes: &[Outcome]) -> Vec<u8> {
        let mut out = Vec::new();
        for outcome in outcomes {
            let connection = crate::model::Connection {
                outcome: *outcome,
                ..samples::incident()
            };
            json_line(&mut out, "beta", &connection).unwrap();
        }
        out
    }

    /// What older lines of a log are answered by.
    #[test]
    fn since_when_a_client_was_there() {
        let mut connection = samples::incident();
        let since = || "2026-11-23T08:00:00.5Z".parse().ok();
        let owner = std::sync::Arc::make_mut(&mut connection.owner);
        owner.process.as_mut().unwrap().started = since();
        owner.pod.as_mut().unwrap().address_since = since();
        let mut out = Vec::new();
        json_line(&mut out, "beta", &connection).unwrap();
        let client = line(&out).unwrap().unwrap().client.unwrap();
        assert_eq!((client.process_started, client.address_since), (since(), since()));
        assert_eq!(client.identity.pod.as_deref(), Some("sdp-monitor-z8989"));
    }

    /// Those that an earlier version recorded, and those that somebody had shown.
    #[test]
    fn secrets_are_hidden() {
        let mut connection = samples::incident();
        let process = std::sync::Arc::make_mut(&mut connection.owner)
            .process
            .as_mut()
            .unwrap();
        let arguments = ["mysql", "-pS3cret", "db"].map(str::to_owned).to_vec();
        process.command = crate::model::CommandLine::new(arguments, crate::model::Secrets::Shown);
        let mut out = Vec::new();
        json_line(&mut out, "beta", &connection).unwrap();
        let client = line(&out).unwrap().unwrap().client.unwrap();
        let process = client.objects.process.unwrap();
        let value: serde_json::Value = serde_json::from_str(&process).unwrap();
        assert_eq!(value["command"], serde_json::json!(["mysql", "-p***", "db"]));
        assert_eq!(value["pid"], 4242);
    }

    #[test]
    fn when_connections_are_missing() {
        let mut reporter = Reporter::new(Format::Json, None, false, Vec::new()).node("beta".to_owned());
        reporter.unlisted(&samples::unlisted()).unwrap();
        reporter.flush().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("flows.jsonl");
        let wrong = b"{\"event\":\"unlisted\",\"since\":\"yesterday\"}\n".to_vec();
        std::fs::write(&path, [reporter.into_inner(), wrong].concat()).unwrap();
        let read = read(&path, |_| panic!("a connection")).unwrap();
        assert_eq!(read.unlisted.all(), [samples::unlisted()]);
        assert_eq!((read.connections, read.malformed), (0, 1));
    }

    /// Recordings say what they leave out; those of earlier versions are known by saying nothing.
    #[test]
    fn what_a_recording_leaves_out() {
        let header = |scope: &RecordingScope| scope_line(scope, "beta").unwrap();
        let etcd = RecordingScope {
            ports: vec![2379],
            ..RecordingScope::default()
        };
        let of_peer = RecordingScope {
            peers: vec!["::1/128".to_owned()],
            ..etcd.clone()
        };
        let shown = RecordingScope::unnamed(false);
        let all = RecordingScope::unnamed(true);
        let failed = lines_of(&[Outcome::HalfOpen]);
        let closed = lines_of(&[Outcome::HalfOpen, Outcome::Closed]);
        for (what, text, connections, scopes) in [
            ("nothing", vec![], 0, vec![]),
            ("an earlier version's", failed.clone(), 1, vec![shown.clone()]),
            ("the same with --all", closed.clone(), 2, vec![all]),
            (
                "this version's",
                [header(&etcd), failed.clone()].concat(),
                1,
                vec![etcd.clone()],
            ),
            ("no connection yet", header(&etcd), 0, vec![etcd.clone()]),
            (
                "this one's behind an earlier's",
                [failed.clone(), header(&etcd), closed.clone()].concat(),
                3,
                vec![etcd.clone(), shown],
            ),
            (
                "two runs with different filters",
                [
                    header(&etcd),
                    closed.clone(),
                    header(&of_peer),
                    closed,
                    header(&etcd),
                ]
                .concat(),
                4,
                vec![etcd, of_peer],
            ),
        ] {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("flows.jsonl");
            std::fs::write(&path, text).unwrap();
            let mut count = 0;
            let read = read(&path, |recorded| {
                count += 1;
                assert_eq!(recorded.node.as_deref(), Some("beta"));
            })
            .unwrap();
            assert_eq!(
                (read.connections, count, read.malformed),
                (connections, connections, 0),
                "{what}"
            );
            assert_eq!(read.scopes, scopes, "{what}");
        }
    }
}
