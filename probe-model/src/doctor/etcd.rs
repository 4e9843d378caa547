//! Who connects to etcd and sends nothing, as the kernel saw it and as etcd's own log has it.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use jiff::Timestamp;

use super::{Answer, Check, Finding, Kind};
use crate::probe_command;
use crate::{
    Cadence, Owner,
    cadence::Tracker,
    etcd_log::{Rejected, advice::kind},
    outcome::is_silent_client,
    plural::counted,
    summary::Row,
};

const KIND: Kind = Kind::Doctor(Check::Etcd);

/// Where etcd's clients connect.
pub const PORT: u16 = 2379;
/// Clients of a log that are listed separately.
const CLIENTS: usize = 1024;
/// Clients reported.
const TOLD: usize = 5;

/// What etcd's log says of connections that it rejected.
#[derive(Debug, Default)]
pub struct Logged {
    clients: BTreeMap<(IpAddr, String), Client>,
    /// Of clients beyond that number.
    pub rest: u64,
}

#[derive(Debug, Default)]
struct Client {
    tracker: Tracker,
    count: u64,
    last: Option<Timestamp>,
}

impl Logged {
    /// Takes one.
    pub fn seen(&mut self, rejected: &Rejected) {
        let key = (rejected.peer.ip(), kind(&rejected.error));
        if self.clients.len() >= CLIENTS && !self.clients.contains_key(&key) {
            self.rest += 1;
            return;
        }
        let client = self.clients.entry(key).or_default();
        client.count += 1;
        if let Some(time) = rejected.time {
            client.tracker.seen(time);
            client.last = client.last.max(Some(time));
        }
    }

    /// The latest first.
    fn told(&self, since: Timestamp) -> Vec<String> {
        let mut clients: Vec<_> = self
            .clients
            .iter()
            .filter(|(_, client)| client.last >= Some(since))
            .collect();
        clients.sort_by_key(|(_, client)| std::cmp::Reverse(client.last));
        clients
            .into_iter()
            .take(TOLD)
            .map(|((address, error), client)| {
                let last = client
                    .last
                    .map(|last| format!(", last at {last:.0}"))
                    .unwrap_or_default();
                format!(
                    "etcd's log: {} rejected from {address} ({error}){}{last}",
                    times(client.count),
                    every(&client.tracker.cadence())
                )
            })
            .collect()
    }
}

/// What was seen while the doctor looked.
#[derive(Debug, Default)]
pub struct EtcdFacts {
    /// Whether a process listens on etcd's port here.
    pub listens: bool,
    /// The kernel's, by source.
    pub rows: Vec<Row>,
    /// `None`: no log of etcd was found.
    pub logged: Option<Logged>,
    /// Since when the kernel's are known.
    pub since: Timestamp,
    pub now: Timestamp,
}

/// How far back lines of a log count.
pub const NEWS: Duration = Duration::from_secs(3600);

/// The rule: a client that sends nothing makes etcd log a rejected connection each time.
pub fn judge(seen: &EtcdFacts) -> Answer {
    let since = seen.now.checked_sub(NEWS).unwrap_or(seen.now);
    let logged = seen
        .logged
        .as_ref()
        .map(|logged| logged.told(since))
        .unwrap_or_default();
    let ago = seen.now.duration_since(seen.since).as_secs();
    let ago = if ago < 120 {
        format!("{ago} s")
    } else {
        format!("{} min", ago / 60)
    };
    if !seen.listens && seen.rows.is_empty() {
        return Answer::not_applicable(
            Check::Etcd,
            format!("no listener on port {PORT} on this node, and no connection to it in {ago}"),
        );
    }
    let nothing: Vec<_> = seen
        .rows
        .iter()
        .filter(|row| is_silent_client(row.outcome))
        .collect();
    let connections: u64 = seen.rows.iter().map(Row::count).sum();
    let summary = format!(
        "{} to port {PORT} failed or closed without sending data in {ago}{}",
        counted(connections, "connection", "connections"),
        match &seen.logged {
            None => " (no etcd log on this node)".to_owned(),
            Some(_) if logged.is_empty() =>
                ", no rejected connection in etcd's log of the last hour".to_owned(),
            Some(_) => String::new(),
        }
    );
    let mut faults = probers(&nothing);
    if faults.len() > TOLD {
        let more = faults.len() - TOLD;
        faults.truncate(TOLD);
        faults.push(Finding::failed(KIND, format!("{more} more clients do the same")));
    }
    if let Some(first) = faults.first_mut() {
        first.evidence.extend(logged);
    } else if !logged.is_empty() {
        let mut fault = Finding::failed(
            KIND,
            "etcd rejected connections in the last hour; none during the check",
        );
        fault.evidence = logged;
        faults.push(
            fault
                .fix(probe_command::watch(
                    &[PORT],
                    false,
                    "on the node of that address, longer than the interval",
                ))
                .fix(probe_command::etcd_log(
                    "with agents on the nodes: names the client of each line of the log",
                )),
        );
    }
    Answer::of(Check::Etcd, summary, faults)
}

/// One fault for each of them, whichever sides of its connections were seen.
fn probers(rows: &[&Row]) -> Vec<Finding> {
    let mut faults: Vec<Finding> = Vec::new();
    for row in rows {
        let fault = probes(row);
        match faults.iter_mut().find(|known| known.what == fault.what) {
            Some(known) => known.evidence.extend(fault.evidence),
            None => faults.push(fault),
        }
    }
    faults
}

