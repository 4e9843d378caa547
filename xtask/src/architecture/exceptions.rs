//! What breaks a rule today, and why it is still there. The list can only get shorter: an entry that nothing needs fails the
//! step, as a place that breaks a rule without an entry does.

use super::rules::Rule::{self, Features, OneDefinition, OneName};

/// A place that may break a rule.
#[derive(Clone, Copy, Debug)]
pub struct Exception {
    pub rule: Rule,
    /// Part of the path of the files.
    pub place: &'static str,
    /// What is used there, or something in it; of a definition its name.
    pub what: &'static str,
    pub reason: &'static str,
}

/// Those that are given to the rules.
pub struct Exceptions<'a>(pub &'a [Exception]);

const fn of(rule: Rule, place: &'static str, what: &'static str, reason: &'static str) -> Exception {
    Exception {
        rule,
        place,
        what,
        reason,
    }
}

const CLUSTER: &str = "with --cluster it asks the agents, by what the cluster's commands share";
const WORDS: &str = "several types have this name, none is renamed yet";
const VAGUE: &str = "other types have this name, too";

pub const TODAY: &[Exception] = &[
    of(
        Features,
        "probe-user/src/commands/etcd_log.rs",
        "commands::cluster",
        CLUSTER,
    ),
    of(
        Features,
        "probe-user/src/commands/who.rs",
        "commands::cluster",
        CLUSTER,
    ),
    of(OneDefinition, "probe-model/src", "Fault", WORDS),
    of(OneDefinition, "probe-model/src", "View", WORDS),
    of(OneName, "probe-user/src/recording/read.rs", "Line", VAGUE),
];
