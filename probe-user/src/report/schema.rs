//! `probe schema`: the JSON Schema of everything that probe prints as JSON, records, or sends.
//!
//! docs/schema.json is generated from the types by a test ([`types`]), which also holds it to them. So schemars is no part of the
//! command: with it the binary would be larger, and take longer to build.

#[cfg(test)]
mod documentation;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod types;
#[cfg(test)]
mod validation;

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use crate::model::JsonEvent;

/// Each definition on a line of its own. An event's definition has the event's name as its anchor.
const ALL: &str = include_str!("../../../docs/schema.json");
const REFERENCE: &str = "#/$defs/";

/// One schema: of this event, or of them all.
///
/// # Errors
/// None in practice: what is embedded is JSON, which a test checks.
pub fn text(event: Option<JsonEvent>) -> serde_json::Result<String> {
    let all = serde_json::from_str(ALL)?;
    let schema = match event {
        Some(event) => of(&all, event),
        None => all,
    };
    serde_json::to_string_pretty(&schema)
}

/// The schema of one event, with the definitions that it uses.
fn of(all: &Value, event: JsonEvent) -> Value {
    let empty = Map::new();
    let definitions = all["$defs"].as_object().unwrap_or(&empty);
    let is_event = |definition: &Value| definition["$anchor"] == event.name();
    let found = definitions.iter().find(|(_, definition)| is_event(definition));
    let name = found.map_or(event.name(), |(name, _)| name.as_str());
    let mut used = BTreeSet::new();
    let mut waiting = vec![name];
    while let Some(name) = waiting.pop() {
        if let Some(definition) = definitions.get(name)
            && used.insert(name)
        {
            references(definition, &mut waiting);
        }
    }
    let used: Map<_, _> = used
        .into_iter()
        .filter_map(|name| Some((name.to_owned(), definitions.get(name)?.clone())))
        .collect();
    json!({
        "$schema": all["$schema"],
        "title": format!("JSON of probe: {}", event.name()),
        "$ref": format!("{REFERENCE}{name}"),
        "$defs": used,
    })
}

/// Appends the names of the definitions that are referred to.
fn references<'a>(schema: &'a Value, names: &mut Vec<&'a str>) {
    match schema {
        Value::Object(fields) => {
            let reference = fields.get("$ref").and_then(Value::as_str);
            names.extend(reference.and_then(|reference| reference.strip_prefix(REFERENCE)));
            fields.values().for_each(|value| references(value, names));
        }
        Value::Array(values) => values.iter().for_each(|value| references(value, names)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}
