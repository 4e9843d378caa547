//! Why a packet was dropped, by what its network namespace is set to: Services, conntrack's table, routes.

use std::net::SocketAddr;

use super::{
    event::{Event, Tracking, What},
    journey::{Hop, Journey},
    reason,
};
use crate::{finding::Fix, network::RouteKind, routing::PolicyRule, rule::endpoints};

/// What the kernel's reason for a drop does not say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DropCause {
    /// kube-proxy's rule for a Service that has nothing behind it.
    NoEndpoints {
        /// `shop/web:http`
        service: String,
        /// It has none on this node, and wants no others (externalTrafficPolicy or internalTrafficPolicy: Local).
        local: bool,
    },
    /// kube-proxy's rule for what comes from outside a Service's loadBalancerSourceRanges.
    SourceRanges { service: String },
    /// kube-proxy's rule for marked packets; an earlier rule of it set the mark.
    Marked { service: Option<String> },
    /// its conntrack state is INVALID.
    Invalid,
    /// conntrack could not insert its entry: the addresses and ports that it would have are another's.
    InsertFailed {
        /// As it would have left.
        source: SocketAddr,
        destination: SocketAddr,
        /// NAT gave it that source.
        translated: bool,
        /// The client of the connection that has them.
        taken_by: Option<SocketAddr>,
        /// How often it failed here, since it is counted.
        failed: u64,
    },
    /// conntrack's table is full.
    TableFull { entries: u64, room: u64 },
    /// The route that is there refuses it.
    Route(RouteKind),
    /// A routing rule (`ip rule`) refuses it, before any route.
    Rule(PolicyRule),
    /// It would leave the bridge by the port that it came by.
    Hairpin { port: String },
}

impl DropCause {
    /// What the text of a rule that dropped a packet says of it, where kube-proxy made it; `tracking`: conntrack's state of the
    /// packet.
    pub fn of_rule(rule: &str, tracking: Tracking) -> Option<Self> {
        let comment = comment(rule).unwrap_or_default();
        if let Some((service, rest)) = comment.split_once(" has no ") {
            let local = rest.starts_with("local endpoints");
            return (local || rest.starts_with("endpoints")).then(|| Self::NoEndpoints {
                service: service.to_owned(),
                local,
            });
        }
        if let Some((service, _)) = comment.split_once(" traffic not accepted by KUBE-FW-") {
            return Some(Self::SourceRanges {
                service: service.to_owned(),
            });
        }
        if rule.contains("KUBE-FIREWALL") && comment.contains("dropping marked packets") {
            return Some(Self::Marked { service: None });
        }
        (tracking == Tracking::None && asks_for_invalid(rule)).then_some(Self::Invalid)
    }

    /// Why it was dropped.
    pub(super) fn words(&self) -> String {
        match self {
            Self::NoEndpoints {
                service,
                local: false,
            } => format!("Service {service} has no endpoints"),
            Self::NoEndpoints { service, local: true } => {
                format!(
                    "Service {service} has no local endpoints: none on this node, and its traffic policy is Local"
                )
            }
            Self::SourceRanges { service } => {
                format!("its source is outside the loadBalancerSourceRanges of Service {service}")
            }
            Self::Marked { service } => format!(
                "kube-proxy marked it to be dropped: {} has no local endpoints, or does not accept its source",
                service.as_ref().map_or_else(
                    || "its Service".to_owned(),
                    |service| format!("Service {service}")
                )
            ),
            Self::Invalid => "its conntrack state is INVALID".to_owned(),
            Self::InsertFailed {
                source,
                destination,
                translated: true,
                taken_by,
                failed,
            } => {
                let taken = match taken_by {
                    Some(client) => format!(", which {client} has"),
                    None => String::new(),
                };
                format!(
                    "conntrack could not insert its entry: NAT found no free source port towards {destination}, and tried \
                     {source}{taken}{}",
                    times(*failed)
                )
            }
            Self::InsertFailed {
                source,
                destination,
                translated: false,
                failed,
                ..
            } => format!(
                "conntrack could not insert its entry: another packet from {source} to {destination} came first{}",
                times(*failed)
            ),
            Self::TableFull { entries, room } => {
                format!("conntrack's table is full ({entries} of {room} entries)")
            }
            Self::Route(kind) => format!("the route is of type {}", kind.name()),
            Self::Rule(rule) => format!("routing rule {} ({rule}) rejects it", rule.priority),
            Self::Hairpin { port } => format!(
                "it would go back to the pod that sent it, by bridge port {port}, which has hairpin mode off"
            ),
        }
    }

