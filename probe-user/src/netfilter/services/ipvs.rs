//! kube-proxy in ipvs mode: the kernel's table, which has no names.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::protocol;
use crate::model::bypass::service::{Mode, Service};

/// Reads `/proc/net/ip_vs`.
pub(super) fn services(table: &str) -> Vec<Service> {
    let mut services: Vec<Service> = Vec::new();
    for line in table.lines() {
        let mut words = line.split_whitespace();
        match (words.next(), words.next().and_then(address)) {
            (Some("->"), Some(endpoint)) => {
                if let Some(service) = services.last_mut() {
                    service.endpoints.push(endpoint);
                    service.refused = false;
                }
            }
            (Some(name), Some(address)) => {
                if let Some(protocol) = protocol(name) {
                    services.push(Service {
                        name: None,
                        address,
                        // Node ports and load balancers look alike here.
                        is_cluster_ip: false,
                        protocol,
                        endpoints: Vec::new(),
                        refused: true,
                        mode: Mode::Ipvs,
                    });
                }
            }
            (Some(_) | None, None) | (None, Some(_)) => {}
        }
    }
    services
}

/// `0A600001:01BB`, or `[2001:0db8:…:0001]:01BB`.
fn address(text: &str) -> Option<SocketAddr> {
    let (address, port) = text.rsplit_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let address = match address.strip_prefix('[').and_then(|text| text.strip_suffix(']')) {
        Some(six) => IpAddr::V6(six.parse().ok()?),
        None => Ipv4Addr::from(u32::from_str_radix(address, 16).ok()?).into(),
    };
    Some(SocketAddr::new(address, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_prints() {
        let table = "IP Virtual Server version 1.2.1 (size=4096)\n\
            Prot LocalAddress:Port Scheduler Flags\n\
            \x20 -> RemoteAddress:Port Forward Weight ActiveConn InActConn\n\
            TCP  0A600001:01BB rr\n\
            \x20 -> C0A8580B:192B      Masq    1      1          0\n\
            UDP  0A60000A:0035 rr\n\
            TCP  [fd00:0000:0000:0000:0000:0000:0000:0001]:0050 rr\n\
            \x20 -> [fd00:0000:0000:0000:0000:0000:0000:0009]:1F90      Masq    1      0          0\n\
            FWM  00000001 rr\n";
        let found: Vec<_> = services(table)
            .iter()
            .map(|service| format!("{} {} {:?}", service.protocol, service.address, service.endpoints))
            .collect();
        assert_eq!(
            found,
            [
                "6 10.96.0.1:443 [192.168.88.11:6443]",
                "17 10.96.0.10:53 []",
                "6 [fd00::1]:80 [[fd00::9]:8080]",
            ]
        );
        assert!(services("TCP zz:yy\n -> 1:1\nTCP\n").is_empty());
    }
}
