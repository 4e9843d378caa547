//! Causes of a run, counted.

use super::Cause;

/// Causes counted separately at once.
const MOST: usize = 64;

/// A cause, as last seen, and how many connections it hit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counted {
    pub cause: Cause,
    pub connections: u64,
}

#[derive(Clone, Debug, Default)]
pub struct Causes {
    all: Vec<Counted>,
    /// Connections hit by causes that found no room.
    others: u64,
}

impl Causes {
    pub fn add(&mut self, cause: &Cause) {
        let same = |counted: &&mut Counted| {
            let known = &counted.cause;
            (
                known.kind,
                &known.rule,
                &known.service,
                &known.reason,
                &known.fixes,
            ) == (
                cause.kind,
                &cause.rule,
                &cause.service,
                &cause.reason,
                &cause.fixes,
            )
        };
        if let Some(counted) = self.all.iter_mut().find(same) {
            counted.connections += 1;
            counted.cause.what.clone_from(&cause.what);
        } else if self.all.len() < MOST {
            self.all.push(Counted {
                cause: cause.clone(),
                connections: 1,
            });
        } else {
            self.others += 1;
        }
    }

    /// Those that hit most connections first.
    pub fn sorted(&self) -> Vec<Counted> {
        let mut all = self.all.clone();
        all.sort_by_key(|counted| std::cmp::Reverse(counted.connections));
        all
    }

    pub fn others(&self) -> u64 {
        self.others
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cause::CauseKind;

    #[test]
    fn the_same_rule_is_one_cause_and_all_are_bounded() {
        let cause = |rule: &str, what: &str| Cause {
            kind: CauseKind::Dropped,
            what: what.to_owned(),
            rule: Some(rule.to_owned()),
            service: None,
            reason: None,
            fixes: Vec::new(),
            certain: true,
        };
        let mut causes = Causes::default();
        causes.add(&cause("b", "other"));
        causes.add(&cause("a", "first"));
        causes.add(&cause("a", "second"));
        let sorted = causes.sorted();
        assert_eq!(
            (sorted[0].connections, sorted[0].cause.what.as_str()),
            (2, "second")
        );
        assert_eq!(sorted.len(), 2);
        for number in 0..100 {
            causes.add(&cause(&number.to_string(), ""));
        }
        assert_eq!((causes.sorted().len(), causes.others()), (MOST, 38));
    }
}
