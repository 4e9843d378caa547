//! Routing policy: the rules that choose a table, and the packets that they send another way than table main.

use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    route::{RouteAddress, RouteAttribute, RouteMessage, RouteType},
    rule::{RuleAction, RuleAttribute, RuleFlags, RuleMessage},
};

use super::{
    RouteError, Routing,
    lookup::{family, found},
};
use crate::model::{
    network::{RouteKind, RouteLookup},
    routing::{MAIN, PolicyRoute, PolicyRule, RouteQuery, policy, rejection},
};

impl Routing {
    /// The rule that rejects a packet, if one does, and table main would not.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub fn rejection(&mut self, query: &RouteQuery) -> Result<Option<PolicyRule>, RouteError> {
        let RouteLookup::Rejected(kind) = self.lookup(query)? else {
            return Ok(None);
        };
        if self.by_main(query.destination)?.is_none() {
            return Ok(None);
        }
        Ok(rejection(query, kind, &self.policy_rules()?))
    }

    /// The rules that choose a table, or reject.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub fn policy_rules(&mut self) -> Result<Vec<PolicyRule>, RouteError> {
        let mut rules = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut ask = RuleMessage::default();
            ask.header.family = family;
            self.dump("rules", RouteNetlinkMessage::GetRule(ask), |message| {
                if let RouteNetlinkMessage::NewRule(message) = message {
                    rules.extend(rule(&message));
                }
            })?;
        }
        Ok(rules)
    }

    /// The device that table main has for an address.
    fn by_main(&mut self, destination: IpAddr) -> Result<Option<u32>, RouteError> {
        let mut best: Option<(u8, u32, u32)> = None;
        let mut ask = RouteMessage::default();
        ask.header.address_family = family(destination);
        self.dump("routes", RouteNetlinkMessage::GetRoute(ask), |message| {
            let RouteNetlinkMessage::NewRoute(message) = message else {
                return;
            };
            if table(&message) != MAIN || message.header.kind != RouteType::Unicast {
                return;
            }
            let (mut to, mut device, mut metric) = (None, None, 0);
            for attribute in &message.attributes {
                match attribute {
                    RouteAttribute::Destination(RouteAddress::Inet(v4)) => to = Some(IpAddr::from(*v4)),
                    RouteAttribute::Destination(RouteAddress::Inet6(v6)) => to = Some(IpAddr::from(*v6)),
                    RouteAttribute::Oif(index) => device = Some(*index),
                    RouteAttribute::Priority(priority) => metric = *priority,
                    RouteAttribute::MultiPath(hops) => {
                        device = device.or_else(|| hops.first().map(|hop| hop.interface_index));
                    }
                    _ => {}
                }
            }
            let length = message.header.destination_prefix_length;
            let fits = match to {
                None => length == 0,
                Some(to) => IpNet::new(to, length).is_ok_and(|net| net.contains(&destination)),
            };
            let (true, Some(device)) = (fits, device) else {
                return;
            };
            if best.is_none_or(|(longest, least, _)| {
                (length, std::cmp::Reverse(metric)) > (longest, std::cmp::Reverse(least))
            }) {
                best = Some((length, metric, device));
            }
        })?;
        Ok(best.map(|(_, _, device)| device))
    }

    /// The rule that sends a packet another way than table main would, if one does.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub fn detour(&mut self, query: &RouteQuery) -> Result<Option<(u32, PolicyRoute)>, RouteError> {
        // Without a route that sends it on, no rule sent it another way.
        let Ok(route) = self.route(query) else {
            return Ok(None);
        };
        let is_refused = matches!(found(&route), RouteLookup::Rejected(_));
        let table = table(&route);
        let Some(device) = output(&route).filter(|_| !is_refused && table != MAIN) else {
            return Ok(None);
        };
        let main = self.by_main(query.destination)?;
        let rules = self.policy_rules()?;
        let devices = self.devices()?;
        let name = |index: u32| {
            let device = devices.iter().find(|device| device.index == index)?;
            Some(device.name.clone())
        };
        Ok(policy(query, (device, table), main, &rules, name).map(|route| (device, route)))
    }
}

