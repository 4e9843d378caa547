//! How to undo what a rule does: for these packets, and no more than that.

use std::net::IpAddr;

use ipnet::IpNet;

use super::{
    Action, CandidateRule, Family, PacketPath, RuleOwner, RulePosition, Tool,
    owner::{comments, owner_of},
};
use crate::finding::Fix;

const TCP: u8 = 6;
const UDP: u8 = 17;
const SCTP: u8 = 132;

/// The packets that a rule catches and should not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RuleFlow {
    pub path: PacketPath,
    /// The protocol's number; `None`: any.
    pub protocol: Option<u8>,
    /// `None`: any.
    pub source: Option<IpNet>,
    /// `None`: any.
    pub destination: Option<IpNet>,
    /// The server's port, where it sends these packets.
    pub source_port: Option<u16>,
    /// The server's port, where they are for it.
    pub destination_port: Option<u16>,
}

impl RuleFlow {
    /// Packets between two addresses.
    pub fn between(path: PacketPath, protocol: u8, source: IpAddr, destination: IpAddr) -> Self {
        Self {
            path,
            protocol: Some(protocol),
            source: Some(source.into()),
            destination: Some(destination.into()),
            source_port: None,
            destination_port: None,
        }
    }

    /// Those that answer it.
    const fn reversed(self) -> Self {
        Self {
            source: self.destination,
            destination: self.source,
            source_port: self.destination_port,
            destination_port: self.source_port,
            ..self
        }
    }

    const fn protocol_name(&self) -> Option<&'static str> {
        match self.protocol {
            Some(TCP) => Some("tcp"),
            Some(UDP) => Some("udp"),
            Some(SCTP) => Some("sctp"),
            Some(_) | None => None,
        }
    }

    /// Whether it is of a whole network, and so of any number of connections.
    fn network(&self) -> Option<IpNet> {
        let ends = [self.source, self.destination].into_iter().flatten();
        let mut networks = ends.filter(|net| net.prefix_len() < net.max_prefix_len());
        networks.next()
    }
}

/// `UDP port 8472 from 192.168.88.12 to 192.168.88.11`
impl std::fmt::Display for RuleFlow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.protocol_name() {
            Some(name) => f.write_str(&name.to_uppercase())?,
            None => f.write_str("packets")?,
        }
        if let Some(port) = self.destination_port {
            write!(f, " port {port}")?;
        }
        if let Some(source) = self.source {
            write!(f, " from {}", written(source))?;
        }
        if let Some(port) = self.source_port {
            write!(f, " port {port}")?;
        }
        if let Some(destination) = self.destination {
            write!(f, " to {}", written(destination))?;
        }
        Ok(())
    }
}

/// A host without its prefix length.
fn written(net: IpNet) -> String {
    if net.prefix_len() == net.max_prefix_len() {
        net.addr().to_string()
    } else {
        net.to_string()
    }
}

impl CandidateRule {
    /// How to undo what it does to these packets, the best first. What its owner wrote is never deleted; a rule or a policy that
    /// catches anything else too stays, and these packets are accepted before it.
    pub fn fixes(&self, flow: &RuleFlow) -> Vec<Fix> {
        let is_policy = self.place == RulePosition::Policy;
        match self.owner.or_else(|| owner_of(self)) {
            // The policy's owner keeps no rule here that an accept before it would be lost among.
            Some(owner) if is_policy || owner == RuleOwner::Docker && self.table != "filter" => {
                let mut fixes = self.accept(flow);
                fixes.extend(owner.fixes(self, flow));
                fixes
            }
            // A rule that it needs is no fault: this one was left over.
            Some(RuleOwner::NodeLocalDns) if self.action == Action::NoTrack => vec![self.removal()],
            Some(owner) => owner.fixes(self, flow),
            None if self.action == Action::NoTrack || !is_policy && self.is_narrow() => vec![self.removal()],
            None => self.accept(flow),
        }
    }

