//! The packet filter's rules and the Services among them, read once for all that use them at the same time: other tools take
//! their time to list them.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use crate::{
    commands::periodic::now_ns,
    model::{
        bypass::service::{Service, ServiceRules},
        rule::{self, Action, CandidateRule},
    },
    netfilter::rules::{Packet, Rules},
};

/// More than a cluster has.
const SERVICES: usize = 65_536;

/// The rules of a network namespace, as they were.
#[derive(Debug, Default)]
pub struct RuleSnapshot {
    /// When reading began, `CLOCK_MONOTONIC` nanoseconds.
    pub begun_ns: u64,
    /// When it ended, by the same clock.
    pub read_ns: u64,
    pub rules: Rules,
    /// Services that kube-proxy made rules of.
    pub services: Vec<Service>,
    /// The same by rule set, if more than one has some.
    pub rule_sets: Vec<ServiceRules>,
}

impl RuleSnapshot {
    /// Reads the rules of the calling thread's network namespace. What can't be read is in [`Rules::unread`].
    pub fn read() -> Self {
        let begun_ns = now_ns();
        let (rules, rule_sets) = Rules::read_with_services();
        let services = rule_sets.iter().flat_map(|set| set.services.iter().cloned());
        let services = services.take(SERVICES).collect();
        Self {
            begun_ns,
            read_ns: now_ns(),
            rules,
            services,
            // Of one alone there is nothing to compare.
            rule_sets: if rule_sets.len() > 1 {
                rule_sets
            } else {
                Vec::new()
            },
        }
    }

    /// The rules that may have done `actions` to a packet, as far as they count.
    pub fn decisive(&self, packet: &Packet, actions: &[Action]) -> Vec<CandidateRule> {
        rule::decisive(self.rules.candidates(packet, actions))
    }

    /// The rule that did it, or the first that may have.
    pub fn first(&self, packet: &Packet, actions: &[Action]) -> Option<CandidateRule> {
        rule::first(self.rules.candidates(packet, actions))
    }
}

/// The latest snapshot of one network namespace. A clone is the same book.
#[derive(Clone, Default)]
pub struct RuleBook(Arc<Mutex<Option<Arc<RuleSnapshot>>>>);

impl RuleBook {
    /// The latest snapshot, if reading it began no earlier than at this time (`CLOCK_MONOTONIC` nanoseconds); else a new one,
    /// read in the calling thread's network namespace.
    pub fn since(&self, time_ns: u64) -> Arc<RuleSnapshot> {
        let mut latest = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match &*latest {
            Some(snapshot) if snapshot.begun_ns >= time_ns => Arc::clone(snapshot),
            Some(_) | None => Arc::clone(latest.insert(Arc::new(RuleSnapshot::read()))),
        }
    }

    /// The latest snapshot that is no older than this, or a new one.
    pub fn within(&self, age: Duration) -> Arc<RuleSnapshot> {
        let age_ns = u64::try_from(age.as_nanos()).unwrap_or(u64::MAX);
        self.since(now_ns().saturating_sub(age_ns))
    }
}

/// Without all the rules.
impl fmt::Debug for RuleBook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RuleBook")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_read_once_for_all() {
        let book = RuleBook::default();
        let began_ns = now_ns();
        let first = book.since(began_ns);
        assert!(first.begun_ns >= began_ns && first.read_ns >= first.begun_ns);
        let other = book.clone();
        assert!(Arc::ptr_eq(&first, &other.within(Duration::from_secs(60))));
        assert!(!Arc::ptr_eq(&first, &other.since(first.begun_ns + 1)));
        assert!(!Arc::ptr_eq(&first, &book.since(0)), "the latest is the other's");
    }
}