fn table(message: &RouteMessage) -> u32 {
    let named = message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Table(table) => Some(*table),
        _ => None,
    });
    named.unwrap_or_else(|| message.header.table.into())
}

fn output(message: &RouteMessage) -> Option<u32> {
    message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Oif(index) => Some(*index),
        _ => None,
    })
}

fn rule(message: &RuleMessage) -> Option<PolicyRule> {
    let header = &message.header;
    let rejects = match header.action {
        RuleAction::ToTable => None,
        RuleAction::Blackhole => Some(RouteKind::Blackhole),
        RuleAction::Unreachable => Some(RouteKind::Unreachable),
        RuleAction::Prohibit => Some(RouteKind::Prohibit),
        // Others choose nothing, or the next rule.
        _ => return None,
    };
    let mut found = PolicyRule {
        inverted: header.flags.contains(RuleFlags::Invert),
        rejects,
        table: header.table.into(),
        more: header.tos != 0,
        v6: header.family == AddressFamily::Inet6,
        ..PolicyRule::default()
    };
    let (mut mark, mut mask) = (None, u32::MAX);
    for attribute in &message.attributes {
        match attribute {
            RuleAttribute::Source(address) => found.source = IpNet::new(*address, header.src_len).ok(),
            RuleAttribute::Destination(address) => {
                found.destination = IpNet::new(*address, header.dst_len).ok();
            }
            RuleAttribute::Priority(priority) => found.priority = *priority,
            RuleAttribute::Table(table) => found.table = *table,
            RuleAttribute::FwMark(value) => mark = Some(*value),
            RuleAttribute::FwMask(value) => mask = *value,
            RuleAttribute::Iifname(name) => found.input = Some(name.clone()),
            RuleAttribute::Oifname(name) => found.output = Some(name.clone()),
            RuleAttribute::UidRange(_)
            | RuleAttribute::IpProtocol(_)
            | RuleAttribute::SourcePortRange(_)
            | RuleAttribute::DestinationPortRange(_)
            | RuleAttribute::TunId(_) => found.more = true,
            _ => {}
        }
    }
    found.mark = mark.map(|value| (value, mask));
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_and_the_device_of_an_answer() {
        let mut answer = RouteMessage::default();
        answer.header.kind = RouteType::Unicast;
        answer.header.table = 252;
        answer.attributes = vec![RouteAttribute::Oif(4), RouteAttribute::Table(30400)];
        assert_eq!((output(&answer), table(&answer)), (Some(4), 30400));
    }

    #[test]
    fn rules_of_the_kernel() {
        let mut message = RuleMessage::default();
        message.header.family = AddressFamily::Inet;
        message.header.action = RuleAction::ToTable;
        message.header.src_len = 24;
        message.attributes = vec![
            RuleAttribute::Source("10.1.2.0".parse().unwrap()),
            RuleAttribute::Priority(100),
            RuleAttribute::Table(7),
            RuleAttribute::FwMark(1),
            RuleAttribute::FwMask(0xff),
        ];
        assert_eq!(
            rule(&message).unwrap().to_string(),
            "from 10.1.2.0/24 fwmark 0x1/0xff lookup 7"
        );
        message.header.action = RuleAction::Prohibit;
        assert_eq!(
            rule(&message).unwrap().to_string(),
            "from 10.1.2.0/24 fwmark 0x1/0xff prohibit"
        );
        message.header.action = RuleAction::Goto;
        assert_eq!(rule(&message), None);
    }

    /// Of the machine that runs the tests.
    #[test]
    fn what_the_kernel_answers() {
        let mut routing = Routing::open().unwrap();
        let loopback = RouteQuery::of_node(None, "127.0.0.1".parse().unwrap());
        let answer = routing.route(&loopback).unwrap();
        // Without rules of its own a host has both in one.
        assert!(matches!(table(&answer), 254 | 255), "{answer:?}");
        assert_eq!(routing.detour(&loopback).unwrap(), None);
        assert!(
            routing
                .policy_rules()
                .unwrap()
                .iter()
                .any(|rule| rule.table == MAIN)
        );
    }
}
