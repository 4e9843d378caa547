//! Services, out of the rules that kube-proxy made of them, in each of its modes.

mod iptables;
mod ipvs;
mod nft;

use std::fs;

use super::rules::read::Outputs;
use crate::model::bypass::service::Service;

/// More than a cluster has.
const MOST: usize = 65_536;

/// What is in the rules that were read, and in IPVS' table of this thread's network namespace.
pub(super) fn of(outputs: &Outputs) -> Vec<Service> {
    let mut services = Vec::new();
    for save in &outputs.saves {
        services.extend(iptables::services(&save.text));
    }
    if let Some(json) = &outputs.nft {
        services.extend(nft::services(json));
    }
    if let Ok(table) = fs::read_to_string("/proc/thread-self/net/ip_vs") {
        services.extend(ipvs::services(&table));
    }
    services.truncate(MOST);
    services
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
