//! Tables, chains and rules, of whatever tool.

use std::{collections::HashMap, net::IpAddr};

use super::{
    Action, CandidateRule, Family, RulePosition, Tool, clean, iptables,
    netlink::{self, Positions},
};
use crate::model::rule::{owner_of, owner_of_policy};

/// How long a rule's text may be, in characters.
const TEXT: usize = 500;

probe_model::names! {
    /// A point of the kernel where chains are attached, as nft writes it.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(super) enum Hook {
        Ingress = "ingress",
        Prerouting = "prerouting",
        Input = "input",
        Forward = "forward",
        Output = "output",
        Postrouting = "postrouting",
        Egress = "egress",
    }
}

impl Hook {
    /// By its name, in whatever case: iptables names its chains after the hooks, in capitals.
    pub(super) fn of_name(name: &str) -> Option<Self> {
        Self::from_name(&name.to_ascii_lowercase())
    }
}

#[derive(Debug)]
pub(super) struct Table {
    pub(super) tool: Tool,
    pub(super) family: Family,
    pub(super) name: String,
    /// Switched off as a whole (nft).
    pub(super) dormant: bool,
    pub(super) sets: HashMap<String, Set>,
    chains: Vec<Chain>,
    places: HashMap<String, usize>,
}

impl Table {
    pub(super) fn new(tool: Tool, family: Family, name: &str) -> Self {
        Self {
            tool,
            family,
            name: name.to_owned(),
            dormant: false,
            sets: HashMap::new(),
            chains: Vec::new(),
            places: HashMap::new(),
        }
    }

    /// Gives rules the positions that they have in their chains, of which others were left out.
    pub(super) fn renumber(&mut self, positions: &Positions) {
        for chain in self.chains.iter_mut().filter(|_| self.tool != Tool::Nft) {
            let key = (self.family, self.name.clone(), chain.name.clone());
            let positions = positions.get(&key).into_iter().flatten();
            for (rule, position) in chain.rules.iter_mut().zip(positions) {
                rule.place = RulePosition::Position(*position);
            }
        }
    }

    /// Adds a rule that iptables or ebtables printed as `line` to the end of its chain: they number rules.
    pub(super) fn append(&mut self, chain: &str, line: &str, packets: Option<u64>, steps: Vec<Step>) {
        let rules = &mut self.chain_mut(chain).rules;
        let place = RulePosition::Position(u32::try_from(rules.len() + 1).unwrap_or(u32::MAX));
        let text = shown(line);
        rules.push(Rule {
            place,
            whole: (text != line).then(|| line.into()),
            text,
            packets,
            steps,
        });
    }

    /// Gives a rule the text that its tool has for it.
    pub(super) fn rewrite(&mut self, chain: &str, place: RulePosition, text: &str) {
        // Of one that is cut, the words are not known.
        if text.ends_with('…') {
            return;
        }
        let chain = self
            .places
            .get(chain)
            .and_then(|&place| self.chains.get_mut(place));
        let mut rules = chain.into_iter().flat_map(|chain| &mut chain.rules);
        if let Some(rule) = rules.find(|rule| rule.place == place) {
            text.clone_into(&mut rule.text);
            rule.whole = None;
        }
    }

    /// Says of a chain whose rules are left out that they may accept a packet, or let it go on.
    pub(super) fn leave_open(&mut self, chain: &str) {
        self.append(chain, "", None, vec![Step::Do(Statement::Unknown)]);
    }

    pub(super) fn chains(&self) -> &[Chain] {
        &self.chains
    }

    /// Leaves out chains by their names.
    pub(super) fn retain_chains(&mut self, keep: impl Fn(&str) -> bool) {
        self.chains.retain(|chain| keep(&chain.name));
        let chains = self.chains.iter().enumerate();
        self.places = chains.map(|(place, chain)| (chain.name.clone(), place)).collect();
    }

    pub(super) fn chain(&self, name: &str) -> Option<&Chain> {
        self.places.get(name).and_then(|&place| self.chains.get(place))
    }

    /// A rule of this table, or a chain's policy, that does `action`.
    pub(super) fn candidate(
        &self,
        chain: &Chain,
        found: RuleOrPolicy<'_>,
        action: Action,
        certain: bool,
        reached: bool,
    ) -> CandidateRule {
        let mut candidate = CandidateRule {
            tool: self.tool,
            family: self.family,
            table: self.name.clone(),
            chain: chain.name.clone(),
            place: RulePosition::Policy,
            text: String::new(),
            words: None,
            action,
            certain,
            reached,
            packets: None,
            owner: None,
        };
        match found {
            RuleOrPolicy::Rule(rule) => {
                candidate.place = rule.place;
                candidate.text.clone_from(&rule.text);
                candidate.words = self.words(rule);
                candidate.packets = rule.packets;
                candidate.owner = owner_of(&candidate);
            }
            RuleOrPolicy::Policy(base) => {
                candidate.text = match self.tool {
                    Tool::IptablesLegacy | Tool::IptablesNft | Tool::EbtablesLegacy | Tool::EbtablesNft => {
                        "policy DROP"
                    }
                    Tool::Nft => "policy drop",
                }
                .to_owned();
                candidate.packets = base.packets;
                let chains = self.chains.iter().map(|chain| chain.name.as_str());
                candidate.owner = owner_of(&candidate).or_else(|| owner_of_policy(&chain.name, chains));
            }
        }
        candidate
    }

