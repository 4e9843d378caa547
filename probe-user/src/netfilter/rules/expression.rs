//! nft's expressions, in JSON: what a rule asks and does.
//!
//! Whatever isn't known here may match. Nothing is taken for granted of the shapes.

use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::{Map, Value as Json};

use super::{
    Action,
    model::{Condition, Field, Row, Statement, Step, Value, Values},
};

/// The parts of a rule, from its `expr`.
pub(super) fn steps(expressions: &Json) -> Vec<Step> {
    let mut steps = Vec::new();
    match expressions {
        Json::Array(expressions) => {
            let mut before = Vec::new();
            for one in expressions {
                expression(one, &mut steps);
                match joint(one) {
                    Some(joint) => together(&mut steps, &mut before, joint),
                    None if one.get("match").is_none() => before.clear(),
                    None => {}
                }
            }
        }
        // A rule without any isn't possible.
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) | Json::Object(_) => {
            unknown(&mut steps);
        }
    }
    steps
}

/// The header and the operator of a match that nft may join with another.
type Joint<'a> = (&'static str, &'a str);

/// nft (seen with 1.0.6) joins matches of neighbouring fields of one header where their operators are the same, and lists them apart:
/// `udp sport != 81 udp dport != 443` is one comparison of both in the kernel, which matches if either port is another. With `==`, both
/// mean the same.
fn joint(json: &Json) -> Option<Joint<'_>> {
    let json = json.get("match")?;
    let is_one = matches!(json.get("right"), Some(Json::Number(_) | Json::String(_)));
    let operator = json.get("op").and_then(Json::as_str)?;
    let header = match json.get("left")?.get("payload")?.get("protocol")?.as_str()? {
        "ether" => "link",
        "ip" | "ip6" => "network",
        _ => "transport",
    };
    (is_one && !matches!(operator, "==" | "in")).then_some((header, operator))
}

/// Puts the last match together with one `before` that it may be joined with.
fn together<'a>(steps: &mut Vec<Step>, before: &mut Vec<(Joint<'a>, usize)>, joint: Joint<'a>) {
    let Some((_, at)) = before.iter().find(|(other, _)| *other == joint) else {
        before.push((joint, steps.len().saturating_sub(1)));
        return;
    };
    let last = match steps.pop() {
        Some(Step::Match(last)) => last,
        other => return steps.extend(other),
    };
    match steps.get_mut(*at) {
        Some(Step::MatchTogether(conditions)) => conditions.push(last),
        Some(step) => {
            if let Step::Match(first) = std::mem::replace(step, Step::unknown()) {
                *step = Step::MatchTogether(vec![first, last]);
            }
        }
        None => {}
    }
}

/// The packets that the rule's own counter counted.
pub(super) fn packets(expressions: &Json) -> Option<u64> {
    expressions
        .as_array()?
        .iter()
        .find_map(|e| e.get("counter")?.get("packets")?.as_u64())
}

/// An object with a single key, as all expressions are.
fn single(json: &Json) -> Option<(&str, &Json)> {
    let mut entries = json.as_object()?.iter();
    let (key, value) = entries.next()?;
    entries.next().is_none().then_some((key, value))
}

fn unknown(steps: &mut Vec<Step>) {
    steps.push(Step::unknown());
    steps.push(Step::Do(Statement::Unknown));
}

fn expression(json: &Json, steps: &mut Vec<Step>) {
    let Some((key, value)) = single(json) else {
        return unknown(steps);
    };
    match key {
        "match" => compare(value, steps),
        "vmap" => choose(value, steps),
        // They count, write down, or change something that no rule here is asked about.
        "counter" | "log" | "comment" | "mangle" | "dup" | "flow" | "ct helper" | "ct timeout"
        | "ct expectation" | "secmark" => {}
        "limit" | "quota" | "ct count" | "set" | "map" | "meter" | "last" | "socket" => {
            steps.push(Step::unknown());
        }
        "snat" | "dnat" | "masquerade" | "redirect" => steps.push(Step::Do(Statement::Accept)),
        "xt" => xt(value, steps),
        _ => match statement(json) {
            Some(statement) => steps.push(Step::Do(statement)),
            None => unknown(steps),
        },
    }
}