    /// What takes the rule away; never by its position, which other rules change.
    fn removal(&self) -> Fix {
        let tool = self.tool.name(self.family);
        let why = match self.action {
            Action::NoTrack => "or narrow the rule, and find what adds it",
            Action::Drop | Action::Reject => "or accept these packets before the rule",
        };
        match (self.tool, self.place, &self.words) {
            (
                Tool::IptablesLegacy | Tool::IptablesNft | Tool::EbtablesLegacy | Tool::EbtablesNft,
                RulePosition::Position(_),
                Some(words),
            ) => {
                let start = [tool, "-t", &self.table, "-D"].map(str::to_owned);
                Fix::run(start.into_iter().chain(words.iter().cloned()), why)
            }
            (Tool::Nft, RulePosition::Handle(handle), _) => {
                let family = self.family.name();
                let handle = handle.to_string();
                Fix::run(
                    [
                        "nft",
                        "delete",
                        "rule",
                        family,
                        &self.table,
                        &self.chain,
                        "handle",
                        &handle,
                    ],
                    why,
                )
            }
            (
                Tool::IptablesLegacy
                | Tool::IptablesNft
                | Tool::EbtablesLegacy
                | Tool::EbtablesNft
                | Tool::Nft,
                _,
                _,
            ) => Fix::text(format!(
                "Remove the rule with {tool}, {why}. No command is printed: the rule could not be read \
                 completely."
            )),
        }
    }

    /// Whether it asks for a port or a single address, so that without it little else is let through.
    fn is_narrow(&self) -> bool {
        let words: Vec<&str> = match &self.words {
            Some(words) => words.iter().map(String::as_str).collect(),
            None => {
                let rule = self.text.split(" comment \"").next().unwrap_or_default();
                rule.split_whitespace().collect()
            }
        };
        let mut before = "";
        for pair in words.windows(2) {
            let [word, value] = pair else { continue };
            let is_one = match (self.tool, *word) {
                (
                    Tool::IptablesLegacy | Tool::IptablesNft,
                    "--dport" | "--sport" | "--dports" | "--sports" | "--ports" | "--destination-port"
                    | "--source-port",
                ) => before != "!",
                (Tool::IptablesLegacy | Tool::IptablesNft, "-s" | "-d") => {
                    before != "!" && (value.ends_with("/32") || value.ends_with("/128"))
                }
                (Tool::EbtablesLegacy | Tool::EbtablesNft, option) => match option {
                    "--ip-dport"
                    | "--ip-sport"
                    | "--ip6-dport"
                    | "--ip6-sport"
                    | "--ip-destination-port"
                    | "--ip-source-port" => *value != "!",
                    "--ip-src" | "--ip-dst" | "--ip6-src" | "--ip6-dst" => value.parse::<IpAddr>().is_ok(),
                    _ => false,
                },
                (Tool::Nft, "dport" | "sport") => *value != "!=",
                (Tool::Nft, "saddr" | "daddr") => value.parse::<IpAddr>().is_ok(),
                _ => false,
            };
            // What stands in a comment asks for nothing.
            if is_one && before != "--comment" {
                return true;
            }
            before = word;
        }
        false
    }

    /// Accepts these packets before the rule, or before the policy, and nothing else.
    fn accept(&self, flow: &RuleFlow) -> Vec<Fix> {
        // Connections are known to conntrack only behind table raw.
        let network = flow
            .network()
            .filter(|_| matches!(self.tool, Tool::IptablesLegacy | Tool::IptablesNft) && self.table != "raw");
        if let Some(network) = network {
            let network = written(network);
            return [
                ("--ctorigsrc", "accept connections from pods, both directions"),
                ("--ctreplsrc", "accept connections to pods, both directions"),
            ]
            .map(|(option, why)| {
                let matches = ["-m", "conntrack", option, &network].map(str::to_owned);
                self.accept_matching(matches.to_vec(), why)
            })
            .to_vec();
        }
        let mut fixes = vec![self.accept_matching(self.matches(flow), "accept these packets only")];
        // An answer is another packet to a rule that catches anything.
        if flow.path == PacketPath::Forward && !self.is_narrow() {
            fixes.push(self.accept_matching(
                self.matches(&flow.reversed()),
                "the same for the opposite direction",
            ));
        }
        fixes
    }

