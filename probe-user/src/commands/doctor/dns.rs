//! Gathers what the DNS check judges.

mod pods;
mod watch;

use std::thread;

use super::{CheckContext, kubelet::Kubelet};
use crate::{
    attribution::{Attribution, Paths, kube::as_kubelet},
    commands::pods::runtime,
    host::resolv,
    model::{
        doctor::{
            Answer, Check,
            dns::{DnsFacts, judge},
        },
        host::KubeletConfig,
    },
};

/// The file that the kubelet copies by default.
const RESOLV_CONF: &str = "/etc/resolv.conf";

pub fn run(node: &CheckContext) -> Answer {
    let kubelet = Kubelet::find(node);
    let runtime = runtime(&node.settings.cri).ok().flatten();
    // Watching begins at once: it takes all the time there is.
    let (found, asked) = thread::scope(|scope| {
        let watching = scope.spawn(|| watch::queries(node, runtime.as_ref()));
        let found = look(node, &kubelet, runtime.clone());
        (found, watching.join())
    });
    let mut seen = found;
    if seen.pods.is_empty() && !kubelet.is_here {
        return Answer::not_applicable(Check::Dns, "no kubelet and no pod process on this node");
    }
    match asked {
        Ok(Ok(asked)) => seen.asked = Some(asked),
        Ok(Err(why)) => seen.unknown.push(format!("queries without an answer: {why}")),
        Err(_) => seen
            .unknown
            .push("queries without an answer: watching stopped unexpectedly".to_owned()),
    }
    judge(&seen)
}

fn look(
    node: &CheckContext,
    kubelet: &Kubelet,
    runtime: Option<crate::attribution::cri::Runtime>,
) -> DnsFacts {
    let mut seen = DnsFacts::default();
    let config = match &kubelet.config {
        Ok(config) => config.clone(),
        Err(why) => {
            if kubelet.is_here {
                seen.unknown.push(format!("the kubelet's configuration: {why}"));
            }
            KubeletConfig::default()
        }
    };
    seen.cluster = config.cluster_dns;
    seen.domain = config.cluster_domain;
    let file = config.resolv_conf.unwrap_or_else(|| RESOLV_CONF.to_owned());
    let mut written = None;
    if !file.is_empty() {
        let servers = node.root.dated(&file).map(|(text, at)| {
            written = Some(at);
            resolv::parse(&text).servers
        });
        seen.node = Some((file, servers.map_err(|error| error.to_string())));
    }
    let name = kubelet.node_name(node);
    let known = kubelet.ask(node, async |client| as_kubelet::pods_of(&client, &name).await);
    let paths = Paths {
        proc: "/proc".into(),
        pod_logs: node.root.path("/var/log/pods"),
    };
    let asks = runtime.is_some();
    let mut attribution = Attribution::new(paths, runtime, None);
    seen.pods = pods::read(
        &mut attribution,
        asks,
        known.as_deref().unwrap_or_default(),
        written,
    );
    if let (Err(why), false) = (known, seen.pods.is_empty()) {
        seen.unknown
            .push(format!("the pods' dnsPolicy at the API: {why}"));
    }
    let snapshot = node.rules();
    seen.services = snapshot
        .services
        .iter()
        .map(|service| service.address.ip())
        .collect();
    seen
}
