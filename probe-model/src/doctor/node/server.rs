//! The API server that kubelet needs: whether it is there, is the right one, and lets kubelet in.

use std::net::SocketAddr;

use super::{KIND, NodeFacts, SOON_HOURS, connections::Because as _};
use crate::doctor::Check;
use crate::doctor::{
    Finding, Severity,
    certificate::{Certificate, Life, about},
    server::{Dialled, Reply, Stop, Trust},
};
use crate::probe_command;

/// Clocks that differ by more than this, in seconds, are reported.
const SKEW: i64 = 30;
/// Lines of an answer that are shown.
const LINES: usize = 3;

/// The server of kubelet's configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    pub url: String,
    /// A name or an address, as the configuration has it.
    pub host: String,
    /// Its addresses, each with what became of dialling it; or why it has none.
    pub places: Result<Vec<DialledAddress>, String>,
}

/// One address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DialledAddress {
    pub address: SocketAddr,
    pub dialled: Dialled,
}

/// Whether one of its addresses lets kubelet in.
pub fn answers(server: &Server) -> bool {
    let places = server.places.as_ref().map(Vec::as_slice).unwrap_or_default();
    places.iter().any(|place| is_well(&place.dialled))
}

/// Whether none of its addresses takes a connection.
pub fn is_cut_off(server: &Server) -> bool {
    let places = server.places.as_ref().map(Vec::as_slice).unwrap_or_default();
    let is = |place: &DialledAddress| {
        matches!(
            place.dialled.reply,
            Err(Stop::Refused | Stop::Unanswered | Stop::Unreachable(_))
        )
    };
    !places.is_empty() && places.iter().all(is)
}

/// Whether this is an address of the server.
pub fn has(server: &Server, address: &SocketAddr) -> bool {
    let places = server.places.as_ref().map(Vec::as_slice).unwrap_or_default();
    places.iter().any(|place| place.address == *address)
}

fn is_well(dialled: &Dialled) -> bool {
    let trusted = matches!(dialled.trust, Trust::Trusted | Trust::Unchecked);
    trusted && matches!(&dialled.reply, Ok(Some(reply)) if reply.status < 400)
}

pub fn summary(server: &Server) -> String {
    let places = server.places.as_ref().map(Vec::as_slice).unwrap_or_default();
    let answers = places.iter().find_map(|place| match &place.dialled.reply {
        Ok(Some(reply)) => Some((reply, &place.dialled.leaf)),
        Ok(None) | Err(_) => None,
    });
    let Some((reply, leaf)) = answers else {
        return format!("{} does not answer", server.url);
    };
    let mut text = format!("{} answers {}", server.url, reply.status);
    if let Some(leaf) = leaf {
        text.push_str(&format!(", its certificate ends {}", leaf.ends.strftime("%F")));
    }
    if let Some(skew) = skew(reply) {
        text.push_str(&match skew {
            -2..=2 => ", the clocks agree".to_owned(),
            skew => format!(", the clocks differ by {} s", skew.abs()),
        });
    }
    text
}

/// How many seconds this node's clock is ahead.
fn skew(reply: &Reply) -> Option<i64> {
    let (there, here) = reply.dated?;
    Some(here.duration_since(there).as_secs())
}

pub fn faults(server: &Server, seen: &NodeFacts) -> Vec<Finding> {
    let places = match &server.places {
        Ok(places) => places,
        Err(why) => {
            return vec![
                Finding::failed(
                    KIND,
                    format!("the API server's name {} does not resolve: {why}", server.host),
                )
                .run(["getent", "hosts", &server.host], "shows what this node resolves the name to")
                .advise(format!(
                    "Check /etc/hosts and /etc/resolv.conf of this node, and whether {} names the right server.",
                    seen.config.path
                )),
            ];
        }
    };
    let another = answers(server);
    let mut faults = Vec::new();
    for place in places {
        let mut of_place = of_place(place, seen);
        for fault in &mut of_place {
            if another && fault.severity == Severity::Failed {
                // Another address does: it works, until that one is chosen.
                fault.severity = Severity::Warning;
                fault.evidence.push("another address of it answers".to_owned());
            }
        }
        faults.extend(of_place);
    }
    faults
}

