//! `resolv.conf`: a pod's is untrusted.

use std::net::IpAddr;

use resolv_conf::{Config, ScopedIp};

use crate::model::host::Resolv;

/// The resolver takes three, and the kubelet no more.
const SERVERS: usize = 3;
/// Search domains that are kept.
const SEARCH: usize = 32;

/// What it says. As the resolver does, it passes over lines that it does not understand.
pub fn parse(text: &str) -> Resolv {
    let (config, _) = Config::parse_with_errors(text.as_bytes());
    let address = |server: &ScopedIp| match server {
        ScopedIp::V4(v4) => IpAddr::from(*v4),
        ScopedIp::V6(v6, _) => IpAddr::from(*v6),
    };
    Resolv {
        servers: config.nameservers.iter().take(SERVERS).map(address).collect(),
        search: config
            .get_search()
            .into_iter()
            .flatten()
            .take(SEARCH)
            .cloned()
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_kubelets_and_hosts_have_it() {
        let pod = parse(
            "search shop.svc.cluster.local svc.cluster.local\nnameserver 10.96.0.10\noptions ndots:5\n",
        );
        assert_eq!(pod.servers, [IpAddr::from([10, 96, 0, 10])]);
        assert_eq!(pod.search, ["shop.svc.cluster.local", "svc.cluster.local"]);
        let host = parse(
            "# by hand\nnameserver fe80::1%eth0\n nameserver 192.0.2.1 # old\nfoo bar\nnameserver x\n\
                          nameserver 192.0.2.2\nnameserver 192.0.2.3\nnameserver 192.0.2.4\n",
        );
        let servers: Vec<_> = host.servers.iter().map(ToString::to_string).collect();
        assert_eq!(servers, ["fe80::1", "192.0.2.1", "192.0.2.2"]);
        assert_eq!(parse("\0\u{fffd}nameserver"), Resolv::default());
    }
}
