//! All rules that do a thing, whoever comes to them.

use super::{
    Action, CandidateRule,
    model::{Rule, RuleOrPolicy, Statement, Step, Table},
};

/// More rules of one kind than anybody writes.
const MOST: usize = 1024;

pub(super) fn rules(tables: &[Table], action: Action) -> Vec<CandidateRule> {
    let mut found = Vec::new();
    for table in tables {
        for chain in table.chains() {
            for rule in chain.rules.iter().filter(|rule| does(rule, action)) {
                if found.len() == MOST {
                    return found;
                }
                found.push(table.candidate(chain, RuleOrPolicy::Rule(rule), action, false, false));
            }
        }
    }
    found
}

fn does(rule: &Rule, action: Action) -> bool {
    let wanted = [Statement::Act(action), Statement::May(action)];
    rule.steps
        .iter()
        .any(|step| matches!(step, Step::Do(statement) if wanted.contains(statement)))
}
