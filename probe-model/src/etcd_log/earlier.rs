//! Lines that are older than the recordings, and who is likely behind them: a source that is recorded since, and whose interval
//! reaches back to them, or the pod that has had the address since before.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};

use super::Rejected;
use crate::{
    Outcome,
    cadence::phase::{Phase, RECORDED, seconds},
    flow::{Client, Flows, Identity, Near, RecordedSide, Unmatched, matching::is_of_one_node},
    outcome::reaches_server,
};

/// Lines that wait for the end of the log; of more the latest, which are the nearest to the recordings.
const HELD: usize = 50_000;
/// Recorded sources of one address that are followed: those with most connections.
const SOURCES: usize = 64;
/// Lines by which the clocks of the log and of a recording are compared, at least and at most.
const CLOCKS: usize = 3;
const CLOCKS_KEPT: usize = 1000;
/// What two clocks may differ by, where there are none.
const CLOCKS_DIFFER: f64 = 1.0;
/// How long after a process or an address began a line has to be.
const BEGIN: f64 = 1.0;

/// Who is likely behind a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Likely {
    pub client: Client,
    pub evidence: EarlierEvidence,
}

/// What an answer rests on that is only likely.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EarlierEvidence {
    /// The source's interval reaches back to the line.
    Interval {
        /// The recorded interval.
        every: Duration,
        /// Lines of the log that stand on its phase.
        beats: usize,
        /// The largest distance of one of them from where it was expected.
        spread: Duration,
        /// When the process started, or since when its pod has had its address.
        since: Timestamp,
        /// The process is the same in all connections; else the pod.
        is_process: bool,
    },
    /// The address is the pod's own, since then.
    PodAddress { since: Timestamp },
}

/// A line, and who is likely behind it, or why nobody is named.
pub type EarlierLine = (Rejected, Result<Likely, Unmatched>);

/// The recorded clients of one address.
#[derive(Debug)]
struct AddressRecords<'a> {
    sides: Vec<RecordedSide<'a>>,
    /// The first record of the nodes that have them.
    begin: Timestamp,
    /// It is known of any since when it was there: recordings of earlier versions don't say it.
    has_begin: bool,
}

/// The clients that recordings have by an address, and what is older than they are.
#[derive(Debug)]
pub struct Earlier<'a> {
    flows: &'a Flows,
    /// By the address that a server saw; made when it is needed.
    addresses: Option<HashMap<IpAddr, AddressRecords<'a>>>,
    held: BTreeMap<(Timestamp, u64), (Rejected, Unmatched)>,
    next: u64,
    /// What the log's clock is ahead of each node's.
    clocks: HashMap<Option<&'a str>, Vec<f64>>,
}

/// Connections of one source.
struct Series<'a> {
    /// Any one of them.
    side: RecordedSide<'a>,
    is_process: bool,
    since: Option<Timestamp>,
    phase: Phase,
    clock_known: bool,
}

impl<'a> Earlier<'a> {
    pub fn new(flows: &'a Flows) -> Self {
        Self {
            flows,
            addresses: None,
            held: BTreeMap::new(),
            next: 0,
            clocks: HashMap::new(),
        }
    }

    /// Takes a line that was matched: it compares the clocks.
    pub fn matched(&mut self, rejected: &Rejected, near: &Near<'a>) {
        let Some(time) = rejected.time.filter(|_| rejected.has_offset) else {
            return;
        };
        let clocks = self.clocks.entry(near.client.node.as_deref()).or_default();
        if clocks.len() < CLOCKS_KEPT {
            clocks.push(seconds(time, near.flow.ended));
        }
    }

