//! Tables as `nft --json` writes them.

use std::collections::HashMap;

use netlink_packet_netfilter::nftables::Operator;
use serde_json::{Value as Json, json};

use super::{
    elements::{Row, rows},
    expression::{Expression, Extension, RuleVerdict},
    field::{Datum, Device, Field, Piece, Version},
    registers::{Part, Parts, Test, Values},
    ruleset::{Base, Table},
    xt,
};

/// The bits of a connection's state.
const STATES: [(u64, &str); 5] = [
    (1, "invalid"),
    (2, "established"),
    (4, "related"),
    (8, "new"),
    (64, "untracked"),
];

/// The items of a table, whose chains have rules with these parts.
pub(super) fn items(table: &Table, rules: &[Vec<Parts<'_>>], devices: &HashMap<u32, String>) -> Vec<Json> {
    let (family, name) = (table.family.name(), &table.name);
    let flags: &[&str] = if table.dormant { &["dormant"] } else { &[] };
    let mut items = vec![json!({"table": {"family": family, "name": name, "flags": flags}})];
    for chain in &table.chains {
        let mut item = json!({"family": family, "table": name, "name": chain.name});
        if let (Some(base), Some(item)) = (&chain.base, item.as_object_mut()) {
            item.extend(self::base(base));
        }
        items.push(json!({"chain": item}));
    }
    let mut keys: HashMap<&str, &[Piece]> = HashMap::new();
    for (set, pieces) in rules.iter().flatten().flat_map(|rule| &rule.asked) {
        keys.entry(set).or_insert(pieces);
    }
    for (set_name, set) in table.sets.iter().filter(|(_, set)| !set.is_anonymous()) {
        let kind = if set.is_map() { "map" } else { "set" };
        let flags: Vec<&str> = [(set.is_dynamic(), "dynamic"), (set.has_timeout(), "timeout")]
            .iter()
            .filter_map(|(is, name)| is.then_some(*name))
            .collect();
        // What a key means is known from the rules that ask for it; without any, it doesn't matter.
        let keys = keys.get(set_name.as_str()).copied().unwrap_or_default();
        let elements = elements(&rows(set, keys, devices));
        items.push(json!({
            kind: {"family": family, "table": name, "name": set_name, "flags": flags, "elem": elements}
        }));
    }
    for (chain, rules) in table.chains.iter().zip(rules) {
        for (rule, parts) in chain.rules.iter().zip(rules) {
            let mut item = json!({
                "family": family, "table": name, "chain": chain.name, "handle": rule.handle,
                "expr": expressions(parts),
            });
            if let (Some(comment), Some(item)) = (&rule.comment, item.as_object_mut()) {
                item.insert("comment".to_owned(), json!(comment));
            }
            items.push(json!({"rule": item}));
        }
    }
    items
}

fn base(base: &Base) -> serde_json::Map<String, Json> {
    let policy = if base.drops { "drop" } else { "accept" };
    let mut item = serde_json::Map::new();
    item.insert("hook".to_owned(), json!(base.hook.name()));
    item.insert("prio".to_owned(), json!(base.priority));
    item.insert("type".to_owned(), json!(base.kind));
    item.insert("policy".to_owned(), json!(policy));
    if !base.devices.is_empty() {
        item.insert("dev".to_owned(), json!(base.devices));
    }
    item
}

fn expressions(parts: &Parts<'_>) -> Vec<Json> {
    // The transport protocol whose ports are asked for.
    let mut protocol = "th".to_owned();
    let mut found = Vec::new();
    for part in &parts.parts {
        match part {
            Part::Test(test) if test.implied => {
                if let ([Field::Protocol | Field::NextProtocol(_)], Values::One(Datum::Name(name))) =
                    (test.fields.as_slice(), &test.values)
                {
                    protocol.clone_from(name);
                }
            }
            Part::Test(test) => found.push(matching(test, &protocol)),
            Part::Choose { fields, values: map } => {
                let data = values(map);
                found.push(json!({"vmap": {"key": concatenated(fields, &protocol), "data": data}}));
            }
            Part::Zone(zone, direction) => {
                let mut key = json!({"key": "zone"});
                if let (Some(direction), Some(key)) = (direction, key.as_object_mut()) {
                    key.insert("dir".to_owned(), json!(direction.name()));
                }
                found.push(json!({"mangle": {"key": {"ct": key}, "value": zone}}));
            }
            Part::Plain(expression) => found.extend(statement(expression)),
        }
    }
    found
}

fn matching(test: &Test, protocol: &str) -> Json {
    let left = concatenated(&test.fields, protocol);
    if let (
        [Field::ConntrackState],
        Some(Datum::Number(mask)),
        Operator::NotEqual,
        Values::One(Datum::Number(0)),
    ) = (test.fields.as_slice(), &test.mask, test.operator, &test.values)
    {
        let states: Vec<&str> = STATES
            .iter()
            .filter_map(|(bit, name)| (mask & bit != 0).then_some(*name))
            .collect();
        return json!({"match": {"op": "in", "left": left, "right": states}});
    }
    let operator = match test.operator {
        Operator::Equal => "==",
        Operator::NotEqual => "!=",
        Operator::LessThan => "<",
        Operator::LessThanEqual => "<=",
        Operator::GreaterThan => ">",
        Operator::GreatherThanEqual => ">=",
        _ => "?",
    };
    let left = match &test.mask {
        Some(mask) => json!({"&": [left, datum(mask)]}),
        None => left,
    };
    json!({"match": {"op": operator, "left": left, "right": values(&test.values)}})
}

fn concatenated(fields: &[Field], protocol: &str) -> Json {
    match fields {
        [one] => field(one, protocol),
        several => {
            let parts: Vec<Json> = several.iter().map(|one| field(one, protocol)).collect();
            json!({"concat": parts})
        }
    }
}

fn field(field: &Field, protocol: &str) -> Json {
    let ip = |version: &Version, four: &str, six: &str| match version {
        Version::Four => json!({"payload": {"protocol": "ip", "field": four}}),
        Version::Six => json!({"payload": {"protocol": "ip6", "field": six}}),
    };
    let meta = |key: &str| json!({"meta": {"key": key}});
    match field {
        Field::NextProtocol(version) => ip(version, "protocol", "nexthdr"),
        Field::Source(version) => ip(version, "saddr", "saddr"),
        Field::Destination(version) => ip(version, "daddr", "daddr"),
        Field::SourcePort => json!({"payload": {"protocol": protocol, "field": "sport"}}),
        Field::DestinationPort => json!({"payload": {"protocol": protocol, "field": "dport"}}),
        Field::Protocol => meta("l4proto"),
        Field::Family => meta("nfproto"),
        Field::EtherType => meta("protocol"),
        Field::Input(Device::Name) => meta("iifname"),
        Field::Input(Device::Index) => meta("iif"),
        Field::Output(Device::Name) => meta("oifname"),
        Field::Output(Device::Index) => meta("oif"),
        Field::Mark => meta("mark"),
        Field::ConntrackState => json!({"ct": {"key": "state"}}),
        Field::DestinationType => json!({"fib": {"result": "type", "flags": ["daddr"]}}),
        Field::Other(name) => json!({name: null}),
    }
}

fn values(values: &Values) -> Json {
    match values {
        Values::One(one) => datum(one),
        Values::Several(rows) => json!({"set": elements(rows)}),
        Values::Named(name) => json!(format!("@{name}")),
    }
}

/// Of a set, or of a map: key, value.
fn elements(rows: &[Row]) -> Vec<Json> {
    rows.iter()
        .map(|row| {
            let key = match row.values.as_slice() {
                [one] => datum(one),
                several => json!({"concat": several.iter().map(datum).collect::<Vec<_>>()}),
            };
            let key = match &row.comment {
                Some(comment) => json!({"elem": {"val": key, "comment": comment}}),
                None => key,
            };
            match &row.verdict {
                Some(verdict) => json!([key, self::verdict(verdict)]),
                None => key,
            }
        })
        .collect()
}

fn datum(datum: &Datum) -> Json {
    match datum {
        Datum::Any => json!("*"),
        Datum::Number(number) => json!(number),
        Datum::Address(address) => json!(address),
        Datum::Network(address, length) => json!({"prefix": {"addr": address, "len": length}}),
        Datum::Name(name) => match name.strip_suffix('*') {
            Some(before) => json!(format!("{before}\\*")),
            None => json!(name),
        },
        Datum::Names(beginning) => json!(format!("{beginning}*")),
        Datum::Range(first, last) => json!({"range": [self::datum(first), self::datum(last)]}),
        Datum::Bytes(bytes) => {
            let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            json!({format!("0x{digits}"): null})
        }
    }
}

fn verdict(verdict: &RuleVerdict) -> Json {
    match verdict {
        RuleVerdict::Accept => json!({"accept": null}),
        RuleVerdict::Drop => json!({"drop": null}),
        RuleVerdict::Queue => json!({"queue": null}),
        RuleVerdict::Continue => json!({"continue": null}),
        RuleVerdict::Return => json!({"return": null}),
        RuleVerdict::Jump(chain) => json!({"jump": {"target": chain}}),
        RuleVerdict::Goto(chain) => json!({"goto": {"target": chain}}),
    }
}

fn statement(expression: &Expression) -> Option<Json> {
    let xt = |kind: &str, extension: &Extension| json!({"xt": {"type": kind, "name": extension.name}});
    Some(match expression {
        Expression::Do(verdict) => self::verdict(verdict),
        Expression::Counter(packets, bytes) => json!({"counter": {"packets": packets, "bytes": bytes}}),
        Expression::Object(kind, name) => json!({*kind: name}),
        Expression::NoTrack => json!({"notrack": null}),
        Expression::Reject(None) => json!({"reject": null}),
        Expression::Reject(Some(with)) => json!({"reject": {"type": with}}),
        Expression::Log(prefix) => json!({"log": {"prefix": prefix}}),
        Expression::Change(set) => json!({"set": {"op": "update", "set": format!("@{set}")}}),
        Expression::Match(extension) => xt("match", extension),
        Expression::Target(target) if xt::is_notrack(target) => json!({"notrack": null}),
        Expression::Target(target) => xt("target", target),
        Expression::Other(name) => json!({name: null}),
        Expression::SetZone { .. } => json!({"mangle": null}),
        Expression::Constant { .. }
        | Expression::Load { .. }
        | Expression::Mask { .. }
        | Expression::Overwrite { .. }
        | Expression::Compare { .. }
        | Expression::Range { .. }
        | Expression::Lookup { .. }
        | Expression::Choose { .. } => return None,
    })
}
