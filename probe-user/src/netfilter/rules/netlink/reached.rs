//! The chains that packets reach, read one by one: from those attached to hooks along jumps, and elements that jump.
//!
//! The kernel lists all rules of a table in a time that grows with their square: each part of its answer begins with a walk over
//! all that it sent before (`__nf_tables_dump_rules()`). kube-proxy has eight rules for each Service with two endpoints, nearly
//! all of them in chains of type nat. What a chain holds is listed at once.

use std::collections::{HashMap, HashSet};

use netlink_packet_core::NLM_F_DUMP;
use netlink_packet_netfilter::nftables::{
    ChainMessage, NfTablesMessage, RuleAttribute, RuleMessage, SetAttribute, SetElementList,
    SetElementMessage, SetMessage, TableMessage,
};

use super::{
    Printed,
    aim::{Aim, RuleTests, may_hold},
    dump::{ATTEMPTS, Asked, BYTES, DumpError, devices, is_loaded},
    expression::{Expression, RuleVerdict},
    field::Piece,
    iptables::is_its_own,
    print,
    registers::parts,
    ruleset::{
        Base, Chain, Element, NEW_CHAIN, NEW_RULE, NEW_SET, NEW_SET_ELEMENT, NEW_TABLE, Rule, Set, Table,
        base, elements, family, family_number, rule,
    },
};
use crate::netfilter::rules::Family;

/// Chains read at once: kube-proxy leads a packet through one for each endpoint of a Service.
const CHAINS: usize = 16_384;
/// A chain with more rules, or a set with more elements, is not read again for each destination.
const LARGE: usize = 64;
/// Rules remembered so; an element counts as [`ELEMENT`] rules, for its size.
const REMEMBERED: usize = 1 << 16;
const ELEMENT: usize = 4;
/// Rules fetched one by one; of more, the chain is read.
const FETCHED: usize = 256;

/// Where each rule is in its chain, in the order of [`Printed`]'s rules, for chains of which some were left out.
pub(in crate::netfilter::rules) type Positions = HashMap<(Family, String, String), Vec<u32>>;

/// Reads chains of one network namespace.
pub(in crate::netfilter::rules) struct ChainReader {
    asked: Asked,
    generation: Option<u32>,
    devices: HashMap<u32, String>,
    tables: Vec<BaseChains>,
    /// What rules of large chains test, by table and name.
    chains: HashMap<(usize, String), Vec<IndexedRule>>,
    /// Large sets, by table and name.
    sets: HashMap<(usize, String), Set>,
    /// How much of [`REMEMBERED`] is in both.
    remembered: usize,
}

/// A table and its chains at hooks.
pub(super) struct BaseChains {
    pub(super) family: Family,
    pub(super) name: String,
    pub(super) dormant: bool,
    pub(super) chains: Vec<(String, Base)>,
}

impl BaseChains {
    /// The table with those chains that are wanted; `None`: there are none.
    fn table(&self, is_wanted: impl Fn(&Base) -> bool) -> Option<Table> {
        let wanted = self.chains.iter().filter(|(_, base)| is_wanted(base));
        let chains: Vec<Chain> = wanted
            .map(|(name, base)| Chain {
                name: name.clone(),
                base: Some(base.clone()),
                rules: Vec::new(),
            })
            .collect();
        let mut own = self.chains.iter();
        (!chains.is_empty()).then(|| Table {
            family: self.family,
            name: self.name.clone(),
            dormant: self.dormant,
            is_foreign: own.any(|(name, base)| !is_its_own(&self.name, base, name)),
            chains,
            sets: HashMap::new(),
        })
    }
}

#[derive(Clone, Copy)]
struct IndexedRule {
    handle: u64,
    tests: RuleTests,
}

