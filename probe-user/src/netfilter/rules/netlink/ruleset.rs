//! The kernel's messages about tables, chains, rules and sets, with what is in them.

use std::collections::HashMap;

use netlink_packet_core::NetlinkBuffer;

use super::expression::{Expression, RuleVerdict, expressions};
use crate::netfilter::{
    link::{Attributes, text},
    rules::{Family, model::Hook},
};

/// Of nf_tables, in the upper byte of a message's type.
const SUBSYSTEM: u16 = 10 << 8;
pub(super) const NEW_TABLE: u16 = SUBSYSTEM;
pub(super) const NEW_CHAIN: u16 = SUBSYSTEM | 3;
pub(super) const NEW_RULE: u16 = SUBSYSTEM | 6;
pub(super) const NEW_SET: u16 = SUBSYSTEM | 9;
pub(super) const NEW_SET_ELEMENT: u16 = SUBSYSTEM | 0x0c;
pub(super) const NEW_GENERATION: u16 = SUBSYSTEM | 0x0f;

/// A message of nf_tables.
#[derive(Debug, Clone, Copy)]
pub(super) struct Message<'a> {
    pub(super) kind: u16,
    pub(super) family: u8,
    pub(super) attributes: Attributes<'a>,
    /// With its header and padding.
    pub(super) whole: &'a [u8],
}

/// Messages that follow one another, up to one that is malformed.
pub(super) fn messages(mut bytes: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let message = NetlinkBuffer::new_checked(bytes).ok()?;
        let length = usize::try_from(message.length()).ok()?;
        let (whole, behind) = bytes.split_at(length.next_multiple_of(4).min(bytes.len()));
        bytes = behind;
        // Of netfilter's own header, the family is the first of four bytes.
        let (header, attributes) = message.payload().split_at_checked(4)?;
        Some(Message {
            kind: message.message_type(),
            family: *header.first()?,
            attributes: Attributes(attributes),
            whole,
        })
    })
}

#[derive(Debug)]
pub(super) struct Table {
    pub(super) family: Family,
    pub(super) name: String,
    pub(super) dormant: bool,
    /// It has chains that are left out here and that iptables-nft would not show.
    pub(super) is_foreign: bool,
    pub(super) chains: Vec<Chain>,
    pub(super) sets: HashMap<String, Set>,
}

#[derive(Debug)]
pub(super) struct Chain {
    pub(super) name: String,
    pub(super) base: Option<Base>,
    pub(super) rules: Vec<Rule>,
}

#[derive(Debug, Clone)]
pub(super) struct Base {
    pub(super) hook: Hook,
    pub(super) priority: i32,
    /// `filter`, `nat` or `route`.
    pub(super) kind: String,
    pub(super) drops: bool,
    /// Packets and bytes.
    pub(super) counted: (u64, u64),
    /// Names, with a star behind one that is the beginning of several.
    pub(super) devices: Vec<String>,
}

#[derive(Debug)]
pub(super) struct Rule {
    /// In its chain, from 1 on.
    pub(super) position: u32,
    pub(super) handle: u64,
    pub(super) expressions: Vec<Expression>,
    pub(super) comment: Option<String>,
}

#[derive(Debug, Default)]
pub(super) struct Set {
    flags: u32,
    /// In bytes.
    pub(super) key_length: u32,
    pub(super) elements: Vec<Element>,
}

impl Set {
    /// Takes what the kernel's message says of the set itself.
    pub(super) fn describe(&mut self, attributes: Attributes<'_>) {
        self.flags = attributes.number(3).unwrap_or_default();
        self.key_length = attributes.number(5).unwrap_or_default();
    }

    /// Made for one rule, which has it in its text.
    pub(super) fn is_anonymous(&self) -> bool {
        self.flags & 1 != 0
    }

    /// Of intervals; each begins with an element and ends before the next one that says so, if not given as a pair.
    pub(super) fn has_intervals(&self) -> bool {
        self.flags & 4 != 0
    }

    pub(super) fn is_map(&self) -> bool {
        self.flags & 8 != 0
    }

    pub(super) fn has_timeout(&self) -> bool {
        self.flags & 16 != 0
    }

    /// Rules put elements in.
    pub(super) fn is_dynamic(&self) -> bool {
        self.flags & 32 != 0
    }
}

#[derive(Debug, Clone)]
pub(super) struct Element {
    pub(super) key: Vec<u8>,
    /// The last one, where both are given.
    pub(super) key_end: Option<Vec<u8>>,
    /// It is no element, but where an interval has ended.
    pub(super) ends: bool,
    /// For whatever no other is for.
    pub(super) rest: bool,
    pub(super) verdict: Option<RuleVerdict>,
    pub(super) comment: Option<String>,
}

/// The tables in the messages, of the families that matter.
pub(super) fn tables(bytes: &[u8]) -> Vec<Table> {
    let mut found = DumpedTables::default();
    for message in messages(bytes) {
        // Of odd messages, the others are still of use.
        let _ = found.message(message);
    }
    found.tables
}

#[derive(Default)]
struct DumpedTables {
    tables: Vec<Table>,
    places: HashMap<(Family, String), usize>,
    /// Of chains in their tables.
    chains: HashMap<(usize, String), usize>,
}

