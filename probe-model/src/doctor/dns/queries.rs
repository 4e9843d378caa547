//! DNS queries over UDP, as packets show them, and which had no answer.

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    time::Duration,
};

use super::{Finding, KIND};
use crate::path::{Event, What, event::Direction};
use crate::probe_command;

/// Queries that are kept.
const KEPT: usize = 16_384;
/// An answer may take so long.
const PATIENCE_NS: u64 = 2_000_000_000;
/// Servers listed at most.
const TOLD: usize = 20;
const UDP: u8 = 17;
const DNS: u16 = 53;
/// Percent of a server's queries that may be lost, and how many at the most.
const USUAL: u64 = 5;
const MANY: u64 = 10;

/// A query on its way.
#[derive(Debug)]
struct Query {
    /// Where it was asked.
    netns: u32,
    server: SocketAddr,
    at_ns: u64,
    /// It came back to where it was asked: with which code.
    answer: Option<u8>,
    /// It was seen somewhere else.
    on_its_way: bool,
    /// Why the kernel let it, or its answer, go.
    dropped: Option<String>,
}

/// Queries of a window.
#[derive(Debug, Default)]
pub struct Queries {
    open: HashMap<(u64, u16), Query>,
    lost: u64,
    malformed: u64,
}

/// What one network namespace asked of one server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QueryCounts {
    /// Who asks.
    pub who: String,
    pub server: Option<SocketAddr>,
    pub asked: u64,
    /// No answer came within two seconds, or at all.
    pub unanswered: u64,
    /// Of these, how many an answer was sent to that did not come through.
    pub lost_on_the_way: u64,
    /// The answer was that the server could not find out (SERVFAIL).
    pub failed: u64,
    /// The kernel's reason, where it dropped one of them.
    pub dropped: Option<String>,
}

/// All of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    pub window: Duration,
    pub rows: Vec<QueryCounts>,
    /// Packets that were not seen for lack of room.
    pub lost: u64,
    pub malformed: u64,
}

impl Asked {
    /// In a few words.
    pub fn summary(&self) -> String {
        let asked: u64 = self.rows.iter().map(|row| row.asked).sum();
        let without: u64 = self.rows.iter().map(|row| row.unanswered).sum();
        let seconds = self.window.as_secs_f64().round();
        match (asked, without) {
            (0, _) => format!("no DNS query in {seconds} s"),
            (asked, 0) => format!("{asked} DNS queries in {seconds} s, all answered"),
            (asked, without) => format!("{asked} DNS queries in {seconds} s, {without} without an answer"),
        }
    }
}

impl Queries {
    /// Takes a packet at one point of its way.
    pub fn push(&mut self, event: &Event) {
        let packet = &event.packet;
        if packet.protocol != UDP || packet.tunnel.is_some() || packet.about {
            return;
        }
        let Some(header) = Header::of(&event.bytes) else {
            self.malformed += u64::from(matches!(event.what, What::Sent));
            return;
        };
        let key = (event.flow, header.id);
        let asks = event.direction == Direction::Request && !header.answers;
        if asks && !self.open.contains_key(&key) {
            if self.open.len() >= KEPT {
                self.lost += 1;
                return;
            }
            let query = Query {
                netns: event.netns,
                server: packet.destination,
                at_ns: event.time_ns,
                answer: None,
                on_its_way: false,
                dropped: None,
            };
            self.open.insert(key, query);
        }
        let Some(query) = self.open.get_mut(&key) else {
            return;
        };
        let answers = event.direction == Direction::Reply && header.answers;
        if answers && event.netns == query.netns {
            // Dropped there, too, it came: who asked may not have waited for it.
            query.answer = Some(header.code);
        } else if let What::Dropped { reason, .. } = &event.what {
            let untold = || "for a reason that this kernel does not report".to_owned();
            query.dropped = Some(reason.clone().unwrap_or_else(untold));
        } else {
            query.on_its_way |= answers;
        }
    }