impl ChainReader {
    /// For the calling thread's network namespace; `None` if this kernel runs without nf_tables.
    ///
    /// # Errors
    /// When the kernel doesn't tell its tables and chains.
    pub(in crate::netfilter::rules) fn open() -> Result<Option<Self>, DumpError> {
        // Asking would load it, and probe changes nothing on a node.
        if !is_loaded() {
            return Ok(None);
        }
        let mut reader = Self {
            asked: Asked::open()?,
            generation: None,
            devices: devices(),
            tables: Vec::new(),
            chains: HashMap::new(),
            sets: HashMap::new(),
            remembered: 0,
        };
        for _ in 0..ATTEMPTS {
            reader.asked.changed = false;
            reader.generation = reader.asked.generation()?;
            reader.tables = base_chains(&mut reader.asked)?;
            if reader.is_unchanged()? {
                return Ok(Some(reader));
            }
        }
        Err(DumpError::Changed)
    }

    fn is_unchanged(&mut self) -> Result<bool, DumpError> {
        Ok(self.asked.generation()? == self.generation && !self.asked.changed)
    }

    /// What it reads by, and the tables.
    pub(super) fn parts(&mut self) -> (&mut Asked, &[BaseChains]) {
        (&mut self.asked, &self.tables)
    }

    /// The number of the rules that it reads: each change makes it another.
    pub(in crate::netfilter::rules) fn generation(&self) -> Option<u32> {
        self.generation
    }

    /// Takes the names that devices have by now.
    pub(in crate::netfilter::rules) fn rename_devices(&mut self) {
        self.devices = devices();
    }

    /// Whether there are chains of that family.
    pub(in crate::netfilter::rules) fn has(&self, family: Family) -> bool {
        let mut tables = self.tables.iter();
        tables.any(|table| table.family == family && !table.chains.is_empty())
    }

    /// Whether there are chains of type nat.
    pub(in crate::netfilter::rules) fn has_nat(&self) -> bool {
        let mut chains = self.tables.iter().flat_map(|table| &table.chains);
        chains.any(|(_, base)| is_nat(base))
    }

    /// All rules, but for those that only chains of type nat lead to, and those of bridges.
    ///
    /// # Errors
    /// When they can't be read, or changed.
    pub(in crate::netfilter::rules) fn filters(&mut self) -> Result<Printed, DumpError> {
        self.asked.restart();
        let tables = self.collect(None, |family| family != Family::Bridge)?;
        Ok(print(&tables, &self.devices))
    }

    /// The rules of bridges.
    ///
    /// # Errors
    /// When they can't be read, or changed.
    pub(in crate::netfilter::rules) fn bridges(&mut self) -> Result<Printed, DumpError> {
        self.asked.restart();
        let tables = self.collect(None, |family| family == Family::Bridge)?;
        Ok(print(&tables, &self.devices))
    }

    /// The chains of type nat that are at hooks, without their rules.
    pub(in crate::netfilter::rules) fn nat_hooks(&self) -> Printed {
        let tables: Vec<Table> = self.tables.iter().filter_map(|head| head.table(is_nat)).collect();
        print(&tables, &self.devices)
    }

    /// The rules in chains of type nat that may match packets to one server, and those that these lead to.
    ///
    /// # Errors
    /// When they can't be read, or changed.
    pub(in crate::netfilter::rules) fn nat(&mut self, aim: &Aim) -> Result<(Printed, Positions), DumpError> {
        self.asked.restart();
        let tables = self.collect(Some(aim), |_| true)?;
        let mut positions = Positions::new();
        for table in &tables {
            for chain in &table.chains {
                let key = (table.family, table.name.clone(), chain.name.clone());
                positions.insert(key, chain.rules.iter().map(|rule| rule.position).collect());
            }
        }
        Ok((print(&tables, &self.devices), positions))
    }

    /// With `aim`, of chains of type nat; else of all others.
    fn collect(
        &mut self,
        aim: Option<&Aim>,
        is_wanted: impl Fn(Family) -> bool,
    ) -> Result<Vec<Table>, DumpError> {
        let mut collected = Vec::new();
        let mut bounds = Bounds::default();
        for place in 0..self.tables.len() {
            if self
                .tables
                .get(place)
                .is_some_and(|table| !is_wanted(table.family))
            {
                continue;
            }
            if let Some(table) = self.table(place, aim, &mut bounds)? {
                collected.push(table);
            }
        }
        if self.is_unchanged()? {
            Ok(collected)
        } else {
            Err(DumpError::Changed)
        }
    }

