//! kube-proxy in iptables mode: chains `KUBE-SERVICES`, `KUBE-SVC-…`, `KUBE-SEP-…` of the table nat, and in the table
//! filter the Services without endpoints.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
};

use super::{MOST, protocol};
use crate::model::bypass::service::{Mode, Service};

/// How deep chains lead to endpoints: KUBE-EXT, KUBE-SVC, KUBE-SEP.
const DEPTH: usize = 4;

/// What is asked for of a rule.
#[derive(Debug, Default)]
pub(in crate::netfilter) struct Rule<'a> {
    pub(in crate::netfilter) chain: &'a str,
    /// A whole address, not a network.
    pub(in crate::netfilter) destination: Option<IpAddr>,
    pub(in crate::netfilter) protocol: Option<u8>,
    pub(in crate::netfilter) port: Option<u16>,
    pub(in crate::netfilter) comment: String,
    pub(in crate::netfilter) target: &'a str,
    pub(in crate::netfilter) to: Option<SocketAddr>,
}

/// Services of one family, out of kube-proxy's rules, which are added one by one and not kept.
#[derive(Debug, Default)]
pub(in crate::netfilter) struct Collector {
    /// With the chain that a rule leads to, where it does.
    services: Vec<(Service, Option<String>)>,
    /// Where the chains of Services lead.
    jumps: HashMap<String, Vec<String>>,
    /// By the chains of endpoints.
    ends: HashMap<String, SocketAddr>,
}

impl Collector {
    /// Whether rules of that chain say anything of Services.
    pub(in crate::netfilter) fn knows(chain: &str) -> bool {
        chain.starts_with("KUBE-")
    }

    /// `any`: the unspecified address of the rules' family, for node ports.
    pub(in crate::netfilter) fn add(&mut self, rule: &Rule<'_>, any: IpAddr) {
        if rule.target.starts_with("KUBE-S") && rule.chain != "KUBE-SERVICES" {
            let jumps = self.jumps.entry(rule.chain.to_owned()).or_default();
            jumps.push(rule.target.to_owned());
        }
        if rule.chain.starts_with("KUBE-SEP-")
            && let Some(to) = rule.to
        {
            self.ends.insert(rule.chain.to_owned(), to);
        }
        // The comment has it too, if iptables can't show what the rule translates to.
        if rule.target.starts_with("KUBE-SEP-")
            && let Some(to) = rule.comment.rsplit("-> ").next().and_then(|to| to.parse().ok())
        {
            self.ends.entry(rule.target.to_owned()).or_insert(to);
        }
        if let Some(service) = service(rule, any).filter(|_| self.services.len() < MOST) {
            let chain = (!service.refused).then(|| rule.target.to_owned());
            self.services.push((service, chain));
        }
    }

    /// The Services, each with its endpoints.
    pub(in crate::netfilter) fn finish(self) -> Vec<Service> {
        let Self {
            services,
            jumps,
            ends,
        } = self;
        services
            .into_iter()
            .map(|(mut service, chain)| {
                if let Some(chain) = chain {
                    follow(&chain, &jumps, &ends, &mut service.endpoints, DEPTH);
                }
                service
            })
            .collect()
    }
}

/// What `iptables-save` prints of one family.
pub(super) fn services(save: &str, any: IpAddr) -> Vec<Service> {
    let mut collector = Collector::default();
    for rule in save.lines().filter_map(rule) {
        collector.add(&rule, any);
    }
    collector.finish()
}

/// The Service that a rule is for, without its endpoints.
fn service(rule: &Rule<'_>, any: IpAddr) -> Option<Service> {
    let leads_on = ["KUBE-SVC-", "KUBE-EXT-", "KUBE-XLB-"]
        .iter()
        .any(|prefix| rule.target.starts_with(prefix));
    let address = match rule.chain {
        "KUBE-SERVICES" => rule.destination?,
        "KUBE-NODEPORTS" => any,
        _ => return None,
    };
    let refused = rule.target == "REJECT";
    if !leads_on && !refused {
        return None;
    }
    Some(Service {
        name: rule
            .comment
            .split_whitespace()
            .next()
            .filter(|name| name.contains('/'))
            .map(str::to_owned),
        address: SocketAddr::new(address, rule.port?),
        is_cluster_ip: rule.comment.ends_with(" cluster IP"),
        protocol: rule.protocol?,
        endpoints: Vec::new(),
        refused,
        mode: Mode::Iptables,
    })
}

