//! What the counters say, read without probe.

use std::collections::HashMap;

use anyhow::{Result, ensure};
use probe_lab::finish;

use crate::{
    generate::{GeneratedRule, Matching},
    network::Router,
};

/// Counters by their names: `r7` that of a rule, `a7` what went on behind it, `p7` what reached a policy.
#[derive(Debug)]
pub struct Truth(HashMap<String, u64>);

/// Those that moved.
#[derive(Debug)]
pub struct Moved(HashMap<String, u64>);

impl Truth {
    pub fn read(router: &Router) -> Result<Self> {
        let print = |program: &str, arguments: &[&str]| -> Result<String> {
            let output = finish(router.netns.command(program).args(arguments))?;
            ensure!(output.status.success(), "{program} failed: {output:?}");
            Ok(String::from_utf8(output.stdout)?)
        };
        let mut counters = HashMap::new();
        for program in ["iptables-legacy-save", "iptables-nft-save"] {
            for line in print(program, &["-c"])?.lines() {
                let packets = line.strip_prefix('[').and_then(|rest| rest.split_once(':'));
                let name = after(line, "--comment ");
                if let (Some((packets, _)), Some(name)) = (packets, name) {
                    counters.insert(name, packets.parse()?);
                }
            }
        }
        let mut named = None;
        for line in print("nft", &["list", "ruleset"])?.lines().map(str::trim) {
            if let Some(name) = line
                .strip_prefix("counter ")
                .and_then(|rest| rest.strip_suffix(" {"))
            {
                named = Some(name.replacen('n', "r", 1));
            } else if let Some(packets) = line.strip_prefix("packets ")
                && let (Some(name), Some((packets, _))) = (named.take(), packets.split_once(' '))
            {
                counters.insert(name, packets.parse()?);
            } else if let (Some((_, rest)), Some(name)) =
                (line.split_once("counter packets "), after(line, "comment \""))
            {
                let (packets, _) = rest.split_once(' ').unwrap_or_default();
                counters.insert(name, packets.parse()?);
            }
        }
        Ok(Self(counters))
    }

    pub fn since(&self, before: &Self) -> Moved {
        let moved = self.0.iter().filter_map(|(name, packets)| {
            let more = packets - before.0.get(name).copied().unwrap_or_default();
            (more > 0).then(|| (name.clone(), more))
        });
        Moved(moved.collect())
    }
}

/// The name that follows a word.
fn after(line: &str, word: &str) -> Option<String> {
    let (_, rest) = line.split_once(word)?;
    let name = rest.trim_start_matches('"').chars();
    Some(name.take_while(char::is_ascii_alphanumeric).collect())
}

impl Moved {
    /// Whether the packet met a rule, and all its conditions.
    pub fn has(&self, id: u32) -> bool {
        self.0.contains_key(&format!("r{id}"))
    }

    /// Whether it met the policy of a chain.
    pub fn has_policy(&self, id: u32) -> bool {
        self.0.contains_key(&format!("p{id}"))
    }

    /// Whether the rule's verdict is where it ended.
    pub fn ends_at(&self, rule: &GeneratedRule) -> bool {
        let has_map = rule
            .conditions
            .iter()
            .any(|condition| matches!(condition, Matching::Map(_)));
        let went_on = has_map && self.0.contains_key(&format!("a{}", rule.id));
        self.has(rule.id) && !went_on
    }
}