fn statement(json: &Json) -> Option<Statement> {
    // Without anything to say of a verdict, it may be the bare word.
    let (key, value) = json
        .as_str()
        .map_or_else(|| single(json), |key| Some((key, &Json::Null)))?;
    let target = || value.get("target").and_then(Json::as_str).map(str::to_owned);
    Some(match key {
        "accept" => Statement::Accept,
        "drop" => Statement::Act(Action::Drop),
        "reject" => Statement::Act(Action::Reject),
        "notrack" => Statement::Act(Action::NoTrack),
        "queue" | "synproxy" => Statement::May(Action::Drop),
        "return" => Statement::Return,
        "continue" => Statement::Continue,
        "jump" => Statement::Jump(target()?),
        "goto" => Statement::Goto(target()?),
        _ => return None,
    })
}

/// An extension of iptables, of which nft shows no more than the name.
fn xt(json: &Json, steps: &mut Vec<Step>) {
    let text = |key| json.get(key).and_then(Json::as_str);
    match (text("type"), text("name")) {
        (Some("match"), Some("comment")) => {}
        (Some("match"), _) => steps.push(Step::unknown()),
        (Some("target"), Some("REJECT")) => steps.push(Step::Do(Statement::Act(Action::Reject))),
        (Some("target"), Some("NOTRACK")) => steps.push(Step::Do(Statement::Act(Action::NoTrack))),
        (Some("target"), Some("CT")) => steps.push(Step::Do(Statement::May(Action::NoTrack))),
        (Some("target"), Some("NFQUEUE" | "TPROXY" | "SYNPROXY" | "CLUSTERIP")) => {
            steps.push(Step::Do(Statement::May(Action::Drop)));
        }
        (Some(_) | None, Some(_) | None) => unknown(steps),
    }
}

fn compare(json: &Json, steps: &mut Vec<Step>) {
    let (Some(left), Some(right)) = (json.get("left"), json.get("right")) else {
        return unknown(steps);
    };
    let fields = fields(left, steps);
    let bounds = |values: Values, bound: fn(u64) -> Option<(u64, u64)>| match values {
        Values::Rows(rows) => match rows.as_slice() {
            [Row { values, .. }] => match values.as_slice() {
                [Value::Numbers(first, last)] if first == last => Some(Values::Rows(
                    bound(*first)
                        .map(|(a, b)| row(Value::Numbers(a, b)))
                        .into_iter()
                        .collect(),
                )),
                _ => None,
            },
            _ => None,
        },
        Values::Named(_) => None,
    };
    let right = values(right);
    let (not, values) = match json.get("op").and_then(Json::as_str) {
        Some("==" | "in") | None => (false, Some(right)),
        Some("!=") => (true, Some(right)),
        Some("<") => (false, bounds(right, |n| Some((0, n.checked_sub(1)?)))),
        Some("<=") => (false, bounds(right, |n| Some((0, n)))),
        Some(">") => (false, bounds(right, |n| Some((n.checked_add(1)?, u64::MAX)))),
        Some(">=") => (false, bounds(right, |n| Some((n, u64::MAX)))),
        Some(_) => (false, None),
    };
    match values {
        Some(values) => steps.push(Step::Match(Condition { not, fields, values })),
        None => steps.push(Step::unknown()),
    }
}

fn choose(json: &Json, steps: &mut Vec<Step>) {
    let (Some(key), Some(data)) = (json.get("key"), json.get("data")) else {
        return unknown(steps);
    };
    let fields = fields(key, steps);
    steps.push(Step::Choose(Condition {
        not: false,
        fields,
        values: values(data),
    }));
}

