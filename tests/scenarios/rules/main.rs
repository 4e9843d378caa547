//! The rule that probe names is the one whose counter moves, or probe says that it can't know: by generated rule sets.
//!
//! Each set is loaded, two packets are sent through it, and what its counters say is compared with what probe names. Counters
//! begin at numbers of their own, and some rules have none that probe sees: it has to find the rule by its conditions.

#![expect(clippy::unwrap_used, reason = "all of a scenario is a test, its helpers too")]

mod bridge;
mod generate;
mod network;
mod packet;
mod random;
mod render;
mod truth;

use std::{collections::HashMap, time::Duration};

use probe_lab::{patience, wait_until};
use probe_user::{
    model::rule::{self, Action, CandidateRule, RulePosition, Tool},
    netfilter::rules::Rules,
};

use self::{generate::RuleSet, network::Router, packet::TestPacket, random::Random, truth::Truth};

/// Sets of one run in CI's lab.
const SETS: u64 = 200;
/// Sets that are loaded in one network namespace at the same time.
const AT_ONCE: u64 = 40;
const ROUNDS: u32 = 2;
const SEED: u64 = 20_261_130;

/// How often probe's answer was what.
#[derive(Debug, Default)]
struct Score {
    /// Packets that a rule did something to.
    affected: u64,
    /// It was named, for certain.
    named: u64,
    /// It was named as one that may have done it.
    perhaps: u64,
    /// Another was named as one that may have done it; this one was among the candidates.
    perhaps_another: u64,
    /// No rule did anything.
    passed: u64,
    wrong: Vec<String>,
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

#[test]
fn the_rule_that_is_named_is_the_one_whose_counter_moves() {
    let (sets, seed) = (number("PROBE_RULE_SETS", SETS), number("PROBE_RULE_SEED", SEED));
    let only = std::env::var("PROBE_RULE_SET")
        .ok()
        .map(|text| text.parse::<u64>().unwrap());
    let start = std::time::Instant::now();
    let mut scores: HashMap<(&str, &str), Score> = HashMap::new();
    for first in (0..sets).step_by(usize::try_from(AT_ONCE).unwrap()) {
        let batch: Vec<(u64, RuleSet)> = (first..sets.min(first + AT_ONCE))
            .filter(|number| only.is_none_or(|only| only == *number))
            .map(|number| {
                let random = Random::of(seed, number);
                (number, RuleSet::generate(random, number - first))
            })
            .collect();
        if !batch.is_empty() {
            run(batch, &mut scores);
        }
    }
    println!(
        "{sets} rule sets, seed {seed}, {:.0} s",
        start.elapsed().as_secs_f64()
    );
    for what in ["dropped", "untracked"] {
        let named = |reader| scores.get(&(what, reader)).map(|score| score.named);
        assert!(
            named("kernel") >= named("tools"),
            "{what}: no reading is to leave more rules uncertain"
        );
    }
    let mut wrong = Vec::new();
    for ((what, reader), score) in scores {
        println!(
            "{what}, by the {reader}: {} packets affected: rule named {}, perhaps {}, perhaps another {}, wrong {}; {} not affected",
            score.affected,
            score.named,
            score.perhaps,
            score.perhaps_another,
            score.wrong.len(),
            score.passed
        );
        assert!(
            only.is_some() || score.named * 2 > score.affected,
            "{what}, by the {reader}: most rules are to be named for certain"
        );
        wrong.extend(score.wrong);
    }
    let some: Vec<&str> = wrong.iter().take(8).map(String::as_str).collect();
    assert!(
        wrong.is_empty(),
        "{} wrong answers:\n{}",
        wrong.len(),
        some.join("\n\n")
    );
}

/// Loads sets side by side, sends a packet through each, and judges what probe says of it.
fn run(mut batch: Vec<(u64, RuleSet)>, scores: &mut HashMap<(&str, &str), Score>) {
    let router = Router::new().unwrap();
    let sets: Vec<&RuleSet> = batch.iter().map(|(_, set)| set).collect();
    router.load(&sets).unwrap();
    let mut before = Truth::read(&router).unwrap();
    for _ in 0..ROUNDS {
        let packets: Vec<TestPacket> = batch.iter_mut().map(|(_, set)| set.packet()).collect();
        router.send(&packets).unwrap();
        let after = Truth::read(&router).unwrap();
        let by_tools = read(&router, Rules::read_by_tools);
        let by_kernel = read(&router, || Rules::read().0);
        let moved = after.since(&before);
        before = after;
        for ((number, set), packet) in batch.iter_mut().zip(&packets) {
            let seen = packet.as_probe_sees_it(&mut set.random);
            let dropper = set.dropper(&moved);
            let was_dropped = !dropper.is_empty();
            for (what, actions, did) in [
                ("dropped", &[Action::Drop, Action::Reject][..], Some(dropper)),
                ("untracked", &[Action::NoTrack], set.exempter(&moved)),
            ] {
                let Some(did) = did else { continue };
                // What is dropped before it is untracked, is asked for the rule that dropped it.
                if what == "untracked" && did.is_empty() && was_dropped {
                    continue;
                }
                for (reader, rules) in [("tools", &by_tools), ("kernel", &by_kernel)] {
                    let candidates = rules.candidates(&seen, actions);
                    assert_eq!(rules.unread_late(), None);
                    let score = scores.entry((what, reader)).or_default();
                    if let Err(wrong) = judge(&did, candidates, score) {
                        score.wrong.push(format!(
                            "set {number}, {what}, by the {reader}: {wrong}\n{packet:?}\nas seen: {seen:?}\n{}",
                            set.text()
                        ));
                    }
                }
            }
        }
    }
}

/// The rules, read whole: on a busy machine a tool takes longer than probe waits for it.
fn read(router: &Router, read: fn() -> Rules) -> Rules {
    let within = Duration::from_secs(120) * patience();
    let whole = || {
        let rules = router.netns.enter(read).ok()?;
        rules.unread().is_empty().then_some(rules)
    };
    wait_until("all rules are read", within, whole).unwrap()
}

/// What names a rule or a policy in both worlds: the rules' comments begin with it.
fn id(candidate: &CandidateRule) -> String {
    if candidate.place == RulePosition::Policy {
        return format!("policy {}", candidate.chain);
    }
    let mark = if candidate.tool == Tool::Nft {
        "comment \""
    } else {
        "--comment "
    };
    let (_, comment) = candidate.text.split_once(mark).unwrap_or_default();
    let is_of_id = |c: &char| c.is_ascii_alphanumeric();
    comment
        .trim_start_matches('"')
        .chars()
        .take_while(is_of_id)
        .collect()
}

fn judge(did: &[String], candidates: Vec<CandidateRule>, score: &mut Score) -> Result<(), String> {
    let ids: Vec<String> = candidates.iter().map(id).collect();
    let first_reached = candidates
        .first()
        .is_some_and(|first| first.certain && first.reached);
    let named = rule::first(candidates);
    let Some(named) = named else {
        if did.is_empty() {
            score.passed += 1;
            return Ok(());
        }
        score.affected += 1;
        return Err(format!("{did:?} did it, and no rule was named of {ids:?}"));
    };
    if did.is_empty() {
        score.passed += 1;
        // As it is: where packets are not dropped, nothing is asked for. But this would have been named.
        return match first_reached && named.certain {
            true => Err(format!("{named} is named for certain, and no rule did it")),
            false => Ok(()),
        };
    }
    score.affected += 1;
    match (did.first() == Some(&id(&named)), named.certain) {
        (true, true) => score.named += 1,
        (true, false) => score.perhaps += 1,
        (false, true) => return Err(format!("{did:?} did it, and {named} is named of {ids:?}")),
        (false, false) if ids.contains(&did[0]) => score.perhaps_another += 1,
        (false, false) => return Err(format!("{did:?} did it, and is not among the candidates {ids:?}")),
    }
    Ok(())
}
