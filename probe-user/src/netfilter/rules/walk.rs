//! The packet's way through the chains.
//!
//! All ways it may have taken are followed at once: a rule that may match is a fork. What ends the walk is
//! what ends every way, so a drop behind an accept that may have matched doesn't hide the chains that come
//! after.

use super::{
    Action, CandidateRule, Packet,
    matching::{Matches, View},
    model::{Base, Chain, Condition, Field, Hook, Row, Rule, RuleOrPolicy, Statement, Step, Table, Values},
    stage::{Bridges, stages},
};

/// How deep jumps are followed, as the kernel does.
const DEPTH: u32 = 16;
/// How many rules, and elements of sets, are looked at.
const STEPS: usize = 1_000_000;
/// How many rules are named.
const CANDIDATES: usize = 16;

pub(super) fn candidates(
    tables: &[&Table],
    bridges: &Bridges,
    packet: &Packet,
    actions: &[Action],
) -> Vec<CandidateRule> {
    let mut walk = Walk {
        actions,
        found: Vec::new(),
        steps: STEPS,
        around: WayAround::default(),
    };
    for stage in stages(packet, bridges) {
        let view = View::new(packet, stage);
        let mut bases: Vec<(&Table, &Chain, &Base)> = tables
            .iter()
            .copied()
            .filter(|table| !table.dormant && table.family.covers(view.destination()))
            .flat_map(|table| table.chains().iter().map(move |chain| (table, chain)))
            .filter_map(|(table, chain)| chain.base.as_ref().map(|base| (table, chain, base)))
            .filter(|(table, _, base)| stage.has(table.family, base))
            .collect();
        bases.sort_by_key(|(_, _, base)| base.priority);
        // Which of those with the same priority comes first isn't shown by any tool, so none of them hides
        // another.
        for equals in bases.chunk_by(|(_, _, one), (_, _, other)| one.priority == other.priority) {
            let mut goes_on = true;
            let before = walk.found.len();
            let mut acting = 0;
            for &(table, chain, base) in equals {
                walk.around = WayAround::default();
                let known = walk.found.len();
                goes_on &= walk.base(At { table, view }, chain, base);
                acting += usize::from(walk.found.len() > known);
            }
            if acting > 1 {
                for candidate in walk.found.iter_mut().skip(before) {
                    candidate.reached = false;
                }
            }
            if !goes_on {
                return walk.found;
            }
        }
    }
    walk.found
}

/// Where the packet may be after a chain.
#[derive(Debug, Clone, Copy, Default)]
struct Ways {
    /// Behind the jump that led to the chain, or at the policy.
    through: bool,
    /// At the next base chain.
    left: bool,
}

impl Ways {
    const ANY: Self = Self {
        through: true,
        left: true,
    };
}

/// What comes after a statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    Step,
    Rule,
    /// Nothing more in this chain.
    End,
}

#[derive(Debug, Clone, Copy)]
struct At<'a> {
    table: &'a Table,
    view: View<'a>,
}

/// A rule met on the way.
#[derive(Debug, Clone, Copy)]
struct Met<'a> {
    at: At<'a>,
    chain: &'a Chain,
    rule: &'a Rule,
    /// The way to the chain was certain.
    way: bool,
    /// The rule's matches so far are.
    matched: bool,
    depth: u32,
}

struct Walk<'a> {
    actions: &'a [Action],
    found: Vec<CandidateRule>,
    steps: usize,
    around: WayAround,
}

/// What the packet may have met before a rule, in the rule's base chain.
#[derive(Debug, Clone, Copy, Default)]
struct WayAround {
    /// An accept that may have matched.
    accept: bool,
    /// A return that may have matched, in the rule's chain or in one from which a jump led there.
    end: bool,
}

