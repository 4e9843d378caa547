//! Routing policy: rules (`ip rule`) that choose the table, and what they do to a packet.

use std::{
    fmt::{self, Display, Formatter},
    net::IpAddr,
};

use ipnet::IpNet;

use crate::{finding::Fix, network::RouteKind};

/// Tables that every host has: default, main, local.
pub const MAIN: u32 = 254;
const OWN: std::ops::RangeInclusive<u32> = 253..=255;

/// What the kernel routes by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteQuery {
    /// `None`: whatever the kernel takes.
    pub source: Option<IpAddr>,
    pub destination: IpAddr,
    pub mark: u32,
    /// Index and name of the device it came by; `None`: it is made here.
    pub input: Option<(u32, String)>,
}

impl RouteQuery {
    /// Of packets that the node itself sends.
    pub fn of_node(source: Option<IpAddr>, destination: IpAddr) -> Self {
        Self {
            source,
            destination,
            mark: 0,
            input: None,
        }
    }
}

/// A rule that chooses a table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PolicyRule {
    pub priority: u32,
    /// It is for all others.
    pub inverted: bool,
    pub source: Option<IpNet>,
    pub destination: Option<IpNet>,
    /// Value and mask.
    pub mark: Option<(u32, u32)>,
    pub input: Option<String>,
    pub output: Option<String>,
    /// It rejects packets; else it chooses a table.
    pub rejects: Option<RouteKind>,
    pub table: u32,
    /// It asks for more, such as ports or a user.
    pub more: bool,
    pub v6: bool,
}

impl PolicyRule {
    /// Whoever made it changes it. `ip rule` deletes by all its words, which may be of others, too.
    pub fn fixes(&self) -> Vec<Fix> {
        vec![
            Fix::run(["ip", "rule", "show"], "lists the rule"),
            Fix::text("Find what made the routing rule, and exempt the pod network there."),
        ]
    }

    /// Whether it may be the one that a packet met.
    fn fits(&self, query: &RouteQuery) -> bool {
        let within = |net: Option<IpNet>, address: Option<IpAddr>| {
            net.is_none_or(|net| address.is_some_and(|address| net.contains(&address)))
        };
        let input = query.input.as_ref().map(|(_, name)| name.as_str());
        let all = within(self.source, query.source)
            && within(self.destination, Some(query.destination))
            && self.mark.is_none_or(|(value, mask)| query.mark & mask == value)
            // What is made here comes by the loopback device, to rules.
            && self.input.as_deref().is_none_or(|name| name == input.unwrap_or("lo"))
            && self.output.is_none();
        self.v6 == query.destination.is_ipv6() && all != self.inverted
    }
}

/// As `ip rule` prints it behind the priority.
impl Display for PolicyRule {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let net = |net: IpNet| match net.prefix_len() == net.max_prefix_len() {
            true => net.addr().to_string(),
            false => net.to_string(),
        };
        if self.inverted {
            f.write_str("not ")?;
        }
        write!(f, "from {}", self.source.map_or_else(|| "all".to_owned(), net))?;
        if let Some(destination) = self.destination {
            write!(f, " to {}", net(destination))?;
        }
        match self.mark {
            Some((value, u32::MAX)) => write!(f, " fwmark {value:#x}")?,
            Some((value, mask)) => write!(f, " fwmark {value:#x}/{mask:#x}")?,
            None => {}
        }
        for (word, device) in [("iif", &self.input), ("oif", &self.output)] {
            if let Some(device) = device {
                write!(f, " {word} {device}")?;
            }
        }
        match self.rejects {
            Some(kind) => write!(f, " {}", kind.name()),
            None => write!(f, " lookup {}", self.table),
        }
    }
}

/// A routing policy rule, and where it leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyRoute {
    pub priority: u32,
    /// As `ip rule` prints it behind the priority: `from 192.168.99.11 lookup 30400`.
    pub rule: String,
    pub table: u32,
    /// The device that the packet leaves by.
    pub device: String,
    /// The one that table main has for it.
    pub main: Option<String>,
}

impl PolicyRoute {
    /// Where it leads, and where table main would.
    pub fn words(&self) -> String {
        let main = match &self.main {
            Some(device) => format!("table main has {device}"),
            None => "table main has no route".to_owned(),
        };
        format!(
            "routing rule {} ({}) sends it out by {}, where {main}",
            self.priority, self.rule, self.device
        )
    }

    /// Whoever keeps the rule changes it.
    pub fn fixes(&self) -> Vec<Fix> {
        /// Priorities of NetworkManager's nm-cloud-setup.
        const CLOUD_SETUP: std::ops::RangeInclusive<u32> = 30200..=30999;
        let show = |why: &str| {
            Fix::run(
                ["ip", "route", "show", "table", &self.table.to_string()],
                why.to_owned(),
            )
        };
        if CLOUD_SETUP.contains(&self.priority) {
            return vec![
                Fix::run(
                    [
                        "systemctl",
                        "disable",
                        "--now",
                        "nm-cloud-setup.service",
                        "nm-cloud-setup.timer",
                    ],
                    "if NetworkManager's nm-cloud-setup added the rule, as its priority suggests; then \
                     reboot",
                ),
                show("the routes that the rule uses"),
            ];
        }
        vec![
            show("the routes that the rule uses"),
            Fix::text("Find what added the routing rule, and exempt the pod network there."),
        ]
    }
}

