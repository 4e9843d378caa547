//! A rule's expressions read together: what goes through registers becomes tests of the packet's fields.

use std::{collections::HashMap, mem};

use ipnet::IpNet;
use netlink_packet_netfilter::nftables::Operator;

use super::{
    elements::{Row, rows},
    expression::{Expression, Source, ZoneDirection},
    field::{Datum, Field, Piece, Version, datum, pieces, prefix_length},
    ruleset::Table,
};
use crate::netfilter::rules::Family;

/// Sixteen, of four bytes each.
const REGISTERS: usize = 16;

/// A part of a rule, as people see it.
#[derive(Debug)]
pub(super) enum Part<'a> {
    Test(Test),
    Choose {
        fields: Vec<Field>,
        values: Values,
    },
    /// The connection gets this conntrack zone, in one direction or in both.
    Zone(u16, Option<ZoneDirection>),
    /// What needs no register.
    Plain(&'a Expression),
}

#[derive(Debug)]
pub(super) struct Test {
    /// Several if concatenated.
    pub(super) fields: Vec<Field>,
    pub(super) mask: Option<Datum>,
    pub(super) operator: Operator,
    pub(super) values: Values,
    /// Another test asks for what only packets have that pass this one; nft doesn't show it then.
    pub(super) implied: bool,
}

#[derive(Debug)]
pub(super) enum Values {
    One(Datum),
    Several(Vec<Row>),
    /// A set of the table.
    Named(String),
}

/// What is known of a packet that passed the tests so far, with the place of the test.
#[derive(Debug, Clone, Copy)]
struct Passed<T> {
    value: T,
    test: Option<usize>,
}

#[derive(Debug, Clone)]
enum Held {
    Loaded { source: Source, mask: Option<Vec<u8>> },
    Constant(Vec<u8>),
    Unknown(String),
}

/// A rule's parts, and the named sets that it asks, with the fields that it asks them for.
#[derive(Debug)]
pub(super) struct Parts<'a> {
    pub(super) parts: Vec<Part<'a>>,
    pub(super) asked: Vec<(String, Vec<Piece>)>,
}

/// The parts of a rule of the table.
pub(super) fn parts<'a>(
    table: &Table,
    expressions: &'a [Expression],
    devices: &HashMap<u32, String>,
) -> Parts<'a> {
    let version = match table.family {
        Family::Ip => Some(Version::Four),
        Family::Ip6 => Some(Version::Six),
        Family::Inet | Family::Netdev | Family::Bridge => None,
    };
    let mut rule = Rule {
        table,
        devices,
        registers: [const { None }; REGISTERS],
        version: version.map(|value| Passed { value, test: None }),
        protocol: None,
        parts: Vec::new(),
        asked: Vec::new(),
    };
    for expression in expressions {
        rule.expression(expression);
    }
    Parts {
        parts: rule.parts,
        asked: rule.asked,
    }
}

struct Rule<'t, 'e> {
    table: &'t Table,
    devices: &'t HashMap<u32, String>,
    registers: [Option<Held>; REGISTERS],
    version: Option<Passed<Version>>,
    /// The transport protocol's name.
    protocol: Option<Passed<()>>,
    parts: Vec<Part<'e>>,
    asked: Vec<(String, Vec<Piece>)>,
}

