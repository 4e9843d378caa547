//! One snapshot, to be reported.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use jiff::Timestamp;
use serde::Serialize;

use super::{
    finding::Fault,
    rule::{Intended, NotrackRule},
    stream::{UntrackedCount, UntrackedStream},
    virtual_server::InTable,
};
use crate::{
    Finding, Verdict,
    owner::{Name, Owner},
    rule::CandidateRule,
};

#[derive(Clone, Debug)]
pub struct View {
    pub time: Timestamp,
    /// `CLOCK_MONOTONIC`.
    pub now_ns: u64,
    /// Most packets first.
    pub streams: Vec<JudgedStream>,
    /// Every rule that sets notrack.
    pub rules: Vec<NotrackRule>,
    pub findings: Vec<Finding>,
    /// Services that the node has rules for.
    pub services: usize,
    /// Names of devices by index.
    pub devices: HashMap<u32, String>,
    pub names: HashMap<IpAddr, Name>,
    /// Packets counted in no stream, for lack of room.
    pub rest: u64,
    /// What shows the rest.
    pub seen_by: Vec<SeenBy>,
    /// What this kernel does not show.
    pub unseen: Vec<&'static str>,
    /// What of the packet filter could not be read.
    pub unread: Vec<String>,
}

impl View {
    /// Without a finding, `ok` only if all rules were read, and all untracked packets seen and counted.
    pub fn verdict(&self) -> Verdict {
        let verified = self.unread.is_empty() && self.unseen.is_empty() && self.rest == 0;
        Verdict::of(!self.findings.is_empty(), verified)
    }
}

/// A program and its place in the kernel.
#[derive(Clone, Copy, Debug, Serialize)]
#[cfg_attr(
    feature = "schema",
    derive(schemars::JsonSchema),
    schemars(rename = "BypassHook")
)]
pub struct SeenBy {
    /// The packets that it sees.
    pub gives: &'static str,
    /// Its tracepoint, function or netfilter hook, as with `check`.
    #[serde(rename = "tracepoint")]
    pub hook: &'static str,
    /// The program.
    pub program: &'static str,
}

/// A stream, and what it is taken for.
#[derive(Clone, Debug)]
pub struct JudgedStream {
    pub stream: UntrackedStream,
    pub count: UntrackedCount,
    /// The rules that let it past; empty where none is found.
    pub rules: Vec<CandidateRule>,
    pub intended: Option<Intended>,
    /// Without meaning where it is intended.
    pub fault: Fault,
    /// The Service it breaks.
    pub service: Option<String>,
    /// Of a reply: whether conntrack translated its request, and so had to translate it back; `None`: not known.
    pub translated: Option<bool>,
    /// The address that its client dialled, where conntrack has that.
    pub dialled: Option<SocketAddr>,
    /// What IPVS has of it.
    pub in_ipvs: InTable,
    /// Who sends it, of an outgoing one.
    pub sender: Option<Sender>,
}

/// Whose socket sent the latest packet of a stream.
#[derive(Clone, Debug)]
pub struct Sender {
    /// The last levels of its control group's path. Not escaped.
    pub cgroup: String,
    /// Container and pod; the process is not known.
    pub owner: Arc<Owner>,
    /// Whether another group sent too.
    pub others: bool,
}

impl Sender {
    /// For people: the pod, or else the innermost control group, such as a unit of systemd. Not escaped.
    pub fn name(&self) -> String {
        let pod = self.owner.pod.as_ref();
        let named = pod.and_then(|pod| Some(format!("{}/{}", pod.namespace.as_ref()?, pod.name.as_ref()?)));
        let name = named
            .or_else(|| pod.map(|pod| format!("pod {}", pod.uid)))
            .unwrap_or_else(|| self.cgroup.rsplit('/').next().unwrap_or_default().to_owned());
        if self.others {
            format!("{name} and others")
        } else {
            name
        }
    }
}

crate::names! {
    /// How far a rule that sets notrack is known to work.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum RuleState {
        /// Its counter moved since probe began.
        Hit = "hit",
        /// It has no counter, or it did not move.
        Latent = "latent",
    }
}

impl RuleState {
    pub fn of(rule: &NotrackRule) -> Self {
        match rule.since {
            Some(1..) => Self::Hit,
            Some(0) | None => Self::Latent,
        }
    }
}
