//! Rules that set notrack, their counters from look to look, rules that drop, and the Services.

use std::{collections::HashMap, time::Duration};

use crate::{
    attribution::{
        health::{Health, News},
        kube::ServiceList,
    },
    commands::periodic::now_ns,
    model::bypass::{
        rule::{CandidateRule, Intended, Rule},
        service::{Service, Services},
        stream::{Direction, Server, UntrackedCount, UntrackedStream},
    },
    netfilter::rules::{self, Action, Packet, Path, Suspect},
    report::say,
};

/// Reading takes some 100 ms of other tools' time.
const EVERY: Duration = Duration::from_secs(10);
/// The same while something slips past.
const SOON: Duration = Duration::from_secs(2);
/// The same while something slips past that no rule explains: it may be younger than what was read.
const AT_ONCE: Duration = Duration::from_millis(300);
/// How long to wait for Kubernetes' first answer, who was asked for it.
const FIRST_ANSWER: Duration = Duration::from_secs(2);
/// Rules remembered, those that are gone too.
const REMEMBERED: usize = 4096;

pub struct Rules {
    /// When the latest reading began, by the clock of the counts: `CLOCK_MONOTONIC` nanoseconds.
    begun_ns: u64,
    /// When it had come to its end, by the same clock.
    read_ns: u64,
    rules: rules::Rules,
    services: Services,
    /// What Kubernetes says of Services, where it is asked.
    listed: Option<ServiceList>,
    /// Counters as they were when a rule was first seen.
    first: HashMap<String, u64>,
    list: Vec<Rule>,
    /// By their texts, those that are gone too: what they did is told for a while.
    known: HashMap<String, Rule>,
}

/// A rule, wherever others push it in its chain.
fn identity(suspect: &Suspect) -> String {
    format!(
        "{} {} {} {}",
        suspect.tool.name(suspect.family),
        suspect.table,
        suspect.chain,
        suspect.text
    )
}