    /// The flow in the words of the rule's tool.
    fn matches(&self, flow: &RuleFlow) -> Vec<String> {
        let mut words = Vec::new();
        let protocol = flow.protocol_name();
        let number = flow.protocol.map(|number| number.to_string());
        let ports = [flow.source_port, flow.destination_port];
        let addresses = [flow.source, flow.destination];
        let mut push = |pair: &[&str]| words.extend(pair.iter().map(|word| (*word).to_owned()));
        match self.tool {
            Tool::IptablesLegacy | Tool::IptablesNft => {
                if let Some(protocol) = protocol.or(number.as_deref()) {
                    push(&["-p", protocol]);
                }
                for (option, net) in ["-s", "-d"].into_iter().zip(addresses) {
                    if let Some(net) = net {
                        push(&[option, &written(net)]);
                    }
                }
                for (option, port) in ["--sport", "--dport"].into_iter().zip(ports) {
                    if let (Some(port), Some(_)) = (port, protocol) {
                        push(&[option, &port.to_string()]);
                    }
                }
            }
            Tool::EbtablesLegacy | Tool::EbtablesNft => {
                let is_v6 = addresses.iter().flatten().any(|net| matches!(net, IpNet::V6(_)));
                let (family, ip) = if is_v6 {
                    ("IPv6", "--ip6")
                } else {
                    ("IPv4", "--ip")
                };
                push(&["-p", family]);
                for (option, net) in ["src", "dst"].into_iter().zip(addresses) {
                    if let Some(net) = net {
                        push(&[&format!("{ip}-{option}"), &written(net)]);
                    }
                }
                if let Some(protocol) = protocol.or(number.as_deref()) {
                    push(&[&format!("{ip}-proto"), protocol]);
                }
                for (option, port) in ["sport", "dport"].into_iter().zip(ports) {
                    if let (Some(port), Some(_)) = (port, protocol) {
                        push(&[&format!("{ip}-{option}"), &port.to_string()]);
                    }
                }
            }
            Tool::Nft => {
                for (option, net) in ["saddr", "daddr"].into_iter().zip(addresses) {
                    match net {
                        Some(net @ IpNet::V4(_)) => push(&["ip", option, &written(net)]),
                        Some(net @ IpNet::V6(_)) => push(&["ip6", option, &written(net)]),
                        None => {}
                    }
                }
                let mut is_said = false;
                for (option, port) in ["sport", "dport"].into_iter().zip(ports) {
                    if let (Some(port), Some(protocol)) = (port, protocol) {
                        push(&[protocol, option, &port.to_string()]);
                        is_said = true;
                    }
                }
                if let Some(protocol) = protocol.or(number.as_deref()).filter(|_| !is_said) {
                    push(&["meta", "l4proto", protocol]);
                }
            }
        }
        words
    }

    fn accept_matching(&self, matches: Vec<String>, why: &str) -> Fix {
        let is_policy = self.place == RulePosition::Policy;
        let tool = self.tool.name(self.family);
        // A policy is reached by what no rule caught: the end of the chain is before it.
        let (start, target): (Vec<&str>, &[&str]) = match self.tool {
            Tool::IptablesLegacy | Tool::IptablesNft | Tool::EbtablesLegacy | Tool::EbtablesNft => {
                let command = if is_policy { "-A" } else { "-I" };
                (
                    vec![tool, "-t", &self.table, command, &self.chain],
                    &["-j", "ACCEPT"],
                )
            }
            Tool::Nft => {
                let command = if is_policy { "add" } else { "insert" };
                let family = self.family.name();
                (
                    vec!["nft", command, "rule", family, &self.table, &self.chain],
                    &["accept"],
                )
            }
        };
        let start = start.into_iter().map(str::to_owned);
        let target = target.iter().map(|word| (*word).to_owned());
        Fix::run(start.chain(matches).chain(target), why)
    }
}

