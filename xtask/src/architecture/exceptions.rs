//! What breaks a rule today, and why it is still there. The list can only get shorter: an entry that nothing needs fails the
//! step, as a place that breaks a rule without an entry does.

use super::rules::Rule::{self, Cli, Features, OneDefinition, OneName};

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

const SETTING: &str = "a setting that the room defines; nothing is read by naming it";
const FINDS: &str = "finds the container runtime's socket, which the room that uses it is to do";
const CLUSTER: &str = "with --cluster it asks the agents, by what the cluster's commands share";
const WORDS: &str = "several types have this name, none is renamed yet";
const VAGUE: &str = "other types have this name, too";

pub const TODAY: &[Exception] = &[
    of(Cli, "probe-user/src/cli", "attribution::kube::Access", SETTING),
    of(
        Cli,
        "probe-user/src/cli",
        "attribution::kube::Credentials",
        SETTING,
    ),
    of(Cli, "probe-user/src/cli", "kernel::btf::VMLINUX", SETTING),
    of(Cli, "probe-user/src/cli", "kernel::messages::Level", SETTING),
    of(Cli, "probe-user/src/cli", "kernel::object::Source", SETTING),
    of(Cli, "probe-user/src/cli", "attribution::cri", FINDS),
    of(Cli, "probe-user/src/cli", "kernel::connection::Options", SETTING),
    of(Cli, "probe-user/src/cli", "recording::history::Bounds", SETTING),
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
    of(OneDefinition, "probe-model/src", "Blame", WORDS),
    of(OneDefinition, "probe-model/src", "Fault", WORDS),
    of(OneDefinition, "probe-model/src", "Finding", WORDS),
    of(OneDefinition, "probe-model/src", "Culprit", WORDS),
    of(OneDefinition, "probe-model/src", "Service", WORDS),
    of(OneDefinition, "probe-model/src", "Stream", WORDS),
    of(OneDefinition, "probe-model/src", "Count", WORDS),
    of(OneDefinition, "probe-model/src", "View", WORDS),
    of(OneDefinition, "probe-model/src", "Seen", WORDS),
    of(OneDefinition, "probe-model/src", "Dropped", WORDS),
    of(OneDefinition, "probe-model/src", "Kind", WORDS),
    of(OneDefinition, "probe-model/src", "Untracked", WORDS),
    of(OneDefinition, "probe-model/src", "Tunnel", WORDS),
    of(OneDefinition, "probe-model/src", "Blamed", WORDS),
    of(OneDefinition, "probe-model/src", "Check", WORDS),
    of(OneDefinition, "probe-model/src", "Hook", WORDS),
    of(OneDefinition, "probe-model/src", "Pod", WORDS),
    of(OneDefinition, "probe-model/src", "Row", WORDS),
    of(OneDefinition, "probe-model/src", "Entry", WORDS),
    of(OneDefinition, "probe-model/src", "Verdict", WORDS),
    of(OneDefinition, "probe-model/src", "State", WORDS),
    of(OneDefinition, "probe-model/src", "Client", WORDS),
    of(OneDefinition, "probe-model/src", "Why", WORDS),
    of(OneDefinition, "probe-model/src", "Device", WORDS),
    of(OneDefinition, "probe-model/src", "Flow", WORDS),
    of(OneName, "probe-user/src/cluster/answer.rs", "Answer", VAGUE),
    of(OneName, "probe-user/src/cluster/ask.rs", "Answer", VAGUE),
    of(
        OneName,
        "probe-user/src/commands/watch/explain/mod.rs",
        "Answer",
        VAGUE,
    ),
    of(
        OneName,
        "probe-user/src/netfilter/rules/matching.rs",
        "Answer",
        VAGUE,
    ),
    of(OneName, "probe-user/src/recording/connection.rs", "Cause", VAGUE),
    of(OneName, "probe-user/src/report/json.rs", "Cause", VAGUE),
    of(
        OneName,
        "probe-user/src/recording/connection.rs",
        "Connection",
        VAGUE,
    ),
    of(OneName, "probe-user/src/report/json.rs", "Connection", VAGUE),
    of(OneName, "probe-user/src/cli/path.rs", "End", VAGUE),
    of(OneName, "probe-user/src/commands/agent/answers.rs", "End", VAGUE),
    of(OneName, "probe-user/src/commands/agent/doctor.rs", "End", VAGUE),
    of(OneName, "probe-user/src/recording/connection.rs", "End", VAGUE),
    of(OneName, "probe-user/src/recording/read.rs", "End", VAGUE),
    of(OneName, "probe-user/src/report/bypass/json.rs", "End", VAGUE),
    of(OneName, "probe-user/src/report/json.rs", "End", VAGUE),
    of(OneName, "probe-model/src/bypass/finding.rs", "Finding", VAGUE),
    of(OneName, "probe-model/src/vxlan/finding.rs", "Finding", VAGUE),
    of(OneName, "probe-user/src/report/events.rs", "Finding", VAGUE),
    of(
        OneName,
        "probe-user/src/commands/agent/observer.rs",
        "Found",
        VAGUE,
    ),
    of(
        OneName,
        "probe-user/src/commands/doctor/node/kubelet.rs",
        "Found",
        VAGUE,
    ),
    of(OneName, "probe-user/src/commands/mod.rs", "Found", VAGUE),
    of(
        OneName,
        "probe-user/src/netfilter/rules/netlink/ruleset.rs",
        "Found",
        VAGUE,
    ),
    of(OneName, "probe-user/src/netfilter/rules/nft.rs", "Found", VAGUE),
    of(OneName, "probe-user/src/report/bypass/json.rs", "Found", VAGUE),
    of(OneName, "probe-user/src/report/etcd_log.rs", "Found", VAGUE),
    of(OneName, "probe-user/src/report/vxlan/json.rs", "Found", VAGUE),
    of(OneName, "probe-model/src/bypass/diagnosis.rs", "Known", VAGUE),
    of(OneName, "probe-model/src/doctor/journal.rs", "Known", VAGUE),
    of(OneName, "probe-user/src/attribution/health.rs", "Known", VAGUE),
    of(OneName, "probe-user/src/attribution/mod.rs", "Known", VAGUE),
    of(OneName, "probe-user/src/capture/path.rs", "Known", VAGUE),
    of(
        OneName,
        "probe-user/src/commands/bypass/snapshot.rs",
        "Known",
        VAGUE,
    ),
    of(
        OneName,
        "probe-user/src/commands/path/namespaces.rs",
        "Known",
        VAGUE,
    ),
    of(
        OneName,
        "probe-user/src/commands/watch/explain/evidence.rs",
        "Known",
        VAGUE,
    ),
    of(OneName, "probe-user/src/report/metrics/store.rs", "Known", VAGUE),
    of(OneName, "probe-user/src/cluster/body.rs", "Line", VAGUE),
    of(OneName, "probe-user/src/recording/doctor.rs", "Line", VAGUE),
    of(OneName, "probe-user/src/recording/read.rs", "Line", VAGUE),
    of(OneName, "probe-user/src/report/bypass/json.rs", "Line", VAGUE),
    of(OneName, "probe-user/src/report/check.rs", "Line", VAGUE),
    of(OneName, "probe-user/src/report/doctor.rs", "Line", VAGUE),
    of(OneName, "probe-user/src/report/path/json.rs", "Line", VAGUE),
    of(OneName, "probe-user/src/report/table.rs", "Line", VAGUE),
    of(OneName, "probe-user/src/report/vxlan/json.rs", "Line", VAGUE),
    of(OneName, "probe-user/src/cluster/ask.rs", "Look", VAGUE),
    of(OneName, "probe-user/src/report/snapshot.rs", "Look", VAGUE),
    of(
        OneName,
        "probe-user/src/attribution/kube/object.rs",
        "Node",
        VAGUE,
    ),
    of(OneName, "probe-user/src/cli/agent/file.rs", "Node", VAGUE),
    of(OneName, "probe-user/src/commands/agent/answers.rs", "Node", VAGUE),
    of(OneName, "probe-user/src/commands/agent/parts.rs", "Node", VAGUE),
    of(OneName, "probe-user/src/commands/cluster/watch.rs", "Node", VAGUE),
    of(OneName, "probe-user/src/commands/doctor.rs", "Node", VAGUE),
    of(OneName, "probe-user/src/netfilter/rules/tools.rs", "Node", VAGUE),
    of(OneName, "probe-user/src/recording/connection.rs", "Node", VAGUE),
    of(OneName, "probe-user/src/report/json.rs", "Node", VAGUE),
    of(OneName, "probe-user/src/netfilter/rules/mod.rs", "Place", VAGUE),
    of(OneName, "probe-user/src/report/path/pcap.rs", "Place", VAGUE),
    of(OneName, "probe-user/src/serve/mod.rs", "Place", VAGUE),
    of(
        OneName,
        "probe-user/src/commands/doctor/watching.rs",
        "Question",
        VAGUE,
    ),
    of(
        OneName,
        "probe-user/src/commands/watch/explain/mod.rs",
        "Question",
        VAGUE,
    ),
    of(OneName, "probe-model/src/bypass/view.rs", "Seen", VAGUE),
    of(OneName, "probe-model/src/doctor/bridge.rs", "Seen", VAGUE),
    of(OneName, "probe-model/src/doctor/dns.rs", "Seen", VAGUE),
    of(OneName, "probe-model/src/doctor/etcd.rs", "Seen", VAGUE),
    of(OneName, "probe-model/src/doctor/node.rs", "Seen", VAGUE),
    of(OneName, "probe-model/src/doctor/settings.rs", "Seen", VAGUE),
    of(OneName, "probe-user/src/cluster/dedup.rs", "Seen", VAGUE),
    of(
        OneName,
        "probe-user/src/commands/doctor/watching.rs",
        "Seen",
        VAGUE,
    ),
];
