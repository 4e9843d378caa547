//! kube-proxy's rule sets side by side, and cluster IPs that other networks have, too.

use std::{
    collections::{BTreeSet, HashMap},
    net::SocketAddr,
};

use super::{Finding, KIND, SettingsFacts};
use crate::{
    bypass::service::{Service, ServiceRules},
    plural::counted,
};

/// Services that a finding names.
const NAMED: usize = 3;

pub(super) fn faults(seen: &SettingsFacts) -> Vec<Finding> {
    let mut faults = Vec::new();
    faults.extend(side_by_side(&seen.rule_sets));
    faults.extend(overlaps(seen));
    faults
}

/// Rules of a kube-proxy that ran in another mode, or with another iptables, stay until they are cleaned up, and go on translating.
fn side_by_side(sets: &[ServiceRules]) -> Option<Finding> {
    let [first, others @ ..] = sets else { return None };
    if others.is_empty() {
        return None;
    }
    let differing: Vec<_> = others
        .iter()
        .flat_map(|other| differences(first, other))
        .collect();
    let names: Vec<_> = sets.iter().map(|set| set.name.as_str()).collect();
    let what = format!(
        "kube-proxy's rules exist in more than one rule set: {}",
        names.join(", ")
    );
    let fault = match differing.is_empty() {
        true => Finding::warning(KIND, what),
        false => Finding::failed(KIND, format!("{what}; they translate to different endpoints")),
    };
    let fault = sets.iter().fold(fault, |fault, set| {
        let count = set.services.len();
        fault.seen(format!(
            "{}: {}",
            set.name,
            counted(count, "Service port", "Service ports")
        ))
    });
    let fault = differing
        .iter()
        .take(NAMED)
        .fold(fault, |fault, difference| fault.seen(difference.clone()));
    Some(
        fault
            .advise("Find the rule set that kube-proxy writes now: its log names the mode, and only that one changes with endpoints.")
            .advise("Drain and restart this node: the restart removes the other rule set, and kube-proxy writes its own again."),
    )
}

/// Services that two rule sets translate to different endpoints.
fn differences(one: &ServiceRules, other: &ServiceRules) -> Vec<String> {
    let key = |service: &Service| (service.protocol, service.address);
    let known: HashMap<(u8, SocketAddr), &Service> = one
        .services
        .iter()
        .map(|service| (key(service), service))
        .collect();
    let ends = |service: &Service| -> BTreeSet<SocketAddr> { service.endpoints.iter().copied().collect() };
    let words = |service: &Service| match service.endpoints.as_slice() {
        [] => "none".to_owned(),
        some => some
            .iter()
            .take(NAMED)
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join(", "),
    };
    let differs = |service: &&Service| {
        known.get(&key(service)).is_some_and(|known| {
            // What could not be read is no difference.
            let is_known = |service: &Service| service.refused || !service.endpoints.is_empty();
            is_known(known) && is_known(service) && ends(known) != ends(service)
        })
    };
    let told = |service: &Service| {
        let known = known.get(&key(service));
        format!(
            "{service}: {} by {}, {} by {}",
            known.map_or_else(String::new, |known| words(known)),
            one.name,
            words(service),
            other.name
        )
    };
    other.services.iter().filter(differs).map(told).collect()
}

/// Packets to a Service never come to the host that has its address, too.
fn overlaps(seen: &SettingsFacts) -> Vec<Finding> {
    let fault = |overlap: &super::ClusterIpOverlap| {
        let (network, device) = (overlap.network, &overlap.device);
        let of = match overlap.is_of_pods {
            true => "pods of another node",
            false => "the network of this node",
        };
        let what = format!(
            "{} within {of} ({network} at {device}): a host with one of these addresses is unreachable, its packets go to the Service",
            counted(overlap.count, "cluster IP is", "cluster IPs are")
        );
        let fault = Finding::warning(KIND, what).seen(format!("route {network} dev {device}"));
        let fault = overlap
            .services
            .iter()
            .fold(fault, |fault, service| fault.seen(service.clone()));
        fault.advise(
            "Choose a Service range (--service-cluster-ip-range) outside all other networks. It is set when the cluster is created.",
        )
    };
    seen.cluster_ips.iter().map(fault).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{bypass::service::Mode, doctor::settings::ClusterIpOverlap, finding::Severity};

    fn set(name: &str, services: &[(&str, &[&str])]) -> ServiceRules {
        let service = |(address, endpoints): &(&str, &[&str])| Service {
            name: Some("shop/web:http".to_owned()),
            address: address.parse().unwrap(),
            is_cluster_ip: true,
            protocol: 6,
            endpoints: endpoints.iter().map(|end| end.parse().unwrap()).collect(),
            refused: false,
            mode: Mode::Iptables,
        };
        ServiceRules {
            name: name.to_owned(),
            services: services.iter().map(service).collect(),
        }
    }

    #[test]
    fn rule_sets_of_kube_proxy() {
        const WEB: &str = "10.96.7.7:80";
        let old: &[(&str, &[&str])] = &[(WEB, &["10.244.2.9:8080"])];
        let new: &[(&str, &[&str])] = &[(WEB, &["10.244.2.7:8080", "10.244.1.7:8080"])];
        let turned: &[(&str, &[&str])] = &[(WEB, &["10.244.1.7:8080", "10.244.2.7:8080"])];
        let unread: &[(&str, &[&str])] = &[(WEB, &[])];
        let other: &[(&str, &[&str])] = &[("10.96.0.1:443", &["192.168.88.11:6443"])];
        for (name, sets, expected) in [
            ("none", vec![], None),
            ("one", vec![set("iptables-nft", new)], None),
            (
                "left over",
                vec![set("iptables-legacy", old), set("iptables-nft", new)],
                Some(Severity::Failed),
            ),
            (
                "the same endpoints",
                vec![set("iptables-legacy", new), set("iptables-nft", turned)],
                Some(Severity::Warning),
            ),
            (
                "endpoints that could not be read",
                vec![set("iptables-legacy", unread), set("iptables-nft", new)],
                Some(Severity::Warning),
            ),
            (
                "other Services",
                vec![set("IPVS", other), set("iptables-nft", new)],
                Some(Severity::Warning),
            ),
        ] {
            let found = side_by_side(&sets);
            assert_eq!(found.as_ref().map(|finding| finding.severity), expected, "{name}");
        }
        let found = side_by_side(&[set("iptables-legacy", old), set("iptables-nft", new)]).unwrap();
        assert_eq!(
            found.evidence,
            [
                "iptables-legacy: 1 Service port",
                "iptables-nft: 1 Service port",
                "Service shop/web:http (10.96.7.7:80): 10.244.2.9:8080 by iptables-legacy, 10.244.2.7:8080, 10.244.1.7:8080 by \
                 iptables-nft",
            ]
        );
    }

    #[test]
    fn cluster_ips_of_another_network() {
        let seen = SettingsFacts {
            cluster_ips: vec![ClusterIpOverlap {
                network: "192.168.88.0/24".parse().unwrap(),
                device: "eth0".to_owned(),
                is_of_pods: false,
                services: vec!["Service shop/web:http (192.168.88.50:80)".to_owned()],
                count: 1,
            }],
            ..SettingsFacts::default()
        };
        let [finding] = overlaps(&seen).try_into().unwrap();
        assert_eq!(finding.severity, Severity::Warning);
        assert_eq!(
            finding.what,
            "1 cluster IP is within the network of this node (192.168.88.0/24 at eth0): a host with one of these addresses is \
             unreachable, its packets go to the Service"
        );
    }
}
