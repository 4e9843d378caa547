//! How those who are asked for names are doing.

/// Of one who is asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Health {
    /// Not asked yet.
    #[default]
    Starting,
    /// Answers; it calls itself so: `containerd v1.6.20`.
    Well(String),
    /// Does not, for this reason.
    Failing(String),
}

/// What changed, to be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct News {
    /// `the container runtime at /run/containerd/containerd.sock`
    pub who: String,
    /// What there is no more while it does not answer: `containers have no names`.
    pub lost: &'static str,
    pub health: Health,
}

impl Health {
    /// Takes how it is doing now; gives it back where that is news. One reason to fail is like another.
    pub fn update(&mut self, now: Self) -> Option<Self> {
        let same = match (&now, &*self) {
            (Self::Failing(_), Self::Failing(_)) => true,
            (now, told) => now == told,
        };
        if same {
            return None;
        }
        *self = now.clone();
        Some(now)
    }
}

#[cfg(test)]
mod tests {
    use super::Health::{self, Failing, Starting, Well};

    #[test]
    fn told_once() {
        let mut told = Health::default();
        let well = || Well("containerd v1.6.20".to_owned());
        let failing = |why: &str| Failing(why.to_owned());
        for (now, news) in [
            (Starting, false),
            (well(), true),
            (well(), false),
            (failing("gone"), true),
            (failing("slow"), false),
            (well(), true),
        ] {
            assert_eq!(told.update(now.clone()).is_some(), news, "{now:?}");
        }
    }
}
