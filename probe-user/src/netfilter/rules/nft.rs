//! What `nft --json --handle list ruleset` prints.

use std::collections::HashMap;

use serde::Deserialize;
use serde_json::{Value as Json, value::RawValue};

use super::{
    Family, RulePosition, Tool, expression,
    model::{Base, Hook, Rule, Set, Table, Value, shown},
    names,
    nft_text::{self, Key, Listed},
};

/// Kept apart until needed: as values, all of it at once would take many times the text's memory.
#[derive(Deserialize)]
struct Document<'a> {
    #[serde(borrow)]
    nftables: Vec<&'a RawValue>,
}

/// The tables of the families that matter, with the rules' texts taken from `listed` where they're there.
pub(super) fn tables(json: &str, listed: &Listed) -> serde_json::Result<Vec<Table>> {
    let document: Document<'_> = serde_json::from_str(json)?;
    let mut found = ListedTables {
        tables: Vec::new(),
        places: HashMap::new(),
        listed,
    };
    for item in document.nftables {
        // Of odd things, those that can be understood are still of use.
        if let Ok(item) = serde_json::from_str::<Json>(item.get()) {
            found.item(&item);
        }
    }
    Ok(found.tables)
}

struct ListedTables<'a> {
    tables: Vec<Table>,
    places: HashMap<(Family, String), usize>,
    listed: &'a Listed,
}

impl ListedTables<'_> {
    fn item(&mut self, item: &Json) -> Option<()> {
        let (kind, json) = item.as_object()?.iter().next()?;
        match kind.as_str() {
            "table" => {
                let table = (
                    Family::from_name(text(json, "family")?)?,
                    text(json, "name")?.to_owned(),
                );
                let dormant = says(json.get("flags"), "dormant") || self.listed.is_dormant(&table);
                self.table(json, "name")?.dormant = dormant;
            }
            "chain" => self.chain(json)?,
            "rule" => self.rule(json)?,
            "set" | "map" | "element" => self.set(json)?,
            _ => {}
        }
        Some(())
    }

    /// The table that something is of, which has the table's name at `key`.
    fn table(&mut self, json: &Json, key: &str) -> Option<&mut Table> {
        let family = Family::from_name(text(json, "family")?)?;
        let name = text(json, key)?;
        let place = *self.places.entry((family, name.to_owned())).or_insert_with(|| {
            self.tables.push(Table::new(Tool::Nft, family, name));
            self.tables.len() - 1
        });
        self.tables.get_mut(place)
    }

    fn chain(&mut self, json: &Json) -> Option<()> {
        let key = key(json, "name")?;
        let base = text(json, "hook").and_then(Hook::of_name).map(|hook| Base {
            hook,
            priority: json.get("prio").and_then(priority).unwrap_or(0),
            nat: text(json, "type") == Some("nat"),
            devices: self.devices(json, &key),
            drops: text(json, "policy") == Some("drop"),
            packets: None,
        });
        self.table(json, "table")?.chain_mut(&key.chain).base = base;
        Some(())
    }

    fn devices(&self, json: &Json, key: &Key) -> Vec<Value> {
        let devices: Vec<Value> = ["dev", "devices"]
            .into_iter()
            .filter_map(|key| json.get(key))
            .flat_map(expression::devices)
            .chain(
                self.listed
                    .devices(key)
                    .iter()
                    .map(|name| expression::device(name)),
            )
            .collect();
        if devices.is_empty() {
            vec![Value::Unknown]
        } else {
            devices
        }
    }

    fn rule(&mut self, json: &Json) -> Option<()> {
        let key = key(json, "chain")?;
        let handle = json.get("handle").and_then(Json::as_u64).unwrap_or_default();
        let expressions = json.get("expr").unwrap_or(&Json::Null);
        let rule = Rule {
            place: RulePosition::Handle(handle),
            text: match self.listed.rule(&key, handle) {
                Some(text) => text.to_owned(),
                None => shown(&nft_text::written(expressions, text(json, "comment"))),
            },
            whole: None,
            packets: expression::packets(expressions),
            steps: expression::steps(expressions),
        };
        let table = self.table(json, "table")?;
        for set in expression::changed(expressions) {
            table.sets.entry(set.to_owned()).or_default().loose = true;
        }
        table.chain_mut(&key.chain).rules.push(rule);
        Some(())
    }

    fn set(&mut self, json: &Json) -> Option<()> {
        let name = text(json, "name")?;
        let rows = json.get("elem").map(expression::rows).unwrap_or_default();
        let flags = json.get("flags");
        let loose = says(flags, "dynamic") || says(flags, "timeout");
        let set: &mut Set = self
            .table(json, "table")?
            .sets
            .entry(name.to_owned())
            .or_default();
        set.rows.extend(rows);
        set.loose |= loose;
        Some(())
    }
}

/// The chain that something is of, or is, with its name at `chain`.
fn key(json: &Json, chain: &str) -> Option<Key> {
    Some(Key {
        family: Family::from_name(text(json, "family")?)?,
        table: text(json, "table")?.to_owned(),
        chain: text(json, chain)?.to_owned(),
    })
}

fn text<'a>(json: &'a Json, key: &str) -> Option<&'a str> {
    json.get(key)?.as_str()
}

/// Whether it's that word, or a list with it.
fn says(json: Option<&Json>, word: &str) -> bool {
    match json {
        Some(Json::Array(words)) => words.iter().any(|json| json.as_str() == Some(word)),
        Some(json) => json.as_str() == Some(word),
        None => false,
    }
}

fn priority(json: &Json) -> Option<i64> {
    json.as_i64().or_else(|| names::priority(json.as_str()?))
}