    /// Whether a line that was not matched is older than the recordings of those who have its address now.
    pub fn is_earlier(&mut self, rejected: &Rejected, unmatched: &Unmatched) -> bool {
        let may_be_old = match unmatched {
            Unmatched::NotRecorded | Unmatched::ServerOnly | Unmatched::TooFar(_) => true,
            Unmatched::OtherServer(_)
            | Unmatched::NodeUnknown
            | Unmatched::ZoneUnknown(_)
            | Unmatched::TimeUnknown
            | Unmatched::Reused(_)
            | Unmatched::SharedPhase(_) => false,
        };
        let Some(time) = rejected.time.filter(|_| may_be_old && rejected.has_offset) else {
            return false;
        };
        let flows = self.flows;
        let addresses = self.addresses.get_or_insert_with(|| by_address(flows));
        let records = addresses.get(&rejected.peer.ip());
        records.is_some_and(|records| records.has_begin && time < records.begin)
    }

    /// Holds one until the end of the log; gives back the oldest where there is no more room.
    pub fn hold(&mut self, rejected: Rejected, unmatched: Unmatched) -> Option<(Rejected, Unmatched)> {
        let time = rejected.time.unwrap_or_default();
        self.held.insert((time, self.next), (rejected, unmatched));
        self.next += 1;
        (self.held.len() > HELD)
            .then(|| self.held.pop_first())
            .flatten()
            .map(|(_, oldest)| oldest)
    }