fn follow(
    chain: &str,
    jumps: &HashMap<String, Vec<String>>,
    ends: &HashMap<String, SocketAddr>,
    found: &mut Vec<SocketAddr>,
    depth: usize,
) {
    if let Some(end) = ends.get(chain).filter(|end| !found.contains(end)) {
        found.push(*end);
    }
    if depth > 0 {
        for next in jumps.get(chain).into_iter().flatten() {
            follow(next, jumps, ends, found, depth - 1);
        }
    }
}

fn rule(line: &str) -> Option<Rule<'_>> {
    let at = line.find("-A KUBE-")?;
    let line = line.get(at..)?;
    let mut rule = Rule::default();
    let (mut rest, mut not) = (line, false);
    while let Some((word, after)) = word(rest) {
        rest = after;
        let value = || self::word(rest).map(|(value, _)| value);
        // All but something is no Service.
        let is_not = std::mem::replace(&mut not, word == "!");
        match word {
            "-d" | "-p" | "--dport" if is_not => {}
            "-A" => rule.chain = value()?,
            "-d" => rule.destination = value().and_then(address),
            "-p" => rule.protocol = value().and_then(protocol),
            "--dport" => rule.port = value()?.parse().ok(),
            "--comment" => rule.comment = value()?.to_owned(),
            "-j" | "-g" => rule.target = value()?,
            "--to-destination" => rule.to = value()?.parse().ok(),
            _ => {}
        }
    }
    Some(rule)
}

/// A word, or what stands in quotes.
fn word(text: &str) -> Option<(&str, &str)> {
    let text = text.trim_start();
    if let Some(quoted) = text.strip_prefix('"') {
        return quoted.split_once('"');
    }
    if text.is_empty() {
        return None;
    }
    Some(text.split_once(char::is_whitespace).unwrap_or((text, "")))
}

