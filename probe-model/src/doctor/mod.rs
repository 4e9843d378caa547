//! What `probe doctor` looks at, and what a look came to: pure rules, a file a check.

pub mod bridge;
pub mod bypass;
pub mod certificate;
pub mod dns;
pub mod etcd;
pub mod ingress;
pub mod journal;
pub mod node;
pub mod server;
pub mod settings;
#[cfg(test)]
pub(crate) mod shown;
pub mod vxlan;

/// One entry of the runbook.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Check {
    Bridge,
    Etcd,
    Vxlan,
    Bypass,
    Ingress,
    Node,
    Dns,
    Settings,
}

impl Check {
    /// In the order in which they are told.
    pub const ALL: [Self; 8] = [
        Self::Bridge,
        Self::Node,
        Self::Etcd,
        Self::Vxlan,
        Self::Bypass,
        Self::Dns,
        Self::Ingress,
        Self::Settings,
    ];

    /// As it is asked for.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Bridge => "bridge",
            Self::Etcd => "etcd",
            Self::Vxlan => "vxlan",
            Self::Bypass => "bypass",
            Self::Ingress => "ingress",
            Self::Node => "node",
            Self::Dns => "dns",
            Self::Settings => "settings",
        }
    }

    /// What it looks at, in one line.
    pub const fn looks_at(self) -> &'static str {
        match self {
            Self::Bridge => "cni0 against flannel's subnet, CNI configuration, leftover addresses",
            Self::Etcd => "clients of etcd on this node that send nothing, and their interval",
            Self::Vxlan => "VXLAN devices against the wire: peers, entries, drops, MTU",
            Self::Bypass => "traffic that bypasses conntrack, the rule responsible, the broken Services",
            Self::Ingress => "certificates served to clients that send no server name",
            Self::Node => "kubelet's configuration, certificates and API server; its connections",
            Self::Dns => "pods with an outdated resolver in resolv.conf, queries without an answer",
            Self::Settings => "conntrack table, forwarding, bridge filtering, rp_filter, offload, clock",
        }
    }
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// There is nothing of the kind here.
    NotApplicable,
    Ok,
    /// It works, and may not for long.
    Warning,
    Failed,
}

impl Verdict {
    pub const ALL: [Self; 4] = [Self::NotApplicable, Self::Ok, Self::Warning, Self::Failed];

    pub const fn name(self) -> &'static str {
        match self {
            Self::NotApplicable => "not-applicable",
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Failed => "failed",
        }
    }
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// It is broken now; else it may be soon, or is not sure.
    pub failed: bool,
    /// What is wrong, in one sentence.
    pub says: String,
    /// What was seen, each in one line.
    pub evidence: Vec<String>,
    /// What to do, in this order: commands and sentences. None is run.
    pub remedies: Vec<String>,
}

impl Fault {
    pub fn failed(says: impl Into<String>) -> Self {
        Self {
            failed: true,
            says: says.into(),
            evidence: Vec::new(),
            remedies: Vec::new(),
        }
    }

    /// What another command finds: its kind, what is wrong, what shows it and what to do.
    pub fn found(kind: &str, what: &str, evidence: &[String], remedy: &str) -> Self {
        Self {
            evidence: evidence.to_vec(),
            ..Self::failed(format!("{kind}: {what}")).remedy(remedy)
        }
    }

    pub fn warning(says: impl Into<String>) -> Self {
        Self {
            failed: false,
            ..Self::failed(says)
        }
    }

    #[must_use]
    pub fn seen(mut self, evidence: impl Into<String>) -> Self {
        self.evidence.push(evidence.into());
        self
    }

    #[must_use]
    pub fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedies.push(remedy.into());
        self
    }
}

/// What a check came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub check: Check,
    pub verdict: Verdict,
    /// What was looked at and is well, or why there is nothing to look at; of faults, they say it themselves.
    pub summary: String,
    pub faults: Vec<Fault>,
    /// What could not be looked at, and why.
    pub unknown: Vec<String>,
    /// What the node's log said of it in the past hour. It makes no verdict: that is of what is seen now.
    pub log: Vec<String>,
}

impl Answer {
    /// What was looked at, and what is wrong with it.
    pub fn of(check: Check, summary: impl Into<String>, faults: Vec<Fault>) -> Self {
        let verdict = match faults.iter().map(|fault| fault.failed).max() {
            None => Verdict::Ok,
            Some(false) => Verdict::Warning,
            Some(true) => Verdict::Failed,
        };
        Self {
            check,
            verdict,
            summary: summary.into(),
            faults,
            unknown: Vec::new(),
            log: Vec::new(),
        }
    }

    /// There is nothing of the kind here.
    pub fn not_applicable(check: Check, why: impl Into<String>) -> Self {
        Self {
            verdict: Verdict::NotApplicable,
            ..Self::of(check, why, Vec::new())
        }
    }

    /// It could not be looked at.
    pub fn impossible(check: Check, why: &dyn std::fmt::Display) -> Self {
        Self::of(check, "not looked at", vec![Fault::warning(format!("{why:#}"))])
    }

    /// With what could not be looked at.
    #[must_use]
    pub fn without(mut self, unknown: Vec<String>) -> Self {
        self.unknown.extend(unknown);
        self
    }
}