    /// Says of all that are held who is likely behind them, in the order of time. `within` is what the clocks may differ by, and
    /// `has_server` whether a line can be of a connection to that server.
    pub fn settle(
        &mut self,
        within: Duration,
        has_server: impl Fn(&Rejected, &RecordedSide<'a>) -> bool,
    ) -> Vec<EarlierLine> {
        let mut by_address: HashMap<IpAddr, Vec<(Rejected, Unmatched)>> = HashMap::new();
        for (_, line) in std::mem::take(&mut self.held) {
            by_address.entry(line.0.peer.ip()).or_default().push(line);
        }
        let mut settled = Vec::new();
        for (address, lines) in by_address {
            settled.extend(self.of_address(address, lines, within, &has_server));
        }
        settled.sort_by_key(|(rejected, _)| rejected.time);
        settled
    }

    fn of_address(
        &self,
        address: IpAddr,
        lines: Vec<(Rejected, Unmatched)>,
        within: Duration,
        has_server: &impl Fn(&Rejected, &RecordedSide<'a>) -> bool,
    ) -> Vec<EarlierLine> {
        let Some(origin) = lines.first().and_then(|(rejected, _)| rejected.time) else {
            return Vec::new();
        };
        let times: Vec<f64> = lines
            .iter()
            .map(|(rejected, _)| seconds(rejected.time.unwrap_or(origin), origin))
            .collect();
        let mut series = self.series(address, &times, origin, within);
        series.retain(|series| {
            lines
                .iter()
                .any(|(rejected, _)| has_server(rejected, &series.side))
        });
        let shared = part(&mut series, &times);
        let mut answers: Vec<Option<usize>> = vec![None; lines.len()];
        let mut disputed: HashSet<usize> = HashSet::new();
        let mut order: Vec<usize> = (0..series.len()).collect();
        // Of two series of one source the longer one.
        order.sort_by_key(|number| {
            series
                .get(*number)
                .map(|series| (series.phase.beats.len(), series.is_process))
        });
        for number in order {
            let Some(series) = series.get(number) else {
                continue;
            };
            let is_likely = series.since.is_some()
                && series.phase.is_enough()
                && !series.phase.is_of_clock(&times, origin);
            for place in series.phase.beats.iter().filter(|_| is_likely) {
                if let Some(answer) = answers.get_mut(*place) {
                    *answer = Some(number);
                }
            }
        }
        // Sources with different intervals meet now and then: only that line is either's.
        for (number, one) in series.iter().enumerate() {
            for place in &one.phase.beats {
                let other = answers.get(*place).copied().flatten();
                let other = other
                    .filter(|other| *other != number)
                    .and_then(|other| series.get(other));
                if other.is_some_and(|other| other.side.who != one.side.who) {
                    disputed.insert(*place);
                }
            }
        }
        let pod = self.pod_of(address);
        let within = SignedDuration::try_from(within).unwrap_or(SignedDuration::MAX);
        let named = |(place, (rejected, unmatched)): (usize, (Rejected, Unmatched))| {
            let by_phase = answers
                .get(place)
                .copied()
                .flatten()
                .filter(|_| !disputed.contains(&place))
                .and_then(|number| series.get(number))
                .filter(|series| has_server(&rejected, &series.side))
                .and_then(Series::likely);
            let by_address = || {
                let (pod, since) = pod.as_ref()?;
                let is_later = rejected.time?.duration_since(*since) >= within;
                is_later.then(|| Likely {
                    client: pod.clone(),
                    evidence: EarlierEvidence::PodAddress { since: *since },
                })
            };
            let likely = by_phase.or_else(by_address);
            let why = || shared.get(&place).cloned().map(Unmatched::SharedPhase);
            let answer = likely.ok_or_else(|| why().unwrap_or(unmatched));
            (rejected, answer)
        };
        lines.into_iter().enumerate().map(named).collect()
    }

    fn sides(&self, address: IpAddr) -> &[RecordedSide<'a>] {
        let addresses = self.addresses.as_ref();
        let records = addresses.and_then(|addresses| addresses.get(&address));
        records.map_or(&[], |records| &records.sides)
    }

    /// What the log's clock is ahead of this node's.
    fn clock(&self, node: Option<&str>) -> Option<f64> {
        let mut clocks = self.clocks.get(&node)?.clone();
        clocks.sort_by(f64::total_cmp);
        clocks
            .get(clocks.len() / 2)
            .copied()
            .filter(|_| clocks.len() >= CLOCKS)
    }

    /// The steady sources of this address, followed back.
    fn series(&self, address: IpAddr, times: &[f64], origin: Timestamp, within: Duration) -> Vec<Series<'a>> {
        /// A process, or all processes with an identity; to one server; with one outcome, or with any.
        type Source = (bool, u32, SocketAddr, Option<Outcome>);
        let mut sources: HashMap<Source, Vec<RecordedSide<'a>>> = HashMap::new();
        for side in self.sides(address) {
            for outcome in [None, Some(side.flow.outcome)] {
                for (is_process, place) in [(true, side.process), (false, side.who)] {
                    let source = (is_process, place, side.flow.destination, outcome);
                    sources.entry(source).or_default().push(*side);
                }
            }
        }
        let mut sources: Vec<_> = sources
            .into_iter()
            .filter(|(_, sides)| sides.len() >= RECORDED)
            .collect();
        sources.sort_by_key(|(_, sides)| std::cmp::Reverse(sides.len()));
        sources.truncate(SOURCES);
        let mut followed = Vec::new();
        for ((is_process, ..), mut sides) in sources {
            let Some(side) = sides.last().copied() else {
                continue;
            };
            let processes: HashSet<u32> = sides.iter().map(|side| side.process).collect();
            // One process has a series of its own.
            if !is_process && processes.len() == 1 {
                continue;
            }
            let clock = self.clock(side.client.node.as_deref());
            sides.sort_by_key(|side| side.flow.ended);
            let recorded: Vec<f64> = sides
                .iter()
                .map(|side| seconds(side.flow.ended, origin) + clock.unwrap_or_default())
                .collect();
            let Some(mut phase) = Phase::follow(&recorded, times) else {
                continue;
            };
            let since = if is_process {
                side.client.process_started
            } else {
                // At its first connections it may not have been known.
                sides.iter().filter_map(|side| side.client.address_since).max()
            };
            if let Some(since) = since {
                let margin = if clock.is_some() {
                    BEGIN
                } else {
                    within.as_secs_f64()
                };
                phase.begin(seconds(since, origin) + clock.unwrap_or_default() + margin, times);
            }
            followed.push(Series {
                side,
                is_process,
                since,
                phase,
                clock_known: clock.is_some(),
            });
        }
        followed
    }

    /// The pod whose own address it is, and since when: only if every client that was seen by it is in that pod.
    fn pod_of(&self, address: IpAddr) -> Option<(Client, Timestamp)> {
        let sides = self.sides(address);
        let first = sides.first()?.client;
        let of_pod = |identity: &Identity| (identity.namespace.clone(), identity.pod.clone());
        let pod = of_pod(&first.identity);
        pod.1.as_ref()?;
        let mut since: Option<Timestamp> = None;
        for side in sides {
            if side.flow.source != side.seen_as || of_pod(&side.client.identity) != pod {
                return None;
            }
            since = since.max(side.client.address_since);
        }
        let mut client = Client {
            identity: Identity {
                namespace: pod.0,
                pod: pod.1,
                ..Identity::default()
            },
            node: first.node.clone(),
            ..Client::default()
        };
        client.objects.pod.clone_from(&first.objects.pod);
        Some((client, since?))
    }
}

impl Series<'_> {
    fn likely(&self) -> Option<Likely> {
        let (every, spread) = self.phase.interval();
        let mut client = self.side.client.clone();
        if !self.is_process {
            // Each connection has a process of its own.
            client.objects.process = None;
        }
        Some(Likely {
            client,
            evidence: EarlierEvidence::Interval {
                every,
                beats: self.phase.beats.len(),
                spread,
                since: self.since?,
                is_process: self.is_process,
            },
        })
    }
}

