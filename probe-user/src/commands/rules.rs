//! Rules that set notrack with their counters across snapshots, rules that drop, and the Services.

use std::{
    cell::LazyCell,
    collections::{HashMap, HashSet},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use super::rule_book::{RuleBook, RuleSnapshot};
use crate::{
    attribution::{
        health::{Health, News},
        kube::ServiceList,
    },
    commands::periodic::now_ns,
    model::{
        bypass::{
            rule::{Intended, NotrackRule, is_synproxy},
            service::{Service, Services},
            stream::{Server, UntrackedCount, UntrackedStream},
            virtual_server,
        },
        rule::{Action, CandidateRule, decisive},
    },
    netfilter::rules::{Packet, PathPosition},
    report::say,
};

/// Rules that may have changed are checked so often: a check takes less than 1 ms on most nodes.
const EVERY: Duration = Duration::from_secs(10);
/// The same while there are untracked packets.
const SOON: Duration = Duration::from_secs(2);
/// The same while untracked packets have no rule: it may be newer than the rules that were read.
const AT_ONCE: Duration = Duration::from_millis(300);
/// How long to wait for Kubernetes' first answer, who was asked for it.
const FIRST_ANSWER: Duration = Duration::from_secs(2);
/// Rules remembered, those that are gone too.
const REMEMBERED: usize = 4096;

/// Addresses asked for Services, of one reading of the rules.
const ADDRESSES: usize = 4096;

pub struct Rules {
    book: RuleBook,
    snapshot: Arc<RuleSnapshot>,
    services: Services,
    /// Those that were read when an address was asked for.
    asked: AskedServices,
    /// Goes up with each change of the Services.
    revision: u64,
    /// What Kubernetes says of Services, where it is asked.
    listed: Option<ServiceList>,
    /// Its revision that is in `services`.
    listed_revision: Option<u64>,
    /// Counters as they were when a rule was first seen.
    first: HashMap<String, u64>,
    list: Vec<NotrackRule>,
    /// By their names, those that are gone too: what they did is reported for a while.
    known: HashMap<String, NotrackRule>,
}

/// Services at addresses that were asked for.
#[derive(Default)]
struct AskedServices {
    addresses: HashSet<(u8, SocketAddr)>,
    found: Vec<Service>,
}

/// Whether to read them again after so long; `puzzled`: they don't explain something, and whether that was seen first after the
/// latest reading began.
fn is_due(age: Duration, busy: bool, puzzled: Option<bool>) -> bool {
    match (puzzled, busy) {
        (Some(is_newer), _) => is_newer || age >= AT_ONCE,
        (None, true) => age >= SOON,
        (None, false) => age >= EVERY,
    }
}

impl Rules {
    /// The current rules; their counters so far are not counted.
    pub fn read(book: RuleBook) -> Self {
        let mut rules = Self::read_late(book);
        // What is there from the beginning counts from there; a rule that comes later, from nothing.
        let every = rules.list.iter().map(|known| &known.rule);
        rules.first = every
            .filter_map(|rule| Some((rule.identity(), rule.packets?)))
            .collect();
        rules.known.clear();
        rules.list();
        rules
    }

    /// As they are now, with all that they ever counted: for who has seen packets before.
    pub fn read_late(book: RuleBook) -> Self {
        let mut rules = Self {
            book,
            snapshot: Arc::default(),
            services: Services::default(),
            asked: AskedServices::default(),
            revision: 0,
            listed: None,
            listed_revision: None,
            first: HashMap::new(),
            list: Vec::new(),
            known: HashMap::new(),
        };
        rules.again(now_ns());
        rules
    }

    /// Reads them again if that is due; `busy`: there are untracked packets, `puzzled`: and no rule for some, which were seen
    /// first at that time (`CLOCK_MONOTONIC` nanoseconds). A rule may be younger than what was read: it is not said that there
    /// is none before they were read after such packets.
    pub fn refresh(&mut self, busy: bool, puzzled: Option<u64>) -> bool {
        let now_ns = now_ns();
        let age = Duration::from_nanos(now_ns.saturating_sub(self.snapshot.read_ns));
        // A rule may let packets past that never leave: its counter is all there is to see.
        let busy = busy || self.list.iter().any(|rule| rule.intended.is_none());
        let due = is_due(
            age,
            busy,
            puzzled.map(|first_ns| self.snapshot.begun_ns <= first_ns),
        );
        if due {
            // A snapshot that another feature took since then is as good.
            let newest_ns = puzzled.map_or(0, |first_ns| first_ns.saturating_add(1));
            let fresh_ns = now_ns.saturating_sub(AT_ONCE.as_nanos() as u64);
            self.again(newest_ns.max(fresh_ns));
        }
        due
    }

    fn again(&mut self, since_ns: u64) {
        let before = Arc::clone(&self.snapshot.services);
        self.snapshot = self.book.since(since_ns);
        let listed_revision = self.listed.as_ref().map(ServiceList::revision);
        let is_same =
            Arc::ptr_eq(&before, &self.snapshot.services) && listed_revision == self.listed_revision;
        if !is_same || self.revision == 0 {
            self.asked = AskedServices::default();
            self.listed_revision = listed_revision;
            self.combine();
        } else {
            self.report_health();
        }
        self.list();
    }

    /// Has the Kubernetes API name Services, too, from now on.
    pub fn take(&mut self, listed: ServiceList) {
        listed.wait(FIRST_ANSWER);
        self.listed = Some(listed);
        self.again(self.snapshot.begun_ns);
    }

    fn combine(&mut self) {
        let listed = self.listed();
        // Where rules say both, those with endpoints count.
        let (asked, all) = (self.asked.found.iter(), self.snapshot.services.iter());
        self.services = Services::with(asked.chain(all).cloned().collect(), listed);
        self.revision += 1;
    }

    /// Reads the Services at these addresses, where they were not read with the rules.
    pub fn look_up(&mut self, protocol: u8, addresses: impl IntoIterator<Item = SocketAddr>) {
        let rules = &self.snapshot.rules;
        if !rules.has_services_late() {
            return;
        }
        let known = self.asked.found.len();
        for address in addresses {
            if self.asked.addresses.len() < ADDRESSES && self.asked.addresses.insert((protocol, address)) {
                let found = rules.services_at(protocol, address.ip(), address.port());
                let asked = |service: &Service| {
                    (service.protocol, service.address.port()) == (protocol, address.port())
                };
                self.asked.found.extend(found.into_iter().filter(asked));
            }
        }
        if self.asked.found.len() > known {
            self.combine();
        }
    }

    fn listed(&self) -> Vec<Service> {
        self.report_health();
        self.listed
            .as_ref()
            .map(ServiceList::services)
            .unwrap_or_default()
    }

    fn report_health(&self) {
        if let Some(list) = &self.listed
            && let Some(News {
                who,
                lost,
                health: Health::Failing(reason),
            }) = list.news()
        {
            say(format_args!(
                "probe: {who} is unavailable, {lost} until it answers: {reason}"
            ));
        }
    }

    fn list(&mut self) {
        let (first, known) = (&self.first, &self.known);
        // For those that need it: there may be thousands of rules that drop.
        let has_synproxy = LazyCell::new(|| self.snapshot.every(Action::Drop).iter().any(is_synproxy));
        self.list = self
            .snapshot
            .every(Action::NoTrack)
            .into_iter()
            .map(|rule| {
                let since = rule
                    .packets
                    .map(|packets| packets.saturating_sub(first.get(&rule.identity()).copied().unwrap_or(0)));
                let then = known.get(&rule.to_string());
                let moved = since > then.map_or(Some(0), |then| then.since);
                let moved_ns = if moved {
                    now_ns()
                } else {
                    then.map_or(0, |then| then.moved_ns)
                };
                let first = then.map_or(0, |then| then.first_moved_ns);
                NotrackRule {
                    since,
                    moved_ns,
                    first_moved_ns: if first == 0 { moved_ns } else { first },
                    intended: Intended::of_rule(&rule, || *has_synproxy),
                    rule,
                }
            })
            .collect();
        if self.known.len() + self.list.len() > REMEMBERED {
            self.known.clear();
        }
        let names = self.list.iter().map(|rule| (rule.name(), rule.clone()));
        self.known.extend(names);
    }

    /// When they were read, `CLOCK_MONOTONIC` nanoseconds.
    pub fn read_ns(&self) -> u64 {
        self.snapshot.read_ns
    }

    /// Those that are, and those that were, by their names.
    pub fn known(&self) -> &HashMap<String, NotrackRule> {
        &self.known
    }

    pub fn all(&self) -> &[NotrackRule] {
        &self.list
    }

    pub fn services(&self) -> &Services {
        &self.services
    }

    /// Another number where the Services are others.
    pub fn services_revision(&self) -> u64 {
        self.revision
    }

    /// What could not be read.
    pub fn unread(&self) -> Vec<String> {
        self.snapshot.unread()
    }

    /// The rules that let a stream past: those that are certain, or else those that may be. `name`: of a device, as the
    /// rules see it.
    pub fn candidates(
        &self,
        stream: &UntrackedStream,
        count: &UntrackedCount,
        name: impl Fn(u32) -> Option<String>,
    ) -> Vec<CandidateRule> {
        let before = virtual_server::before(stream, &self.services);
        let found = self.candidates_of(stream, count, &name);
        before.iter().fold(found, |found, before| {
            virtual_server::either(found, self.candidates_of(before, count, &name))
        })
    }

    /// The same, of a stream whose addresses are as rules saw them.
    fn candidates_of(
        &self,
        stream: &UntrackedStream,
        count: &UntrackedCount,
        name: impl Fn(u32) -> Option<String>,
    ) -> Vec<CandidateRule> {
        let ports = |port: u16| (stream.server != Server::Neither).then_some(port);
        let (source_port, destination_port) = match stream.server {
            Server::Neither | Server::Destination => (ports(count.other_port), ports(stream.port)),
            Server::Source => (ports(stream.port), ports(count.other_port)),
        };
        let packet = Packet {
            path: stream.path(),
            protocol: stream.protocol,
            source: stream.source,
            destination: stream.destination,
            source_port,
            destination_port,
            input: stream.input.and_then(&name),
            output: stream.output.and_then(&name),
            is_new: false,
            position: PathPosition::Anywhere,
        };
        let candidates = self.snapshot.uncounted(&packet, &[Action::NoTrack]);
        let moved = candidates.into_iter().filter(|candidate| self.moved(candidate));
        let moved = moved.map(|candidate| self.with_counter(candidate));
        let mut candidates = decisive(moved.collect());
        // The first one on the way did it; the others found it done.
        if candidates.first().is_some_and(|candidate| candidate.certain) {
            candidates.truncate(1);
        }
        self.snapshot.whole(candidates)
    }

    /// The rule that dropped such packets: the first that is certain, or else the first that may have.
    pub fn dropper(&self, packet: &Packet) -> Option<CandidateRule> {
        self.snapshot.first(packet, &[Action::Drop, Action::Reject])
    }

    /// With the counter as it was read last: it may have been with that of all rules that set notrack.
    fn with_counter(&self, candidate: CandidateRule) -> CandidateRule {
        let known = self.known.get(&candidate.to_string());
        let packets = known.map_or(candidate.packets, |known| known.rule.packets);
        CandidateRule { packets, ..candidate }
    }

    /// Whether the rule's counter moved while probe looked, where it has one.
    fn moved(&self, candidate: &CandidateRule) -> bool {
        let rule = self.known.get(&candidate.to_string());
        rule.is_none_or(|rule| rule.since != Some(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn when_rules_are_read_again() {
        for (milliseconds, busy, puzzled, due) in [
            (9_999, false, None, false),
            (10_000, false, None, true),
            (1_999, true, None, false),
            (2_000, true, None, true),
            // A rule may be younger than what was read, however short ago.
            (0, true, Some(true), true),
            (0, false, Some(true), true),
            // Who was no answer before is asked again, but not all the time.
            (299, true, Some(false), false),
            (300, true, Some(false), true),
        ] {
            let age = Duration::from_millis(milliseconds);
            assert_eq!(
                is_due(age, busy, puzzled),
                due,
                "{milliseconds} ms, busy {busy}, puzzled {puzzled:?}"
            );
        }
    }
}