impl<'e> Rule<'_, 'e> {
    fn expression(&mut self, expression: &'e Expression) {
        match expression {
            Expression::Load { into, what } => {
                let source = what.clone();
                self.hold(*into, Held::Loaded { source, mask: None });
            }
            Expression::Mask {
                from,
                into,
                mask,
                xor,
            } => {
                let held = match self.registers.get(*from) {
                    Some(Some(Held::Loaded { source, mask: None })) if xor.iter().all(|byte| *byte == 0) => {
                        Held::Loaded {
                            source: source.clone(),
                            mask: Some(mask.clone()),
                        }
                    }
                    Some(_) | None => Held::Unknown("bitwise".to_owned()),
                };
                self.hold(*into, held);
            }
            Expression::Constant { into, value } => self.hold(*into, Held::Constant(value.clone())),
            Expression::SetZone { from, direction } => {
                // In this machine's order.
                let zone = match self.registers.get(*from) {
                    Some(Some(Held::Constant(value))) => value.as_slice().try_into().ok(),
                    Some(_) | None => None,
                };
                self.parts.push(match zone.map(u16::from_ne_bytes) {
                    Some(zone) => Part::Zone(zone, *direction),
                    None => Part::Plain(expression),
                });
            }
            Expression::Overwrite { into, by } => self.hold(*into, Held::Unknown(by.clone())),
            Expression::Compare {
                from,
                operator,
                value,
            } => self.compare(*from, *operator, value),
            Expression::Range {
                from,
                not,
                first,
                last,
            } => self.range(*from, *not, first, last),
            Expression::Lookup { from, set, not } => {
                let (fields, values) = self.lookup(*from, set);
                let operator = if *not { Operator::NotEqual } else { Operator::Equal };
                self.test(fields, None, operator, values);
            }
            Expression::Choose { from, map } => {
                let (fields, values) = self.lookup(*from, map);
                self.asks_for(&fields);
                self.parts.push(Part::Choose { fields, values });
            }
            Expression::Do(_)
            | Expression::Counter(..)
            | Expression::Object(..)
            | Expression::NoTrack
            | Expression::Reject(_)
            | Expression::Log(_)
            | Expression::Change(_)
            | Expression::Match(_)
            | Expression::Target(_)
            | Expression::Other(_) => self.parts.push(Part::Plain(expression)),
        }
    }

    fn hold(&mut self, into: usize, held: Held) {
        if let Some(register) = self.registers.get_mut(into) {
            *register = Some(held);
        }
    }

    /// The fields in a register; of something masked or unknown, one that isn't any.
    fn held(&self, from: usize) -> (Vec<Piece>, Option<Vec<u8>>) {
        match self.registers.get(from).and_then(Option::as_ref) {
            Some(Held::Loaded { source, mask }) => {
                let version = self.version.map(|passed| passed.value);
                (pieces(source, version), mask.clone())
            }
            Some(Held::Constant(_)) => (vec![(Field::Other("a constant".to_owned()), 0..0)], None),
            Some(Held::Unknown(name)) => (vec![(Field::Other(name.clone()), 0..0)], None),
            None => (vec![(Field::Other("nothing".to_owned()), 0..0)], None),
        }
    }

    fn compare(&mut self, from: usize, operator: Operator, value: &[u8]) {
        let (pieces, mask) = self.held(from);
        match (pieces.as_slice(), mask) {
            ([(field, _)], mask) => {
                let field = field.clone();
                let value = datum(&field, value, self.devices);
                let (mask, value) = match mask {
                    None => (None, value),
                    Some(mask) => masked(&field, &mask, value, self.devices),
                };
                self.test(vec![field], mask, operator, Values::One(value));
            }
            (several, None) if operator == Operator::Equal => {
                for (field, range) in several {
                    let value = value.get(range.clone()).unwrap_or_default();
                    let value = datum(field, value, self.devices);
                    self.test(vec![field.clone()], None, operator, Values::One(value));
                }
            }
            (_, _) => self.test(
                vec![Field::Other("payload".to_owned())],
                None,
                operator,
                Values::One(Datum::Bytes(value.to_vec())),
            ),
        }
    }

    fn range(&mut self, from: usize, not: bool, first: &[u8], last: &[u8]) {
        let (pieces, mask) = self.held(from);
        let field = match (pieces.as_slice(), mask) {
            ([(field, _)], None) => field.clone(),
            (_, _) => Field::Other("payload".to_owned()),
        };
        let [first, last] = [first, last].map(|value| datum(&field, value, self.devices));
        let operator = if not { Operator::NotEqual } else { Operator::Equal };
        self.test(vec![field], None, operator, Values::One(between(first, last)));
    }

    fn test(&mut self, fields: Vec<Field>, mask: Option<Datum>, operator: Operator, values: Values) {
        // A range may be two comparisons.
        if operator == Operator::LessThanEqual
            && let Some(Part::Test(before)) = self.parts.last_mut()
            && before.operator == Operator::GreatherThanEqual
            && before.fields == fields
            && let (Values::One(first), Values::One(last)) = (&mut before.values, &values)
        {
            let first = mem::replace(first, Datum::Any);
            before.values = Values::One(between(first, last.clone()));
            before.operator = Operator::Equal;
            return;
        }
        self.asks_for(&fields);
        if operator == Operator::Equal
            && mask.is_none()
            && let ([field], Values::One(Datum::Name(name))) = (fields.as_slice(), &values)
        {
            let test = Some(self.parts.len());
            match (field, name.as_str()) {
                (Field::Family, "ipv4") | (Field::EtherType, "ip") => {
                    let value = Version::Four;
                    self.version = Some(Passed { value, test });
                }
                (Field::Family, "ipv6") | (Field::EtherType, "ip6") => {
                    let value = Version::Six;
                    self.version = Some(Passed { value, test });
                }
                // Those that nft has ports of.
                (Field::Protocol | Field::NextProtocol(_), "tcp" | "udp" | "udplite" | "sctp" | "dccp") => {
                    self.protocol = Some(Passed { value: (), test });
                }
                _ => {}
            }
        }
        self.parts.push(Part::Test(Test {
            fields,
            mask,
            operator,
            values,
            implied: false,
        }));
    }

    /// Marks the tests that are implied in asking for the fields.
    fn asks_for(&mut self, fields: &[Field]) {
        for field in fields {
            let test = match field {
                Field::Source(_) | Field::Destination(_) | Field::NextProtocol(_) => {
                    self.version.and_then(|passed| passed.test)
                }
                Field::SourcePort | Field::DestinationPort => self.protocol.and_then(|passed| passed.test),
                Field::Protocol
                | Field::Family
                | Field::EtherType
                | Field::Input(_)
                | Field::Output(_)
                | Field::Mark
                | Field::ConntrackState
                | Field::DestinationType
                | Field::Other(_) => None,
            };
            if let Some(Part::Test(test)) = test.and_then(|test| self.parts.get_mut(test)) {
                test.implied = true;
            }
        }
    }

    /// What a set is asked for: all that is in the registers from one on, as long as the set's keys are.
    fn lookup(&mut self, from: usize, name: &str) -> (Vec<Field>, Values) {
        let set = self.table.sets.get(name);
        let length = set.map_or(0, |set| usize::try_from(set.key_length).unwrap_or(usize::MAX));
        let (mut keys, mut at) = (Vec::new(), 0);
        while at < length.min(REGISTERS * 4) {
            let (pieces, mask) = self.held(from + at / 4);
            let loaded = pieces
                .iter()
                .map(|(_, range)| range.end)
                .max()
                .unwrap_or_default();
            for (field, range) in pieces {
                let field = match mask {
                    None => field,
                    Some(_) => Field::Other("bitwise".to_owned()),
                };
                keys.push((field, at + range.start..at + range.end));
            }
            // Of what isn't known, neither is how long it is.
            if loaded == 0 {
                break;
            }
            at += loaded.next_multiple_of(4);
        }
        if keys.is_empty() {
            keys.push((Field::Other("nothing".to_owned()), 0..0));
        }
        let fields = keys.iter().map(|(field, _)| field.clone()).collect();
        let values = match set.filter(|set| set.is_anonymous()) {
            Some(set) => Values::Several(rows(set, &keys, self.devices)),
            None => {
                self.asked.push((name.to_owned(), keys));
                Values::Named(name.to_owned())
            }
        };
        (fields, values)
    }
}

/// With the mask in the value, if it's that of a network.
fn masked(
    field: &Field,
    mask: &[u8],
    value: Datum,
    devices: &HashMap<u32, String>,
) -> (Option<Datum>, Datum) {
    match (&value, prefix_length(mask)) {
        (Datum::Address(address), Some(length)) => (None, Datum::Network(*address, length)),
        _ => (Some(datum(field, mask, devices)), value),
    }
}

/// From the first to the last; a network, if they're those of one.
pub(super) fn between(first: Datum, last: Datum) -> Datum {
    if first == last {
        return first;
    }
    if let (Datum::Address(first), Datum::Address(last)) = (&first, &last) {
        let longest = if first.is_ipv4() { 32 } else { 128 };
        let network = (0..longest)
            .filter_map(|length| IpNet::new(*first, length).ok())
            .find(|network| network.network() == *first && network.broadcast() == *last);
        if let Some(network) = network {
            return Datum::Network(*first, network.prefix_len());
        }
    }
    Datum::Range(Box::new(first), Box::new(last))
}