fn probes(row: &Row) -> Finding {
    let who = row
        .actor()
        .map_or_else(|| format!("a client at {}", row.client), Owner::describe);
    Finding::failed(
        KIND,
        format!("{who} connects to etcd and closes without sending data"),
    )
    .seen(format!(
        "{}: {} from {} to {}{}",
        row.outcome.name(),
        times(row.count()),
        row.client,
        row.destination,
        every(&row.cadence)
    ))
    .advise(
        "Let it query GET /health with a client certificate, or on --listen-metrics-urls: etcd logs \
             each such connection as rejected.",
    )
}

fn times(count: u64) -> String {
    if count == 1 {
        "once".to_owned()
    } else {
        format!("{count} times")
    }
}

fn every(cadence: &Cadence) -> String {
    cadence
        .every
        .map(|every| format!(", every {:.1} s", every.as_secs_f64()))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Outcome, Role,
        doctor::CheckVerdict,
        owner::{Pod, PodSource, Process, ProcessSource},
    };

    fn row(outcome: Outcome, count: u64, every: Option<u64>, owner: Owner) -> Row {
        Row {
            node: None,
            role: Role::Client,
            outcome,
            destination: "192.168.88.11:2379".parse().unwrap(),
            client: "10.244.2.2".parse().unwrap(),
            owner: owner.into(),
            peer: None,
            cadence: Cadence {
                count,
                every: every.map(Duration::from_secs),
                ..Cadence::default()
            },
            unlisted: crate::summary::Unlisted::default(),
            first: Timestamp::UNIX_EPOCH,
            last: Timestamp::UNIX_EPOCH,
        }
    }

    fn monitor() -> Owner {
        Owner {
            process: Some(Process {
                pid: 4242,
                name: "python3.11".to_owned(),
                command: crate::CommandLine::default(),
                command_cut: false,
                started: None,
                executable: None,
                uid: None,
                source: ProcessSource::Kernel,
            }),
            pod: Some(Pod {
                uid: "u".to_owned(),
                namespace: Some("monitoring".to_owned()),
                name: Some("sdp-monitor-z8989".to_owned()),
                qos: None,
                workload: None,
                labels: None,
                address_since: None,
                source: PodSource::Cri,
            }),
            ..Owner::default()
        }
    }

    fn seen(rows: Vec<Row>, logged: Option<Logged>) -> EtcdFacts {
        EtcdFacts {
            listens: true,
            rows,
            logged,
            since: "2026-11-23T09:59:55Z".parse().unwrap(),
            now: "2026-11-23T10:00:00Z".parse().unwrap(),
        }
    }

    fn rejected(seconds: i64) -> Rejected {
        let at: Timestamp = "2026-11-23T09:10:00Z".parse().unwrap();
        Rejected {
            time: at.checked_add(jiff::SignedDuration::from_secs(seconds)).ok(),
            peer: "192.168.88.12:62134".parse().unwrap(),
            error: "EOF".to_owned(),
            server_name: String::new(),
            endpoint: None,
            has_offset: true,
            zone: None,
            server: None,
            logged_by: crate::etcd_log::ServerKind::Etcd,
        }
    }

    #[test]
    fn who_sends_nothing_is_named() {
        let answer = judge(&seen(
            vec![
                row(Outcome::HalfOpen, 2, Some(5), monitor()),
                row(Outcome::HalfOpenReset, 1, None, monitor()),
                row(Outcome::ResetByClient, 1, None, Owner::default()),
            ],
            None,
        ));
        assert_eq!(answer.verdict, CheckVerdict::Failed);
        assert_eq!(
            answer.summary,
            "4 connections to port 2379 failed or closed without sending data in 5 s (no etcd log on this node)"
        );
        let fault = &answer.findings[0];
        assert_eq!(
            fault.what,
            "monitoring/sdp-monitor-z8989, python3.11 (pid 4242) connects to etcd and closes without sending data"
        );
        assert_eq!(
            fault.evidence,
            [
                "half-open: 2 times from 10.244.2.2 to 192.168.88.11:2379, every 5.0 s",
                "half-open-reset: once from 10.244.2.2 to 192.168.88.11:2379",
            ]
        );
        assert_eq!(answer.findings.len(), 1);
    }

    #[test]
    fn nobody_does() {
        let closed = vec![row(Outcome::ResetByServer, 1, None, Owner::default())];
        assert_eq!(
            judge(&seen(closed, Some(Logged::default()))).verdict,
            CheckVerdict::Ok
        );
        let nobody = EtcdFacts {
            listens: false,
            ..seen(Vec::new(), None)
        };
        assert_eq!(judge(&nobody).verdict, CheckVerdict::NotApplicable);
    }

    #[test]
    fn a_log_reaches_further_back() {
        let mut logged = Logged::default();
        (0..5).for_each(|beat| logged.seen(&rejected(beat * 60)));
        let answer = judge(&seen(Vec::new(), Some(logged)));
        assert_eq!(answer.verdict, CheckVerdict::Failed);
        assert_eq!(
            answer.findings[0].evidence,
            [
                "etcd's log: 5 times rejected from 192.168.88.12 (EOF), every 60.0 s, last at 2026-11-23T09:14:00Z"
            ]
        );
        // Older than an hour is no news.
        let mut logged = Logged::default();
        logged.seen(&rejected(-3600));
        assert_eq!(judge(&seen(Vec::new(), Some(logged))).verdict, CheckVerdict::Ok);
    }

    #[test]
    fn a_log_can_be_of_anybody() {
        let mut logged = Logged::default();
        for client in 0..2 * CLIENTS as u32 {
            let mut one = rejected(0);
            one.peer.set_ip(std::net::Ipv4Addr::from(client).into());
            logged.seen(&one);
        }
        assert_eq!((logged.clients.len(), logged.rest), (CLIENTS, CLIENTS as u64));
    }
}
