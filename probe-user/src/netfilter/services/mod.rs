//! Services, out of the rules that kube-proxy made of them, in each of its modes.

mod iptables;
mod ipvs;
mod nft;

use super::rules::read::Outputs;
use crate::{host::proc_net::ProcNet, model::bypass::service::Service};

/// More than a cluster has.
const MOST: usize = 65_536;
/// Node ports that anybody asks about.
const MOST_NODE_PORTS: usize = 32;

/// What is in the rules that were read, and in IPVS' table of this thread's network namespace.
pub(super) fn of(outputs: &Outputs) -> Vec<Service> {
    let mut services = Vec::new();
    for save in &outputs.saves {
        services.extend(iptables::services(&save.text));
    }
    if let Some(json) = &outputs.nft {
        services.extend(nft::services(json));
    }
    if let Some(table) = ProcNet::own().text("ip_vs") {
        services.extend(ipvs::services(&table));
    }
    services.truncate(MOST);
    services
}

/// Node ports of Services whose own port is 443, with their names.
pub(super) fn https_node_ports(outputs: &Outputs) -> Vec<(String, u16)> {
    const HTTPS: u16 = 443;
    let services = of(outputs);
    let is_https = |name: &str| {
        let own = |service: &&Service| service.name.as_deref() == Some(name);
        services
            .iter()
            .find(own)
            .is_some_and(|service| service.address.port() == HTTPS)
    };
    let mut ports: Vec<_> = outputs
        .saves
        .iter()
        .flat_map(|save| iptables::node_ports(&save.text))
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