fn of_place(place: &DialledAddress, seen: &NodeFacts) -> Vec<Finding> {
    let DialledAddress { address, dialled } = place;
    let mut faults = Vec::new();
    if let Err(stop) = &dialled.reply {
        faults.push(stopped(*address, stop, seen));
    }
    faults.extend(untrusted(*address, dialled, seen));
    if let Ok(Some(reply)) = &dialled.reply {
        faults.extend(answer(*address, reply, seen));
        faults.extend(clock(*address, reply));
    }
    faults
}

fn stopped(address: SocketAddr, stop: &Stop, seen: &NodeFacts) -> Finding {
    let fault =
        Finding::failed(KIND, format!("the API server {address} {}", stop.says())).because(seen, address);
    let (host, port) = (address.ip().to_string(), address.port());
    match stop {
        Stop::Refused => fault
            .run(["ss", "-ltnp", &format!("sport = :{port}")], format!("on the machine with {host}: shows \
                   what listens there"))
            .run(["crictl", "ps", "-a", "--name", "kube-apiserver"], "on the same machine: shows whether it \
                   runs, crictl has its logs")
            .advise(format!("If {host} is a virtual address, check that haproxy or kube-vip is up on the \
                             machine that holds it.")),
        Stop::Unanswered => fault
            .run(["ping", "-c1", &host], "shows whether the machine is up or holds the virtual address")
            .run(["ip", "neigh", "show", &host], "shows its neighbour entry")
            .fix(probe_command::path(Some(address), None, "on both machines: shows what drops the packets"))
            .advise(format!("Check the packet filter of that machine for rules on port {port}.")),
        Stop::Unreachable(_) => fault
            .run(["ip", "route", "get", &host], "shows the route that this node uses")
            .run(["ip", "-br", "addr"], "shows the addresses of this node"),
        Stop::Silent => fault
            .run(["crictl", "ps", "-a", "--name", "kube-apiserver"], "on that machine: it may be stopped, or starved of CPU")
            .run(["ping", "-c1", "-M", "do", "-s", "1400", &host], "a path that loses large packets has the \
                   same symptom"),
        Stop::Closed => fault.advise("A load balancer without a healthy backend has this symptom: check its \
                                      backends."),
        Stop::NoTls(_) | Stop::NoHttp => fault.advise(format!(
            "This port is not an API server's: check whether {address} in {} is correct.",
            seen.config.path
        )),
        Stop::Alert(_) => fault.advise(
            "It may not accept kubelet's certificate: check that --client-ca-file of kube-apiserver names the cluster's CA.",
        ),
    }
}

fn untrusted(address: SocketAddr, dialled: &Dialled, seen: &NodeFacts) -> Vec<Finding> {
    let Some(leaf) = &dialled.leaf else {
        return match &dialled.trust {
            Trust::Other(why) => vec![other(address, why)],
            _ => Vec::new(),
        };
    };
    let shown = format!(
        "{address} serves {}, signed by {}, {}",
        leaf.title(),
        leaf.issuer,
        leaf.validity()
    );
    let mut faults = Vec::new();
    match &dialled.trust {
        Trust::Trusted | Trust::Unchecked | Trust::Expired | Trust::NotYet => {}
        Trust::UnknownIssuer => faults.push(
            Finding::failed(KIND, format!(
                "kubelet does not trust the API server {address}: its certificate is signed by another CA \
                 than kubelet's"
            ))
            .seen(shown.clone())
            .run(
                ["openssl", "x509", "-noout", "-fingerprint", "-in", "/etc/kubernetes/pki/ca.crt"],
                "compare it with a control plane node's",
            )
            .advise(format!(
                "{} may have a copy of its own, or name the wrong machine. If the cluster was created \
                 again, reset this node and join it again.",
                seen.config.path
            )),
        ),
        Trust::WrongName => faults.push(
            Finding::failed(KIND, format!(
                "kubelet does not trust the API server {address}: its certificate is for other names"
            ))
            .seen(shown.clone())
            .seen(format!("it is valid for {}", names(leaf)))
            .advise(
                "On a control plane node, add the name to certSANs in kubeadm's configuration. Remove \
                 apiserver.crt and apiserver.key, and create them again with it.",
            )
            .advise(format!("Or set the server in {} to one of these.", seen.config.path)),
        ),
        Trust::Other(why) => faults.push(other(address, why).seen(shown.clone())),
    }
    let renew = |fault: Finding| {
        fault
            .run(
                ["kubeadm", "certs", "renew", "apiserver"],
                "on a control plane node",
            )
            .advise("Restart kube-apiserver there: move its manifest out of its directory, and back.")
    };
    match leaf.life(seen.now) {
        Life::Over(ago) => faults.push(renew(
            Finding::failed(KIND, format!(
                "the certificate of the API server {address} expired {} ago",
                about(ago)
            ))
            .seen(shown),
        )),
        Life::NotYet(until) => faults.push(
            Finding::failed(KIND, format!(
                "the certificate of the API server {address} is valid only in {}: one of the clocks is wrong",
                about(until)
            ))
            .seen(shown)
            .run(["timedatectl"], "on both machines: one of the clocks is wrong"),
        ),
        Life::Left(left) if left.as_hours() < SOON_HOURS => faults.push(renew(
            Finding::warning(KIND, format!(
                "the certificate of the API server {address} expires in {}",
                about(left)
            ))
            .seen(shown),
        )),
        Life::Left(_) => {}
    }
    faults
}

