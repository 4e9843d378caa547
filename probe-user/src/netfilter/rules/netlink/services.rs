//! All Services, out of kube-proxy's chains of type nat: these are read one after the other, and nothing else of them is kept.

use std::{
    collections::{HashSet, VecDeque},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use netlink_packet_core::NLM_F_DUMP;
use netlink_packet_netfilter::nftables::{
    ChainMessage, NfTablesMessage, RuleAttribute, RuleMessage, SetElementList, SetElementMessage,
};

use super::{
    aim::RuleTests,
    dump::{Asked, DumpError},
    expression::{Expression, RuleVerdict, expressions},
    reached::{BaseChains, ChainReader},
    ruleset::{self, Element, NEW_CHAIN, NEW_RULE, NEW_SET_ELEMENT, elements, family_number},
    xt,
};
use crate::{
    model::bypass::service::Service,
    netfilter::{
        link::{Attributes, text},
        rules::Family,
        services::{any, iptables, nft},
    },
};

/// The table of iptables, and the one of kube-proxy's mode nftables.
const NAT: &str = "nat";
const KUBE_PROXY: &str = "kube-proxy";
/// Where kube-proxy's rules for Services begin.
const FIRST: [&str; 2] = ["KUBE-SERVICES", "KUBE-NODEPORTS"];
/// Chains read: more than 65,536 Services of two endpoints have.
const CHAINS: usize = 1 << 18;

/// Services by the rule set that they are in.
#[derive(Debug, Default)]
pub(in crate::netfilter::rules) struct ListedServices {
    pub(in crate::netfilter::rules) iptables: Vec<Service>,
    pub(in crate::netfilter::rules) nft: Vec<Service>,
}

impl ChainReader {
    /// Lists all Services in chains of type nat and in kube-proxy's own tables. If rules change meanwhile, it is partly the former
    /// list; the number of the rules is another then.
    ///
    /// # Errors
    /// When they can't be read.
    pub(in crate::netfilter::rules) fn services(&mut self) -> Result<ListedServices, DumpError> {
        let mut listed = ListedServices::default();
        let (asked, tables) = self.parts();
        asked.restart_slow();
        for table in tables.iter().filter(|table| !table.dormant) {
            let (Family::Ip | Family::Ip6, Some(any)) = (table.family, any(table.family)) else {
                continue;
            };
            match table.name.as_str() {
                NAT => listed.iptables.extend(of_iptables(asked, table, any)?),
                KUBE_PROXY => listed.nft.extend(of_nft(asked, table, any)?),
                _ => {}
            }
        }
        Ok(listed)
    }
}

fn of_iptables(asked: &mut Asked, table: &BaseChains, any: IpAddr) -> Result<Vec<Service>, DumpError> {
    let mut collector = iptables::Collector::default();
    let mut known: HashSet<String> = FIRST.map(str::to_owned).into();
    let mut next: VecDeque<String> = FIRST.map(str::to_owned).into();
    while let Some(chain) = next.pop_front() {
        let request = NfTablesMessage::GetRule(RuleMessage {
            attributes: vec![
                RuleAttribute::Table(table.name.clone()),
                RuleAttribute::Chain(chain.clone()),
            ],
        });
        let result = asked.ask(
            family_number(table.family).into(),
            request,
            NLM_F_DUMP,
            |message| {
                // The kernel (since 4.9) leaves out the rules of other chains; an older one sends all.
                let attributes = message.attributes;
                let is_here = message.kind == NEW_RULE
                    && attributes.is_text(1, &table.name)
                    && attributes.is_text(2, &chain);
                if !is_here {
                    return true;
                }
                let (rule, leads_to) = rule(table.family, &chain, attributes);
                let target = leads_to.as_deref().unwrap_or(rule.target);
                collector.add(&iptables::Rule { target, ..rule }, any);
                if let Some(chain) = leads_to.filter(|chain| iptables::Collector::knows(chain))
                    && known.len() < CHAINS
                    && known.insert(chain.clone())
                {
                    next.push_back(chain);
                }
                true
            },
        );
        absent(result)?;
    }
    Ok(collector.finish())
}

/// What a rule says of a Service, and the chain that it leads to.
fn rule<'a>(
    family: Family,
    chain: &'a str,
    attributes: Attributes<'_>,
) -> (iptables::Rule<'a>, Option<String>) {
    let list = attributes.within(4);
    let tests = RuleTests::of(family, list);
    let mut rule = iptables::Rule {
        chain,
        destination: tests.destination,
        protocol: tests.protocol,
        port: tests
            .ports
            .filter(|(first, last)| first == last)
            .map(|(port, _)| port),
        comment: attributes.get(7).and_then(ruleset::comment).unwrap_or_default(),
        ..iptables::Rule::default()
    };
    let mut leads_to = None;
    for (_, expression) in list.iter() {
        let expression = Attributes(expression);
        let options = expression.within(2);
        match expression.get(1).unwrap_or_default() {
            b"immediate\0" => {
                if let Some(RuleVerdict::Jump(to) | RuleVerdict::Goto(to)) =
                    RuleVerdict::of(options.within(2))
                {
                    leads_to = Some(to);
                }
            }
            b"match\0" if options.is_text(1, "comment") => {
                rule.comment = options.get(3).map(text).unwrap_or_default();
            }
            b"reject\0" => rule.target = "REJECT",
            b"target\0" if options.is_text(1, "REJECT") => rule.target = "REJECT",
            b"target\0" if options.is_text(1, "DNAT") => {
                let target = expressions(list)
                    .into_iter()
                    .find_map(|expression| match expression {
                        Expression::Target(target) => xt::target(family, &target),
                        _ => None,
                    });
                rule.to = target.and_then(|words| words.rsplit(' ').next()?.parse().ok());
            }
            _ => {}
        }
    }
    (rule, leads_to)
}