impl RuleOwner {
    /// The change that makes the owner let these packets through.
    fn fixes(self, rule: &CandidateRule, flow: &RuleFlow) -> Vec<Fix> {
        if rule.action == Action::NoTrack {
            return vec![self.exemption()];
        }
        match self {
            Self::Ufw => ufw(rule, flow),
            Self::Firewalld => firewalld(flow),
            Self::Docker => docker(rule, flow),
            Self::KubeProxy => kube_proxy(rule),
            Self::Calico => vec![calico(rule, flow)],
            Self::Antrea | Self::Cilium | Self::KubeRouter => vec![policy(self, flow)],
            Self::Flannel => vec![Fix::text(
                "Restart flannel on this node: it accepts the pod network, and writes its rules again when it starts.",
            )],
            Self::Libvirt => vec![Fix::text(format!(
                "Let libvirt forward {flow}: set the forward mode of its network to route or open."
            ))],
            Self::NodeLocalDns => vec![Fix::text(
                "NodeLocal DNSCache keeps this rule: let its DaemonSet run on this node, or remove it from the cluster.",
            )],
        }
    }

    /// Of a rule that exempts packets from conntrack.
    fn exemption(self) -> Fix {
        Fix::text(match self {
            Self::Calico => {
                "Felix keeps this rule: change the policy with doNotTrack, or the FelixConfiguration, that it is made of."
                    .to_owned()
            }
            Self::Cilium => {
                "Cilium keeps this rule: remove the annotation that exempts the pod from conntrack.".to_owned()
            }
            Self::Antrea
            | Self::Docker
            | Self::Firewalld
            | Self::Flannel
            | Self::KubeProxy
            | Self::KubeRouter
            | Self::Libvirt
            | Self::NodeLocalDns
            | Self::Ufw => {
                format!("{self} keeps this rule: change its configuration, or it writes the rule again.")
            }
        })
    }
}

fn ufw(rule: &CandidateRule, flow: &RuleFlow) -> Vec<Fix> {
    let mut words = vec!["ufw"];
    if flow.path == PacketPath::Forward {
        words.push("route");
    }
    // Rules of people's own are tried in their order.
    if rule.chain.contains("-user-") {
        words.extend(["insert", "1"]);
    }
    words.push("allow");
    if flow.path == PacketPath::Out {
        words.push("out");
    }
    let mut words: Vec<String> = words.into_iter().map(str::to_owned).collect();
    let mut push = |word: &str| words.push(word.to_owned());
    if let Some(protocol) = flow.protocol_name() {
        push("proto");
        push(protocol);
    }
    let ends = [
        ("from", flow.source, flow.source_port),
        ("to", flow.destination, flow.destination_port),
    ];
    for (option, net, port) in ends {
        push(option);
        push(&net.map_or_else(|| "any".to_owned(), written));
        if let (Some(port), Some(_)) = (port, flow.protocol_name()) {
            push("port");
            push(&port.to_string());
        }
    }
    vec![Fix::run(words, "ufw keeps this rule, and remembers the new one")]
}

fn firewalld(flow: &RuleFlow) -> Vec<Fix> {
    match (flow.path, flow.protocol_name(), flow.destination_port) {
        (PacketPath::In, Some(protocol), Some(port)) => vec![
            Fix::run(
                [
                    "firewall-cmd".to_owned(),
                    "--permanent".to_owned(),
                    format!("--add-port={port}/{protocol}"),
                ],
                "in the default zone, with --zone in that of the device",
            ),
            Fix::run(["firewall-cmd", "--reload"], "applies it"),
        ],
        (PacketPath::In | PacketPath::Out | PacketPath::Forward, _, _) => vec![Fix::text(format!(
            "Allow {flow} in firewalld: by a policy between the zones, or with the pod network as a source of the zone trusted."
        ))],
    }
}

