//! kube-proxy in nftables mode: tables `kube-proxy`, maps of addresses to chains, which have the Services' names.

use std::{
    collections::{HashMap, HashSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use serde::Deserialize;
use serde_json::{Value as Json, value::RawValue};

use super::{MOST, protocol};
use crate::model::bypass::service::{Mode, Service};

#[derive(Deserialize)]
struct Document<'a> {
    #[serde(borrow)]
    nftables: Vec<&'a RawValue>,
}

/// Maps of kube-proxy's that have Services: with endpoints by address and by node port, then those without.
pub(in crate::netfilter) const MAPS: [&str; 4] = [
    "service-ips",
    "service-nodeports",
    "no-endpoint-services",
    "no-endpoint-nodeports",
];

/// An element of one of them.
#[derive(Debug)]
pub(in crate::netfilter) struct Element<'a> {
    /// `None`: a node port.
    pub(in crate::netfilter) address: Option<IpAddr>,
    pub(in crate::netfilter) protocol: u8,
    pub(in crate::netfilter) port: u16,
    /// The chain that it leads to; none where it drops.
    pub(in crate::netfilter) target: Option<&'a str>,
    pub(in crate::netfilter) comment: Option<&'a str>,
}

/// Services, out of chains and elements, which are added one by one and not kept.
#[derive(Debug, Default)]
pub(in crate::netfilter) struct Collector {
    services: Vec<Service>,
    /// With endpoints on other nodes alone, as their traffic policy demands.
    restricted: Vec<Service>,
    endpoints: HashMap<String, Vec<SocketAddr>>,
}

impl Collector {
    /// Takes a chain's name, which may be that of an endpoint.
    pub(in crate::netfilter) fn chain(&mut self, name: &str) {
        if let Some((service, endpoint)) = endpoint(name) {
            self.endpoints.entry(service).or_default().push(endpoint);
        }
    }

    /// Takes an element of one of [`MAPS`]; `any`: the unspecified address of the table's family.
    pub(in crate::netfilter) fn element(&mut self, map: &str, element: &Element<'_>, any: IpAddr) {
        if self.services.len() + self.restricted.len() >= MOST {
            return;
        }
        let at = Service {
            name: None,
            address: SocketAddr::new(element.address.unwrap_or(any), element.port),
            is_cluster_ip: false,
            protocol: element.protocol,
            endpoints: Vec::new(),
            refused: false,
            mode: Mode::Nftables,
        };
        match (map, element.target) {
            ("service-ips" | "service-nodeports", Some(target)) => self.services.push(Service {
                name: named(target, &["service-", "external-"]).map(|(name, _)| name),
                is_cluster_ip: target.starts_with("service-") && !at.is_node_port(),
                ..at
            }),
            // With the verdict `drop` it has endpoints, but none on this node.
            ("no-endpoint-services" | "no-endpoint-nodeports", target) => {
                let name = element.comment.filter(|name| name.contains('/'));
                let service = Service {
                    name: name.map(str::to_owned),
                    refused: target.is_some(),
                    ..at
                };
                match service.refused {
                    true => self.services.push(service),
                    false => self.restricted.push(service),
                }
            }
            _ => {}
        }
    }

    /// The Services, each with its endpoints.
    pub(in crate::netfilter) fn finish(self) -> Vec<Service> {
        let Self {
            mut services,
            restricted,
            endpoints,
        } = self;
        let known: HashSet<(u8, SocketAddr)> = services
            .iter()
            .map(|service| (service.protocol, service.address))
            .collect();
        let is_unknown = |service: &Service| !known.contains(&(service.protocol, service.address));
        services.extend(restricted.into_iter().filter(is_unknown));
        for service in services.iter_mut().filter(|service| !service.refused) {
            let key = key(service.name.as_deref().unwrap_or_default(), service.protocol);
            service.endpoints = endpoints.get(&key).cloned().unwrap_or_default();
        }
        services
    }
}

