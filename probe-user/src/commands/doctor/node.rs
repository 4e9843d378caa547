//! The check `node`: what it reads.

mod connections;
mod kubelet;
mod login;
mod server;
mod service;

use std::{sync::mpsc, thread, time::Duration};

use jiff::Timestamp;

use super::CheckContext;
use crate::model::{
    doctor::{
        Answer, Check,
        node::{File, FileState, Kubelet, NodeFacts, judge},
    },
    verdict::Verdict,
};

pub(super) use kubelet::find as find_kubelet;

/// Where pods find the API, on the address of the kubernetes Service.
const SERVICE_PORT: u16 = 443;
/// How long the kernel may take to begin to watch.
const ATTACH: Duration = Duration::from_secs(2);

pub fn run(node: &CheckContext) -> Answer {
    let Some(found) = kubelet::find(&node.root) else {
        return Answer::not_applicable(
            Check::Node,
            "not a Kubernetes node: no kubelet process and no kubelet configuration",
        );
    };
    if let Some(why) = &found.alone {
        return Answer::not_applicable(Check::Node, why.clone());
    }
    let mut unknown = Vec::new();
    let own = login::read(&node.root, &found.kubeconfig);
    let bootstrap = found
        .bootstrap
        .as_ref()
        .map(|path| (path.clone(), login::read(&node.root, path)));
    // Which of the two kubelet uses.
    let used = match (&own, &bootstrap) {
        (Ok(Some(login)), _) => Some(login),
        (Ok(None), Some((_, Ok(Some(login))))) => Some(login),
        _ => None,
    };
    let target = used.map(server::Target::of);
    let ports: Vec<u16> = match &target {
        Some(Ok(target)) => vec![target.port, SERVICE_PORT],
        Some(Err(_)) | None => vec![SERVICE_PORT],
    };
    let (mut server, mut service) = (None, None);
    let (mut users, watched) = thread::scope(|scope| {
        let (ready, is_ready) = mpsc::channel();
        let ports = &ports;
        let watch = scope.spawn(move || connections::watch(node, ports, ready));
        // How the dials below end is seen only of those that begin later.
        let _ = is_ready.recv_timeout(ATTACH);
        match (used, &target) {
            (Some(login), Some(Ok(target))) => {
                let rules = scope.spawn(|| node.rules());
                let dialled = server::dial(&node.root, target, login);
                let rules = rules.join().unwrap_or_default();
                let found = rules.services.as_slice();
                let places = dialled.places.as_ref().map(Vec::as_slice).unwrap_or_default();
                service = service::dial(found, login, places);
                if service.is_none() {
                    unknown.push(
                        "the kubernetes Service: kube-proxy has no rules for it here (iptables, nftables, IPVS)"
                            .to_owned(),
                    );
                }
                server = Some(dialled);
            }
            (_, Some(Err(why))) => unknown.push(format!("the API server: {why}")),
            _ => {}
        }
        let ended = watch
            .join()
            .unwrap_or_else(|_| Err("stopped unexpectedly".to_owned()));
        (connections::users(ports), ended)
    });
    let mut causes = Vec::new();
    match watched {
        Ok(ended) => {
            causes = connections::causes(&ended);
            connections::add(&mut users, ended);
        }
        Err(why) => unknown.push(format!("outcomes of connections to the API: {why}")),
    }
    if used.is_some_and(|login| login.login.program) {
        unknown.push(
            "credentials from a program: probe does not run it, and queried the server \
                   without"
                .to_owned(),
        );
    }
    let seen = NodeFacts {
        now: Timestamp::now(),
        kubelet: found.kubelet,
        config: file(&found.kubeconfig, &own),
        bootstrap: bootstrap.as_ref().map(|(path, login)| file(path, login)),
        client: own
            .as_ref()
            .ok()
            .and_then(|login| Some(login.as_ref()?.client.clone())),
        server,
        users,
        service,
        causes,
    };
    if seen.kubelet == Kubelet::NotSeen {
        unknown.push("the kubelet process: the node's processes are not visible (hostPID)".to_owned());
    }
    let (summary, faults) = judge(&seen);
    // Whether the API server answers is what this check is about; the rest is beside it.
    let is_verified = !matches!(target, Some(Err(_)));
    Answer::of(Check::Node, summary, faults)
        .unless(Verdict::of(false, is_verified))
        .without(unknown)
}

fn file(path: &str, read: &Result<Option<login::Used>, String>) -> File {
    File {
        path: path.to_owned(),
        state: match read {
            Ok(Some(_)) => FileState::Good,
            Ok(None) => FileState::Missing,
            Err(why) => FileState::Bad(why.clone()),
        },
    }
}
