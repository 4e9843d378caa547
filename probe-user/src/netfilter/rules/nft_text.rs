//! Rules as nft writes them: taken from its list, or written here.

use std::collections::{HashMap, HashSet};

use serde_json::Value as Json;

use super::{Family, model::shown};

/// What nft's list for people says.
#[derive(Debug, Default)]
pub(super) struct Listed {
    /// The texts of rules, by their handles.
    rules: HashMap<Key, HashMap<u64, String>>,
    /// The devices of chains, which the JSON of some versions lacks.
    devices: HashMap<Key, Vec<String>>,
    /// Tables that are switched off, for which the JSON of some versions has words at random.
    dormant: HashSet<(Family, String)>,
}

/// Which chain.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) family: Family,
    pub(super) table: String,
    pub(super) chain: String,
}

impl Listed {
    pub(super) fn rule(&self, chain: &Key, handle: u64) -> Option<&str> {
        self.rules.get(chain)?.get(&handle).map(String::as_str)
    }

    pub(super) fn devices(&self, chain: &Key) -> &[String] {
        self.devices.get(chain).map(Vec::as_slice).unwrap_or_default()
    }

    pub(super) fn is_dormant(&self, table: &(Family, String)) -> bool {
        self.dormant.contains(table)
    }
}

/// What is in what `nft --handle list ruleset` prints.
///
/// It is laid out by tabs: tables at the margin, chains one in, rules two. A rule's last line ends with its
/// handle.
pub(super) fn listed(text: &str) -> Listed {
    let mut listed = Listed::default();
    let mut table: Option<(Family, String)> = None;
    let mut chain: Option<Key> = None;
    let mut begun = String::new();
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        let depth = line.bytes().take_while(|&byte| byte == b'\t').count();
        let line = line.trim();
        if depth < 2 {
            begun.clear();
        }
        match (depth, &table, &chain) {
            (0, ..) => (table, chain) = (opened(line, "table").and_then(table_named), None),
            (1, Some((family, table)), _) => {
                let mut flags = line.strip_prefix("flags ").into_iter().flat_map(|f| f.split(','));
                if flags.any(|flag| flag.trim() == "dormant") {
                    listed.dormant.insert((*family, table.clone()));
                }
                let name = opened(line, "chain").map(str::to_owned);
                chain = name.map(|chain| Key {
                    family: *family,
                    table: table.clone(),
                    chain,
                });
            }
            (_, _, Some(chain)) => {
                begun.push_str(line);
                let handle = begun
                    .rsplit_once(" # handle ")
                    .and_then(|(text, n)| Some((text, n.parse().ok()?)));
                if let Some((text, handle)) = handle {
                    listed
                        .rules
                        .entry(chain.clone())
                        .or_default()
                        .insert(handle, shown(text));
                    begun.clear();
                } else if line.ends_with(';') {
                    listed
                        .devices
                        .entry(chain.clone())
                        .or_default()
                        .extend(attached(&begun));
                    begun.clear();
                } else {
                    begun.push(' ');
                }
            }
            (_, _, None) => {}
        }
    }
    listed
}

/// The devices in `type filter hook ingress devices = { eth0, eth1 } priority filter; policy accept;`.
fn attached(line: &str) -> Vec<String> {
    let named = line.strip_prefix("type ").and_then(|line| {
        let (_, rest) = line.split_once(" device")?;
        Some(rest.split_once(" priority ")?.0)
    });
    let marks = |c: char| c.is_whitespace() || matches!(c, ',' | '"' | '{' | '}');
    let Some(named) = named else { return Vec::new() };
    // One follows `device`, several follow `devices =`.
    let list = named.strip_prefix("s =").unwrap_or(named);
    list.split(marks)
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
        .collect()
}

/// The name in `KIND NAME { # handle 1`.
fn opened<'a>(line: &'a str, kind: &str) -> Option<&'a str> {
    let line = line.strip_prefix(kind)?.strip_prefix(' ')?;
    Some(line.split_once('{')?.0.trim().trim_matches('"'))
}

fn table_named(words: &str) -> Option<(Family, String)> {
    let (family, name) = words.split_once(' ')?;
    Some((Family::from_name(family)?, name.trim_matches('"').to_owned()))
}

/// A rule written from its expressions. What isn't known here stays JSON.
pub(super) fn written(expressions: &Json, comment: Option<&str>) -> String {
    let mut text = match expressions {
        Json::Array(expressions) => expressions.iter().map(expression).collect::<Vec<_>>().join(" "),
        other => other.to_string(),
    };
    if let Some(comment) = comment {
        text.push_str(&format!(" comment \"{comment}\""));
    }
    text
}