fn other(address: SocketAddr, why: &str) -> Finding {
    Finding::failed(
        KIND,
        format!("the certificate of the API server {address} can't be checked: {why}"),
    )
    .advise("Verify the certificate with the CA in kubelet's configuration.")
}

fn names(leaf: &Certificate) -> String {
    match leaf.names.as_slice() {
        [] => "no name at all".to_owned(),
        names => names.join(", "),
    }
}

fn answer(address: SocketAddr, reply: &Reply, seen: &NodeFacts) -> Option<Finding> {
    let status = reply.status;
    let fault = match status {
        0..=399 => return None,
        401 => Finding::failed(KIND, format!("the API server {address} does not authenticate kubelet: 401 \
                                              Unauthorized"))
            .advise(format!(
                "The certificate or token in {} expired, or its CA is not in --client-ca-file.",
                seen.config.path
            )),
        403 => Finding::warning(KIND, format!(
            "the API server {address} authenticates kubelet, but does not authorize /healthz: 403 Forbidden"
        ))
        .advise("The subject of its certificate must be O=system:nodes, CN=system:node:NAME.")
        .run(
            ["kubectl", "get", "clusterrolebinding", "system:public-info-viewer", "-o", "yaml"],
            "system:authenticated must be in it",
        ),
        429 => Finding::warning(KIND, format!("the API server {address} is overloaded: 429 Too Many \
                                               Requests"))
            .run(
                ["kubectl", "get", "--raw", "/debug/api_priority_and_fairness/dump_priority_levels"],
                "shows the clients with the most requests",
            ),
        500..600 => Finding::failed(KIND, format!("the API server {address} reports that it is not healthy: \
                                                   {status}"))
            .run(["kubectl", "get", "--raw", "/readyz?verbose"], "shows which check fails")
            .fix(probe_command::doctor(Check::Etcd, "on its machine: etcd is the most frequent cause")),
        _ => Finding::warning(KIND, format!("the server at {address} is not an API server: it answers \
                                             /healthz with {status}"))
            .advise(format!("Check whether {} names the right server.", seen.config.path)),
    };
    let lines = reply.body.lines().filter(|line| !line.trim().is_empty());
    let (bad, rest): (Vec<&str>, Vec<&str>) = lines.partition(|line| line.starts_with("[-]"));
    let lines = if bad.is_empty() { rest } else { bad };
    Some(lines.into_iter().take(LINES).fold(fault, |fault, line| {
        fault.seen(line.chars().take(200).collect::<String>())
    }))
}

fn clock(address: SocketAddr, reply: &Reply) -> Option<Finding> {
    let skew = skew(reply)?;
    let (there, here) = reply.dated?;
    let which = if skew < 0 { "behind" } else { "ahead of" };
    (skew.abs() > SKEW).then(|| {
        Finding::warning(
            KIND,
            format!("this node's clock is {} s {which} the API server's", skew.abs()),
        )
        .seen(format!(
            "{address} dated its answer {}; the clock of this node showed {}",
            there.strftime("%F %T"),
            here.strftime("%F %T")
        ))
        .run(
            ["timedatectl"],
            "on both machines: certificates and leases depend on the clock",
        )
    })
}
