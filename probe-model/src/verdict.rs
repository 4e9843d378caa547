//! Whether a thing works, as far as it could be verified.

crate::names! {
    /// In the order in which one of them decides about a whole: one faulty part makes it faulty.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
    pub enum Verdict {
        /// It was verified, and nothing is wrong.
        #[default]
        Ok = "ok",
        /// Nothing is known to be wrong, and not all could be verified.
        Unknown = "unknown",
        /// Something is wrong.
        Faulty = "faulty",
    }
}

impl Verdict {
    /// Of a whole, by its parts; without any it is `ok`.
    pub fn of_parts(parts: impl IntoIterator<Item = Self>) -> Self {
        parts.into_iter().max().unwrap_or_default()
    }

    /// Of a thing that is `verified` or not; `faults`: whether there are any.
    pub const fn of(faults: bool, verified: bool) -> Self {
        match (faults, verified) {
            (true, _) => Self::Faulty,
            (false, false) => Self::Unknown,
            (false, true) => Self::Ok,
        }
    }

    /// Whether something is wrong.
    pub const fn is_faulty(self) -> bool {
        matches!(self, Self::Faulty)
    }
}

#[cfg(test)]
mod tests {
    use super::Verdict::{self, Faulty, Ok, Unknown};

    #[test]
    fn the_worst_part_decides() {
        for (parts, whole) in [
            (vec![], Ok),
            (vec![Ok, Ok], Ok),
            (vec![Ok, Unknown], Unknown),
            (vec![Faulty, Unknown, Ok], Faulty),
        ] {
            assert_eq!(Verdict::of_parts(parts.clone()), whole, "{parts:?}");
        }
        for (faults, verified, verdict) in [
            (false, true, Ok),
            (false, false, Unknown),
            (true, true, Faulty),
            (true, false, Faulty),
        ] {
            assert_eq!(Verdict::of(faults, verified), verdict);
        }
    }
}