impl<'a> Walk<'a> {
    /// Walks a base chain; says whether the packet may go on to the next one.
    fn base(&mut self, at: At<'a>, chain: &'a Chain, base: &'a Base) -> bool {
        let field = match base.hook {
            Hook::Ingress => Field::Input,
            Hook::Egress => Field::Output,
            Hook::Prerouting | Hook::Input | Hook::Forward | Hook::Output | Hook::Postrouting => {
                Field::Unknown
            }
        };
        let entered = match field {
            Field::Unknown => Matches::Yes,
            field => base
                .devices
                .iter()
                .fold(Matches::No, |any, device| any.or(at.view.field(field, device))),
        };
        if entered == Matches::No {
            return true;
        }
        let way = entered == Matches::Yes && !base.nat;
        let mut ways = self.chain(at, chain, way, 0);
        if ways.through {
            if base.drops {
                self.around.accept |= ways.left;
                self.report(at.table, chain, RuleOrPolicy::Policy(base), Action::Drop, way);
            } else {
                ways.left = true;
            }
        }
        ways.left || !way
    }

    fn chain(&mut self, at: At<'a>, chain: &'a Chain, way: bool, depth: u32) -> Ways {
        let mut ways = Ways::default();
        for rule in &chain.rules {
            if !self.spend() {
                return Ways::ANY;
            }
            if self.rule(
                Met {
                    at,
                    chain,
                    rule,
                    way,
                    matched: true,
                    depth,
                },
                &mut ways,
            ) == Next::End
            {
                return ways;
            }
        }
        ways.through = true;
        ways
    }

    fn rule(&mut self, mut met: Met<'a>, ways: &mut Ways) -> Next {
        for step in &met.rule.steps {
            match step {
                Step::Match(condition) => match self.answer(met.at, condition) {
                    Matches::Yes => {}
                    Matches::No => return Next::Rule,
                    Matches::Maybe => met.matched = false,
                },
                Step::MatchTogether(conditions) => {
                    let answers = conditions.iter().map(|condition| self.answer(met.at, condition));
                    let answers: Vec<Matches> = answers.collect();
                    if answers.iter().all(|answer| *answer == Matches::No) {
                        return Next::Rule;
                    }
                    met.matched &= answers.iter().all(|answer| *answer == Matches::Yes);
                }
                Step::Do(statement) => match self.statement(met, statement, ways) {
                    Next::Step => {}
                    next @ (Next::Rule | Next::End) => return next,
                },
                Step::Choose(condition) => match self.choose(met, condition, ways) {
                    Next::Step => {}
                    next @ (Next::Rule | Next::End) => return next,
                },
            }
        }
        Next::Rule
    }

    fn statement(&mut self, met: Met<'a>, statement: &'a Statement, ways: &mut Ways) -> Next {
        let after = if met.matched { Next::End } else { Next::Rule };
        match statement {
            Statement::Accept => {
                ways.left = true;
                self.around.accept |= !(met.way && met.matched);
                after
            }
            Statement::Act(action) => {
                self.caught(met, *action, met.way && met.matched);
                match action {
                    Action::Drop | Action::Reject => after,
                    Action::NoTrack => Next::Step,
                }
            }
            Statement::May(action) => {
                self.caught(met, *action, false);
                match action {
                    Action::Drop | Action::Reject => {
                        ways.left = true;
                        self.around.accept = true;
                    }
                    Action::NoTrack => {}
                }
                Next::Step
            }
            Statement::Return => {
                ways.through = true;
                self.around.end |= !met.matched;
                after
            }
            Statement::Jump(name) => {
                let below = self.below(met, name);
                ways.left |= below.left;
                self.around.accept |= below.left;
                if below.through { Next::Rule } else { after }
            }
            Statement::Goto(name) => {
                let below = self.below(met, name);
                ways.left |= below.left;
                ways.through |= below.through;
                self.around.accept |= below.left;
                self.around.end |= !met.matched;
                after
            }
            Statement::Unknown => {
                ways.left = true;
                self.around.accept = true;
                Next::Step
            }
            Statement::Continue => Next::Step,
        }
    }

    fn below(&mut self, met: Met<'a>, name: &str) -> Ways {
        match met.at.table.chain(name) {
            Some(chain) if met.depth < DEPTH => {
                let end = self.around.end;
                let ways = self.chain(met.at, chain, met.way && met.matched, met.depth + 1);
                self.around.end = end;
                ways
            }
            Some(_) | None => {
                self.around.accept = true;
                Ways::ANY
            }
        }
    }

