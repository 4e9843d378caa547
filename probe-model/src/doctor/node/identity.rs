//! kubelet's configuration and the certificate that it comes with.

use super::{File, FileState, KIND, KubeletClient, NodeFacts, SOON_HOURS};
use crate::doctor::{
    Finding, Severity,
    certificate::{Certificate, Life, about},
};
use crate::finding::Fix;

/// How much of a certificate's life may be over, in percent, before kubelet has another (it asks for one at 70 to 90)…
const ROTATES: i64 = 70;
/// … and when it should have had it.
const STUCK: i64 = 90;

pub fn summary(client: &KubeletClient) -> String {
    match client {
        KubeletClient::Certificate { certificate, .. } => format!(
            "it authenticates as {} until {}",
            certificate.title(),
            certificate.ends.strftime("%F")
        ),
        KubeletClient::Bad { .. } => "its certificate can't be used".to_owned(),
        KubeletClient::Other(what) => format!("it authenticates with {what}"),
    }
}

pub fn faults(seen: &NodeFacts) -> Vec<Finding> {
    let mut faults = Vec::new();
    faults.extend(configuration(seen));
    match &seen.client {
        Some(KubeletClient::Certificate { place, certificate }) => {
            faults.extend(life(seen, place, certificate));
        }
        Some(KubeletClient::Bad { place, why }) => faults.push(renew(
            Finding::failed(KIND, format!("kubelet has no usable certificate: {place}: {why}")),
            seen,
            None,
        )),
        Some(KubeletClient::Other(_)) | None => {}
    }
    faults
}

fn configuration(seen: &NodeFacts) -> Option<Finding> {
    let path = &seen.config.path;
    match (&seen.config.state, &seen.bootstrap) {
        (FileState::Good, _) => None,
        (FileState::Bad(why), _) => Some(
            Finding::failed(
                KIND,
                format!("kubelet's configuration {path} can't be used: {why}"),
            )
            .advise(format!(
                "Restore {path} from a backup, or create it again on a control plane node."
            ))
            .fix(make(
                "system:node:NAME",
                "on a control plane node, with the name of this one; it prints the file",
            )),
        ),
        (
            FileState::Missing,
            Some(File {
                path: bootstrap,
                state: FileState::Good,
            }),
        ) => Some(
            Finding::failed(
                KIND,
                "this node has not joined: kubelet has only its bootstrap configuration, \
                                   and no certificate yet",
            )
            .seen(format!("{path} is missing, {bootstrap} is there"))
            .run(
                ["kubectl", "get", "csr"],
                "a request that is Pending waits for approval",
            )
            .run(
                ["kubeadm", "token", "list"],
                "on a control plane node: the token may have expired, after 24 h",
            )
            .run(JOIN, "on a control plane node: creates another token"),
        ),
        (FileState::Missing, bootstrap) => {
            let fault = Finding::failed(
                KIND,
                format!("kubelet has no configuration of the API server: {path} is missing"),
            );
            let fault = match bootstrap {
                Some(File {
                    path,
                    state: FileState::Bad(why),
                }) => fault.seen(format!("{path}: {why}")),
                Some(File { path, .. }) => fault.seen(format!("so is {path}")),
                None => fault,
            };
            Some(fault.run(
                JOIN,
                "on a control plane node, run the printed command on this node",
            ))
        }
    }
}

const JOIN: [&str; 4] = ["kubeadm", "token", "create", "--print-join-command"];

/// Makes a configuration of kubelet, and prints it.
fn make(user: &str, why: &str) -> Fix {
    Fix::run(
        [
            "kubeadm",
            "kubeconfig",
            "user",
            "--org",
            "system:nodes",
            "--client-name",
            user,
        ],
        why,
    )
}

fn life(seen: &NodeFacts, place: &str, certificate: &Certificate) -> Option<Finding> {
    let used = certificate.used(seen.now);
    let fault = match certificate.life(seen.now) {
        Life::Over(ago) => Finding::failed(KIND, format!(
            "kubelet's client certificate expired {} ago: the API server rejects it",
            about(ago)
        )),
        Life::NotYet(until) => {
            return Some(
                Finding::failed(KIND, format!(
                    "kubelet's client certificate is valid only in {}: this node's clock is behind, or was \
                     ahead when it was issued",
                    about(until)
                ))
                .seen(told(place, certificate))
                .run(["timedatectl"], "shows the clock of this node: correct it")
                .run(["systemctl", "restart", "kubelet"], "once the clock is correct"),
            );
        }
        Life::Left(left) if used >= STUCK => Finding::warning(KIND, format!(
            "kubelet's client certificate expires in {}, and kubelet has no new one: rotation seems stuck",
            about(left)
        ))
        .seen(format!("{used} % of its lifetime is over; kubelet requests a new one at 70 to 90 %")),
        Life::Left(left) if left.as_hours() < SOON_HOURS && used >= ROTATES => Finding::warning(KIND, format!(
            "kubelet's client certificate expires in {}",
            about(left)
        ))
        .seen(format!("{used} % of its lifetime is over; kubelet requests a new one at 70 to 90 %")),
        Life::Left(_) => return None,
    };
    let failed = fault.severity == Severity::Failed;
    let fault = fault.seen(told(place, certificate));
    Some(if failed {
        renew(fault, seen, certificate.common_name.as_deref())
    } else {
        fault
            .run(["kubectl", "get", "csr"], "a Pending request of this node waits for approval")
            .advise("Set rotateCertificates to true in /var/lib/kubelet/config.yaml; kube-controller-manager, which signs, must be up.")
            .run(["systemctl", "restart", "kubelet"], "it requests a certificate at once")
    })
}

fn told(place: &str, certificate: &Certificate) -> String {
    format!("{place}: {}, {}", certificate.title(), certificate.validity())
}

/// How a node gets a new certificate.
fn renew(fault: Finding, seen: &NodeFacts, name: Option<&str>) -> Finding {
    let fault = match &seen.bootstrap {
        Some(File {
            path,
            state: FileState::Good,
        }) => fault
            .seen(format!(
                "{path} exists: kubelet requests a certificate with it at start, unless its token \
                           has expired"
            ))
            .run(["systemctl", "restart", "kubelet"], "it requests a certificate")
            .run(["kubectl", "get", "csr"], "its request may wait for approval"),
        Some(File { path, .. }) => fault.seen(format!(
            "{path} is missing or can't be used: kubelet can't request a new certificate by itself"
        )),
        None => fault,
    };
    let user = name
        .filter(|name| name.starts_with("system:node:"))
        .filter(|name| {
            name.bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b":.-".contains(&byte))
        })
        .unwrap_or("system:node:NAME");
    fault
        .fix(make(user, "on a control plane node, prints the file"))
        .advise(format!(
            "Copy that file here as {}, and remove the files kubelet-client* in /var/lib/kubelet/pki.",
            seen.config.path
        ))
        .run(["systemctl", "restart", "kubelet"], "after that")
}
