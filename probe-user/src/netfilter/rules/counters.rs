//! What named rules have counted by now, without reading all rules again.

use std::collections::HashMap;

use super::{CandidateRule, Tool, netlink, xtables};

/// Reads the counters of rules anew, in the calling thread's network namespace. They must be rules that are still there: see
/// [`super::fingerprint`].
///
/// # Errors
/// A sentence, when some can't be read; those are as they were.
pub fn refresh(rules: &mut [CandidateRule]) -> Result<(), String> {
    // A table of iptables-legacy is read as a whole, any other one by chains.
    let mut groups: HashMap<_, Vec<usize>> = HashMap::new();
    for (place, rule) in rules.iter().enumerate() {
        let chain = match rule.tool {
            Tool::IptablesLegacy => None,
            Tool::IptablesNft | Tool::Nft | Tool::EbtablesLegacy | Tool::EbtablesNft => {
                Some(rule.chain.clone())
            }
        };
        let group = (
            rule.tool.name(rule.family),
            rule.family.name(),
            rule.table.clone(),
            chain,
        );
        groups.entry(group).or_default().push(place);
    }
    let mut result = Ok(());
    for places in groups.into_values() {
        let group: Vec<&CandidateRule> = places.iter().filter_map(|&place| rules.get(place)).collect();
        let Some(first) = group.first() else { continue };
        let counters = match first.tool {
            Tool::IptablesLegacy => xtables::counters(&group),
            Tool::IptablesNft | Tool::Nft | Tool::EbtablesNft => netlink::counters(&group),
            Tool::EbtablesLegacy => Err("counters of ebtables-legacy are read with all its rules".to_owned()),
        };
        match counters {
            Ok(counters) => {
                for (&place, packets) in places.iter().zip(counters) {
                    if let Some(rule) = rules.get_mut(place) {
                        rule.packets = packets;
                    }
                }
            }
            Err(error) => result = Err(error),
        }
    }
    result
}
