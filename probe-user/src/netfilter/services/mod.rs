//! Services, out of the rules that kube-proxy made of them, in each of its modes.

pub(super) mod iptables;
pub mod ipvs;
pub(super) mod nft;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::rules::read::Outputs;
use crate::{
    host::proc_net::ProcNet,
    model::{
        bypass::service::{Service, ServiceRules},
        rule::{Family, Tool},
    },
};

/// More than a cluster has.
const MOST: usize = 65_536;
/// Node ports that anybody asks about.
const MOST_NODE_PORTS: usize = 32;

/// Services by the rule set that they are in, which kube-proxy made in one of its modes.
#[derive(Debug, Default)]
pub(super) struct RuleSets(Vec<ServiceRules>);

impl RuleSets {
    /// Adds Services to the rule set of a tool, of whatever family.
    pub(super) fn add(&mut self, tool: Tool, mut services: Vec<Service>) {
        let name = tool.name(Family::Ip);
        match self.0.iter_mut().find(|set| set.name == name) {
            Some(set) => set.services.append(&mut services),
            None => self.0.push(ServiceRules {
                name: name.to_owned(),
                services,
            }),
        }
    }

    /// Adds those in what tools print, of the tools that are wanted.
    pub(super) fn add_all(&mut self, outputs: &Outputs, is_wanted: impl Fn(Tool) -> bool) {
        for save in outputs.saves.iter().filter(|save| is_wanted(save.tool)) {
            if let Some(any) = any(save.family) {
                self.add(save.tool, iptables::services(&save.text, any));
            }
        }
        if let Some(json) = outputs.nft.as_ref().filter(|_| is_wanted(Tool::Nft)) {
            self.add(Tool::Nft, nft::services(json));
        }
    }

    /// All of them, and the virtual servers of IPVS in this thread's network namespace; none without Services.
    pub(super) fn with_ipvs(mut self) -> Vec<ServiceRules> {
        if let Some(table) = ProcNet::own().text("ip_vs") {
            self.0.push(ServiceRules {
                name: "IPVS".to_owned(),
                services: ipvs::services(&table),
            });
        }
        self.0.retain(|set| !set.services.is_empty());
        self.0
    }
}

/// The Services in what tools print.
pub(super) fn of(outputs: &Outputs) -> Vec<Service> {
    let mut sets = RuleSets::default();
    sets.add_all(outputs, |_| true);
    sets.0.into_iter().flat_map(|set| set.services).collect()
}

/// The unspecified address of a family, which stands for all of the node's own: node ports are there. `None`: no Service is.
pub(super) fn any(family: Family) -> Option<IpAddr> {
    match family {
        Family::Ip6 => Some(Ipv6Addr::UNSPECIFIED.into()),
        Family::Ip | Family::Inet | Family::Netdev => Some(Ipv4Addr::UNSPECIFIED.into()),
        // ebtables translates no address.
        Family::Bridge => None,
    }
}

/// Node ports of Services whose own port is 443, with their names.
pub fn https_node_ports(services: &[Service]) -> Vec<(String, u16)> {
    const HTTPS: u16 = 443;
    const TCP: u8 = 6;
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
