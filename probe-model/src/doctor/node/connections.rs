//! Connections to the API: kubelet's, kube-proxy's, flannel's, as the kernel sees them end, and the one through the Service.

use std::net::SocketAddr;

use super::{KIND, Kubelet, NodeFacts};
use crate::probe_command;
use crate::{
    Outcome,
    doctor::{
        Finding,
        server::{Dialled, Trust},
    },
    finding::Fix,
    plural::counted,
};

/// Ways to end that are shown of one process.
const WAYS: usize = 4;

/// A process that needs the API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    pub name: String,
    pub pid: u32,
    /// Connections to the API that it has, by what the kernel lists; `None`: that could not be read.
    pub open: Option<usize>,
    /// Destinations of its SYNs that have no answer yet.
    pub dials: Vec<SocketAddr>,
    /// Those that ended badly while it was watched.
    pub ended: Vec<Ended>,
}

/// Connections of one process that ended the same way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    pub to: SocketAddr,
    pub outcome: Outcome,
    pub times: usize,
    /// Why, where that was seen.
    pub cause: Option<String>,
}

/// Why a dial failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailedDial {
    pub to: SocketAddr,
    pub what: String,
    pub fixes: Vec<Fix>,
}

/// The kubernetes Service, as this node's rules have it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiService {
    pub address: SocketAddr,
    pub endpoints: Vec<SocketAddr>,
    /// kube-proxy's mode.
    pub mode: &'static str,
    pub dialled: Dialled,
}

pub fn summary(seen: &NodeFacts) -> Vec<String> {
    let connected: Vec<String> = seen
        .users
        .iter()
        .filter_map(|user| match user.open {
            Some(0) => Some(format!("{} has no connection to it", user.name)),
            Some(open) => Some(format!(
                "{} has {} to it",
                user.name,
                counted(open, "connection", "connections")
            )),
            None => None,
        })
        .collect();
    let mut parts = Vec::new();
    if !connected.is_empty() {
        parts.push(connected.join(", "));
    }
    if let Some(service) = &seen.service
        && service.dialled.reply.is_ok()
    {
        parts.push(format!("the kubernetes Service {} answers", service.address));
    }
    parts
}