/// What is asked for. That the packet has it at all is asked before, as nft does without showing it.
fn fields(json: &Json, steps: &mut Vec<Step>) -> Vec<Field> {
    match single(json) {
        Some(("concat", Json::Array(parts))) => parts.iter().map(|part| field(part, steps)).collect(),
        Some(_) | None => vec![field(json, steps)],
    }
}

fn field(json: &Json, steps: &mut Vec<Step>) -> Field {
    let Some((kind, value)) = single(json) else {
        return Field::Unknown;
    };
    let text = |key| value.get(key).and_then(Json::as_str).unwrap_or_default();
    match kind {
        "payload" => payload(text("protocol"), text("field"), value, steps),
        "meta" => match text("key") {
            "iifname" | "iif" => Field::Input,
            "oifname" | "oif" => Field::Output,
            "ibrname" => Field::InputBridge,
            "obrname" => Field::OutputBridge,
            "l4proto" => Field::Protocol,
            "nfproto" | "protocol" => Field::Family,
            _ => Field::Unknown,
        },
        "fib" => {
            let flags = value.get("flags");
            let of = flags
                .and_then(Json::as_array)
                .map_or(flags, |flags| flags.first().filter(|_| flags.len() == 1));
            match (text("result"), of.and_then(Json::as_str)) {
                ("type", Some("daddr")) => Field::DestinationType,
                _ => Field::Unknown,
            }
        }
        _ => Field::Unknown,
    }
}

fn payload(protocol: &str, field: &str, json: &Json, steps: &mut Vec<Step>) -> Field {
    match protocol {
        "ip" | "ip6" => {
            let family = Condition::of(Field::Family, [Value::Text(protocol.to_owned())]);
            steps.push(Step::Match(family));
            match field {
                "saddr" => Field::Source,
                "daddr" => Field::Destination,
                "protocol" | "nexthdr" => Field::Protocol,
                _ => Field::Unknown,
            }
        }
        "tcp" | "udp" | "udplite" | "sctp" | "dccp" | "icmp" | "icmpv6" | "ah" | "esp" | "comp" => {
            let protocol = Condition::of(Field::Protocol, [Value::Text(protocol.to_owned())]);
            steps.push(Step::Match(protocol));
            port(field)
        }
        "ether" if field == "type" => Field::Family,
        // Of IP packets, none has it.
        "arp" => {
            let family = Condition::of(Field::Family, [Value::Text(protocol.to_owned())]);
            steps.push(Step::Match(family));
            Field::Unknown
        }
        "th" => port(field),
        // A place in the packet, by numbers.
        "" => {
            let number = |key| json.get(key).and_then(Json::as_u64);
            match (
                json.get("base").and_then(Json::as_str),
                number("offset"),
                number("len"),
            ) {
                (Some("transport"), Some(0), Some(16)) => Field::SourcePort,
                (Some("transport"), Some(16), Some(16)) => Field::DestinationPort,
                _ => Field::Unknown,
            }
        }
        _ => Field::Unknown,
    }
}

fn port(field: &str) -> Field {
    match field {
        "sport" => Field::SourcePort,
        "dport" => Field::DestinationPort,
        _ => Field::Unknown,
    }
}

fn row(value: Value) -> Row {
    Row {
        values: vec![value],
        statement: None,
    }
}

/// One value, several, or the name of a set.
fn values(json: &Json) -> Values {
    if let Some(name) = json.as_str().and_then(|text| text.strip_prefix('@')) {
        return Values::Named(name.to_owned());
    }
    match single(json) {
        Some(("set", elements)) => Values::Rows(rows(elements)),
        Some(_) | None => Values::Rows(if json.is_array() {
            rows(json)
        } else {
            vec![element(json)]
        }),
    }
}

/// The elements of a set or a map.
pub(super) fn rows(elements: &Json) -> Vec<Row> {
    match elements {
        Json::Array(elements) => elements.iter().map(element).collect(),
        one => vec![element(one)],
    }
}

