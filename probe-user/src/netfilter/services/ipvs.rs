//! kube-proxy in ipvs mode: the kernel's tables, which have no names.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use super::protocol;
use crate::{
    host::proc_net::ProcNet,
    model::bypass::{
        service::{Mode, Service},
        virtual_server::{InTable, VirtualConnection},
    },
};

/// A connection: protocol, client, destination.
pub type Ends = (u8, SocketAddr, SocketAddr);

/// What the table of the calling thread's network namespace has of these connections, in their order.
pub fn connections(wanted: &[Ends]) -> Vec<InTable> {
    let table = match wanted {
        [] => None,
        [..] => ProcNet::own().whole("ip_vs_conn"),
    };
    let Some(table) = table else {
        return vec![InTable::Unread; wanted.len()];
    };
    let found = of_table(&table, wanted);
    let of = |ends| match found.get(ends) {
        Some(connection) => InTable::Found(connection.clone()),
        None => InTable::Absent,
    };
    wanted.iter().map(of).collect()
}

/// Reads `/proc/net/ip_vs_conn`.
fn of_table(table: &str, wanted: &[Ends]) -> HashMap<Ends, VirtualConnection> {
    let mut found: HashMap<Ends, VirtualConnection> = HashMap::new();
    for line in table.lines() {
        let words: Vec<&str> = line.split_whitespace().take(8).collect();
        let [name, client, client_port, server, server_port, to, to_port, state] = words[..] else {
            continue;
        };
        let (Some(protocol), Some(client), Some(virtual_server), Some(to)) = (
            protocol(name),
            end(client, client_port),
            end(server, server_port),
            end(to, to_port),
        ) else {
            continue;
        };
        let ends = (protocol, client, to);
        if wanted.contains(&ends) {
            let state = state.to_owned();
            found.insert(
                ends,
                VirtualConnection {
                    virtual_server,
                    state,
                },
            );
        }
    }
    found
}

/// `0A600001` `01BB`, or `2001:0db8:…:0001` `01BB`.
fn end(address: &str, port: &str) -> Option<SocketAddr> {
    let port = u16::from_str_radix(port, 16).ok()?;
    let address = match address.contains(':') {
        true => IpAddr::V6(address.parse().ok()?),
        false => Ipv4Addr::from(u32::from_str_radix(address, 16).ok()?).into(),
    };
    Some(SocketAddr::new(address, port))
}

/// Reads `/proc/net/ip_vs`.
pub(super) fn services(table: &str) -> Vec<Service> {
    let mut services: Vec<Service> = Vec::new();
    for line in table.lines() {
        let mut words = line.split_whitespace();
        match (words.next(), words.next().and_then(address)) {
            (Some("->"), Some(endpoint)) => {
                // One with weight 0 keeps its connections and gets no new one: a pod that terminates.
                let weight = words.nth(1);
                if let Some(service) = services.last_mut() {
                    service.endpoints.push(endpoint);
                    service.refused &= weight == Some("0");
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
    let six = address.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
    end(six.unwrap_or(address), port)
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
            TCP  0A600505:01BB rr\n\
            \x20 -> 0AF40207:20FB      Masq    0      1          0\n\
            TCP  0A600506:01BB rr\n\
            \x20 -> 0AF40207:20FB      Masq    0      1          0\n\
            \x20 -> 0AF40208:20FB      Masq    1      1          0\n\
            FWM  00000001 rr\n";
        let found: Vec<_> = services(table)
            .iter()
            .map(|service| {
                let refused = if service.refused { " refused" } else { "" };
                format!(
                    "{} {} {:?}{refused}",
                    service.protocol, service.address, service.endpoints
                )
            })
            .collect();
        assert_eq!(
            found,
            [
                "6 10.96.0.1:443 [192.168.88.11:6443]",
                "17 10.96.0.10:53 [] refused",
                "6 [fd00::1]:80 [[fd00::9]:8080]",
                "6 10.96.5.5:443 [10.244.2.7:8443] refused",
                "6 10.96.5.6:443 [10.244.2.7:8443, 10.244.2.8:8443]",
            ]
        );
        assert!(services("TCP zz:yy\n -> 1:1\nTCP\n").is_empty());
    }

    /// As Linux 6.12 prints it.
    #[test]
    fn connections_that_are_asked_for() {
        let table = "Pro FromIP   FPrt ToIP     TPrt DestIP   DPrt State       Expires PEName PEData\n\
            TCP C0A8580C A0AE C0A8580B 76EB 0AF40207 20FB SYN_RECV         45\n\
            TCP 0AF40105 8E16 0A600707 01BB 0AF40207 20FB TIME_WAIT       101\n\
            TCP fd00:0000:0000:0000:0000:0000:0000:0005 A0AE fd00:0000:0000:0000:0000:0000:0000:0001 0050 \
            fd00:0000:0000:0000:0000:0000:0000:0009 1F90 ESTABLISHED     899\n\
            UDP 0AF40105 8E16 0A60000A 0035 0AF40209 0035 UDP             299\n\
            TCP 0AF40105\n";
        let ends =
            |protocol, client: &str, to: &str| (protocol, client.parse().unwrap(), to.parse().unwrap());
        for (ends, expected) in [
            (
                ends(6, "192.168.88.12:41134", "10.244.2.7:8443"),
                Some("192.168.88.11:30443 SYN_RECV"),
            ),
            (
                ends(6, "10.244.1.5:36374", "10.244.2.7:8443"),
                Some("10.96.7.7:443 TIME_WAIT"),
            ),
            (
                ends(6, "[fd00::5]:41134", "[fd00::9]:8080"),
                Some("[fd00::1]:80 ESTABLISHED"),
            ),
            (
                ends(17, "10.244.1.5:36374", "10.244.2.9:53"),
                Some("10.96.0.10:53 UDP"),
            ),
            (ends(6, "10.244.1.5:36375", "10.244.2.7:8443"), None),
            (ends(17, "10.244.1.5:36374", "10.244.2.7:8443"), None),
        ] {
            let found = of_table(table, &[ends]);
            let found = found
                .get(&ends)
                .map(|found| format!("{} {}", found.virtual_server, found.state));
            assert_eq!(found.as_deref(), expected, "{ends:?}");
        }
    }
}