    /// How to undo it, the best first. They replace those of the rule that dropped the packet: it is not the cause.
    pub(super) fn fixes(&self) -> Vec<Fix> {
        match self {
            Self::NoEndpoints {
                service,
                local: false,
            } => vec![endpoints(service)],
            Self::NoEndpoints { local: true, .. } => vec![Fix::text(
                "Run a pod of the Service on this node, or set its traffic policy to Cluster.",
            )],
            Self::SourceRanges { .. } => vec![Fix::text(
                "Add the source to the Service's loadBalancerSourceRanges.",
            )],
            Self::Marked { .. } => vec![Fix::text(
                "Check whether the Service has a pod on this node, its traffic policies and its loadBalancerSourceRanges.",
            )],
            Self::Invalid => vec![Fix::text(
                "Route both directions of the connection through this node, or neither. The rule is not the cause: without it \
                 the packet would still not be translated.",
            )],
            Self::InsertFailed { translated: true, .. } => vec![Fix::text(
                "Give NAT more source ports towards that server: a wider port range of the rule (--to-ports), more addresses, or \
                 fewer idle connections. A larger conntrack table does not help.",
            )],
            Self::InsertFailed {
                translated: false, ..
            } => vec![Fix::text(
                "Set single-request-reopen or use-vc in the pods' dnsConfig if this is DNS, or run NodeLocal DNSCache.",
            )],
            Self::TableFull { room, .. } => vec![Fix::run(
                [
                    "sysctl".to_owned(),
                    "-w".to_owned(),
                    format!("net.netfilter.nf_conntrack_max={}", room.saturating_mul(2)),
                ],
                "permanently by conntrack.maxPerCore of kube-proxy, which sets it",
            )],
            Self::Route(kind) => vec![Fix::run(
                ["ip", "route", "show", "table", "all", "type", kind.name()],
                "lists such routes, remove it with the program that added it",
            )],
            Self::Rule(rule) => rule.fixes(),
            Self::Hairpin { port } => vec![
                Fix::run(
                    ["bridge", "link", "set", "dev", port, "hairpin", "on"],
                    "until the pod is made anew",
                ),
                Fix::text(
                    "For new pods set hairpinMode (flannel, bridge plugin) to true in the CNI configuration.",
                ),
            ],
        }
    }
}

fn times(failed: u64) -> String {
    match failed {
        0 => String::new(),
        failed => format!(" (insert_failed {failed})"),
    }
}

/// The comment of a rule, as iptables-save and nft print it.
fn comment(rule: &str) -> Option<&str> {
    let (_, rest) = rule
        .split_once("--comment ")
        .or_else(|| rule.split_once(" comment "))?;
    match rest.strip_prefix('"') {
        Some(quoted) => quoted.split('"').next(),
        None => rest.split_whitespace().next(),
    }
}

/// Whether only packets that conntrack calls INVALID meet it.
pub fn asks_for_invalid(rule: &str) -> bool {
    let before_comment = rule.split(" comment \"").next().unwrap_or_default();
    let words: Vec<_> = before_comment.split_whitespace().collect();
    words.iter().enumerate().any(|(at, word)| {
        let is_negated = at.checked_sub(1).and_then(|before| words.get(before)) == Some(&"!");
        let value = words.get(at + 1).copied().unwrap_or_default();
        match *word {
            "--ctstate" | "--state" => !is_negated && value == "INVALID",
            // nft: `ct state invalid drop`
            "state" => {
                value == "invalid" && at.checked_sub(1).and_then(|before| words.get(before)) == Some(&"ct")
            }
            _ => false,
        }
    })
}

impl Hop {
    /// Whether a rule that asks for INVALID can't have met the packet: conntrack knows it.
    pub fn is_known_to_conntrack(&self) -> bool {
        self.event.tracking != Tracking::None
    }
}

impl Journey {
    /// The bridge port, where a packet that was sent back to its own sender found no way out of the bridge: a pod that dials a
    /// Service which has the pod itself behind it (`should_deliver()` in `br_forward()`).
    pub fn hairpin(&self, at: usize) -> Option<DropCause> {
        let event = &self.hops.get(at)?.event;
        let What::Dropped {
            at: Some(function), ..
        } = &event.what
        else {
            return None;
        };
        let is_bridges = matches!(
            reason::plain(function),
            "br_handle_frame_finish" | "br_forward" | "__br_forward" | "br_flood"
        );
        let is_own = event.packet.source.ip() == event.packet.destination.ip();
        let port = event.device.as_ref().filter(|_| is_bridges && is_own)?;
        Some(DropCause::Hairpin {
            port: port.name.clone(),
        })
    }