/// The rule that sent a packet another way than table main would have, if one did. `sent`: the device that it left by and the table that has
/// the route; `main`: the device that table main has for it.
pub fn policy(
    query: &RouteQuery,
    (device, table): (u32, u32),
    main: Option<u32>,
    rules: &[PolicyRule],
    name: impl Fn(u32) -> Option<String>,
) -> Option<PolicyRoute> {
    if OWN.contains(&table) || main == Some(device) {
        return None;
    }
    let mut rules: Vec<_> = rules
        .iter()
        .filter(|rule| rule.rejects.is_none() && rule.table == table && rule.fits(query))
        .collect();
    // Lower goes first; one that is understood whole before one that is not.
    rules.sort_by_key(|rule| (rule.more, rule.priority));
    let rule = rules.first()?;
    Some(PolicyRoute {
        priority: rule.priority,
        rule: rule.to_string(),
        table: rule.table,
        device: name(device)?,
        main: main.and_then(name),
    })
}

/// The rule that rejected a packet, where a rule did, and not a route.
pub fn rejection(query: &RouteQuery, kind: RouteKind, rules: &[PolicyRule]) -> Option<PolicyRule> {
    let fits = |rule: &&PolicyRule| rule.rejects == Some(kind) && !rule.more && rule.fits(query);
    rules
        .iter()
        .filter(fits)
        .min_by_key(|rule| rule.priority)
        .cloned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(priority: u32, source: Option<&str>, table: u32) -> PolicyRule {
        PolicyRule {
            priority,
            source: source.map(|net| net.parse().unwrap()),
            table,
            ..PolicyRule::default()
        }
    }

    #[test]
    fn which_rule_sent_it() {
        const ETH0: u32 = 2;
        const CNI0: u32 = 5;
        let query = RouteQuery {
            source: Some("192.168.0.11".parse().unwrap()),
            destination: "10.77.1.2".parse().unwrap(),
            mark: 0x10,
            input: None,
        };
        let name = |index| Some(if index == ETH0 { "eth0" } else { "cni0" }.to_owned());
        let told = |table, device, rules: &[PolicyRule]| {
            policy(&query, (device, table), Some(CNI0), rules, name)
                .map(|found| format!("{}: {}", found.priority, found.rule))
        };
        let own = || rule(30400, Some("192.168.0.11/32"), 30400);
        let others = || rule(30300, Some("192.168.0.12/32"), 30400);
        let expected = Some("30400: from 192.168.0.11 lookup 30400".to_owned());
        assert_eq!(told(30400, ETH0, &[others(), own()]), expected);
        // Table main, or as table main.
        assert_eq!(told(254, ETH0, &[own()]), None);
        assert_eq!(told(30400, CNI0, &[own()]), None);
        assert_eq!(told(30400, ETH0, &[others()]), None);
        for (change, expected) in [
            (
                PolicyRule {
                    mark: Some((0x10, 0xf0)),
                    ..rule(100, None, 7)
                },
                Some("100: from all fwmark 0x10/0xf0 lookup 7"),
            ),
            (
                PolicyRule {
                    mark: Some((0x20, u32::MAX)),
                    inverted: true,
                    ..rule(100, None, 7)
                },
                Some("100: not from all fwmark 0x20 lookup 7"),
            ),
            (
                PolicyRule {
                    mark: Some((0x20, u32::MAX)),
                    ..rule(100, None, 7)
                },
                None,
            ),
            (
                PolicyRule {
                    input: Some("lo".to_owned()),
                    destination: Some("10.77.0.0/16".parse().unwrap()),
                    ..rule(100, None, 7)
                },
                Some("100: from all to 10.77.0.0/16 iif lo lookup 7"),
            ),
            (
                PolicyRule {
                    input: Some("eth1".to_owned()),
                    ..rule(100, None, 7)
                },
                None,
            ),
            (
                PolicyRule {
                    v6: true,
                    ..rule(100, None, 7)
                },
                None,
            ),
        ] {
            assert_eq!(told(7, ETH0, &[change]), expected.map(str::to_owned));
        }
    }

    #[test]
    fn rules_that_reject() {
        let query = RouteQuery {
            source: Some("10.77.1.2".parse().unwrap()),
            destination: "10.77.2.2".parse().unwrap(),
            mark: 0,
            input: Some((5, "cni0".to_owned())),
        };
        let to = |priority, net: &str, rejects| PolicyRule {
            destination: Some(net.parse().unwrap()),
            rejects,
            ..rule(priority, None, 0)
        };
        let (prohibit, blackhole) = (Some(RouteKind::Prohibit), Some(RouteKind::Blackhole));
        for (name, rules, expected) in [
            ("none", vec![rule(1, None, MAIN)], None),
            (
                "the first",
                vec![
                    to(900, "10.77.2.0/24", prohibit),
                    to(800, "10.77.0.0/16", prohibit),
                ],
                Some("from all to 10.77.0.0/16 prohibit"),
            ),
            ("to others", vec![to(900, "10.77.3.0/24", prohibit)], None),
            (
                "another way of rejecting",
                vec![to(900, "10.77.2.0/24", blackhole)],
                None,
            ),
        ] {
            let found = rejection(&query, RouteKind::Prohibit, &rules);
            assert_eq!(found.map(|rule| rule.to_string()).as_deref(), expected, "{name}");
        }
        // It chooses no table.
        let rules = [to(900, "10.77.2.0/24", prohibit)];
        assert_eq!(
            policy(&query, (2, 0), None, &rules, |_| Some("eth0".to_owned())),
            None
        );
    }
}
