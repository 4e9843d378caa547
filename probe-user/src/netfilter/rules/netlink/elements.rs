//! What is in a set or a map.

use std::{collections::HashMap, iter};

use super::{
    expression::RuleVerdict,
    field::{Datum, Field, Piece, datum},
    registers::between,
    ruleset::{Element, Set},
};

#[derive(Debug)]
pub(super) struct Row {
    /// As many as the fields.
    pub(super) values: Vec<Datum>,
    pub(super) verdict: Option<RuleVerdict>,
    pub(super) comment: Option<String>,
}

/// The elements, as values of the fields that the set is asked for, in order.
pub(super) fn rows(set: &Set, keys: &[Piece], devices: &HashMap<u32, String>) -> Vec<Row> {
    let mut elements: Vec<&Element> = set.elements.iter().collect();
    elements.sort_by(|one, other| (&one.key, !one.ends).cmp(&(&other.key, !other.ends)));
    let behind = elements.iter().skip(1).map(Some).chain([None]);
    elements
        .iter()
        .zip(behind)
        .filter(|(element, _)| !element.ends)
        .map(|(element, behind)| {
            let last = match (&element.key_end, behind) {
                (Some(last), _) => Some(last.clone()),
                (None, Some(next)) if set.has_intervals() => Some(before(&next.key)),
                (None, None) if set.has_intervals() => Some(vec![u8::MAX; element.key.len()]),
                (None, _) => None,
            };
            let values = keys.iter().map(|(field, range)| {
                let value = |key: &[u8]| {
                    let bytes = key.get(range.clone()).unwrap_or_default();
                    datum(field, bytes, devices)
                };
                match &last {
                    _ if element.rest => Datum::Any,
                    Some(last) if is_name(field) => names(&element.key, last),
                    Some(last) => between(value(&element.key), value(last)),
                    None => value(&element.key),
                }
            });
            Row {
                values: values.collect(),
                verdict: element.verdict.clone(),
                comment: element.comment.clone(),
            }
        })
        .collect()
}

/// The key before this one. What isn't an interval's end begins another one there.
fn before(key: &[u8]) -> Vec<u8> {
    let mut key = key.to_vec();
    for byte in key.iter_mut().rev() {
        let (less, borrows) = byte.overflowing_sub(1);
        *byte = less;
        if !borrows {
            break;
        }
    }
    key
}

fn is_name(field: &Field) -> bool {
    matches!(
        field,
        Field::Input(super::field::Device::Name) | Field::Output(super::field::Device::Name)
    )
}

/// Names of devices from one to another: it is one, or all those that begin so.
fn names(first: &[u8], last: &[u8]) -> Datum {
    let name = super::super::super::link::text(first);
    let padded = |with| iter::repeat_n(with, first.len().saturating_sub(name.len()));
    if first == last {
        Datum::Name(name)
    } else if first.iter().copied().eq(name.bytes().chain(padded(0)))
        && last.iter().copied().eq(name.bytes().chain(padded(u8::MAX)))
    {
        Datum::Names(name)
    } else {
        Datum::Bytes(first.to_vec())
    }
}
