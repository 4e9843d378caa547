//! The schemas, from the types.

use std::fmt::Write as _;

use schemars::{JsonSchema, Schema, SchemaGenerator, generate::SchemaSettings};
use serde_json::{Map, Value, json};

use super::super::{bypass, check, doctor, etcd_log, events, json as watch, path, vxlan};
use crate::model::{
    JsonEvent,
    connection::ConnectionEvent,
    history::{Alive, Gap, HistoryEnd},
    part::AgentStatus,
};

/// The type of each event.
fn schema(event: JsonEvent, generator: &mut SchemaGenerator) -> Schema {
    fn of<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
        generator.subschema_for::<T>()
    }
    match event {
        JsonEvent::Connection => of::<ConnectionEvent<'static>>(generator),
        JsonEvent::WatchSummary => of::<watch::Total<'static>>(generator),
        JsonEvent::EtcdLog => of::<etcd_log::RejectedEvent<'static>>(generator),
        JsonEvent::EtcdLogSummary => of::<etcd_log::EtcdLogSummary<'static>>(generator),
        JsonEvent::Who => of::<etcd_log::Who<'static>>(generator),
        JsonEvent::WhoUnmatched => of::<etcd_log::Nobody>(generator),
        JsonEvent::Recording => of::<watch::RecordingHeader<'static>>(generator),
        JsonEvent::Unlisted => of::<watch::UnlistedEvent<'static>>(generator),
        JsonEvent::Vxlan => of::<vxlan::VxlanEvent<'static>>(generator),
        JsonEvent::Bypass => of::<bypass::BypassEvent<'static>>(generator),
        JsonEvent::Path => of::<path::PathEvent<'static>>(generator),
        JsonEvent::PathSummary => of::<path::PathSummary<'static>>(generator),
        JsonEvent::Doctor => of::<doctor::DoctorEvent<'static>>(generator),
        JsonEvent::DoctorEnd => of::<doctor::DoctorEnd<'static>>(generator),
        JsonEvent::Check => of::<check::CheckEvent<'static>>(generator),
        JsonEvent::Finding => of::<events::Event<'static, events::OfFeature<'static>>>(generator),
        JsonEvent::HistoryEnd => of::<events::Event<'static, HistoryEnd>>(generator),
        JsonEvent::Alive => of::<events::Event<'static, Alive>>(generator),
        JsonEvent::Gap => of::<events::Event<'static, Gap>>(generator),
        JsonEvent::AgentStatus => of::<AgentStatus<'static>>(generator),
    }
}

/// All of them as one schema.
pub fn all() -> Value {
    let mut generator = SchemaSettings::draft2020_12().for_serialize().into_generator();
    let names: Vec<_> = JsonEvent::ALL
        .into_iter()
        .map(|event| {
            let schema = schema(event, &mut generator);
            let reference = schema.get("$ref").and_then(Value::as_str).unwrap();
            (
                event,
                reference.strip_prefix(super::REFERENCE).unwrap().to_owned(),
            )
        })
        .collect();
    let mut definitions = generator.take_definitions(true);
    for definition in definitions.values_mut() {
        absent(definition);
    }
    for (event, name) in &names {
        let definition = definitions.get_mut(name).unwrap();
        definition["$anchor"] = event.name().into();
        let values = event.values();
        if !values.is_empty() {
            let described = &mut definition["properties"]["event"];
            described.as_object_mut().unwrap().remove("type");
            described["enum"] = values.into();
        }
    }
    let references: Vec<_> = names
        .iter()
        .map(|(_, name)| json!({ "$ref": format!("{}{name}", super::REFERENCE) }))
        .collect();
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "JSON of probe",
        "description": "Each object that probe prints with -o json, records, or sends between agent and client. Fields may be \
                        added.",
        "anyOf": references,
        "$defs": definitions,
    })
}

/// Descriptions of one line, and fields that are absent or something, never null.
fn absent(schema: &mut Value) {
    let Value::Object(object) = schema else { return };
    if let Some(Value::String(text)) = object.get_mut("description") {
        *text = text.replace('\n', " ");
    }
    // Names of Rust's types: minimum and maximum say it.
    let is_rust = |format: &Value| format.as_str().is_some_and(|format| format.starts_with("uint"));
    if object.get("format").is_some_and(is_rust) {
        object.remove("format");
    }
    let required: Vec<_> = object
        .get("required")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .map(str::to_owned)
        .collect();
    if let Some(Value::Object(properties)) = object.get_mut("properties") {
        for (name, property) in properties {
            if !required.contains(name) {
                never_null(property);
            }
        }
    }
    for value in object.values_mut() {
        match value {
            Value::Array(values) => values.iter_mut().for_each(absent),
            Value::Object(_) => absent(value),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
}

fn never_null(property: &mut Value) {
    if let Value::Array(types) = &mut property["type"] {
        types.retain(|kind| kind != "null");
        if let [one] = types.as_slice() {
            property["type"] = one.clone();
        }
    }
    if property["type"].is_null() {
        property.as_object_mut().unwrap().remove("type");
    }
    if let Value::Array(values) = &mut property["enum"] {
        values.retain(|value| !value.is_null());
    } else {
        property.as_object_mut().unwrap().remove("enum");
    }
    if let Some(Value::Array(choices)) = property.as_object_mut().unwrap().remove("anyOf") {
        let choices: Vec<_> = choices
            .into_iter()
            .filter(|choice| choice["type"] != "null")
            .collect();
        match <[Value; 1]>::try_from(choices) {
            Ok([Value::Object(choice)]) => {
                for (key, value) in choice {
                    property.as_object_mut().unwrap().entry(key).or_insert(value);
                }
            }
            Ok([other]) => property["anyOf"] = json!([other]),
            Err(choices) => property["anyOf"] = choices.into(),
        }
    }
}

/// As docs/schema.json has it: each definition on a line of its own, so that a change shows what it changes.
pub fn file(all: &Value) -> String {
    let Value::Object(fields) = all else {
        panic!("{all}")
    };
    let line = |(name, value): (&String, &Value)| format!("{}: {value}", Value::from(name.as_str()));
    let head: Map<_, _> = fields
        .clone()
        .into_iter()
        .filter(|(name, _)| name != "$defs")
        .collect();
    let mut text = String::from("{\n");
    for field in &head {
        writeln!(text, "{},", line(field)).unwrap();
    }
    let definitions: Vec<_> = fields["$defs"].as_object().unwrap().iter().map(line).collect();
    write!(text, "\"$defs\": {{\n{}\n}}\n}}\n", definitions.join(",\n")).unwrap();
    text
}
