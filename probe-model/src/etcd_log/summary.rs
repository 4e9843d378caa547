//! Rejected connections by who made them and what was wrong with them.

use std::{
    collections::{HashMap, HashSet},
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use super::{Rejected, advice::kind, earlier::Likely};
use crate::{
    Cadence, Outcome,
    cadence::Tracker,
    flow::{Flow, Flows, Identity, Near, Unmatched},
    outcome::is_healthy,
};

/// Groups listed separately; further ones are counted together.
const GROUPS: usize = 10_000;

/// Who it was, or which address it is not known of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Who {
    Known(u32),
    /// By the number among those that are likely.
    Likely(usize),
    Unknown(IpAddr),
}

/// The rejected connections of one client with one error.
#[derive(Clone, Debug)]
pub struct Group {
    /// Who, and on which node; or the address it is not known of.
    pub who: Result<(Identity, Option<String>), IpAddr>,
    /// It is only likely: the lines are older than the recordings.
    pub is_likely: bool,
    pub error: String,
    /// Whether the client sent a ClientHello: the lines have a server name.
    pub sent_hello: bool,
    /// Lines in the log.
    pub logged: u64,
    /// The first one's client, as etcd saw it.
    pub peer: SocketAddr,
    pub first: Option<Timestamp>,
    pub last: Option<Timestamp>,
    /// The recorded connections of these lines, and those like them of which the log has no line: of the same client, to the
    /// same server, with the same unhealthy outcome, from the first line to the last. `None` where it is not known who it was.
    pub seen: Option<Cadence>,
    place: Option<u32>,
    /// Outcomes and destinations of those found.
    like: HashSet<(Outcome, SocketAddr)>,
    /// Places of those found.
    matched: HashSet<u32>,
}

/// What a whole log says.
#[derive(Debug, Default)]
pub struct Total {
    groups: HashMap<(Who, String, bool), Group>,
    pub lines: u64,
    pub rejected: u64,
    pub matched: u64,
    /// Those without a match.
    pub unmatched: UnmatchedCounts,
    /// Older than the recordings, with a client that is likely.
    pub likely: u64,
    pub unreadable: u64,
    /// Rejected connections that found no group.
    pub ungrouped: u64,
    likely_clients: HashMap<(Identity, Option<String>), usize>,
    between: Option<(Timestamp, Timestamp)>,
}

/// Why no connection matched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(
    feature = "schema",
    derive(schemars::JsonSchema),
    schemars(rename = "EtcdLogUnmatched")
)]
pub struct UnmatchedCounts {
    /// No recording has a connection of this address.
    pub not_recorded: u64,
    /// Only the server's node recorded it.
    pub server_only: u64,
    /// The nearest recorded connection is too far away in time.
    pub too_far: u64,
    /// Several clients had this port at that time.
    pub reused: u64,
    /// The recorded connections of this address went to another server.
    pub other_server: u64,
    /// A loopback or link-local client, and the node that logged is not known.
    pub node_unknown: u64,
    /// The line's time has no offset from UTC, and the log shows none.
    pub zone_unknown: u64,
    /// The line has no time, and more than one connection may be meant.
    pub time_unknown: u64,
    /// The line is older than the recordings, and several sources connect at its phase of their interval.
    pub shared_phase: u64,
}

impl UnmatchedCounts {
    fn of(&mut self, unmatched: &Unmatched) -> &mut u64 {
        match unmatched {
            Unmatched::NotRecorded => &mut self.not_recorded,
            Unmatched::ServerOnly => &mut self.server_only,
            Unmatched::TooFar(_) => &mut self.too_far,
            Unmatched::Reused(_) => &mut self.reused,
            Unmatched::OtherServer(_) => &mut self.other_server,
            Unmatched::NodeUnknown => &mut self.node_unknown,
            Unmatched::ZoneUnknown(_) => &mut self.zone_unknown,
            Unmatched::TimeUnknown => &mut self.time_unknown,
            Unmatched::SharedPhase(_) => &mut self.shared_phase,
        }
    }
}

impl Total {
    /// Takes one rejected connection, and what was found for it.
    pub fn seen(&mut self, rejected: &Rejected, found: &Result<Near<'_>, Unmatched>) {
        self.rejected += 1;
        *match found {
            Ok(_) => &mut self.matched,
            Err(unmatched) => self.unmatched.of(unmatched),
        } += 1;
        let (who, named) = match found {
            Ok(near) => (
                Who::Known(near.who),
                Ok((near.client.identity.clone(), near.client.node.clone())),
            ),
            Err(_) => (Who::Unknown(rejected.peer.ip()), Err(rejected.peer.ip())),
        };
        let Some(group) = self.group(rejected, who, named) else {
            return;
        };
        if let Ok(near) = found {
            group.place = Some(near.who);
            group.like.insert((near.flow.outcome, near.flow.destination));
            group.matched.insert(near.place);
        }
    }

