//! How those who are asked for names are doing.

use std::{
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// Of one who is asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Health {
    /// Not asked yet.
    #[default]
    Starting,
    /// Answers; it may call itself so: `containerd v1.6.20`.
    Well(Option<String>),
    /// Does not, for this reason.
    Failing(String),
}

/// A change of state, to be reported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct News {
    /// `the container runtime at /run/containerd/containerd.sock`
    pub who: String,
    /// What there is no more while it does not answer: `containers have no names`.
    pub lost: &'static str,
    pub health: Health,
}

/// The state of a source of names: the querying thread sets it, others wait for it and report it.
#[derive(Debug, Default)]
pub struct Doing {
    known: Mutex<HealthState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct HealthState {
    now: Health,
    /// The state that was reported last.
    told: Health,
}

impl Doing {
    pub fn is(&self, health: Health) {
        self.known().now = health;
        self.changed.notify_all();
    }

    pub fn is_failing(&self) -> bool {
        matches!(self.known().now, Health::Failing(_))
    }

    /// Waits until it has answered, or it is known that it will not.
    pub fn wait(&self, patience: Duration) {
        let starting = |known: &mut HealthState| known.now == Health::Starting;
        drop(self.changed.wait_timeout_while(self.known(), patience, starting));
    }

    /// The state, if it changed. A change of the reason for a failure is none.
    pub fn news(&self) -> Option<Health> {
        let mut known = self.known();
        let same = match (&known.now, &known.told) {
            (Health::Failing(_), Health::Failing(_)) => true,
            (now, told) => now == told,
        };
        if same {
            return None;
        }
        known.told = known.now.clone();
        Some(known.now.clone())
    }

    fn known(&self) -> MutexGuard<'_, HealthState> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::{
        Doing,
        Health::{Failing, Starting, Well},
    };

    #[test]
    fn told_once() {
        let doing = Doing::default();
        let well = || Well(Some("containerd v1.6.20".to_owned()));
        let failing = |why: &str| Failing(why.to_owned());
        for (now, news) in [
            (Starting, false),
            (well(), true),
            (well(), false),
            (failing("gone"), true),
            (failing("slow"), false),
            (well(), true),
        ] {
            doing.is(now.clone());
            assert_eq!(doing.news(), news.then_some(now));
        }
    }
}
