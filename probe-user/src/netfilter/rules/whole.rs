//! Rules that were read from the kernel and not understood in all their parts, as their tool writes them.

use super::{
    Action, CandidateRule, RulePosition, Tool, by_action, iptables,
    model::{Table, shown},
    netlink,
    nft_text::{self, Key},
    read,
};
use crate::model::rule::owner_of;

/// Has the tools write those rules whose text leaves something out, in the calling thread's network namespace. They must be rules
/// that are still there. One that its tool doesn't show stays as it is.
pub fn complete(rules: &mut [CandidateRule]) {
    let mut listed: Option<(Tool, Key, String)> = None;
    for rule in rules.iter_mut() {
        if rule.place == RulePosition::Policy || !netlink::is_partly_read(&rule.text) {
            continue;
        }
        let key = Key {
            family: rule.family,
            table: rule.table.clone(),
            chain: rule.chain.clone(),
        };
        let is_listed = |(tool, of, _): &(Tool, Key, String)| *tool == rule.tool && *of == key;
        if !listed.as_ref().is_some_and(is_listed) {
            listed = read::list_chain(rule).map(|text| (rule.tool, key.clone(), text));
        }
        let Some((_, _, text)) = &listed else { continue };
        match rule.place {
            RulePosition::Position(position) => of_iptables(rule, position, text),
            RulePosition::Handle(handle) => {
                if let Some(text) = nft_text::listed(text).rule(&key, handle) {
                    text.clone_into(&mut rule.text);
                }
            }
            RulePosition::Policy => {}
        }
    }
}

/// The same of rules that exempt packets from conntrack: a list has all of them.
pub(super) fn complete_exempting(tables: &mut [Table]) {
    let mut rules = by_action::rules(tables, Action::NoTrack);
    rules.retain(|rule| netlink::is_partly_read(&rule.text));
    if rules.is_empty() {
        return;
    }
    complete(&mut rules);
    for rule in rules.iter().filter(|rule| !netlink::is_partly_read(&rule.text)) {
        let is_its = |table: &&mut Table| {
            (table.tool, table.family, &table.name) == (rule.tool, rule.family, &rule.table)
        };
        for table in tables.iter_mut().filter(is_its) {
            table.rewrite(&rule.chain, rule.place, &rule.text);
        }
    }
}

/// Takes the rule at a position of what `iptables -S CHAIN` lists.
fn of_iptables(rule: &mut CandidateRule, position: u32, list: &str) {
    let mut rules = iptables::lines(list).filter(|line| line.starts_with("-A "));
    let Some(line) = usize::try_from(position)
        .ok()
        .and_then(|place| rules.nth(place.checked_sub(1)?))
    else {
        return;
    };
    let Some(words) = iptables::whole_words(line) else {
        return;
    };
    let Some((_, words)) = words
        .split_first()
        .filter(|(_, words)| words.first() == Some(&rule.chain))
    else {
        return;
    };
    rule.text = shown(line);
    rule.words = Some(words.to_vec());
    rule.owner = owner_of(rule);
}
