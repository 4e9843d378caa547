//! Messages about the services that names and addresses come from: each failure once, and each recovery.

use std::collections::HashSet;

use crate::{
    attribution::health::{Health, News},
    netfilter::conntrack::ConntrackError,
    report::say,
};

/// The services that failed, which was reported.
#[derive(Default)]
pub struct Status {
    failing: HashSet<String>,
}

impl Status {
    /// Reports that conntrack is available again, or no longer.
    pub fn conntrack(status: Option<Result<(), &ConntrackError>>) {
        match status {
            None => {}
            Some(Ok(())) => say(format_args!(
                "probe: conntrack is available again: translated addresses (seen_as) are reported from now on"
            )),
            Some(Err(error)) => say(format_args!(
                "warning: conntrack is unavailable, translated addresses (seen_as) will be missing: {error}"
            )),
        }
    }

    /// Reports how a source of names is doing, where that changed.
    pub fn names(&mut self, News { who, lost, health }: News) {
        match health {
            Health::Starting => {}
            Health::Well(name) => {
                if self.failing.remove(&who) {
                    let name = name.map(|name| format!(": {name}")).unwrap_or_default();
                    say(format_args!("probe: {who} answers again{name}"));
                }
            }
            Health::Failing(reason) => {
                say(format_args!(
                    "probe: {who} is unavailable, {lost} until it answers: {reason}"
                ));
                self.failing.insert(who);
            }
        }
    }
}