/// `10.96.0.1/32`
fn address(text: &str) -> Option<IpAddr> {
    let (address, length) = text.split_once('/').unwrap_or((text, ""));
    let address: IpAddr = address.parse().ok()?;
    let host = if address.is_ipv4() { "32" } else { "128" };
    (length.is_empty() || length == host).then_some(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As kube-proxy 1.27 writes them.
    const SAVE: &str = r#"*nat
:KUBE-SERVICES - [0:0]
[0:0] -A PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
[7:420] -A KUBE-SERVICES -d 10.96.0.1/32 -p tcp -m comment --comment "default/kubernetes:https cluster IP" -m tcp --dport 443 -j KUBE-SVC-NPX46M4PTMTKRN6Y
-A KUBE-SERVICES -d 10.96.0.10/32 -p udp -m comment --comment "kube-system/kube-dns:dns cluster IP" -m udp --dport 53 -j KUBE-SVC-TCOU7JCQXEZGVUNU
-A KUBE-SERVICES -d 203.0.113.7/32 -p tcp -m comment --comment "shop/web:http loadbalancer IP" -m tcp --dport 80 -j KUBE-EXT-ABC
-A KUBE-SERVICES -m comment --comment "kubernetes service nodeports; NOTE: this must be the last rule in this chain" -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS
-A KUBE-EXT-ABC -j KUBE-SVC-ABC
-A KUBE-SVC-ABC ! -s 10.244.0.0/16 -d 10.96.9.9/32 -p tcp -m comment --comment "shop/web:http cluster IP" -m tcp --dport 80 -j KUBE-MARK-MASQ
-A KUBE-SVC-ABC -m comment --comment "shop/web:http -> 10.244.1.7:8080" -m statistic --mode random --probability 0.50000000000 -j KUBE-SEP-ONE
-A KUBE-SVC-ABC -m comment --comment "shop/web:http -> 10.244.2.7:8080" -j KUBE-SEP-TWO
-A KUBE-SEP-ONE -s 10.244.1.7/32 -m comment --comment "shop/web:http" -j KUBE-MARK-MASQ
-A KUBE-SEP-ONE -p tcp -m comment --comment "shop/web:http" -m tcp -j DNAT --to-destination  [unsupported revision]
-A KUBE-SVC-NPX46M4PTMTKRN6Y -m comment --comment "default/kubernetes:https" -j KUBE-SEP-API
-A KUBE-SEP-API -p tcp -m comment --comment "default/kubernetes:https" -m tcp -j DNAT --to-destination 192.168.88.11:6443
-A KUBE-NODEPORTS -p tcp -m comment --comment "shop/web:http" -m tcp --dport 30080 -j KUBE-EXT-ABC
-A KUBE-NODEPORTS -d 127.0.0.0/8 -p tcp -m comment --comment "shop/web:http" -m nfacct --nfacct-name x -m tcp --dport 30080 -j KUBE-MARK-MASQ
-A KUBE-NODEPORTS -p udp -m comment --comment "shop/dns:dns" -m udp --dport 30053 -j KUBE-EXT-ABD
*filter
-A KUBE-SERVICES -d 10.96.5.5/32 -p tcp -m comment --comment "shop/empty:http has no endpoints" -m tcp --dport 80 -j REJECT --reject-with icmp-port-unreachable
"#;

    #[test]
    fn what_kube_proxy_writes() {
        let found: Vec<_> = services(SAVE, [0, 0, 0, 0].into())
            .into_iter()
            .map(|service| {
                let endpoints: Vec<_> = service.endpoints.iter().map(ToString::to_string).collect();
                (
                    service.name.unwrap_or_default(),
                    service.address.to_string(),
                    service.protocol,
                    if service.refused {
                        "none".to_owned()
                    } else {
                        endpoints.join(" ")
                    },
                )
            })
            .collect();
        let row = |name: &str, address: &str, protocol, endpoints: &str| {
            (
                name.to_owned(),
                address.to_owned(),
                protocol,
                endpoints.to_owned(),
            )
        };
        assert_eq!(
            found,
            [
                row(
                    "default/kubernetes:https",
                    "10.96.0.1:443",
                    6,
                    "192.168.88.11:6443"
                ),
                row("kube-system/kube-dns:dns", "10.96.0.10:53", 17, ""),
                row(
                    "shop/web:http",
                    "203.0.113.7:80",
                    6,
                    "10.244.1.7:8080 10.244.2.7:8080"
                ),
                row(
                    "shop/web:http",
                    "0.0.0.0:30080",
                    6,
                    "10.244.1.7:8080 10.244.2.7:8080"
                ),
                row("shop/dns:dns", "0.0.0.0:30053", 17, ""),
                row("shop/empty:http", "10.96.5.5:80", 6, "none"),
            ]
        );
    }

    #[test]
    fn nonsense_is_no_service() {
        for text in [
            "",
            "-A KUBE-SERVICES",
            "-A KUBE-SERVICES -d",
            "-A KUBE-SERVICES -d 10.0.0.0/8 -p tcp --dport 1 -j KUBE-SVC-A",
            "-A KUBE-SERVICES -d 10.0.0.1/32 -p icmp --dport 1 -j KUBE-SVC-A",
            "-A KUBE-SVC-A -j KUBE-SVC-A",
        ] {
            assert!(services(text, [0, 0, 0, 0].into()).is_empty(), "{text}");
        }
        // A loop of chains ends.
        let text =
            "-A KUBE-SERVICES -d 10.0.0.1 -p tcp --dport 1 -j KUBE-SVC-A\n-A KUBE-SVC-A -j KUBE-SVC-A\n";
        assert_eq!(services(text, [0, 0, 0, 0].into()).len(), 1);
    }
}
