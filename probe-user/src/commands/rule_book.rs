//! The packet filter's rules and the Services among them, read once for all that use them at the same time: other tools take
//! their time to list them.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use crate::{
    commands::periodic::now_ns,
    host::cpu::{self, CpuBudget, CpuMeter},
    kernel::memory,
    model::{
        bypass::service::{Service, ServiceRules},
        rule::{self, Action, CandidateRule},
    },
    namespace::NetnsIdentity,
    netfilter::rules::{
        Packet, Rules, complete, counters,
        fingerprint::{self, Checked, Fingerprint},
    },
};

/// More than a cluster has.
const SERVICES: usize = 65_536;
/// So many leave free heap behind that is worth giving back.
const MANY: usize = 1000;
/// CPU time for reading rules at once, and the longest time for which changed rules are not read.
const READING: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// The same for checking whether they changed.
const CHECKING: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));
/// The same for listing all Services.
const LISTING: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// How long what failed is not tried again; longer where 1 % of a core takes longer to read it.
const RETRY: Duration = Duration::from_secs(10);

/// The rules of a network namespace, as they were.
#[derive(Debug, Default)]
pub struct RuleSnapshot {
    /// When reading began, or the latest check found that nothing had changed, `CLOCK_MONOTONIC` nanoseconds.
    pub begun_ns: u64,
    /// When that ended, by the same clock.
    pub read_ns: u64,
    pub rules: Rules,
    /// Services that kube-proxy made rules of; of nf_tables, those with endpoints may be read late.
    pub services: Arc<Vec<Service>>,
    /// The same by rule set, if more than one has some.
    pub rule_sets: Arc<Vec<ServiceRules>>,
    /// The network namespace that they are of.
    netns: Option<NetnsIdentity>,
    /// What distinguished the rules from others before they were read; `None`: that is not known.
    fingerprint: Option<Fingerprint>,
    /// The counters of rules are older than `begun_ns`: they are read anew where they matter.
    is_checked: bool,
    /// The CPU time that reading took, and that of listing Services.
    cost: Duration,
    listing: Duration,
    /// The Services were listed before the rules were read.
    is_unlisted: bool,
    /// They changed since, or may have, and were not read again.
    outdated: Option<Outdated>,
}

/// Why rules are older than they should be.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Outdated {
    /// For those who miss a rule.
    sentence: String,
    /// A rule among them may be gone, and there may be one before it: none of them is certain.
    is_suspected: bool,
}

impl RuleSnapshot {
    /// Reads the rules of the calling thread's network namespace. What can't be read is in [`RuleSnapshot::unread`].
    fn read(mut fingerprint: Option<Fingerprint>, lists: bool) -> Self {
        let meter = CpuMeter::start();
        let begun_ns = now_ns();
        let (rules, rule_sets) = match lists {
            true => Rules::read_with_services(),
            false => Rules::read(),
        };
        if let Some(fingerprint) = &mut fingerprint {
            fingerprint.settle(&rules);
        }
        let listing = rules.listing();
        let services = rule_sets.iter().flat_map(|set| set.services.iter().cloned());
        let services: Vec<Service> = services.take(SERVICES).collect();
        // Of one alone there is nothing to compare.
        let rule_sets = if rule_sets.len() > 1 {
            rule_sets
        } else {
            Vec::new()
        };
        if services.len() >= MANY {
            memory::trim_heap();
        }
        Self {
            begun_ns,
            read_ns: now_ns(),
            rules,
            services: Arc::new(services),
            rule_sets: Arc::new(rule_sets),
            netns: NetnsIdentity::own(),
            fingerprint,
            is_checked: false,
            cost: meter.spent().saturating_sub(listing),
            listing,
            is_unlisted: false,
            outdated: None,
        }
    }

    /// The same rules with the Services of an earlier snapshot.
    fn with_services_of(self, before: &Self) -> Self {
        Self {
            services: Arc::clone(&before.services),
            rule_sets: Arc::clone(&before.rule_sets),
            listing: before.listing,
            is_unlisted: true,
            ..self
        }
    }

    /// The same rules, if a check that began then found no change.
    fn unchanged(&self, begun_ns: u64, checked: &Checked) -> Option<Self> {
        let rules = self.rules.unchanged(self.fingerprint.as_ref()?, checked)?;
        Some(Self {
            begun_ns,
            read_ns: now_ns(),
            rules,
            fingerprint: Some(checked.fingerprint.clone()),
            is_checked: true,
            outdated: None,
            ..self.same()
        })
    }

