//! kube-proxy in nftables mode: tables `kube-proxy`, maps of addresses to chains, which have the Services' names.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use serde::Deserialize;
use serde_json::{Value as Json, value::RawValue};

use super::protocol;
use crate::model::bypass::service::{Mode, Service};

#[derive(Deserialize)]
struct Document<'a> {
    #[serde(borrow)]
    nftables: Vec<&'a RawValue>,
}

/// Reads `nft --json list ruleset`.
pub(super) fn services(json: &str) -> Vec<Service> {
    if !json.contains("\"kube-proxy\"") {
        return Vec::new();
    }
    let Ok(document) = serde_json::from_str::<Document<'_>>(json) else {
        return Vec::new();
    };
    let (mut services, mut restricted) = (Vec::new(), Vec::new());
    let mut endpoints: HashMap<String, Vec<SocketAddr>> = HashMap::new();
    for item in document.nftables {
        let text = item.get();
        if !text.contains("\"kube-proxy\"") {
            continue;
        }
        let Ok(item) = serde_json::from_str::<Json>(text) else {
            continue;
        };
        if let Some(map) = item.get("map") {
            let elements = map.get("elem").and_then(Json::as_array).into_iter().flatten();
            let any: IpAddr = match map.get("family").and_then(Json::as_str) {
                Some("ip6") => Ipv6Addr::UNSPECIFIED.into(),
                Some(_) | None => Ipv4Addr::UNSPECIFIED.into(),
            };
            match map.get("name").and_then(Json::as_str) {
                Some("service-ips" | "service-nodeports") => {
                    services.extend(elements.filter_map(|element| service(element, any)));
                }
                Some("no-endpoint-services" | "no-endpoint-nodeports") => {
                    let (refused, dropped): (Vec<_>, Vec<_>) = elements
                        .filter_map(|element| without_endpoints(element, any))
                        .partition(|service| service.refused);
                    services.extend(refused);
                    restricted.extend(dropped);
                }
                _ => {}
            }
        }
        let chain = item.get("chain").and_then(|chain| chain.get("name"));
        if let Some((service, endpoint)) = chain.and_then(Json::as_str).and_then(endpoint) {
            endpoints.entry(service).or_default().push(endpoint);
        }
    }
    let has = |services: &[Service], one: &Service| {
        let key = (one.protocol, one.address);
        services
            .iter()
            .any(|other| (other.protocol, other.address) == key)
    };
    restricted.retain(|one| !has(&services, one));
    services.extend(restricted);
    for service in services.iter_mut().filter(|service| !service.refused) {
        let key = key(service.name.as_deref().unwrap_or_default(), service.protocol);
        service.endpoints = endpoints.get(&key).cloned().unwrap_or_default();
    }
    services
}

fn key(name: &str, protocol: u8) -> String {
    format!("{name} {protocol}")
}

/// `[{"concat": ["10.96.0.10", "tcp", 53]}, {"goto": {"target": "service-NWBZK7IH-kube-system/kube-dns/tcp/dns-tcp"}}]`, or
/// `[{"concat": ["tcp", 30080]}, {"goto": {"target": "external-ULMVA6XW-shop/web/tcp/http"}}]`, which is at `any`.
fn service(element: &Json, any: IpAddr) -> Option<Service> {
    let target = target(element)?;
    let at = at(element.get(0)?, any)?;
    Some(Service {
        name: named(target, &["service-", "external-"]).map(|(name, _)| name),
        is_cluster_ip: target.starts_with("service-") && !at.is_node_port(),
        ..at
    })
}

/// `[{"elem": {"val": {"concat": ["10.96.0.9", "tcp", 80]}, "comment": "shop/web:http"}}, {"goto": {"target": "reject-chain"}}]`.
/// With the verdict `drop` it has endpoints, but none on this node, as its traffic policy demands.
fn without_endpoints(element: &Json, any: IpAddr) -> Option<Service> {
    let key = element.get(0)?;
    let with_comment = key.get("elem");
    let name = with_comment.and_then(|elem| elem.get("comment")?.as_str());
    Some(Service {
        name: name.filter(|name| name.contains('/')).map(str::to_owned),
        refused: target(element).is_some(),
        ..at(with_comment.and_then(|elem| elem.get("val")).unwrap_or(key), any)?
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

/// A Service by address, protocol and port, or by protocol and port, which is at `any`.
fn at(key: &Json, any: IpAddr) -> Option<Service> {
    let parts = key.get("concat")?.as_array()?;
    let (address, protocol_name, number) = match parts.as_slice() {
        [address, protocol, port] => (address.as_str()?.parse().ok()?, protocol, port),
        [protocol, port] => (any, protocol, port),
        _ => return None,
    };
    Some(Service {
        name: None,
        address: SocketAddr::new(address, port(number)?),
        is_cluster_ip: false,
        protocol: protocol(protocol_name.as_str()?)?,
        endpoints: Vec::new(),
        refused: false,
        mode: Mode::Nftables,
    })
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