/// The first that is certain, or else the first that may have done it.
pub fn first(suspects: Vec<Suspect>) -> Option<Suspect> {
    let mut suspects: Vec<_> = suspects
        .into_iter()
        // A counter that never moved is an alibi.
        .filter(|suspect| suspect.packets != Some(0))
        .collect();
    let certain = suspects.iter().position(|suspect| suspect.certain).unwrap_or(0);
    (certain < suspects.len()).then(|| suspects.swap_remove(certain))
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
    /// As they are now; what their counters have by now is not counted.
    pub fn read() -> Self {
        let mut rules = Self::read_late();
        // What is there from the beginning counts from there; a rule that comes later, from nothing.
        let every = rules.rules.every(Action::NoTrack);
        rules.first = every
            .iter()
            .filter_map(|suspect| Some((identity(suspect), suspect.packets?)))
            .collect();
        rules.known.clear();
        rules.list();
        rules
    }

    /// As they are now, with all that they ever counted: for who has seen packets before.
    pub fn read_late() -> Self {
        let mut rules = Self {
            begun_ns: 0,
            read_ns: 0,
            rules: rules::Rules::default(),
            services: Services::default(),
            listed: None,
            first: HashMap::new(),
            list: Vec::new(),
            known: HashMap::new(),
        };
        rules.again();
        rules
    }

    /// Reads them anew where that is due; `busy`: there are untracked packets, `puzzled`: and no rule for some, which were seen
    /// first at that time (`CLOCK_MONOTONIC` nanoseconds). A rule may be younger than what was read: it is not said that there
    /// is none before they were read after such packets.
    pub fn refresh(&mut self, busy: bool, puzzled: Option<u64>) -> bool {
        let age = Duration::from_nanos(now_ns().saturating_sub(self.read_ns));
        // A rule may let packets past that never leave: its counter is all there is to see.
        let busy = busy || self.list.iter().any(|rule| rule.intended.is_none());
        let due = is_due(age, busy, puzzled.map(|first_ns| self.begun_ns <= first_ns));
        if due {
            self.again();
        }
        due
    }

    fn again(&mut self) {
        self.begun_ns = now_ns();
        let (rules, services) = rules::Rules::read_with_services();
        self.read_ns = now_ns();
        self.rules = rules;
        self.services = Services::with(services, self.listed());
        self.list();
    }

    /// Has the Kubernetes API name Services, too, from now on.
    pub fn take(&mut self, listed: ServiceList) {
        listed.wait(FIRST_ANSWER);
        self.listed = Some(listed);
        self.again();
    }

    fn listed(&self) -> Vec<Service> {
        let Some(list) = &self.listed else {
            return Vec::new();
        };
        if let Some(News {
            who,
            lost,
            health: Health::Failing(reason),
        }) = list.news()
        {
            say(format_args!(
                "probe: {who} can't be asked, {lost} until it can: {reason}"
            ));
        }
        list.services()
    }

    fn list(&mut self) {
        let (first, known) = (&self.first, &self.known);
        self.list = self
            .rules
            .every(Action::NoTrack)
            .iter()
            .map(|suspect| {
                let text = suspect.to_string();
                let since = suspect.packets.map(|packets| {
                    packets.saturating_sub(first.get(&identity(suspect)).copied().unwrap_or(0))
                });
                let then = known.get(&text);
                let moved = since > then.map_or(Some(0), |then| then.since);
                Rule {
                    since,
                    moved_ns: if moved {
                        now_ns()
                    } else {
                        then.map_or(0, |then| then.moved_ns)
                    },
                    packets: suspect.packets,
                    remedy: suspect.removal(),
                    intended: Intended::of_rule(&suspect.chain, &suspect.text),
                    text,
                }
            })
            .collect();
        if self.known.len() + self.list.len() > REMEMBERED {
            self.known.clear();
        }
        let texts = self.list.iter().map(|rule| (rule.text.clone(), rule.clone()));
        self.known.extend(texts);
    }

    /// When they were read, `CLOCK_MONOTONIC` nanoseconds.
    pub fn read_ns(&self) -> u64 {
        self.read_ns
    }

    /// Those that are, and those that were, by their texts.
    pub fn known(&self) -> &HashMap<String, Rule> {
        &self.known
    }

    pub fn all(&self) -> &[Rule] {
        &self.list
    }

    pub fn services(&self) -> &Services {
        &self.services
    }

    /// What could not be read.
    pub fn unread(&self) -> &[String] {
        self.rules.unread()
    }

    /// The rules that let a stream past: those that are certain, or else those that may be. `name`: of a device, as the
    /// rules see it.
    pub fn candidates(
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
            path: match stream.direction {
                Direction::Forwarded => Path::Forward,
                Direction::Outgoing => Path::Out,
                Direction::Delivered => Path::In,
            },
            protocol: stream.protocol,
            source: stream.source,
            destination: stream.destination,
            source_port,
            destination_port,
            input: stream.input.and_then(&name),
            output: stream.output.and_then(&name),
        };
        let candidates: Vec<CandidateRule> = self
            .rules
            .suspects(&packet, &[Action::NoTrack])
            .into_iter()
            // A counter that never moved is an alibi.
            .filter(|suspect| suspect.packets != Some(0))
            .map(|suspect| CandidateRule {
                rule: suspect.to_string(),
                certain: suspect.certain,
            })
            .filter(|candidate| self.moved(candidate))
            .collect();
        if candidates.iter().any(|candidate| candidate.certain) {
            // The first one on the way did it; the others found it done.
            candidates
                .into_iter()
                .filter(|candidate| candidate.certain)
                .take(1)
                .collect()
        } else {
            candidates
        }
    }

    /// The rule that dropped such packets: the first that is certain, or else the first that may have.
    pub fn dropper(&self, packet: &Packet) -> Option<Suspect> {
        first(self.rules.suspects(packet, &[Action::Drop, Action::Reject]))
    }

    /// Whether the rule's counter moved while probe looked, where it has one.
    fn moved(&self, candidate: &CandidateRule) -> bool {
        let rule = self.known.get(&candidate.rule);
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
