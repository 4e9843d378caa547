//! The checks of `probe doctor` and their answers: pure rules, one file a check.

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

use serde::{Deserialize, Serialize};

use crate::{
    Verdict,
    finding::{Finding, Kind, Severity},
};

crate::names! {
    /// One entry of the runbook.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
    pub enum Check {
        Bridge = "bridge" => "cni0 against flannel's subnet, CNI configuration, leftover addresses",
        Node = "node" => "kubelet's configuration, certificates and API server; its connections",
        Etcd = "etcd" => "clients of etcd on this node that send nothing, and their interval",
        Vxlan = "vxlan" => "VXLAN devices against the wire: peers, entries, drops, MTU",
        Bypass = "bypass" => "traffic that bypasses conntrack, the rule responsible, the broken Services",
        Dns = "dns" => "pods with an outdated resolver in resolv.conf, queries without an answer",
        Ingress = "ingress" => "certificates served to clients that send no server name",
        Settings = "settings" => "conntrack table, forwarding, bridge filtering, rp_filter, offload, clock",
    }
}

crate::names! {
    /// The verdict of a check: faults by how bad they are, and what does not apply apart.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
    pub enum CheckVerdict {
        /// There is nothing of the kind here.
        NotApplicable = "not-applicable",
        Ok = "ok",
        /// Nothing is wrong as far as it could be verified, and not all could.
        Unknown = "unknown",
        /// It works, and may not for long.
        Warning = "warning",
        Failed = "failed",
    }
}

impl CheckVerdict {
    /// Whether the node works, as far as this check goes. A warning is about what works now, or is not certain to be broken.
    pub const fn verdict(self) -> Verdict {
        match self {
            Self::NotApplicable | Self::Ok => Verdict::Ok,
            Self::Unknown | Self::Warning => Verdict::Unknown,
            Self::Failed => Verdict::Faulty,
        }
    }
}

/// The answer of a check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Answer {
    /// The check.
    pub check: Check,
    /// The verdict.
    pub verdict: CheckVerdict,
    /// What was checked, or why there is nothing to check.
    pub summary: String,
    /// Those of `vxlan` and `bypass` with their own kinds, others with the name of the check as their kind.
    pub findings: Vec<Finding>,
    /// What could not be checked, and why.
    pub unknown: Vec<String>,
    /// Lines of the node's log about it, of the past hour: they change no verdict.
    pub log: Vec<String>,
}

impl Answer {
    /// What was checked, and its findings.
    pub fn of(check: Check, summary: impl Into<String>, findings: Vec<Finding>) -> Self {
        let verdict = match findings.iter().map(|finding| finding.severity).max() {
            None => CheckVerdict::Ok,
            Some(Severity::Warning) => CheckVerdict::Warning,
            Some(Severity::Failed) => CheckVerdict::Failed,
        };
        Self {
            check,
            verdict,
            summary: summary.into(),
            findings,
            unknown: Vec::new(),
            log: Vec::new(),
        }
    }

    /// There is nothing of the kind here.
    pub fn not_applicable(check: Check, why: impl Into<String>) -> Self {
        Self {
            verdict: CheckVerdict::NotApplicable,
            ..Self::of(check, why, Vec::new())
        }
    }

    /// It did not end: nothing is known.
    pub fn not_done(check: Check, why: String) -> Self {
        Self {
            verdict: CheckVerdict::Unknown,
            unknown: vec![why],
            ..Self::of(check, "not done", Vec::new())
        }
    }

    /// It could not be checked.
    pub fn impossible(check: Check, why: &dyn std::fmt::Display) -> Self {
        Self::of(
            check,
            "not checked",
            vec![Finding::warning(Kind::Doctor(check), format!("{why:#}"))],
        )
    }

    /// Without a finding, what it looked at decides whether it is `ok`.
    #[must_use]
    pub fn unless(mut self, verdict: Verdict) -> Self {
        if self.verdict == CheckVerdict::Ok && verdict == Verdict::Unknown {
            self.verdict = CheckVerdict::Unknown;
        }
        self
    }

    /// The verdict of several checks.
    pub fn verdict_of_all(answers: &[Self]) -> Verdict {
        Verdict::of_parts(answers.iter().map(|answer| answer.verdict.verdict()))
    }

    /// Adds what could not be checked.
    #[must_use]
    pub fn without(mut self, unknown: Vec<String>) -> Self {
        self.unknown.extend(unknown);
        self
    }
}