/// Reads `nft --json list ruleset`.
pub(super) fn services(json: &str) -> Vec<Service> {
    if !json.contains("\"kube-proxy\"") {
        return Vec::new();
    }
    let Ok(document) = serde_json::from_str::<Document<'_>>(json) else {
        return Vec::new();
    };
    let mut collector = Collector::default();
    for item in document.nftables {
        let text = item.get();
        if !text.contains("\"kube-proxy\"") {
            continue;
        }
        let Ok(item) = serde_json::from_str::<Json>(text) else {
            continue;
        };
        if let Some(map) = item.get("map") {
            let any: IpAddr = match map.get("family").and_then(Json::as_str) {
                Some("ip6") => Ipv6Addr::UNSPECIFIED.into(),
                Some(_) | None => Ipv4Addr::UNSPECIFIED.into(),
            };
            let name = map.get("name").and_then(Json::as_str).unwrap_or_default();
            let elements = map.get("elem").and_then(Json::as_array).into_iter().flatten();
            for element in elements.filter_map(element) {
                collector.element(name, &element, any);
            }
        }
        let chain = item.get("chain").and_then(|chain| chain.get("name"));
        if let Some(name) = chain.and_then(Json::as_str) {
            collector.chain(name);
        }
    }
    collector.finish()
}

fn key(name: &str, protocol: u8) -> String {
    format!("{name} {protocol}")
}

/// `[{"concat": ["10.96.0.10", "tcp", 53]}, {"goto": {"target": "service-NWBZK7IH-kube-system/kube-dns/tcp/dns-tcp"}}]`, or
/// `[{"concat": ["tcp", 30080]}, {"goto": {"target": "external-ULMVA6XW-shop/web/tcp/http"}}]`; with a comment,
/// `[{"elem": {"val": {"concat": ["10.96.0.9", "tcp", 80]}, "comment": "shop/web:http"}}, {"goto": {"target": "reject-chain"}}]`.
fn element(element: &Json) -> Option<Element<'_>> {
    let key = element.get(0)?;
    let with_comment = key.get("elem");
    let comment = with_comment.and_then(|elem| elem.get("comment")?.as_str());
    let key = with_comment.and_then(|elem| elem.get("val")).unwrap_or(key);
    let parts = key.get("concat")?.as_array()?;
    let (address, protocol_name, number) = match parts.as_slice() {
        [address, protocol, port] => (Some(address.as_str()?.parse().ok()?), protocol, port),
        [protocol, port] => (None, protocol, port),
        _ => return None,
    };
    Some(Element {
        address,
        protocol: protocol(protocol_name.as_str()?)?,
        port: port(number)?,
        target: target(element),
        comment,
    })
}

/// The chain that an element's verdict leads to.
fn target(element: &Json) -> Option<&str> {
    let to = element.get(1)?;
    to.get("goto").or_else(|| to.get("jump"))?.get("target")?.as_str()
}

fn port(port: &Json) -> Option<u16> {
    match port {
        Json::Number(port) => u16::try_from(port.as_u64()?).ok(),
        Json::String(port) => port.parse().ok(),
        Json::Null | Json::Bool(_) | Json::Array(_) | Json::Object(_) => None,
    }
}

/// `service-NWBZK7IH-kube-system/kube-dns/tcp/dns-tcp` into `kube-system/kube-dns:dns-tcp`, and what stands for the rest.
fn named<'a>(chain: &'a str, prefixes: &[&str]) -> Option<(String, &'a str)> {
    let rest = prefixes.iter().find_map(|prefix| chain.strip_prefix(prefix))?;
    let (_hash, rest) = rest.split_once('-')?;
    let mut parts = rest.splitn(4, '/');
    let (namespace, name, protocol, port) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let port = port.split("__").next().unwrap_or_default();
    let port = if port.is_empty() {
        String::new()
    } else {
        format!(":{port}")
    };
    Some((format!("{namespace}/{name}{port}"), protocol))
}

