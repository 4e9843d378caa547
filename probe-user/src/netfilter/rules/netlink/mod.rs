//! The rules of nf_tables, read from the kernel itself: all at once where the tools that show them are missing, or those that a
//! packet can meet.
//!
//! What comes out is what the tools would have printed, as far as it's understood, so that there is one reading of rules,
//! one of Services, and the operator sees the words he knows.

mod aim;
mod dump;
mod elements;
mod exempting;
mod expression;
mod field;
mod iptables;
mod nft;
mod reached;
mod registers;
mod ruleset;
mod services;
#[cfg(test)]
mod tests;
pub(super) mod xt;

use std::collections::HashMap;

use serde_json::json;

pub(super) use self::{
    aim::{Aim, destination_ports},
    dump::{ATTEMPTS, DumpError},
    exempting::may_exempt,
    expression::Extension,
    iptables::word as plain_word,
    reached::{ChainReader, Positions},
    services::ListedServices,
    xt::is_notrack,
};
use self::{
    dump::{ChainCounters, Dump, RuleCounter},
    registers::parts,
};
use super::{CandidateRule, Family, RulePosition, Tool, read::Save};

/// What begins the mention of a part that isn't understood, such as `[xt match statistic]`.
const NOT_UNDERSTOOD: [&str; 2] = ["[xt ", "[nft "];

/// Whether a rule's text, as it's written here, leaves something out.
pub(super) fn is_partly_read(text: &str) -> bool {
    NOT_UNDERSTOOD.iter().any(|mark| text.contains(mark))
}

/// What the tools would have printed.
#[derive(Debug, Default)]
pub(super) struct Printed {
    /// Of what iptables-nft made.
    pub(super) saves: Vec<Save>,
    /// All else, in JSON.
    pub(super) nft: String,
    /// What couldn't be read, in sentences.
    pub(super) unread: Vec<String>,
}

/// A number that each change of nf_tables' rules makes another, in the calling thread's network namespace; `None` if this kernel
/// runs without nf_tables.
///
/// # Errors
/// A sentence, when the kernel doesn't tell it.
pub(super) fn generation() -> Result<Option<u32>, String> {
    dump::generation().map_err(|error| error.to_string())
}

/// Counters of rules of one chain, read anew, in the order of `rules`; `None`: one has no counter.
///
/// # Errors
/// A sentence, when the kernel doesn't tell them, or has other rules by now.
pub(super) fn counters(rules: &[&CandidateRule]) -> Result<Vec<Option<u64>>, String> {
    let Some(first) = rules.first() else {
        return Ok(Vec::new());
    };
    let found = |counters: &[RuleCounter], place: RulePosition| match place {
        RulePosition::Position(position) => {
            let place = usize::try_from(position).ok()?.checked_sub(1)?;
            counters.get(place).map(|counter| counter.packets)
        }
        RulePosition::Handle(handle) => {
            let mut counters = counters.iter().rev();
            counters
                .find(|counter| counter.handle == handle)
                .map(|counter| counter.packets)
        }
        RulePosition::Policy => Some(None),
    };
    let family = ruleset::family_number(first.family);
    let is_enough = |counters: &[RuleCounter]| {
        let last = counters.last().map(|counter| counter.handle);
        rules.iter().all(|rule| match rule.place {
            RulePosition::Position(position) => {
                counters.len() >= usize::try_from(position).unwrap_or(usize::MAX)
            }
            // Of several, the last one ends it.
            RulePosition::Handle(handle) => rules.len() == 1 && last == Some(handle),
            RulePosition::Policy => true,
        })
    };
    let ChainCounters {
        rules: counters,
        policy,
    } = dump::counters(family, &first.table, &first.chain, is_enough).map_err(|error| error.to_string())?;
    let counter = |rule: &&CandidateRule| match (rule.place, rule.tool) {
        // As they're read: nft shows none, and iptables-nft those that count.
        (RulePosition::Policy, Tool::Nft) => Some(None),
        (RulePosition::Policy, _) => Some(policy.filter(|&packets| packets > 0)),
        (place, _) => found(&counters, place),
    };
    let counters: Option<Vec<_>> = rules.iter().map(counter).collect();
    counters.ok_or_else(|| format!("the rules of chain {} changed meanwhile", first.chain))
}

/// Reads the rules of the calling thread's network namespace, but for the tables that `is_known`; `None` if this kernel
/// runs without nf_tables.
///
/// # Errors
/// A sentence, when the kernel doesn't tell them.
pub(super) fn read(is_known: impl Fn(Family, &str) -> bool) -> Result<Option<Printed>, String> {
    let dump = dump::dump().map_err(|error| error.to_string())?;
    Ok(dump.map(|dump| printed(&dump, is_known)))
}

fn printed(dump: &Dump, is_known: impl Fn(Family, &str) -> bool) -> Printed {
    let tables = ruleset::tables(&dump.bytes);
    let unknown = tables.iter().filter(|table| !is_known(table.family, &table.name));
    let mut printed = print(unknown, &dump.devices);
    if dump.changed {
        let sentence = "the rules changed each time they were read, so some may be missing";
        printed.unread.push(sentence.to_owned());
    }
    printed
}

fn print<'a>(
    tables: impl IntoIterator<Item = &'a ruleset::Table>,
    devices: &HashMap<u32, String>,
) -> Printed {
    let mut printed = Printed::default();
    let mut saves: HashMap<Family, String> = HashMap::new();
    let mut items = Vec::new();
    for table in tables {
        let rules: Vec<Vec<_>> = table
            .chains
            .iter()
            .map(|chain| {
                let rules = chain.rules.iter();
                rules
                    .map(|rule| parts(table, &rule.expressions, devices))
                    .collect()
            })
            .collect();
        match iptables::save(table, &rules) {
            Some(text) => saves.entry(table.family).or_default().push_str(&text),
            None => items.extend(nft::items(table, &rules, devices)),
        }
    }
    printed.saves = saves
        .into_iter()
        .map(|(family, text)| Save {
            tool: Tool::IptablesNft,
            family,
            text,
        })
        .collect();
    printed.nft = json!({"nftables": items}).to_string();
    printed
}