    /// The same rules, which changed since, or may have.
    fn outdated(&self, is_known: bool) -> Self {
        let changed = if is_known { "changed" } else { "may have changed" };
        let sentence = format!(
            "rules {changed} and are not read again yet: reading them takes {:.1} s of CPU time, and probe limits itself to 1 % of a core",
            self.cost.as_secs_f64()
        );
        Self {
            outdated: Some(Outdated {
                sentence,
                is_suspected: true,
            }),
            ..self.same()
        }
    }

    /// The same rules, not checked for changes.
    fn unchecked(&self) -> Self {
        let sentence = format!(
            "rules may have changed since they were read: probe checks them every {} s, or sooner within 1 % of a core",
            CHECKING.1.as_secs()
        );
        Self {
            is_checked: true,
            outdated: self.outdated.clone().or(Some(Outdated {
                sentence,
                is_suspected: false,
            })),
            ..self.same()
        }
    }

    fn same(&self) -> Self {
        Self {
            rules: self.rules.clone(),
            services: Arc::clone(&self.services),
            rule_sets: Arc::clone(&self.rule_sets),
            fingerprint: self.fingerprint.clone(),
            outdated: self.outdated.clone(),
            ..*self
        }
    }

    /// What could not be read, in sentences.
    pub fn unread(&self) -> Vec<String> {
        let unread = self
            .rules
            .unread()
            .iter()
            .cloned()
            .chain(self.rules.unread_late());
        let outdated = self.outdated.iter().map(|outdated| outdated.sentence.clone());
        let unlisted = self.is_unlisted.then(|| {
            format!(
                "Services may have changed and are not listed again yet: listing them takes {:.1} s of CPU time, and probe limits itself to 1 % of a core",
                self.listing.as_secs_f64()
            )
        });
        let unseen = self.fingerprint.iter().flat_map(Fingerprint::unread);
        unread.chain(outdated).chain(unlisted).chain(unseen).collect()
    }

    fn is_suspected(&self) -> bool {
        self.outdated
            .as_ref()
            .is_some_and(|outdated| outdated.is_suspected)
    }

    /// The rules that may have done `actions` to a packet, in the order that it meets them, with the counters that they had when
    /// they were read.
    pub fn uncounted(&self, packet: &Packet, actions: &[Action]) -> Vec<CandidateRule> {
        let mut candidates = self.rules.candidates(packet, actions);
        if self.is_suspected() {
            for rule in &mut candidates {
                rule.certain = false;
            }
        }
        candidates
    }

    /// The rules that may have done `actions` to a packet, in the order that it meets them.
    pub fn candidates(&self, packet: &Packet, actions: &[Action]) -> Vec<CandidateRule> {
        self.counted(self.uncounted(packet, actions))
    }

    /// The rules that may have done `actions` to a packet, as far as they count.
    pub fn decisive(&self, packet: &Packet, actions: &[Action]) -> Vec<CandidateRule> {
        self.whole(rule::decisive(self.candidates(packet, actions)))
    }

    /// The rule that did it, or the first that may have.
    pub fn first(&self, packet: &Packet, actions: &[Action]) -> Option<CandidateRule> {
        let first = rule::first(self.candidates(packet, actions));
        first.and_then(|first| self.whole(vec![first]).pop())
    }

    /// The same rules as their tools write them, in the calling thread's network namespace.
    pub fn whole(&self, mut rules: Vec<CandidateRule>) -> Vec<CandidateRule> {
        // Of rules that changed, a position may be another's by now.
        if !self.is_suspected() && self.netns == NetnsIdentity::own() {
            complete(&mut rules);
        }
        rules
    }

    /// Every rule that does it, whether or not a packet can come to it.
    pub fn every(&self, action: Action) -> Vec<CandidateRule> {
        self.counted(self.rules.every(action))
    }

    /// The same rules with their counters as they are now, in the calling thread's network namespace.
    pub fn counted(&self, mut rules: Vec<CandidateRule>) -> Vec<CandidateRule> {
        // Of rules that changed, a position may be another's by now.
        let refreshed = |rules: &mut [CandidateRule]| {
            !self.is_suspected() && self.netns == NetnsIdentity::own() && counters::refresh(rules).is_ok()
        };
        let is_old = self.is_checked || self.is_suspected();
        if is_old && !rules.is_empty() && !refreshed(&mut rules) {
            // That it had counted nothing says nothing of the time since.
            for rule in rules.iter_mut().filter(|rule| rule.is_ruled_out()) {
                rule.packets = None;
            }
        }
        rules
    }
}