fn expression(json: &Json) -> String {
    known(json).unwrap_or_else(|| json.to_string())
}

fn known(json: &Json) -> Option<String> {
    if let Json::String(text) = json {
        return Some(text.clone());
    }
    let (key, value) = json.as_object()?.iter().next()?;
    let text = |key: &str| value.get(key)?.as_str();
    Some(match key.as_str() {
        "match" => {
            let (left, right) = (value.get("left")?, value.get("right")?);
            let (left, right) = (expression(left), compared(left, right)?);
            match text("op").unwrap_or("==") {
                "==" | "in" => format!("{left} {right}"),
                op => format!("{left} {op} {right}"),
            }
        }
        "payload" => format!("{} {}", text("protocol")?, text("field")?),
        "meta" => match text("key")? {
            key @ ("iif" | "iifname" | "oif" | "oifname") => key.to_owned(),
            key => format!("meta {key}"),
        },
        "ct" => match text("dir") {
            Some(direction) => format!("ct {direction} {}", text("key")?),
            None => format!("ct {}", text("key")?),
        },
        "mangle" if value.get("key").is_some() => format!(
            "{} set {}",
            expression(value.get("key")?),
            expression(value.get("value")?)
        ),
        "elem" => expression(value.get("val")?),
        "prefix" => format!("{}/{}", text("addr")?, value.get("len")?.as_u64()?),
        "range" => value
            .as_array()?
            .iter()
            .map(expression)
            .collect::<Vec<_>>()
            .join("-"),
        "concat" => value
            .as_array()?
            .iter()
            .map(expression)
            .collect::<Vec<_>>()
            .join(" . "),
        "set" => match value {
            Json::Array(elements) => {
                format!(
                    "{{ {} }}",
                    elements.iter().map(element).collect::<Vec<_>>().join(", ")
                )
            }
            _ => return None,
        },
        "vmap" => format!(
            "{} vmap {}",
            expression(value.get("key")?),
            expression(value.get("data")?)
        ),
        "fib" if text("result") == Some("type") => {
            let of = value.get("flags")?.as_array()?.first()?.as_str()?;
            format!("fib {of} type")
        }
        "&" => {
            let [left, mask] = value.as_array()?.as_slice() else {
                return None;
            };
            format!("{} & {}", expression(left), expression(mask))
        }
        "xt" => format!("[xt {} {}]", text("type")?, text("name")?),
        "counter" | "quota" | "limit" if value.is_string() => format!("{key} name {value}"),
        "ct helper" | "ct timeout" | "ct expectation" if value.is_string() => format!("{key} set {value}"),
        "secmark" if value.is_string() => format!("meta secmark set {value}"),
        "log" if value.get("prefix").is_some() => format!("log prefix \"{}\"", text("prefix")?),
        "reject" if value.get("type").is_some() => format!("reject with {}", text("type")?),
        "jump" | "goto" => format!("{key} {}", text("target")?),
        "counter" | "accept" | "drop" | "return" | "continue" | "notrack" | "masquerade" | "reject"
        | "log" => key.clone(),
        // Of whatever is read from the kernel and not understood, there is only the name.
        _ if value.is_null() => format!("[nft {key}]"),
        _ => return None,
    })
}

/// What a field is compared with.
fn compared(field: &Json, value: &Json) -> Option<String> {
    let key = |of: &str| field.get(of).and_then(|field| field.get("key")?.as_str());
    Some(match (key("meta"), value) {
        (Some("iif" | "iifname" | "oif" | "oifname"), Json::String(name)) => format!("\"{name}\""),
        (Some("mark"), Json::Number(mark)) => format!("0x{:08x}", mark.as_u64()?),
        // Of a map or a set, each of the same kind.
        (Some("iif" | "iifname" | "oif" | "oifname"), Json::Object(set)) => match set.get("set") {
            Some(Json::Array(names)) => {
                let names = names.iter().map(|name| compared(field, name));
                format!("{{ {} }}", names.collect::<Option<Vec<_>>>()?.join(", "))
            }
            Some(_) | None => expression(value),
        },
        // Bits.
        (None, Json::Array(bits)) if key("ct").is_some() => {
            bits.iter().map(expression).collect::<Vec<_>>().join(",")
        }
        _ => expression(value),
    })
}

/// Of a set, or of a map: key, value.
fn element(json: &Json) -> String {
    match json.as_array().map(Vec::as_slice) {
        Some([key, value]) => format!("{} : {}", expression(key), expression(value)),
        Some(_) | None => expression(json),
    }
}
