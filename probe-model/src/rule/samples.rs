//! Rules for tests.

use super::{Action, CandidateRule, Family, RulePosition, Tool, owner_of, owner_of_policy};

/// A rule of iptables: its tool, its table, its words as a shell would have them.
pub fn iptables(tool: Tool, table: &str, action: Action, words: &[&str]) -> CandidateRule {
    let chain = words[0].to_owned();
    let text = format!("-A {}", words.join(" "));
    let mut rule = CandidateRule {
        tool,
        family: Family::Ip,
        table: table.to_owned(),
        chain,
        place: RulePosition::Position(3),
        text: super::clean(&text),
        words: Some(words.iter().map(|word| (*word).to_owned()).collect()),
        action,
        certain: true,
        reached: true,
        packets: Some(7),
        owner: None,
    };
    rule.owner = owner_of(&rule);
    rule
}

/// A rule of nft.
pub fn nft(family: Family, table: &str, chain: &str, action: Action, text: &str) -> CandidateRule {
    let mut rule = CandidateRule {
        family,
        place: RulePosition::Handle(9),
        text: text.to_owned(),
        words: None,
        ..iptables(Tool::Nft, table, action, &[chain])
    };
    rule.owner = owner_of(&rule);
    rule
}

/// The policy of a chain.
pub fn policy(tool: Tool, chain: &str, chains: &[&str]) -> CandidateRule {
    CandidateRule {
        place: RulePosition::Policy,
        text: "policy DROP".to_owned(),
        words: None,
        owner: owner_of_policy(chain, chains.iter().copied()),
        ..iptables(tool, "filter", Action::Drop, &[chain])
    }
}

/// A certain rule without a counter that exempts packets from conntrack, distinguished from others by a word in it.
pub fn notrack(word: &str) -> CandidateRule {
    let words = ["PREROUTING", "-m", "mark", "--mark", word, "-j", "NOTRACK"];
    CandidateRule {
        packets: None,
        text: format!("-A PREROUTING {word}"),
        ..iptables(Tool::IptablesNft, "raw", Action::NoTrack, &words)
    }
}
