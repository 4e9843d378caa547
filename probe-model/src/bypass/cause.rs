//! Which rules exempt a stream, across snapshots: a deleted rule counts for packets before its removal.

use super::stream::UntrackedCount;
use crate::rule::CandidateRule;

/// Who let a stream past, as far as its packets and the rules were known then.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StreamCause {
    /// Empty if none was found.
    pub rules: Vec<CandidateRule>,
    packets: u64,
    /// When the rules were read.
    read_ns: u64,
    /// When they were first read without the rules.
    gone_ns: Option<u64>,
}

impl StreamCause {
    /// `before`: at the previous snapshot. `read_ns`: when the rules were read; `now`: who of them does it.
    pub fn of(
        before: Option<&Self>,
        count: &UntrackedCount,
        read_ns: u64,
        now: impl FnOnce() -> Vec<CandidateRule>,
    ) -> Self {
        let packets = count.packets;
        if let Some(before) = before
            && (before.packets, before.read_ns) == (packets, read_ns)
        {
            return before.clone();
        }
        let rules = now();
        if let Some(before) = before.filter(|before| !before.rules.is_empty()) {
            let gone_ns = rules.is_empty().then(|| before.gone_ns.unwrap_or(read_ns));
            // Packets after the latest snapshot may be from before the rule was deleted.
            let earlier = gone_ns.is_some_and(|gone_ns| count.last_ns <= gone_ns);
            if earlier || before.packets == packets {
                return Self {
                    rules: before.rules.clone(),
                    packets,
                    read_ns,
                    gone_ns,
                };
            }
        }
        Self {
            rules,
            packets,
            read_ns,
            gone_ns: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::samples::notrack;

    fn count(packets: u64, last_ns: u64) -> UntrackedCount {
        UntrackedCount {
            packets,
            last_ns,
            ..UntrackedCount::default()
        }
    }

    fn by(rules: &[&str]) -> Vec<CandidateRule> {
        rules.iter().map(|name| notrack(name)).collect()
    }

    #[test]
    fn a_rule_that_was_taken_away_did_what_came_before() {
        let seen = StreamCause::of(None, &count(5, 10), 11, || by(&["one"]));
        assert_eq!(seen.rules, by(&["one"]));
        // One packet more since, and the rule is gone.
        let gone = StreamCause::of(Some(&seen), &count(6, 19), 20, Vec::new);
        assert_eq!(gone.rules, by(&["one"]));
        let later = StreamCause::of(Some(&gone), &count(6, 19), 40, Vec::new);
        assert_eq!(later.rules, by(&["one"]));
        // What comes after that is another's, also when rules were read after it.
        let other = StreamCause::of(Some(&later), &count(7, 41), 42, Vec::new);
        assert_eq!(other.rules, []);
        assert_eq!(
            StreamCause::of(Some(&other), &count(7, 41), 60, Vec::new).rules,
            []
        );
    }

    #[test]
    fn another_rule_did_only_what_comes_later() {
        let seen = StreamCause::of(None, &count(5, 10), 11, || by(&["one"]));
        let same = StreamCause::of(Some(&seen), &count(5, 10), 20, || by(&["two"]));
        assert_eq!(same.rules, by(&["one"]));
        let more = StreamCause::of(Some(&same), &count(6, 21), 22, || by(&["two"]));
        assert_eq!(more.rules, by(&["two"]));
    }

    #[test]
    fn nobody_is_asked_twice_about_the_same() {
        let nobody = StreamCause::of(None, &count(5, 10), 11, Vec::new);
        let again = StreamCause::of(Some(&nobody), &count(5, 10), 11, || panic!("asked again"));
        assert_eq!(again.rules, []);
        // A rule that was read only now may have done it.
        let found = StreamCause::of(Some(&again), &count(5, 10), 12, || by(&["one"]));
        assert_eq!(found.rules, by(&["one"]));
    }
}