/// The latest snapshot of one network namespace. A clone is the same book.
#[derive(Clone)]
pub struct RuleBook(Arc<Mutex<Latest>>);

struct Latest {
    snapshot: Option<Arc<RuleSnapshot>>,
    scope: Scope,
    /// `None`: whatever it takes.
    budgets: Option<Budgets>,
    /// How often newer rules were wanted, and not read for the budget.
    skipped: u64,
}

/// Which Services are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scope {
    /// All, with their endpoints.
    All,
    /// Those that packets meet: see [`Rules::read`].
    Packets,
}

struct Budgets {
    reading: CpuBudget,
    checking: CpuBudget,
    listing: CpuBudget,
}

impl Default for Budgets {
    fn default() -> Self {
        Self {
            reading: CpuBudget::new(READING.0, READING.1),
            checking: CpuBudget::new(CHECKING.0, CHECKING.1),
            listing: CpuBudget::new(LISTING.0, LISTING.1),
        }
    }
}

impl Default for RuleBook {
    fn default() -> Self {
        Self::new(Some(Budgets::default()), Scope::All)
    }
}

impl RuleBook {
    fn new(budgets: Option<Budgets>, scope: Scope) -> Self {
        Self(Arc::new(Mutex::new(Latest {
            snapshot: None,
            scope,
            budgets,
            skipped: 0,
        })))
    }

    /// For a command that ends soon, and reads whatever it takes: `is_short`; else with a budget.
    pub fn of_command(is_short: bool) -> Self {
        if is_short {
            Self::new(None, Scope::All)
        } else {
            Self::default()
        }
    }

    /// For who asks about single packets, and for Services at single addresses: see [`Rules::read`].
    pub fn for_packets() -> Self {
        Self::new(Some(Budgets::default()), Scope::Packets)
    }

    fn latest(&self) -> MutexGuard<'_, Latest> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The latest snapshot, if reading it or the latest check began no earlier than at this time (`CLOCK_MONOTONIC` nanoseconds).
    /// Else it is checked for changes in the calling thread's network namespace, and read again if there are some. Where that is
    /// beyond the budget it is the one before, which says so. Rules of another network namespace are never those before.
    pub fn since(&self, time_ns: u64) -> Arc<RuleSnapshot> {
        let mut latest = self.latest();
        let netns = NetnsIdentity::own();
        let of_this = latest
            .snapshot
            .as_ref()
            .filter(|snapshot| snapshot.netns == netns);
        match of_this {
            Some(snapshot) if snapshot.begun_ns >= time_ns => Arc::clone(snapshot),
            Some(snapshot) => {
                let snapshot = Arc::clone(snapshot);
                latest.newer(snapshot)
            }
            None => {
                let checked = fingerprint::check(None);
                // Not at the expense of the budget: the first change is read at once, whatever that takes.
                let fingerprint = checked.ok().map(|checked| checked.fingerprint);
                let snapshot = RuleSnapshot::read(fingerprint, latest.scope == Scope::All);
                latest.keep(snapshot)
            }
        }
    }

    /// The latest snapshot that is no older than this, or a new one.
    pub fn within(&self, age: Duration) -> Arc<RuleSnapshot> {
        let age_ns = u64::try_from(age.as_nanos()).unwrap_or(u64::MAX);
        self.since(now_ns().saturating_sub(age_ns))
    }

    /// How often newer rules were wanted, and not read for the budget.
    pub fn skipped(&self) -> u64 {
        self.latest().skipped
    }
}