    /// What came of them by the end of the window. `who` names a network namespace; `None`: it is not this node's.
    pub fn end(
        self,
        end_ns: u64,
        window: Duration,
        lost: u64,
        mut who: impl FnMut(u32) -> Option<String>,
    ) -> Asked {
        let mut rows: BTreeMap<(u32, SocketAddr), QueryCounts> = BTreeMap::new();
        for query in self.open.into_values() {
            let waited = end_ns.saturating_sub(query.at_ns);
            if query.answer.is_none() && waited < PATIENCE_NS {
                continue;
            }
            let row = rows.entry((query.netns, query.server)).or_default();
            row.server = Some(query.server);
            row.asked += 1;
            match query.answer {
                None => {
                    row.unanswered += 1;
                    row.lost_on_the_way += u64::from(query.on_its_way);
                    row.dropped = query.dropped.or_else(|| row.dropped.take());
                }
                Some(code) => row.failed += u64::from(code == Header::SERVFAIL),
            }
        }
        let named = |((netns, _), row): ((u32, SocketAddr), QueryCounts)| {
            Some(QueryCounts {
                who: who(netns)?,
                ..row
            })
        };
        let mut rows: Vec<QueryCounts> = rows.into_iter().filter_map(named).collect();
        rows.sort_by_key(|row| (std::cmp::Reverse(row.unanswered), row.who.clone()));
        Asked {
            window,
            rows,
            lost: self.lost + lost,
            malformed: self.malformed,
        }
    }
}

/// Of a DNS message what matters here.
struct Header {
    id: u16,
    answers: bool,
    code: u8,
}

impl Header {
    const SERVFAIL: u8 = 2;

    /// Behind the headers of IP and UDP.
    fn of(bytes: &[u8]) -> Option<Self> {
        let ip = match bytes.first()? >> 4 {
            4 => usize::from(bytes.first()? & 0xf) * 4,
            6 => 40,
            _ => return None,
        };
        let [high, low, flags, code, ..] = *bytes.get(ip + 8..)? else {
            return None;
        };
        Some(Self {
            id: u16::from_be_bytes([high, low]),
            answers: flags & 0x80 != 0,
            code: code & 0xf,
        })
    }
}

/// What is wrong by it.
pub(super) fn faults(asked: &Asked) -> Vec<Finding> {
    let seconds = asked.window.as_secs_f64().round();
    let mut faults = Vec::new();
    // A datagram is lost now and then, and is sent again.
    let counts = |row: &&QueryCounts| row.unanswered >= MANY || row.unanswered * 100 > row.asked * USUAL;
    let bad: Vec<&QueryCounts> = asked.rows.iter().filter(counts).collect();
    // None answered of several is a server that is not there.
    let dead = |row: &QueryCounts| row.unanswered == row.asked && row.asked >= 2 && asked.lost == 0;
    let (dead, some): (Vec<&QueryCounts>, Vec<&QueryCounts>) = bad.into_iter().partition(|row| dead(row));
    for (rows, failed) in [(dead, true), (some, false)] {
        if rows.is_empty() {
            continue;
        }
        let count: u64 = rows.iter().map(|row| row.unanswered).sum();
        let fault = match failed {
            true => Finding::failed(
                KIND,
                format!("{count} DNS queries in {seconds} s got no answer from these servers"),
            ),
            false => Finding::warning(
                KIND,
                format!("{count} DNS queries in {seconds} s got no answer, others did"),
            ),
        };
        let fault = rows
            .iter()
            .take(TOLD)
            .fold(fault, |fault, row| fault.seen(line(row)));
        let server = rows.iter().find_map(|row| row.server);
        let to = server.map(|server| SocketAddr::new(server.ip(), DNS));
        faults.push(fault.fix(probe_command::path(to, Some(DNS), "shows where they are dropped")));
    }
    let failing: Vec<&QueryCounts> = asked.rows.iter().filter(|row| row.failed > 0).collect();
    if !failing.is_empty() {
        let count: u64 = failing.iter().map(|row| row.failed).sum();
        let fault = Finding::warning(
            KIND,
            format!(
                "{count} DNS queries in {seconds} s were answered with SERVFAIL: the server gets no answer \
                 from its upstream servers"
            ),
        );
        let says =
            |row: &&QueryCounts| format!("{}: {} of {} to {}", row.who, row.failed, row.asked, server(row));
        let fault = failing
            .iter()
            .take(TOLD)
            .fold(fault, |fault, row| fault.seen(says(row)));
        faults.push(fault.run(
            [
                "kubectl",
                "-n",
                "kube-system",
                "logs",
                "-l",
                "k8s-app=kube-dns",
                "--tail",
                "50",
            ],
            "shows the upstream servers that do not answer CoreDNS",
        ));
    }
    faults
}

fn server(row: &QueryCounts) -> String {
    row.server.map_or_else(String::new, |server| server.to_string())
}

fn line(row: &QueryCounts) -> String {
    let mut text = format!(
        "{}: {} of {} to {} without an answer",
        row.who,
        row.unanswered,
        row.asked,
        server(row)
    );
    if row.lost_on_the_way > 0 {
        text.push_str(&format!(
            "; an answer to {} was sent and did not arrive",
            row.lost_on_the_way
        ));
    }
    if let Some(reason) = &row.dropped {
        text.push_str(&format!("; this node dropped one: {reason}"));
    }
    text
}