    fn table(
        &mut self,
        place: usize,
        aim: Option<&Aim>,
        bounds: &mut Bounds,
    ) -> Result<Option<Table>, DumpError> {
        let Some(head) = self.tables.get(place) else {
            return Ok(None);
        };
        if aim.is_some_and(|aim| head.dormant || !head.family.covers(aim.destination)) {
            return Ok(None);
        }
        let Some(table) = head.table(|base| is_nat(base) == aim.is_some()) else {
            return Ok(None);
        };
        let mut reading = Reading {
            place,
            aim,
            known: table.chains.iter().map(|chain| chain.name.clone()).collect(),
            aimed: HashMap::new(),
            table,
        };
        let mut next = 0;
        while let Some(chain) = reading.table.chains.get(next) {
            let name = chain.name.clone();
            bounds.chain()?;
            let rules = self.rules(&reading, &name, bounds)?;
            for rule in &rules {
                for expression in &rule.expressions {
                    if let Expression::Do(verdict) = expression {
                        reading.follow(verdict);
                    }
                }
                self.sets_of(&mut reading, &rule.expressions, bounds)?;
            }
            if let Some(chain) = reading.table.chains.get_mut(next) {
                chain.rules = rules;
            }
            next += 1;
        }
        Ok(Some(reading.table))
    }

    /// The rules of a chain that may matter.
    fn rules(
        &mut self,
        reading: &Reading<'_>,
        chain: &str,
        bounds: &mut Bounds,
    ) -> Result<Vec<Rule>, DumpError> {
        let (table, place) = (&reading.table, (reading.place, chain.to_owned()));
        // A name that isn't UTF-8 is no longer what it was, and would be that of an empty chain.
        if [chain, &table.name]
            .iter()
            .any(|name| name.contains(char::REPLACEMENT_CHARACTER))
        {
            return Err(DumpError::Malformed);
        }
        if let (Some(aim), Some(index)) = (reading.aim, self.chains.get(&place)) {
            let may_match = index
                .iter()
                .zip(1..)
                .filter(|(rule, _)| rule.tests.may_match(aim));
            let few: Vec<(u32, u64)> = may_match
                .map(|(rule, position)| (position, rule.handle))
                .take(FETCHED + 1)
                .collect();
            if few.len() <= FETCHED {
                return self.fetch(table, chain, &few, bounds);
            }
        }
        let (mut rules, mut index, mut is_large, mut position) = (Vec::new(), Vec::new(), false, 0_u32);
        let request = NfTablesMessage::GetRule(RuleMessage {
            attributes: vec![
                RuleAttribute::Table(table.name.clone()),
                RuleAttribute::Chain(chain.to_owned()),
            ],
        });
        let family = family_number(table.family);
        self.asked.ask(family.into(), request, NLM_F_DUMP, |message| {
            let attributes = message.attributes;
            // The kernel (since 4.9) leaves out the rules of other chains; an older one sends all.
            let is_here = message.kind == NEW_RULE
                && attributes.is_text(1, &table.name)
                && attributes.is_text(2, chain);
            if !is_here {
                return true;
            }
            position = position.saturating_add(1);
            if let Some(aim) = reading.aim {
                let tests = RuleTests::of(table.family, attributes.within(4));
                let handle = attributes.long(3).unwrap_or_default();
                index.push(IndexedRule { handle, tests });
                if !tests.may_match(aim) {
                    return true;
                }
            }
            is_large |= !bounds.takes(message.whole.len());
            if !is_large {
                rules.extend(rule(attributes, position));
            }
            true
        })?;
        if is_large {
            return Err(DumpError::Large);
        }
        if index.len() > LARGE && self.remembers(index.len()) {
            self.chains.insert(place, index);
        }
        Ok(rules)
    }

    fn remembers(&mut self, more: usize) -> bool {
        let is_room = self.remembered + more <= REMEMBERED;
        if is_room {
            self.remembered += more;
        }
        is_room
    }