fn of_nft(asked: &mut Asked, table: &BaseChains, any: IpAddr) -> Result<Vec<Service>, DumpError> {
    let mut collector = nft::Collector::default();
    let family = family_number(table.family);
    let request = NfTablesMessage::GetChain(ChainMessage { attributes: vec![] });
    asked.ask(family.into(), request, NLM_F_DUMP, |message| {
        let attributes = message.attributes;
        if message.kind == NEW_CHAIN
            && message.family == family
            && attributes.is_text(1, &table.name)
            && let Some(name) = attributes.text(3)
        {
            collector.chain(&name);
        }
        true
    })?;
    for map in nft::MAPS {
        let attributes = vec![
            SetElementList::Table(table.name.clone()),
            SetElementList::Set(map.to_owned()),
        ];
        let request = NfTablesMessage::GetSetElement(SetElementMessage { attributes });
        let result = asked.ask(family.into(), request, NLM_F_DUMP, |message| {
            if message.kind == NEW_SET_ELEMENT {
                for element in elements(message.attributes) {
                    if let Some(element) = service(table.family, &element) {
                        collector.element(map, &element, any);
                    }
                }
            }
            true
        });
        absent(result)?;
    }
    Ok(collector.finish())
}

/// An element whose key is address, protocol and port, or protocol and port, each padded to four bytes.
fn service(family: Family, element: &Element) -> Option<nft::Element<'_>> {
    let mut key = element.key.as_slice();
    let mut take = |length: usize| {
        let (taken, rest) = key.split_at_checked(length)?;
        key = rest;
        Some(taken)
    };
    let length = match family {
        Family::Ip6 => 16,
        Family::Ip | Family::Inet | Family::Netdev | Family::Bridge => 4,
    };
    let address = match element.key.len() {
        8 => None,
        _ => Some(take(length)?),
    };
    let address = match (family, address) {
        (_, None) => None,
        (Family::Ip6, Some(address)) => Some(Ipv6Addr::from(*address.first_chunk()?).into()),
        (_, Some(address)) => Some(Ipv4Addr::from(*address.first_chunk()?).into()),
    };
    let (protocol, port) = (*take(4)?.first()?, u16::from_be_bytes(*take(4)?.first_chunk()?));
    key.is_empty().then_some(nft::Element {
        address,
        protocol,
        port,
        target: match &element.verdict {
            Some(RuleVerdict::Jump(chain) | RuleVerdict::Goto(chain)) => Some(chain),
            Some(_) | None => None,
        },
        comment: element.comment.as_deref(),
    })
}

/// A chain or a map that is not there has nothing of a Service.
fn absent(result: Result<(), DumpError>) -> Result<(), DumpError> {
    match result {
        Err(DumpError::Io(error)) if error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        result => result,
    }
}