/// Each fault with the servers that it is about.
pub fn faults<'a>(seen: &'a NodeFacts, answers: bool) -> Vec<(Finding, &'a [SocketAddr])> {
    let users = seen.users.iter().filter_map(ended).chain(idle(seen, answers));
    let mut faults: Vec<(Finding, &'a [SocketAddr])> = users.map(|fault| (fault, &[][..])).collect();
    if let Some(service) = &seen.service
        && let Some(fault) = of_service(service, seen)
    {
        // To none: that it has no endpoints is a fault of its own.
        let nowhere = std::slice::from_ref(&service.address);
        let leads = Some(service.endpoints.as_slice()).filter(|leads| !leads.is_empty());
        faults.push((fault, leads.unwrap_or(nowhere)));
    }
    faults
}

/// Whether a connection with this outcome got no answer.
fn is_cut_off(outcome: Outcome) -> bool {
    match outcome {
        Outcome::Refused
        | Outcome::Unanswered
        | Outcome::Unreachable
        | Outcome::TimedOut
        | Outcome::NoReply
        | Outcome::ResetByServer => true,
        Outcome::HalfOpen
        | Outcome::HalfOpenReset
        | Outcome::HandshakeReset
        | Outcome::GreetingOnly
        | Outcome::ServerGaveUp
        | Outcome::SynOnly
        | Outcome::ResetByClient
        | Outcome::Closed
        | Outcome::Open => false,
    }
}

fn ended(user: &User) -> Option<Finding> {
    let cut_off = user.ended.iter().filter(|ended| is_cut_off(ended.outcome));
    let times: usize = cut_off.clone().map(|ended| ended.times).sum();
    let says = match (times, user.dials.len()) {
        (0, 0) => return None,
        (0, _) => format!("{} has no answer to its SYN from the API", user.name),
        (times, _) => format!(
            "{times} of {}'s connections to the API failed during the check",
            user.name
        ),
    };
    // One that still has a connection works on.
    let fault = match user.open {
        Some(0) => Finding::failed(KIND, format!("{says}, and none is established")),
        Some(_) | None => Finding::warning(KIND, says),
    };
    let fault = cut_off.take(WAYS).fold(fault, |fault, ended| {
        let cause = ended
            .cause
            .as_ref()
            .map(|cause| format!(": {cause}"))
            .unwrap_or_default();
        fault.seen(format!(
            "{} (pid {}) to {}: {}, {} times{cause}",
            user.name,
            user.pid,
            ended.to,
            ended.outcome.name(),
            ended.times
        ))
    });
    let dials: std::collections::BTreeSet<&SocketAddr> = user.dials.iter().collect();
    let fault = dials.into_iter().take(WAYS).fold(fault, |fault, to| {
        fault.seen(format!(
            "{} (pid {}) to {to}: SYN sent, no answer yet",
            user.name, user.pid
        ))
    });
    let ports: std::collections::BTreeSet<u16> = user
        .ended
        .iter()
        .map(|ended| ended.to.port())
        .chain(user.dials.iter().map(SocketAddr::port))
        .collect();
    let ports: Vec<u16> = ports.into_iter().collect();
    Some(fault.fix(probe_command::watch(
        &ports,
        true,
        "prints each failed connection with its cause",
    )))
}

/// Adds what the kernel showed.
pub trait Because {
    #[must_use]
    fn because(self, seen: &NodeFacts, to: SocketAddr) -> Self;
}

impl Because for Finding {
    fn because(self, seen: &NodeFacts, to: SocketAddr) -> Self {
        let of_it = seen.causes.iter().filter(|why| why.to == to);
        of_it.take(1).fold(self, |fault, why| {
            let fault = fault.seen(format!("from here to {to}: {}", why.what));
            fault.fixed_by(why.fixes.iter().cloned())
        })
    }
}

/// kubelet keeps one connection for all it does.
fn idle(seen: &NodeFacts, answers: bool) -> Option<Finding> {
    let Kubelet::Runs { pid } = seen.kubelet else {
        return None;
    };
    let kubelet = seen.users.iter().find(|user| user.pid == pid)?;
    (answers && kubelet.open == Some(0) && kubelet.ended.is_empty() && kubelet.dials.is_empty()).then(|| {
        Finding::warning(
            KIND,
            "kubelet runs and has no connection to the API server, which answers",
        )
        .seen(format!(
            "{} (pid {pid}) has no established connection to it",
            kubelet.name
        ))
        .run(
            ["journalctl", "-u", "kubelet", "-n", "50"],
            "shows what it waits for",
        )
        .run(["systemctl", "restart", "kubelet"], "if it hangs")
    })
}

fn of_service(service: &ApiService, seen: &NodeFacts) -> Option<Finding> {
    let ApiService {
        address,
        endpoints,
        mode,
        dialled,
    } = service;
    let to = match endpoints.as_slice() {
        [] => "has no endpoints".to_owned(),
        endpoints => endpoints
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join(", "),
    };
    let led = format!("kube-proxy's rules ({mode}) translate {address} to {to}");
    match (&dialled.reply, &dialled.trust) {
        (Err(stop), _) => Some(
            Finding::failed(KIND, format!(
                "the kubernetes Service {address} {}: pods of this node, flannel included, can't reach the \
                 API",
                stop.says()
            ))
            .seen(led)
            .because(seen, *address)
            .run(["kubectl", "get", "endpoints", "kubernetes"], "these must be the addresses of the API servers")
            .run(
                ["kubectl", "-n", "kube-system", "logs", "-l", "k8s-app=kube-proxy"],
                "shows whether kube-proxy of this node reaches the API",
            )
            .fix(probe_command::path(Some(*address), None, "shows the rule or hop that drops it")),
        ),
        (Ok(_), Trust::WrongName) => Some(
            Finding::warning(KIND, format!(
                "the API server's certificate does not cover the kubernetes Service's address {}: pods do \
                 not trust it",
                address.ip()
            ))
            .seen(led)
            .seen(dialled.leaf.as_ref().map_or_else(String::new, |leaf| {
                format!("it is valid for {}", leaf.names.join(", "))
            }))
            .advise("Renew the certificate on a control plane node, with serviceSubnet of the cluster in \
                     kubeadm's configuration."),
        ),
        (Ok(_), Trust::UnknownIssuer) => Some(
            Finding::failed(KIND, format!(
                "the server behind the kubernetes Service {address} has a certificate of another CA than \
                 the cluster's"
            ))
            .seen(led)
            .advise(format!("Check whether it is the same server as in {}.", seen.config.path)),
        ),
        (Ok(_), Trust::Trusted | Trust::Unchecked | Trust::Expired | Trust::NotYet | Trust::Other(_)) => None,
    }
}