    /// Rules by their positions and handles.
    fn fetch(
        &mut self,
        table: &Table,
        chain: &str,
        few: &[(u32, u64)],
        bounds: &mut Bounds,
    ) -> Result<Vec<Rule>, DumpError> {
        let mut rules = Vec::new();
        for &(position, handle) in few {
            let request = NfTablesMessage::GetRule(RuleMessage {
                attributes: vec![
                    RuleAttribute::Table(table.name.clone()),
                    RuleAttribute::Chain(chain.to_owned()),
                    RuleAttribute::Handle(handle),
                ],
            });
            let family = family_number(table.family);
            let mut is_large = false;
            let result = self.asked.ask(family.into(), request, 0, |message| {
                is_large = !bounds.takes(message.whole.len());
                if message.kind == NEW_RULE && !is_large {
                    rules.extend(rule(message.attributes, position));
                }
                true
            });
            gone(result)?;
            if is_large {
                return Err(DumpError::Large);
            }
        }
        Ok(rules)
    }

    /// Reads the sets that a rule asks, and follows their elements.
    fn sets_of(
        &mut self,
        reading: &mut Reading<'_>,
        expressions: &[Expression],
        bounds: &mut Bounds,
    ) -> Result<(), DumpError> {
        let names = expressions.iter().filter_map(|expression| match expression {
            Expression::Lookup { set, .. } | Expression::Choose { map: set, .. } => Some(set),
            _ => None,
        });
        let names: Vec<&String> = names.collect();
        if names.is_empty() {
            return Ok(());
        }
        for &name in &names {
            if !reading.table.sets.contains_key(name) {
                let set = self.set(&reading.table, name)?;
                reading.table.sets.insert(name.clone(), set);
            }
        }
        let asked = parts(&reading.table, expressions, &self.devices).asked;
        for name in names {
            let keys = asked
                .iter()
                .find(|(asked, _)| asked == name)
                .map(|(_, keys)| keys);
            // A set is asked for one thing by all rules, or it is read whole.
            let keys = match (reading.aimed.get(name), keys) {
                (Some(before), Some(keys)) if before.as_ref() == Some(keys) => continue,
                (Some(None), _) => continue,
                (None, Some(keys)) if reading.aim.is_some() => Some(keys.clone()),
                (_, _) => None,
            };
            let elements = self.elements(reading, name, keys.as_deref(), bounds)?;
            for verdict in elements.iter().filter_map(|element| element.verdict.as_ref()) {
                reading.follow(verdict);
            }
            reading.aimed.insert(name.clone(), keys);
            if let Some(set) = reading.table.sets.get_mut(name) {
                set.elements = elements;
            }
        }
        Ok(())
    }

    /// A set without its elements.
    fn set(&mut self, table: &Table, name: &str) -> Result<Set, DumpError> {
        let mut set = Set::default();
        let request = NfTablesMessage::GetSet(SetMessage {
            attributes: vec![
                SetAttribute::Table(table.name.clone()),
                SetAttribute::Name(name.to_owned()),
            ],
        });
        let result = self
            .asked
            .ask(family_number(table.family).into(), request, 0, |message| {
                if message.kind == NEW_SET {
                    set.describe(message.attributes);
                }
                true
            });
        gone(result)?;
        Ok(set)
    }