impl Latest {
    fn newer(&mut self, snapshot: Arc<RuleSnapshot>) -> Arc<RuleSnapshot> {
        let begun_ns = now_ns();
        let may = |budget: fn(&Budgets) -> &CpuBudget| {
            let budgets = self.budgets.as_ref();
            budgets.is_none_or(|budgets| budget(budgets).allows(begun_ns))
        };
        let (may_check, may_read) = (may(|budgets| &budgets.checking), may(|budgets| &budgets.reading));
        let may_list = may(|budgets| &budgets.listing);
        if !may_check {
            self.skipped += 1;
            return Arc::new(snapshot.unchecked());
        }
        let meter = CpuMeter::start();
        let checked = fingerprint::check(snapshot.fingerprint.as_ref());
        let unchanged = checked
            .as_ref()
            .ok()
            .and_then(|checked| snapshot.unchanged(begun_ns, checked));
        if let Some(budgets) = &mut self.budgets {
            budgets.checking.spend(now_ns(), meter.spent());
        }
        let is_listing_due = snapshot.is_unlisted && may_list;
        if let Some(unchanged) = unchanged.filter(|_| !is_listing_due) {
            return self.keep(unchanged);
        }
        // What failed costs its time each time.
        let is_retry = match (&checked, &snapshot.fingerprint) {
            (Ok(checked), Some(then)) => *then == checked.fingerprint && !is_listing_due,
            (Ok(_) | Err(_), Some(_) | None) => false,
        };
        let rest = match &self.budgets {
            Some(_) => RETRY.max(snapshot.cost * cpu::SHARE),
            None => RETRY,
        };
        let rested = Duration::from_nanos(begun_ns.saturating_sub(snapshot.read_ns)) >= rest;
        if !may_read || is_retry && !rested {
            self.skipped += 1;
            if is_retry || snapshot.is_suspected() {
                return snapshot;
            }
            return self.keep(snapshot.outdated(checked.is_ok()));
        }
        let fingerprint = checked.ok().map(|checked| checked.fingerprint);
        let lists = self.scope == Scope::All;
        let read = RuleSnapshot::read(fingerprint, lists && may_list);
        if let Some(budgets) = &mut self.budgets {
            budgets.reading.spend(now_ns(), read.cost);
            budgets.listing.spend(now_ns(), read.listing);
        }
        self.keep(match lists && !may_list {
            true => read.with_services_of(&snapshot),
            false => read,
        })
    }

    fn keep(&mut self, snapshot: RuleSnapshot) -> Arc<RuleSnapshot> {
        let snapshot = Arc::new(snapshot);
        self.snapshot = Some(Arc::clone(&snapshot));
        snapshot
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
    use std::{net::IpAddr, process::Command, thread};

    use super::*;
    use crate::{model::rule::PacketPath, netfilter::rules::PathPosition};

    /// In a network namespace of its own; `None` without privilege or without nft.
    fn apart<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
        let has_nft = Command::new("nft").arg("--version").output().is_ok();
        if !nix::unistd::geteuid().is_root() || !has_nft {
            eprintln!("skipped: no nft, or not root");
            return None;
        }
        let work = || {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
            work()
        };
        Some(thread::spawn(work).join().unwrap())
    }

    fn nft(words: &str) {
        let status = Command::new("nft").args(words.split(' ')).status().unwrap();
        assert!(status.success(), "{words}");
    }

    fn is_read_again(before: &RuleSnapshot, now: &RuleSnapshot) -> bool {
        !Arc::ptr_eq(&before.services, &now.services)
    }

    #[test]
    fn rules_are_read_once_for_all() {
        let book = RuleBook::default();
        let began_ns = now_ns();
        let first = book.since(began_ns);
        assert!(first.begun_ns >= began_ns && first.read_ns >= first.begun_ns);
        let other = book.clone();
        assert!(Arc::ptr_eq(&first, &other.within(Duration::from_secs(60))));
        assert!(!Arc::ptr_eq(&first, &other.since(first.begun_ns + 1)) || book.skipped() > 0);
        assert!(!Arc::ptr_eq(&first, &book.since(0)), "the latest is the other's");
    }

    #[test]
    fn rules_are_read_again_when_they_changed() {
        apart(|| {
            let book = RuleBook::default();
            let first = book.since(now_ns());
            let second = book.since(now_ns());
            assert!(second.begun_ns > first.read_ns && second.is_checked);
            assert!(!is_read_again(&first, &second));
            nft("add table ip shop");
            let third = book.since(now_ns());
            assert!(is_read_again(&second, &third) && !third.is_checked);
            assert_eq!(third.unread(), [""; 0]);
        });
    }

