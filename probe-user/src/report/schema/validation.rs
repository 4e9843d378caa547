//! Holds JSON against a schema, for tests: the keywords that schemars writes. A validator from a registry brings Unicode tables and
//! a hundred thousand lines along; and it lets fields pass that no schema describes, which here is a fault.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde_json::Value;

/// Why `value` is not what `schema` says, with the place; `root` has the definitions.
pub fn check(root: &Value, schema: &Value, value: &Value) -> Result<(), String> {
    let mut described = BTreeSet::new();
    let mut open = false;
    at(root, schema, value, "", &mut described, &mut open)?;
    undescribed(value, "", &described, open)
}

fn undescribed(value: &Value, place: &str, described: &BTreeSet<String>, open: bool) -> Result<(), String> {
    let fields = value.as_object().into_iter().flatten();
    match fields
        .map(|(name, _)| name)
        .find(|name| !described.contains(*name))
    {
        Some(name) if !open => Err(format!("{place}/{name} is not described")),
        Some(_) | None => Ok(()),
    }
}

/// A value of its own: its fields are described here or nowhere.
fn inner(root: &Value, schema: &Value, value: &Value, place: &str) -> Result<(), String> {
    let (mut described, mut open) = (BTreeSet::new(), false);
    at(root, schema, value, place, &mut described, &mut open)?;
    undescribed(value, place, &described, open)
}

fn at(
    root: &Value,
    schema: &Value,
    value: &Value,
    place: &str,
    described: &mut BTreeSet<String>,
    open: &mut bool,
) -> Result<(), String> {
    let Value::Object(keywords) = schema else {
        *open = true;
        return if *schema == Value::Bool(true) {
            Ok(())
        } else {
            Err(format!("{place}: {schema}"))
        };
    };
    let wrong = || Err(format!("{place}: {value} is not as {schema}"));
    for (keyword, argument) in keywords {
        let holds = match keyword.as_str() {
            "$ref" => {
                let name = argument
                    .as_str()
                    .and_then(|name| name.strip_prefix(super::REFERENCE));
                let definition = &root["$defs"][name.unwrap_or_default()];
                at(root, definition, value, place, described, open)?;
                true
            }
            "type" => match argument {
                Value::Array(types) => types.iter().any(|kind| is(kind, value)),
                kind => is(kind, value),
            },
            "const" => value == argument,
            "enum" => argument.as_array().is_some_and(|values| values.contains(value)),
            "minimum" => value
                .as_f64()
                .is_none_or(|number| argument.as_f64().is_some_and(|least| number >= least)),
            "maximum" => value
                .as_f64()
                .is_none_or(|number| argument.as_f64().is_some_and(|most| number <= most)),
            "format" => match (argument.as_str(), value.as_str()) {
                (Some("date-time"), Some(time)) => time.parse::<Timestamp>().is_ok() && time.ends_with('Z'),
                (Some("ip"), Some(address)) => address.parse::<std::net::IpAddr>().is_ok(),
                _ => true,
            },
            "required" => {
                let names = argument
                    .as_array()
                    .into_iter()
                    .flatten()
                    .filter_map(Value::as_str);
                let missing = names.into_iter().find(|name| value.get(name).is_none());
                if let Some(name) = missing.filter(|_| value.is_object()) {
                    return Err(format!("{place}/{name} is missing"));
                }
                true
            }
            "properties" => {
                for (name, schema) in argument.as_object().into_iter().flatten() {
                    described.insert(name.clone());
                    if let Some(value) = value.get(name) {
                        inner(root, schema, value, &format!("{place}/{name}"))?;
                    }
                }
                true
            }
            "additionalProperties" => {
                *open = true;
                let known = keywords.get("properties");
                let is_known = |name: &str| known.is_some_and(|known| known.get(name).is_some());
                for (name, value) in value.as_object().into_iter().flatten() {
                    if !is_known(name) {
                        inner(root, argument, value, &format!("{place}/{name}"))?;
                    }
                }
                true
            }
            "items" => {
                for (index, value) in value.as_array().into_iter().flatten().enumerate() {
                    inner(root, argument, value, &format!("{place}/{index}"))?;
                }
                true
            }
            "anyOf" | "oneOf" => {
                let mut errors = Vec::new();
                let mut fits = false;
                for choice in argument.as_array().into_iter().flatten() {
                    let mut names = BTreeSet::new();
                    match at(root, choice, value, place, &mut names, open) {
                        Ok(()) => {
                            fits = true;
                            described.append(&mut names);
                        }
                        Err(error) => errors.push(error),
                    }
                }
                if !fits {
                    return Err(errors.join("; or "));
                }
                true
            }
            "allOf" => {
                for part in argument.as_array().into_iter().flatten() {
                    at(root, part, value, place, described, open)?;
                }
                true
            }
            "description" | "title" | "default" | "$anchor" => true,
            other => return Err(format!("{place}: unknown keyword {other}")),
        };
        if !holds {
            return wrong();
        }
    }
    Ok(())
}

fn is(kind: &Value, value: &Value) -> bool {
    match kind.as_str().unwrap_or_default() {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_u64() || value.is_i64(),
        "number" => value.is_number(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        _ => false,
    }
}