impl DumpedTables {
    fn message(&mut self, message: Message<'_>) -> Option<()> {
        let attributes = message.attributes;
        let family = family(message.family)?;
        let name = attributes.text(1)?;
        if message.kind == NEW_TABLE {
            let dormant = attributes.number(2).is_some_and(|flags| flags & 1 != 0);
            self.places.insert((family, name.clone()), self.tables.len());
            self.tables.push(Table {
                family,
                name,
                dormant,
                is_foreign: false,
                chains: Vec::new(),
                sets: HashMap::new(),
            });
            return Some(());
        }
        let place = *self.places.get(&(family, name))?;
        let table = self.tables.get_mut(place)?;
        match message.kind {
            NEW_CHAIN => {
                let name = attributes.text(3)?;
                self.chains.insert((place, name.clone()), table.chains.len());
                table.chains.push(Chain {
                    name,
                    base: base(family, attributes),
                    rules: Vec::new(),
                });
            }
            NEW_RULE => {
                let chain = *self.chains.get(&(place, attributes.text(2)?))?;
                let rules = &mut table.chains.get_mut(chain)?.rules;
                let position = u32::try_from(rules.len() + 1).unwrap_or(u32::MAX);
                rules.push(rule(attributes, position)?);
            }
            NEW_SET => {
                let set = table.sets.entry(attributes.text(2)?).or_default();
                set.describe(attributes);
            }
            NEW_SET_ELEMENT => {
                let set = table.sets.get_mut(&attributes.text(2)?)?;
                set.elements.extend(elements(attributes));
            }
            _ => {}
        }
        Some(())
    }
}

/// The rule in a message, which is at that place of its chain.
pub(super) fn rule(attributes: Attributes<'_>, position: u32) -> Option<Rule> {
    Some(Rule {
        position,
        handle: attributes.long(3)?,
        expressions: expressions(attributes.within(4)),
        comment: attributes.get(7).and_then(comment),
    })
}

/// The elements in a message.
pub(super) fn elements(attributes: Attributes<'_>) -> impl Iterator<Item = Element> {
    let elements = attributes.within(3).iter();
    elements.filter_map(|(_, element)| self::element(Attributes(element)))
}

/// None for those that no IP packet of ours goes through (arp).
pub(super) fn family(number: u8) -> Option<Family> {
    Some(match number {
        1 => Family::Inet,
        2 => Family::Ip,
        5 => Family::Netdev,
        7 => Family::Bridge,
        10 => Family::Ip6,
        _ => return None,
    })
}

/// The kernel's number.
pub(super) const fn family_number(family: Family) -> u8 {
    match family {
        Family::Inet => 1,
        Family::Ip => 2,
        Family::Netdev => 5,
        Family::Bridge => 7,
        Family::Ip6 => 10,
    }
}

pub(super) fn base(family: Family, chain: Attributes<'_>) -> Option<Base> {
    let hook = chain.within(4);
    let counters = chain.within(8);
    Some(Base {
        hook: match (family, hook.number(1)?) {
            (Family::Netdev, 0) | (Family::Inet, 5) => Hook::Ingress,
            (Family::Netdev, 1) => Hook::Egress,
            (Family::Ip | Family::Ip6 | Family::Inet | Family::Bridge, 0) => Hook::Prerouting,
            (Family::Ip | Family::Ip6 | Family::Inet | Family::Bridge, 1) => Hook::Input,
            (Family::Ip | Family::Ip6 | Family::Inet | Family::Bridge, 2) => Hook::Forward,
            (Family::Ip | Family::Ip6 | Family::Inet | Family::Bridge, 3) => Hook::Output,
            (Family::Ip | Family::Ip6 | Family::Inet | Family::Bridge, 4) => Hook::Postrouting,
            _ => return None,
        },
        priority: hook.number(2).unwrap_or_default().cast_signed(),
        kind: chain.text(7).unwrap_or_default(),
        drops: chain.number(5) == Some(0),
        counted: (
            counters.long(2).unwrap_or_default(),
            counters.long(1).unwrap_or_default(),
        ),
        devices: devices(hook),
    })
}

/// Of a list, which kernels before 5.5 don't have; where a chain is at one device only, that is told beside it.
fn devices(hook: Attributes<'_>) -> Vec<String> {
    const PREFIX: u16 = 2;
    let listed: Vec<String> = hook
        .within(4)
        .iter()
        .map(|(kind, name)| {
            let star = if kind == PREFIX { "*" } else { "" };
            format!("{}{star}", text(name))
        })
        .collect();
    if listed.is_empty() {
        hook.text(3).into_iter().collect()
    } else {
        listed
    }
}

fn element(element: Attributes<'_>) -> Option<Element> {
    let flags = element.number(3).unwrap_or_default();
    let rest = flags & 2 != 0;
    let key = element.within(1).get(1);
    Some(Element {
        key: match key {
            Some(key) => key.to_vec(),
            None if rest => Vec::new(),
            None => return None,
        },
        key_end: element.within(10).get(1).map(<[u8]>::to_vec),
        ends: flags & 1 != 0,
        rest,
        verdict: RuleVerdict::of(element.within(2)),
        comment: element.get(6).and_then(comment),
    })
}

/// What nft and iptables keep with a rule or an element: kinds, lengths and values of one byte, one byte, and so many. A
/// comment is the first kind of both.
pub(super) fn comment(mut data: &[u8]) -> Option<String> {
    while let [kind, length, rest @ ..] = data {
        let (value, rest) = rest.split_at_checked(usize::from(*length))?;
        if *kind == 0 {
            return Some(text(value));
        }
        data = rest;
    }
    None
}