fn docker(rule: &CandidateRule, flow: &RuleFlow) -> Vec<Fix> {
    if rule.table != "filter" || rule.tool == Tool::Nft {
        return vec![Fix::text(
            "Docker writes this rule again when it starts: allow direct routing to its networks in the daemon's configuration.",
        )];
    }
    // Docker jumps to this chain first, and never writes into it.
    let own = CandidateRule {
        chain: "DOCKER-USER".to_owned(),
        place: RulePosition::Position(1),
        words: None,
        ..rule.clone()
    };
    own.accept(flow)
}

/// The Service's endpoints, for a comment such as `shop/web:http has no endpoints`.
fn kube_proxy(rule: &CandidateRule) -> Vec<Fix> {
    let comments = comments(rule);
    let service = comments.iter().find_map(|comment| {
        let (service, missing) = comment.split_once(" has no ")?;
        missing.contains("endpoints").then_some(service)
    });
    if let Some(service) = service {
        return vec![endpoints(service)];
    }
    let is_invalid = rule.text.contains("INVALID") || rule.text.contains("ct state invalid");
    vec![Fix::text(if is_invalid {
        "kube-proxy drops packets in conntrack state INVALID, such as replies to a request that did not \
         pass this node. Route both directions of the connection through the same node."
    } else {
        "kube-proxy creates this rule for a Service: check its endpoints, traffic policies and \
         loadBalancerSourceRanges."
    })]
}

/// Shows the endpoints of a Service, `namespace/name` or `namespace/name:port`.
pub(crate) fn endpoints(service: &str) -> Fix {
    // A rule's comment may say anything: into a command goes what Kubernetes takes as a name.
    let is_name = |name: &str| {
        name.starts_with(|first: char| first.is_ascii_lowercase() || first.is_ascii_digit())
            && name
                .bytes()
                .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.'))
    };
    let service = service.split(':').next().unwrap_or_default();
    match service.split_once('/') {
        Some((namespace, name)) if is_name(namespace) && is_name(name) => Fix::run(
            ["kubectl", "-n", namespace, "get", "endpoints", name],
            "none is ready, or the selector of the Service matches no pod",
        ),
        Some(_) | None => {
            Fix::text("Check whether the Service's selector matches a pod, and whether one is ready.")
        }
    }
}

fn calico(rule: &CandidateRule, flow: &RuleFlow) -> Fix {
    const POLICIES: [&str; 6] = [
        "cali-tw-",
        "cali-fw-",
        "cali-pi-",
        "cali-po-",
        "cali-pri-",
        "cali-pro-",
    ];
    if POLICIES.iter().any(|start| rule.chain.starts_with(start)) {
        return policy(RuleOwner::Calico, flow);
    }
    let is_vxlan = comments(rule).iter().any(|comment| comment.contains("VXLAN"));
    Fix::text(match (is_vxlan, flow.source) {
        (true, Some(source)) => {
            let set = match rule.family {
                Family::Ip6 => "cali60all-vxlan-net",
                Family::Ip | Family::Inet | Family::Netdev | Family::Bridge => "cali40all-vxlan-net",
            };
            format!(
                "Make {} known to Calico, so that Felix adds it to the ipset {set}: by its Node object, or by externalNodesList in \
                 the FelixConfiguration.",
                written(source)
            )
        }
        (true | false, _) => format!(
            "Allow {flow} by a GlobalNetworkPolicy for this host, or by failsafeInboundHostPorts in the FelixConfiguration."
        ),
    })
}

fn policy(engine: RuleOwner, flow: &RuleFlow) -> Fix {
    Fix::text(format!(
        "Allow {flow} in the NetworkPolicy that selects the pod; {engine} creates this rule from it."
    ))
}