    #[test]
    fn what_costs_too_much_is_not_read_again_yet() {
        apart(|| {
            let book = RuleBook::default();
            let first = book.since(now_ns());
            book.latest()
                .budgets
                .as_mut()
                .unwrap()
                .reading
                .spend(now_ns(), Duration::from_secs(9));
            // As long as nothing changes, nothing is missing.
            let second = book.since(now_ns());
            assert!(second.unread().is_empty() && book.skipped() == 0);
            nft("add table ip shop");
            let third = book.since(now_ns());
            assert!(!is_read_again(&first, &third));
            let unread = third.unread();
            assert!(
                matches!(unread.as_slice(), [one] if one.starts_with("rules changed and are not read again yet: reading them takes 0.")),
                "{unread:?}"
            );
            assert_eq!(book.skipped(), 1);
            nft("delete table ip shop");
            assert!(Arc::ptr_eq(&third, &book.since(now_ns())));
            // That is known no longer than until it may be read.
            book.latest().budgets.as_mut().unwrap().reading = CpuBudget::new(READING.0, READING.1);
            assert_eq!(book.since(now_ns()).unread(), [""; 0]);
            // A command that ends soon reads them whatever it takes.
            let short = RuleBook::of_command(true);
            let first = short.since(now_ns());
            nft("add table ip shop");
            assert!(is_read_again(&first, &short.since(now_ns())));
        });
    }

    fn drops(snapshot: &RuleSnapshot) -> Vec<(bool, Option<u64>)> {
        let localhost = IpAddr::from([127, 0, 0, 1]);
        let packet = Packet {
            path: PacketPath::In,
            protocol: 17,
            source: localhost,
            destination: localhost,
            source_port: None,
            destination_port: Some(9),
            input: Some("lo".to_owned()),
            output: None,
            is_new: false,
            position: PathPosition::Anywhere,
        };
        let drops = snapshot.candidates(&packet, &[Action::Drop]);
        drops.iter().map(|rule| (rule.certain, rule.packets)).collect()
    }

    /// A budget that is spent.
    fn spend(book: &RuleBook, budget: fn(&mut Budgets) -> &mut CpuBudget) {
        let mut latest = book.latest();
        budget(latest.budgets.as_mut().unwrap()).spend(now_ns(), Duration::from_secs(9));
    }

    #[test]
    fn rules_that_changed_are_not_certain() {
        apart(|| {
            nft("add table ip shop");
            nft("add chain ip shop in { type filter hook input priority 0 ; }");
            nft("add rule ip shop in udp dport 9 counter drop");
            let book = RuleBook::default();
            assert_eq!(drops(&book.since(now_ns())), [(true, Some(0))]);
            // The first time is free, so that the first change is read.
            let untouched = CpuBudget::new(READING.0, READING.1);
            assert_eq!(book.latest().budgets.as_ref().unwrap().reading, untouched);
            // Nothing is known to have changed. What it counted is read.
            spend(&book, |budgets| &mut budgets.checking);
            let unchecked = book.since(now_ns());
            assert_eq!(drops(&unchecked), [(true, Some(0))]);
            let unread = unchecked.unread();
            assert!(
                matches!(unread.as_slice(), [one] if one.contains("may have changed since") && one.contains(" 10 s")),
                "{unread:?}"
            );
            assert_eq!(book.skipped(), 1);
            book.latest().budgets.as_mut().unwrap().checking = CpuBudget::new(CHECKING.0, CHECKING.1);
            assert_eq!(book.since(now_ns()).unread(), [""; 0]);
            // The rule may be gone, and what it counted is not known.
            nft("insert rule ip shop in accept");
            spend(&book, |budgets| &mut budgets.reading);
            assert_eq!(drops(&book.since(now_ns())), [(false, None)]);
            book.latest().budgets.as_mut().unwrap().reading = CpuBudget::new(READING.0, READING.1);
            assert_eq!(drops(&book.since(now_ns())), []);
        });
    }

    /// Not even where the budget is spent.
    #[test]
    fn rules_of_another_network_namespace_are_not_used() {
        let book = RuleBook::default();
        let other = book.clone();
        let first = apart(move || {
            nft("add table ip shop");
            nft("add chain ip shop in { type filter hook input priority 0 ; }");
            nft("add rule ip shop in udp dport 9 counter drop");
            let first = other.since(now_ns());
            assert_eq!(drops(&first), [(true, Some(0))]);
            first
        });
        let Some(first) = first else { return };
        drop(first);
        spend(&book, |budgets| &mut budgets.reading);
        spend(&book, |budgets| &mut budgets.checking);
        let other = book.clone();
        apart(move || {
            nft("add table ip shop");
            nft("add chain ip shop in { type filter hook input priority 0 ; }");
            nft("add rule ip shop in udp dport 7 counter drop");
            assert_eq!(drops(&other.since(0)), []);
        });
    }
}