    /// Takes one that is older than the recordings, and who is likely behind it.
    pub fn seen_earlier(&mut self, rejected: &Rejected, likely: &Likely) {
        self.rejected += 1;
        self.likely += 1;
        let client = (likely.client.identity.clone(), likely.client.node.clone());
        let next = self.likely_clients.len();
        // No more of them are told apart than groups.
        let number = match self.likely_clients.get(&client) {
            Some(number) => *number,
            None if next >= GROUPS => next,
            None => *self.likely_clients.entry(client.clone()).or_insert(next),
        };
        self.group(rejected, Who::Likely(number), Ok(client));
    }

    /// The group of a line, with the line counted; `None`: there is no room.
    fn group(
        &mut self,
        rejected: &Rejected,
        who: Who,
        named: Result<(Identity, Option<String>), IpAddr>,
    ) -> Option<&mut Group> {
        if let Some(time) = rejected.time {
            let (first, last) = self.between.get_or_insert((time, time));
            *first = time.min(*first);
            *last = time.max(*last);
        }
        let sent_hello = !rejected.server_name.is_empty();
        let key = (who, kind(&rejected.error), sent_hello);
        if self.groups.len() >= GROUPS && !self.groups.contains_key(&key) {
            self.ungrouped += 1;
            return None;
        }
        let error = key.1.clone();
        let group = self.groups.entry(key).or_insert_with(|| Group {
            who: named,
            is_likely: matches!(who, Who::Likely(_)),
            error,
            sent_hello,
            logged: 0,
            peer: rejected.peer,
            first: None,
            last: None,
            seen: None,
            place: None,
            like: HashSet::new(),
            matched: HashSet::new(),
        });
        group.logged += 1;
        group.first = [group.first, rejected.time].into_iter().flatten().min();
        group.last = group.last.max(rejected.time);
        Some(group)
    }

    /// When the first was.
    pub fn began(&self) -> Option<Timestamp> {
        self.between.map(|(first, _)| first)
    }

    /// The groups, the most frequent first, with the recorded connections of each, `within` of its first and last line.
    pub fn groups(&mut self, flows: &Flows, within: Duration) -> Vec<Group> {
        let margin = SignedDuration::try_from(within).unwrap_or(SignedDuration::MAX);
        let mut groups: Vec<_> = self.groups.drain().map(|(_, group)| group).collect();
        let mut by_place: HashMap<u32, Vec<(usize, Tracker)>> = HashMap::new();
        for (index, group) in groups.iter().enumerate() {
            if let Some(place) = group.place {
                by_place
                    .entry(place)
                    .or_default()
                    .push((index, Tracker::default()));
            }
        }
        for (number, who, flow) in flows.all() {
            let Some(trackers) = by_place.get_mut(&who) else {
                continue;
            };
            if let Some(own) = of_line(trackers, &groups, number) {
                own.seen(flow.ended);
                continue;
            }
            // A healthy one may be like that of a line and not be rejected.
            if is_healthy(flow.outcome) {
                continue;
            }
            let mut alike = trackers.iter_mut().filter(|(index, _)| {
                groups
                    .get(*index)
                    .is_some_and(|group| group.is_like(flow, margin))
            });
            // Two errors that are the same in the kernel can't be distinguished.
            if let (Some((_, tracker)), None) = (alike.next(), alike.next()) {
                tracker.seen(flow.ended);
            }
        }
        for (index, tracker) in by_place.into_values().flatten() {
            if let Some(group) = groups.get_mut(index) {
                group.seen = Some(tracker.cadence());
            }
        }
        groups.sort_by(|a, b| (b.logged, &a.error, a.peer.ip()).cmp(&(a.logged, &b.error, b.peer.ip())));
        groups
    }
}

/// The tracker of the group whose line the connection at this place is of.
fn of_line<'t>(
    trackers: &'t mut [(usize, Tracker)],
    groups: &[Group],
    place: u32,
) -> Option<&'t mut Tracker> {
    let own = trackers.iter_mut().find(|(index, _)| {
        groups
            .get(*index)
            .is_some_and(|group| group.matched.contains(&place))
    });
    own.map(|(_, tracker)| tracker)
}

impl Group {
    /// Whether a connection of this client could be of another such line.
    fn is_like(&self, flow: &Flow, margin: SignedDuration) -> bool {
        let (Some(first), Some(last)) = (self.first, self.last) else {
            return false;
        };
        flow.ended.duration_since(first) >= -margin
            && flow.ended.duration_since(last) <= margin
            && self.like.contains(&(flow.outcome, flow.destination))
    }
}