/// Cuts off what two sources share: from where both can have been in one place, nobody knows further back which is which. Gives back
/// the names of those who share a line.
fn part(series: &mut [Series<'_>], times: &[f64]) -> HashMap<usize, Vec<String>> {
    let mut cuts: Vec<Option<f64>> = vec![None; series.len()];
    let mut shared: HashMap<usize, Vec<String>> = HashMap::new();
    for (one, cut) in series.iter().zip(&mut cuts) {
        for other in series.iter() {
            if one.side.who == other.side.who {
                continue;
            }
            let margin = if one.clock_known && other.clock_known {
                0.0
            } else {
                let (every, _) = one.phase.interval();
                CLOCKS_DIFFER.min(every.as_secs_f64() / 8.0)
            };
            let Some(met) = one.phase.meets(&other.phase, margin) else {
                continue;
            };
            *cut = Some(cut.map_or(met, |cut| cut.max(met)));
            let mut names: Vec<String> = [one, other]
                .map(|series| series.side.client.identity.to_string())
                .into();
            names.sort();
            for place in one.phase.places(met, times) {
                shared.entry(place).or_insert_with(|| names.clone());
            }
        }
    }
    for (series, cut) in series.iter_mut().zip(cuts) {
        if let Some(cut) = cut {
            series.phase.begin(cut, times);
        }
    }
    shared
}

/// The recorded clients by the address that their server saw.
fn by_address(flows: &Flows) -> HashMap<IpAddr, AddressRecords<'_>> {
    let mut begins: HashMap<Option<&str>, Timestamp> = HashMap::new();
    for side in flows.sides() {
        let begin = begins
            .entry(side.client.node.as_deref())
            .or_insert(side.flow.ended);
        *begin = side.flow.ended.min(*begin);
    }
    let mut addresses: HashMap<IpAddr, AddressRecords<'_>> = HashMap::new();
    let at_server =
        |side: &RecordedSide<'_>| reaches_server(side.flow.outcome) && !is_of_one_node(side.seen_as.ip());
    for side in flows.sides().filter(at_server) {
        let Some(begin) = begins.get(&side.client.node.as_deref()) else {
            continue;
        };
        let records = addresses
            .entry(side.seen_as.ip())
            .or_insert_with(|| AddressRecords {
                sides: Vec::new(),
                begin: *begin,
                has_begin: false,
            });
        records.has_begin |= side
            .client
            .process_started
            .or(side.client.address_since)
            .is_some();
        records.begin = records.begin.min(*begin);
        records.sides.push(side);
    }
    addresses
}

#[cfg(test)]
#[path = "earlier_tests.rs"]
mod tests;