/// `endpoint-5OJB2KTY-kube-system/kube-dns/tcp/dns-tcp__10.180.0.1/53`; IPv6 has dots for colons.
fn endpoint(chain: &str) -> Option<(String, SocketAddr)> {
    let (name, protocol_name) = named(chain, &["endpoint-"])?;
    let (address, port) = chain.rsplit_once("__")?.1.split_once('/')?;
    let address: IpAddr = address
        .parse()
        .or_else(|_| address.replace('.', ":").parse())
        .ok()?;
    let endpoint = SocketAddr::new(address, port.parse().ok()?);
    Some((key(&name, protocol(protocol_name)?), endpoint))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_kube_proxy_makes() {
        let json = r#"{"nftables": [{"metainfo": {"version": "1.0.6"}},
            {"table": {"family": "ip", "name": "kube-proxy", "handle": 1}},
            {"chain": {"family": "ip", "table": "kube-proxy", "name": "endpoint-5OJB2KTY-kube-system/kube-dns/tcp/dns-tcp__10.180.0.1/53", "handle": 9}},
            {"chain": {"family": "ip", "table": "kube-proxy", "name": "endpoint-5OJB2KTX-default/plain/tcp/__10.180.0.2/8080", "handle": 9}},
            {"map": {"family": "ip", "name": "service-ips", "table": "kube-proxy", "type": ["ipv4_addr", "inet_proto", "inet_service"], "handle": 2, "map": "verdict",
             "elem": [[{"concat": ["172.30.0.10", "tcp", 53]}, {"goto": {"target": "service-NWBZK7IH-kube-system/kube-dns/tcp/dns-tcp"}}],
                      [{"concat": ["172.30.0.41", "tcp", 80]}, {"goto": {"target": "service-ULMVA6XW-default/plain/tcp/"}}],
                      [{"concat": ["nonsense", "tcp", 80]}, {"goto": {"target": "x"}}]]}},
            {"map": {"family": "ip", "name": "service-nodeports", "table": "kube-proxy", "type": ["inet_proto", "inet_service"], "handle": 4, "map": "verdict",
             "elem": [[{"concat": ["tcp", 30080]}, {"goto": {"target": "external-ULMVA6XW-default/plain/tcp/"}}],
                      [{"concat": ["tcp", 99999]}, {"goto": {"target": "external-ULMVA6XW-default/plain/tcp/"}}]]}},
            {"map": {"family": "ip", "name": "no-endpoint-services", "table": "kube-proxy", "type": ["ipv4_addr", "inet_proto", "inet_service"], "handle": 3, "map": "verdict",
             "elem": [[{"elem": {"val": {"concat": ["172.30.0.45", "tcp", 80]}, "comment": "shop/empty:http"}}, {"goto": {"target": "reject-chain"}}],
                      [{"concat": ["172.30.0.46", "tcp", 80]}, {"goto": {"target": "reject-chain"}}],
                      [{"elem": {"val": {"concat": ["172.30.0.41", "tcp", 80]}, "comment": "default/plain"}}, {"drop": null}],
                      [{"elem": {"val": {"concat": ["172.30.0.47", "tcp", 80]}, "comment": "shop/local:http"}}, {"drop": null}]]}},
            {"map": {"family": "ip", "name": "no-endpoint-nodeports", "table": "kube-proxy", "type": ["inet_proto", "inet_service"], "handle": 3, "map": "verdict",
             "elem": [[{"elem": {"val": {"concat": ["tcp", 30081]}, "comment": "shop/empty:http"}}, {"goto": {"target": "reject-chain"}}],
                      [{"elem": {"val": {"concat": ["tcp", 30080]}, "comment": "default/plain"}}, {"drop": null}]]}}]}"#;
        let found: Vec<_> = services(json)
            .iter()
            .map(|service| {
                format!(
                    "{} {} {:?}{}",
                    service.name.as_deref().unwrap_or("-"),
                    service.address,
                    service.endpoints,
                    if service.refused { " refused" } else { "" }
                )
            })
            .collect();
        assert_eq!(
            found,
            [
                "kube-system/kube-dns:dns-tcp 172.30.0.10:53 [10.180.0.1:53]",
                "default/plain 172.30.0.41:80 [10.180.0.2:8080]",
                "default/plain 0.0.0.0:30080 [10.180.0.2:8080]",
                "shop/empty:http 172.30.0.45:80 [] refused",
                "- 172.30.0.46:80 [] refused",
                "shop/empty:http 0.0.0.0:30081 [] refused",
                // Its endpoints are on other nodes, and its policy is `Local`.
                "shop/local:http 172.30.0.47:80 []",
            ]
        );
        for json in [
            "",
            "{}",
            "\"kube-proxy\"",
            "{\"nftables\": [{\"map\": \"kube-proxy\"}]}",
        ] {
            assert!(services(json).is_empty());
        }
    }
}