    /// The words of a rule of iptables or ebtables, where it was read whole.
    fn words(&self, rule: &Rule) -> Option<Vec<String>> {
        if self.tool == Tool::Nft || netlink::is_partly_read(&rule.text) {
            return None;
        }
        let words = iptables::whole_words(rule.whole.as_deref().unwrap_or(&rule.text))?;
        let (first, words) = words.split_first()?;
        (first == "-A").then(|| words.to_vec())
    }

    /// The chain of that name, added if there was none.
    pub(super) fn chain_mut(&mut self, name: &str) -> &mut Chain {
        let place = *self.places.entry(name.to_owned()).or_insert_with(|| {
            self.chains.push(Chain {
                name: name.to_owned(),
                base: None,
                rules: Vec::new(),
            });
            self.chains.len() - 1
        });
        &mut self.chains[place]
    }
}

/// What does something to a packet.
#[derive(Debug, Clone, Copy)]
pub(super) enum RuleOrPolicy<'a> {
    Rule(&'a Rule),
    Policy(&'a Base),
}

#[derive(Debug)]
pub(super) struct Chain {
    pub(super) name: String,
    pub(super) base: Option<Base>,
    pub(super) rules: Vec<Rule>,
}

/// What a chain that is attached to a hook has more than others.
#[derive(Debug)]
pub(super) struct Base {
    pub(super) hook: Hook,
    pub(super) priority: i64,
    /// Only a connection's first packet goes through.
    pub(super) nat: bool,
    /// Of an ingress or egress chain.
    pub(super) devices: Vec<Value>,
    /// The policy is to drop.
    pub(super) drops: bool,
    /// The policy's counter.
    pub(super) packets: Option<u64>,
}

#[derive(Debug)]
pub(super) struct Rule {
    pub(super) place: RulePosition,
    pub(super) text: String,
    /// The rule as its tool wrote it, where `text` is not that; `None` also where it was not read whole.
    pub(super) whole: Option<Box<str>>,
    pub(super) packets: Option<u64>,
    pub(super) steps: Vec<Step>,
}

/// A part of a rule. They are gone through in order, until one doesn't match.
#[derive(Debug, PartialEq)]
pub(super) enum Step {
    Match(Condition),
    /// Matches if all do, and does not match if none does. Else that can't be told from what nft prints.
    MatchTogether(Vec<Condition>),
    Do(Statement),
    /// What is done depends on the packet (nft's `vmap`); the rule ends here.
    Choose(Condition),
}

impl Step {
    /// A match that can't be told from here.
    pub(super) fn unknown() -> Self {
        Self::Match(Condition::of(Field::Unknown, [Value::Unknown]))
    }
}

/// Are the packet's `fields` one of `values`?
#[derive(Debug, PartialEq)]
pub(super) struct Condition {
    pub(super) not: bool,
    /// Several if concatenated.
    pub(super) fields: Vec<Field>,
    pub(super) values: Values,
}

impl Condition {
    pub(super) fn of(field: Field, values: impl IntoIterator<Item = Value>) -> Self {
        let rows = values
            .into_iter()
            .map(|value| Row {
                values: vec![value],
                statement: None,
            })
            .collect();
        Self {
            not: false,
            fields: vec![field],
            values: Values::Rows(rows),
        }
    }

    pub(super) fn negated(self, not: bool) -> Self {
        Self {
            not: self.not != not,
            ..self
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Field {
    Family,
    Protocol,
    Source,
    Destination,
    SourcePort,
    DestinationPort,
    /// Of the connection's first packet.
    OriginalSource,
    /// Of the packet that answers it: the address of the server itself.
    ReplySource,
    EitherPort,
    Input,
    Output,
    /// The bridge that the device it came by is a port of.
    InputBridge,
    /// The same of the device that it leaves by.
    OutputBridge,
    /// Local, multicast, …
    DestinationType,
    Unknown,
}

#[derive(Debug, PartialEq)]
pub(super) enum Values {
    Rows(Vec<Row>),
    /// A set or map of the table.
    Named(String),
}

#[derive(Debug, Default)]
pub(super) struct Set {
    pub(super) rows: Vec<Row>,
    /// Elements come and go with packets or time: what it held when the packet came isn't known.
    pub(super) loose: bool,
}

/// An element of a set, or of a map to verdicts.
#[derive(Debug, PartialEq)]
pub(super) struct Row {
    /// As many as the fields.
    pub(super) values: Vec<Value>,
    pub(super) statement: Option<Statement>,
}

impl Row {
    /// For whatever no other element is for.
    pub(super) fn is_rest(&self) -> bool {
        self.values.iter().all(|value| *value == Value::Any)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    Any,
    /// From, to.
    Numbers(u64, u64),
    /// From, to.
    Addresses(IpAddr, IpAddr),
    Text(String),
    /// A name that begins so.
    Prefix(String),
    Unknown,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Statement {
    Accept,
    Act(Action),
    /// Does it to some packets, for reasons that can't be seen from here.
    May(Action),
    Return,
    Jump(String),
    Goto(String),
    /// May let the packet go; nothing else that matters here.
    Unknown,
    Continue,
}

/// A rule's text as it's shown: one line, not too long, nothing a terminal would obey.
pub(super) fn shown(text: &str) -> String {
    let text = clean(text.trim());
    match text.char_indices().nth(TEXT) {
        None => text,
        Some(_) => text.chars().take(TEXT - 1).chain(['…']).collect(),
    }
}