    /// Does what the map says. If there is nothing in it for the packet, the rule doesn't match.
    fn choose(&mut self, met: Met<'a>, condition: &'a Condition, ways: &mut Ways) -> Next {
        let Some((rows, loose)) = rows(met.at.table, condition) else {
            ways.left = true;
            self.around.accept = true;
            return Next::Rule;
        };
        // What is for all the rest is asked last, and certain only if nothing else can be meant.
        let mut sure = met.matched && !loose;
        for rest in [false, true] {
            for row in rows {
                if !self.spend() {
                    *ways = Ways::ANY;
                    return Next::Rule;
                }
                if row.is_rest() != rest {
                    continue;
                }
                let answer = met.at.view.row(&condition.fields, row);
                let matched = match answer {
                    Matches::No => continue,
                    Matches::Yes => sure,
                    Matches::Maybe => false,
                };
                let statement = row.statement.as_ref().unwrap_or(&Statement::Unknown);
                let next = self.statement(Met { matched, ..met }, statement, ways);
                if answer == Matches::Yes && !loose {
                    return next;
                }
                sure = false;
            }
        }
        Next::Rule
    }

    fn answer(&mut self, at: At<'a>, condition: &'a Condition) -> Matches {
        let Some((rows, loose)) = rows(at.table, condition) else {
            return Matches::Maybe;
        };
        let mut answer = Matches::No;
        for row in rows {
            if answer == Matches::Yes {
                break;
            }
            if !self.spend() {
                return Matches::Maybe;
            }
            answer = answer.or(at.view.row(&condition.fields, row));
        }
        if loose {
            return Matches::Maybe;
        }
        if condition.not { answer.not() } else { answer }
    }

    fn spend(&mut self) -> bool {
        self.steps = self.steps.saturating_sub(1);
        self.steps > 0
    }

    fn caught(&mut self, met: Met<'a>, action: Action, certain: bool) {
        self.report(
            met.at.table,
            met.chain,
            RuleOrPolicy::Rule(met.rule),
            action,
            certain,
        );
    }

    fn report(
        &mut self,
        table: &Table,
        chain: &Chain,
        found: RuleOrPolicy<'_>,
        action: Action,
        certain: bool,
    ) {
        if !self.actions.contains(&action) {
            return;
        }
        let met = self.around;
        let around = match found {
            RuleOrPolicy::Rule(_) => met.accept || met.end,
            // A return leads to it.
            RuleOrPolicy::Policy(_) => met.accept,
        };
        let reached = !around;
        let candidate = table.candidate(chain, found, action, certain, reached);
        // Several ways may lead to one rule.
        let known = self.found.iter().position(|known| same(known, &candidate));
        let is_last = known.is_none_or(|known| known + 1 == self.found.len());
        if let Some(known) = known.and_then(|known| self.found.get_mut(known)) {
            // It stays where the packet met it first. What is behind that may have been before it, on the other way.
            known.reached &= reached && is_last;
            known.certain |= certain;
            return;
        }
        if self.found.len() >= CANDIDATES {
            // One that's certain is worth more than the last of those that aren't.
            let Some(place) = self
                .found
                .iter()
                .rposition(|known| !known.certain)
                .filter(|_| certain)
            else {
                return;
            };
            self.found.remove(place);
        }
        self.found.push(candidate);
    }
}

fn same(one: &CandidateRule, other: &CandidateRule) -> bool {
    let key = |s: &CandidateRule| (s.tool, s.family, s.place, s.action);
    key(one) == key(other) && one.table == other.table && one.chain == other.chain
}

/// What the condition compares with, and whether that changes by itself.
fn rows<'a>(table: &'a Table, condition: &'a Condition) -> Option<(&'a [Row], bool)> {
    match &condition.values {
        Values::Rows(rows) => Some((rows, false)),
        Values::Named(name) => table.sets.get(name).map(|set| (set.rows.as_slice(), set.loose)),
    }
}
