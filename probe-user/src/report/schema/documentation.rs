//! The tables of docs/json.md, from the schemas.
//!
//! Between `<!-- fields: NAME -->` and `<!-- end -->` stands what is generated; all else of the file is written by hand. Rows keep
//! their order in the file, so that a reader meets what matters first; a new field is the last row.

use std::{collections::BTreeSet, fmt::Write as _};

use serde_json::{Map, Value};

const BEGIN: &str = "<!-- fields: ";
const END: &str = "<!-- end -->";
/// More names than this are not listed in a table.
const NAMES: usize = 8;

/// `file` with its tables as `all` describes them.
pub fn written(file: &str, all: &Value) -> Result<String, String> {
    let definitions = all["$defs"].as_object().ok_or("no definitions")?;
    let mut missing: BTreeSet<_> = definitions.keys().map(String::as_str).collect();
    let mut text = String::new();
    let mut rest = file;
    while let Some((before, after)) = rest.split_once(BEGIN) {
        let (name, after) = after.split_once(" -->").ok_or("a marker without its end")?;
        let (old, after) = after
            .split_once(END)
            .ok_or_else(|| format!("{name} has no {END}"))?;
        let definition = definitions
            .get(name)
            .ok_or_else(|| format!("no type is called {name}"))?;
        if !missing.remove(name) {
            return Err(format!("{name} stands there twice"));
        }
        writeln!(text, "{before}{BEGIN}{name} -->").map_err(|error| error.to_string())?;
        table(&mut text, name, definition, old);
        text.push_str(END);
        rest = after;
    }
    text.push_str(rest);
    if missing.is_empty() {
        Ok(text)
    } else {
        let missing: Vec<_> = missing.into_iter().collect();
        Err(format!("docs/json.md has no table of {}", missing.join(", ")))
    }
}

fn table(text: &mut String, name: &str, definition: &Value, old: &str) {
    let is_event = definition.get("$anchor").is_some();
    if !is_event {
        let description = definition["description"].as_str().unwrap_or_default();
        text.push_str(&format!("### {name}\n\n{description}\n"));
    }
    let mut fields = Map::new();
    collect(definition, &mut fields);
    text.push_str("\n| field | type | meaning |\n|---|---|---|\n");
    let of_row = |line: &str| Some(line.strip_prefix("| `")?.split_once('`')?.0.to_owned());
    let mut order: Vec<_> = old
        .lines()
        .filter_map(of_row)
        .filter(|name| fields.contains_key(name))
        .collect();
    let new: Vec<_> = fields
        .keys()
        .filter(|name| !order.contains(name))
        .cloned()
        .collect();
    order.extend(new);
    for name in order {
        let field = &fields[&name];
        let description = field["description"]
            .as_str()
            .unwrap_or_default()
            .trim_end_matches('.');
        text.push_str(&format!("| `{name}` | {} | {description} |\n", kind(field)));
    }
    text.push('\n');
}

/// The fields of an object, whichever form it has.
fn collect(definition: &Value, fields: &mut Map<String, Value>) {
    for (name, field) in definition["properties"].as_object().into_iter().flatten() {
        fields.entry(name.as_str()).or_insert_with(|| field.clone());
    }
    for choices in ["anyOf", "oneOf", "allOf"] {
        for choice in definition[choices].as_array().into_iter().flatten() {
            collect(choice, fields);
        }
    }
}

fn kind(field: &Value) -> String {
    if let Some(name) = field["$ref"]
        .as_str()
        .and_then(|name| name.strip_prefix(super::REFERENCE))
    {
        return format!("[{name}](#{})", name.to_lowercase());
    }
    if let Some(names) = field["enum"].as_array() {
        let names: Vec<_> = names.iter().filter_map(Value::as_str).collect();
        return match names.as_slice() {
            few if few.len() <= NAMES => format!("`{}`", few.join("`, `")),
            _ => "a name".to_owned(),
        };
    }
    let types = match &field["type"] {
        Value::Array(types) => types.iter().filter_map(Value::as_str).collect(),
        one => vec![one.as_str().unwrap_or("any")],
    };
    let words = types.into_iter().map(|name| match name {
        "integer" | "number" => "number".to_owned(),
        "boolean" => "true or false".to_owned(),
        "string" => match field["format"].as_str() {
            Some("date-time") => "time".to_owned(),
            Some("ip") => "address".to_owned(),
            Some(_) | None => "text".to_owned(),
        },
        "array" => format!("list of {}", kind(&field["items"])),
        "object" => format!("object of {}", kind(&field["additionalProperties"])),
        other => other.to_owned(),
    });
    words.collect::<Vec<_>>().join(" or ")
}