    /// What NAT did to the source in the network namespace of a hop: the source before.
    pub fn source_before(&self, at: usize) -> Option<SocketAddr> {
        let here: &Event = &self.hops.get(at)?.event;
        let before = self
            .hops
            .get(..at)?
            .iter()
            .find(|hop| hop.event.netns == here.netns)?
            .event
            .packet
            .source;
        (before != here.packet.source).then_some(before)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_of_rules() {
        let service = |service: &str, local| {
            Some(DropCause::NoEndpoints {
                service: service.to_owned(),
                local,
            })
        };
        for (rule, tracking, expected) in [
            (
                r#"-A KUBE-SERVICES -d 10.96.0.60/32 -p tcp -m comment --comment "shop/empty:http has no endpoints" -m tcp --dport 80 -j REJECT"#,
                Tracking::New,
                service("shop/empty:http", false),
            ),
            (
                r#"-A KUBE-EXTERNAL-SERVICES -p tcp -m comment --comment "shop/local:http has no local endpoints" -j DROP"#,
                Tracking::New,
                service("shop/local:http", true),
            ),
            (
                r#"ip daddr 10.96.0.60 tcp dport 80 reject comment "shop/empty:http has no endpoints""#,
                Tracking::New,
                service("shop/empty:http", false),
            ),
            (
                r#"-A KUBE-PROXY-FIREWALL -d 1.2.3.4/32 -m comment --comment "shop/lb:http traffic not accepted by KUBE-FW-ABC" -j DROP"#,
                Tracking::New,
                Some(DropCause::SourceRanges {
                    service: "shop/lb:http".to_owned(),
                }),
            ),
            (
                r#"-A KUBE-FIREWALL -m comment --comment "kubernetes firewall for dropping marked packets" -m mark --mark 0x8000/0x8000 -j DROP"#,
                Tracking::New,
                Some(DropCause::Marked { service: None }),
            ),
            (
                "-A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP",
                Tracking::None,
                Some(DropCause::Invalid),
            ),
            // conntrack knows it.
            (
                "-A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP",
                Tracking::New,
                None,
            ),
            (
                "-A FORWARD -m state --state INVALID -j DROP",
                Tracking::None,
                Some(DropCause::Invalid),
            ),
            (
                "-A FORWARD -m conntrack ! --ctstate INVALID -j DROP",
                Tracking::None,
                None,
            ),
            (
                "-A FORWARD -m conntrack --ctstate INVALID,NEW -j DROP",
                Tracking::None,
                None,
            ),
            (
                "ct state invalid counter drop",
                Tracking::None,
                Some(DropCause::Invalid),
            ),
            (
                "ct state new drop comment \"ct state invalid drop\"",
                Tracking::None,
                None,
            ),
            (
                "-A FORWARD -m comment --comment \"nobody has no idea\" -j DROP",
                Tracking::New,
                None,
            ),
            ("-A FORWARD -j DROP", Tracking::None, None),
        ] {
            assert_eq!(DropCause::of_rule(rule, tracking), expected, "{rule}");
        }
    }
    #[test]
    fn fixes_are_for_the_cause() {
        let service = || "shop/web:http".to_owned();
        for (cause, expected) in [
            (
                DropCause::NoEndpoints {
                    service: service(),
                    local: false,
                },
                "kubectl -n shop get endpoints web  #",
            ),
            (
                DropCause::NoEndpoints {
                    service: service(),
                    local: true,
                },
                "Run a pod of the Service on this node",
            ),
            (
                DropCause::SourceRanges { service: service() },
                "Add the source to the Service's loadBalancerSourceRanges",
            ),
            (
                DropCause::Marked { service: None },
                "Check whether the Service has a pod on this node",
            ),
            (DropCause::Invalid, "Route both directions"),
            (
                DropCause::TableFull { entries: 9, room: 9 },
                "sysctl -w net.netfilter.nf_conntrack_max=18  #",
            ),
            (
                DropCause::Route(RouteKind::Blackhole),
                "ip route show table all type blackhole  #",
            ),
            (
                DropCause::Rule(PolicyRule {
                    rejects: Some(RouteKind::Prohibit),
                    ..PolicyRule::default()
                }),
                "ip rule show  #",
            ),
            (
                DropCause::Hairpin {
                    port: "veth2".to_owned(),
                },
                "bridge link set dev veth2 hairpin on  #",
            ),
        ] {
            let fixes = cause.fixes();
            let first = fixes.first().map(ToString::to_string).unwrap_or_default();
            assert!(first.starts_with(expected), "{cause:?}: {first}");
        }
    }
}
