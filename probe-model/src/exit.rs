//! Exit codes of `probe`.

use crate::{Listed, Verdict};

crate::names! {
    /// How a command ended.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum Exit {
        /// It ran, and found nothing wrong.
        Healthy = "healthy" => "healthy: no finding",
        /// It ran, and found something wrong.
        Finding = "finding" => "finding: a fault, a failed check, or an unexpected outcome",
        /// The command line is wrong.
        Usage = "usage" => "wrong usage",
        /// It ran, and nothing is known of what was asked for.
        NothingMatched = "nothing-matched" => "nothing matched the query",
        /// It did not run, or could not ask every node: what it found nothing of may exist.
        CouldNotRun = "could-not-run" => "could not run, or a node did not answer",
    }
}

impl Exit {
    /// What the process returns.
    pub const fn code(self) -> u8 {
        match self {
            Self::Healthy => 0,
            Self::Finding => 1,
            Self::Usage => 2,
            Self::NothingMatched => 3,
            Self::CouldNotRun => 4,
        }
    }

    /// As help lists it.
    pub fn line(self) -> String {
        format!("{}  {}", self.code(), self.description())
    }

    /// Of a command that reports faults.
    pub const fn of_verdict(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Ok | Verdict::Unknown => Self::Healthy,
            Verdict::Faulty => Self::Finding,
        }
    }

    /// Of several nodes; `answered`: all of them. A finding of one counts whether or not another answered.
    pub const fn of_nodes(verdict: Verdict, answered: bool) -> Self {
        match (verdict, answered) {
            (Verdict::Faulty, _) => Self::Finding,
            (Verdict::Ok | Verdict::Unknown, false) => Self::CouldNotRun,
            (Verdict::Ok | Verdict::Unknown, true) => Self::Healthy,
        }
    }

    /// Of lines that were looked up; `read`: all of them could be read. One that could not may be the one that matters.
    pub const fn of_lines(found: bool, read: bool) -> Self {
        match (found, read) {
            (_, false) => Self::CouldNotRun,
            (true, true) => Self::Healthy,
            (false, true) => Self::NothingMatched,
        }
    }

    /// Of a search; `answered`: every node that was asked. Nothing found is an answer only if all of them gave theirs.
    pub const fn of_search(found: bool, answered: bool) -> Self {
        match (found, answered) {
            (true, _) => Self::Healthy,
            (false, true) => Self::NothingMatched,
            (false, false) => Self::CouldNotRun,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_those_documented() {
        let codes = Exit::ALL.map(Exit::code);
        assert_eq!(codes, [0, 1, 2, 3, 4]);
        assert_eq!(Exit::NothingMatched.line(), "3  nothing matched the query");
    }

    #[test]
    fn what_an_answer_comes_to() {
        for (verdict, answered, exit) in [
            (Verdict::Ok, true, Exit::Healthy),
            (Verdict::Ok, false, Exit::CouldNotRun),
            (Verdict::Unknown, true, Exit::Healthy),
            (Verdict::Unknown, false, Exit::CouldNotRun),
            (Verdict::Faulty, true, Exit::Finding),
            (Verdict::Faulty, false, Exit::Finding),
        ] {
            assert_eq!(Exit::of_nodes(verdict, answered), exit);
        }
        for (found, answered, exit) in [
            (true, true, Exit::Healthy),
            (true, false, Exit::Healthy),
            (false, true, Exit::NothingMatched),
            (false, false, Exit::CouldNotRun),
        ] {
            assert_eq!(Exit::of_search(found, answered), exit);
        }
        assert_eq!(
            Verdict::ALL.map(Exit::of_verdict),
            [Exit::Healthy, Exit::Healthy, Exit::Finding]
        );
    }
}
