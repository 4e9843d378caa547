//! Services, out of the rules that kube-proxy made of them, in each of its modes.

mod iptables;
pub mod ipvs;
mod nft;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::rules::read::Outputs;
use crate::{
    host::proc_net::ProcNet,
    model::{
        bypass::service::{Service, ServiceRules},
        rule::Family,
    },
};

/// More than a cluster has.
const MOST: usize = 65_536;
/// Node ports that anybody asks about.
const MOST_NODE_PORTS: usize = 32;

/// What is in the rules that were read, and in IPVS' table of this thread's network namespace.
pub(super) fn of(outputs: &Outputs) -> Vec<Service> {
    let sets = rule_sets(outputs).into_iter();
    sets.flat_map(|set| set.services).take(MOST).collect()
}

/// The same, each rule set apart that kube-proxy made, in whichever of its modes.
pub(super) fn rule_sets(outputs: &Outputs) -> Vec<ServiceRules> {
    let mut sets = rule_sets_of(outputs);
    if let Some(table) = ProcNet::own().text("ip_vs") {
        sets.push(ServiceRules {
            name: "IPVS".to_owned(),
            services: ipvs::services(&table),
        });
    }
    sets.retain(|set| !set.services.is_empty());
    sets
}

/// Those of rules alone.
pub(super) fn rule_sets_of(outputs: &Outputs) -> Vec<ServiceRules> {
    let mut sets: Vec<ServiceRules> = Vec::new();
    let mut add = |name: &str, services: Vec<Service>| match sets.iter_mut().find(|set| set.name == name) {
        Some(set) => set.services.extend(services),
        None => sets.push(ServiceRules {
            name: name.to_owned(),
            services,
        }),
    };
    for save in &outputs.saves {
        let any: IpAddr = match save.family {
            Family::Ip6 => Ipv6Addr::UNSPECIFIED.into(),
            Family::Ip | Family::Inet | Family::Netdev => Ipv4Addr::UNSPECIFIED.into(),
            // ebtables translates no address.
            Family::Bridge => continue,
        };
        add(save.tool.name(Family::Ip), iptables::services(&save.text, any));
    }
    if let Some(json) = &outputs.nft {
        add("nft", nft::services(json));
    }
    sets
}

/// Node ports of Services whose own port is 443, with their names.
pub(super) fn https_node_ports(outputs: &Outputs) -> Vec<(String, u16)> {
    const HTTPS: u16 = 443;
    const TCP: u8 = 6;
    let services = of(outputs);
    let is_https = |name: &str| {
        let own = |service: &&Service| service.name.as_deref() == Some(name) && !service.is_node_port();
        services
            .iter()
            .find(own)
            .is_some_and(|service| service.address.port() == HTTPS)
    };
    let is_tcp = |service: &&Service| service.protocol == TCP && service.is_node_port();
    let mut ports: Vec<_> = services
        .iter()
        .filter(|service| is_tcp(service) && !service.refused)
        .filter_map(|service| Some((service.name.clone()?, service.address.port())))
        .filter(|(name, _)| is_https(name))
        .collect();
    ports.sort();
    ports.dedup();
    ports.truncate(MOST_NODE_PORTS);
    ports
}

/// The number of a protocol that Services have.
fn protocol(name: &str) -> Option<u8> {
    Some(match name.to_ascii_lowercase().as_str() {
        "tcp" => 6,
        "udp" => 17,
        "sctp" => 132,
        _ => return None,
    })
}