    /// What a set holds; with `keys`, what of it may be for packets to the server.
    fn elements(
        &mut self,
        reading: &Reading<'_>,
        name: &str,
        keys: Option<&[Piece]>,
        bounds: &mut Bounds,
    ) -> Result<Vec<Element>, DumpError> {
        let aim = reading.aim.zip(keys);
        let place = (reading.place, name.to_owned());
        let chosen = |set: &Set| -> Vec<Element> {
            let elements = set.elements.iter();
            let may_hold =
                |element: &&Element| aim.is_none_or(|(aim, keys)| may_hold(aim, set, element, keys));
            elements.filter(may_hold).cloned().collect()
        };
        if let Some(set) = self.sets.get(&place) {
            return Ok(chosen(set));
        }
        let attributes = vec![
            SetElementList::Table(reading.table.name.clone()),
            SetElementList::Set(name.to_owned()),
        ];
        let request = NfTablesMessage::GetSetElement(SetElementMessage { attributes });
        let (mut found, mut is_large) = (Vec::new(), false);
        let family = family_number(reading.table.family);
        let result = self.asked.ask(family.into(), request, NLM_F_DUMP, |message| {
            is_large |= !bounds.takes(message.whole.len());
            if message.kind == NEW_SET_ELEMENT && !is_large {
                found.extend(elements(message.attributes));
            }
            true
        });
        gone(result)?;
        if is_large {
            return Err(DumpError::Large);
        }
        if aim.is_none() || found.len() <= LARGE || !self.remembers(found.len() * ELEMENT) {
            return Ok(found);
        }
        let mut set = self.set(&reading.table, name)?;
        set.elements = found;
        let chosen = chosen(&set);
        self.sets.insert(place, set);
        Ok(chosen)
    }
}

/// A table that is read.
struct Reading<'a> {
    /// Among the reader's.
    place: usize,
    aim: Option<&'a Aim>,
    /// The names of chains that are in the table.
    known: HashSet<String>,
    /// The fields that sets were asked for when they were read; `None`: they were read whole.
    aimed: HashMap<String, Option<Vec<Piece>>>,
    table: Table,
}

impl Reading<'_> {
    /// Adds the chain that a verdict leads to.
    fn follow(&mut self, verdict: &RuleVerdict) {
        let (RuleVerdict::Jump(name) | RuleVerdict::Goto(name)) = verdict else {
            return;
        };
        if self.known.insert(name.clone()) {
            self.table.chains.push(Chain {
                name: name.clone(),
                base: None,
                rules: Vec::new(),
            });
        }
    }
}

/// How much was read.
#[derive(Default)]
struct Bounds {
    chains: usize,
    bytes: usize,
}

impl Bounds {
    fn chain(&mut self) -> Result<(), DumpError> {
        self.chains += 1;
        if self.chains > CHAINS {
            return Err(DumpError::Large);
        }
        Ok(())
    }

    fn takes(&mut self, bytes: usize) -> bool {
        self.bytes = self.bytes.saturating_add(bytes);
        self.bytes <= BYTES
    }
}

fn is_nat(base: &Base) -> bool {
    base.kind == "nat"
}

/// What has gone meanwhile shows by the generation.
fn gone(result: Result<(), DumpError>) -> Result<(), DumpError> {
    match result {
        Err(DumpError::Io(error)) if error.raw_os_error() == Some(libc::ENOENT) => Err(DumpError::Changed),
        result => result,
    }
}

/// All tables with their chains at hooks. Other chains are passed over: there may be three for each Service.
pub(super) fn base_chains(asked: &mut Asked) -> Result<Vec<BaseChains>, DumpError> {
    let mut tables: Vec<BaseChains> = Vec::new();
    let request = NfTablesMessage::GetTable(TableMessage { attributes: vec![] });
    asked.ask(0.into(), request, NLM_F_DUMP, |message| {
        if let (NEW_TABLE, Some(family), Some(name)) =
            (message.kind, family(message.family), message.attributes.text(1))
        {
            tables.push(BaseChains {
                family,
                name,
                dormant: message.attributes.number(2).is_some_and(|flags| flags & 1 != 0),
                chains: Vec::new(),
            });
        }
        true
    })?;
    let request = NfTablesMessage::GetChain(ChainMessage { attributes: vec![] });
    asked.ask(0.into(), request, NLM_F_DUMP, |message| {
        let attributes = message.attributes;
        let Some(family) = family(message.family).filter(|_| message.kind == NEW_CHAIN) else {
            return true;
        };
        let mut known = tables.iter_mut();
        let table = known.find(|table| table.family == family && attributes.is_text(1, &table.name));
        if let (Some(table), Some(name), Some(base)) = (table, attributes.text(3), base(family, attributes)) {
            table.chains.push((name, base));
        }
        true
    })?;
    Ok(tables)
}