fn element(json: &Json) -> Row {
    match json {
        // Of a map: key, value.
        Json::Array(pair) => match pair.as_slice() {
            [key, value] => Row {
                statement: statement(value),
                ..element(key)
            },
            _ => row(Value::Unknown),
        },
        Json::Object(object) => match single(json) {
            Some(("elem", Json::Object(inner))) => inner_element(inner),
            Some(("concat", Json::Array(parts))) => Row {
                values: parts.iter().map(value).collect(),
                statement: None,
            },
            Some(_) => row(value(json)),
            None => inner_element(object),
        },
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => row(value(json)),
    }
}

/// An element with more than its value: that it counts or ends doesn't matter, anything else may.
fn inner_element(object: &Map<String, Json>) -> Row {
    const HARMLESS: [&str; 6] = ["val", "timeout", "expires", "comment", "counter", "handle"];
    match object.get("val") {
        // In a map it's the key that is wrapped, never the pair.
        Some(json @ (Json::String(_) | Json::Number(_) | Json::Object(_)))
            if object.keys().all(|key| HARMLESS.contains(&key.as_str())) && json.get("elem").is_none() =>
        {
            element(json)
        }
        Some(_) | None => row(Value::Unknown),
    }
}

fn value(json: &Json) -> Value {
    match json {
        Json::Number(number) => number
            .as_u64()
            .map_or(Value::Unknown, |number| Value::Numbers(number, number)),
        Json::String(text) => self::text(text),
        Json::Object(_) => match single(json) {
            Some(("range", Json::Array(ends))) => match ends.as_slice() {
                [first, last] => range(value(first), value(last)),
                _ => Value::Unknown,
            },
            Some(("prefix", prefix)) => network(prefix).unwrap_or(Value::Unknown),
            Some(("elem", inner)) => match inner.get("val") {
                Some(json @ (Json::String(_) | Json::Number(_))) => value(json),
                Some(_) | None => Value::Unknown,
            },
            Some(_) | None => Value::Unknown,
        },
        Json::Null | Json::Bool(_) | Json::Array(_) => Value::Unknown,
    }
}

fn text(text: &str) -> Value {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Value::Addresses(address, address);
    }
    if text == "*" {
        return Value::Any;
    }
    match text.strip_suffix('*') {
        // That's a star in the name.
        Some(prefix) if prefix.ends_with('\\') => Value::Unknown,
        Some(prefix) => Value::Prefix(prefix.to_owned()),
        None => Value::Text(text.to_owned()),
    }
}

fn range(first: Value, last: Value) -> Value {
    match (first, last) {
        (Value::Numbers(first, _), Value::Numbers(_, last)) => Value::Numbers(first, last),
        (Value::Addresses(first, _), Value::Addresses(_, last)) => Value::Addresses(first, last),
        _ => Value::Unknown,
    }
}

fn network(json: &Json) -> Option<Value> {
    let address = json.get("addr")?.as_str()?.parse().ok()?;
    let length = u8::try_from(json.get("len")?.as_u64()?).ok()?;
    let network = IpNet::new(address, length).ok()?;
    Some(Value::Addresses(network.network(), network.broadcast()))
}

/// The devices of a chain: a name, or several.
pub(super) fn devices(json: &Json) -> Vec<Value> {
    match json {
        Json::Array(names) => names.iter().map(value).collect(),
        one => vec![value(one)],
    }
}

/// A device's name, which may be the beginning of several.
pub(super) fn device(name: &str) -> Value {
    text(name)
}

/// The sets that the rule puts the packet's addresses in, or takes them from.
pub(super) fn changed(expressions: &Json) -> impl Iterator<Item = &str> {
    let expressions = expressions.as_array().map(Vec::as_slice).unwrap_or_default();
    expressions.iter().filter_map(|expression| {
        let statement = expression.get("set").or_else(|| expression.get("map"))?;
        statement
            .get("set")
            .or_else(|| statement.get("map"))?
            .as_str()?
            .strip_prefix('@')
    })
}
