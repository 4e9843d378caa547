//! Rejected connections by who made them and what was wrong with them.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};

use super::{Rejected, advice::kind};
use crate::{
    Cadence, Outcome,
    cadence::Tracker,
    flow::{Flows, Identity, Near, Unmatched},
};

/// Groups told apart; what comes after is counted together.
const GROUPS: usize = 10_000;

/// Who it was, or which address it is not known of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Who {
    Known(u32),
    Unknown(IpAddr),
}

/// The rejected connections of one client with one error.
#[derive(Clone, Debug)]
pub struct Group {
    /// Who, and on which node; or the address it is not known of.
    pub who: Result<(Identity, Option<String>), IpAddr>,
    pub error: String,
    /// Lines in the log.
    pub logged: u64,
    /// The first one's client, as etcd saw it.
    pub peer: SocketAddr,
    pub first: Option<Timestamp>,
    pub last: Option<Timestamp>,
    /// Connections like these that the kernel saw while the log was written; `None` where it is not known who it was.
    pub seen: Option<Cadence>,
    place: Option<u32>,
    /// Outcomes and destinations of those found.
    like: Vec<(Outcome, SocketAddr)>,
}

/// What a whole log says.
#[derive(Debug, Default)]
pub struct Total {
    groups: HashMap<(Who, String), Group>,
    pub lines: u64,
    pub rejected: u64,
    pub matched: u64,
    pub not_recorded: u64,
    pub server_only: u64,
    pub too_far: u64,
    pub reused: u64,
    pub unreadable: u64,
    /// Rejected connections that found no group.
    pub ungrouped: u64,
    between: Option<(Timestamp, Timestamp)>,
}

impl Total {
    /// Takes one rejected connection, and what was found for it.
    pub fn seen(&mut self, rejected: &Rejected, found: &Result<Near<'_>, Unmatched>) {
        self.rejected += 1;
        *match found {
            Ok(_) => &mut self.matched,
            Err(Unmatched::NotRecorded) => &mut self.not_recorded,
            Err(Unmatched::ServerOnly) => &mut self.server_only,
            Err(Unmatched::TooFar(_)) => &mut self.too_far,
            Err(Unmatched::Reused(_)) => &mut self.reused,
        } += 1;
        if let Some(time) = rejected.time {
            let (first, last) = self.between.get_or_insert((time, time));
            *first = time.min(*first);
            *last = time.max(*last);
        }
        let who = match found {
            Ok(near) => Who::Known(near.who),
            Err(_) => Who::Unknown(rejected.peer.ip()),
        };
        let key = (who, kind(&rejected.error).to_owned());
        if self.groups.len() >= GROUPS && !self.groups.contains_key(&key) {
            self.ungrouped += 1;
            return;
        }
        let error = key.1.clone();
        let group = self.groups.entry(key).or_insert_with(|| Group {
            who: match found {
                Ok(near) => Ok((near.client.identity.clone(), near.client.node.clone())),
                Err(_) => Err(rejected.peer.ip()),
            },
            error,
            logged: 0,
            peer: rejected.peer,
            first: None,
            last: None,
            seen: None,
            place: found.as_ref().ok().map(|near| near.who),
            like: Vec::new(),
        });
        group.logged += 1;
        group.first = [group.first, rejected.time].into_iter().flatten().min();
        group.last = group.last.max(rejected.time);
        if let Ok(near) = found {
            let like = (near.flow.outcome, near.flow.destination);
            if !group.like.contains(&like) {
                group.like.push(like);
            }
        }
    }

    /// When the first was.
    pub fn began(&self) -> Option<Timestamp> {
        self.between.map(|(first, _)| first)
    }

    /// The groups, the most frequent first, with what the kernel saw of each while the log was written, give or take
    /// `within`.
    pub fn groups(&mut self, flows: &Flows, within: Duration) -> Vec<Group> {
        let margin = SignedDuration::try_from(within).unwrap_or(SignedDuration::MAX);
        let between = self.between.map(|(first, last)| {
            (
                first.checked_sub(margin).unwrap_or(Timestamp::MIN),
                last.checked_add(margin).unwrap_or(Timestamp::MAX),
            )
        });
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
        for (place, flow) in flows.all() {
            let inside = between.is_none_or(|(first, last)| (first..=last).contains(&flow.ended));
            let Some(trackers) = by_place.get_mut(&place).filter(|_| inside) else {
                continue;
            };
            for (index, tracker) in trackers {
                if groups[*index].like.contains(&(flow.outcome, flow.destination)) {
                    tracker.seen(flow.ended);
                }
            }
        }
        for (index, tracker) in by_place.into_values().flatten() {
            groups[index].seen = Some(tracker.cadence());
        }
        groups.sort_by(|a, b| (b.logged, &a.error, a.peer.ip()).cmp(&(a.logged, &b.error, b.peer.ip())));
        groups
    }
}
