//! Whether a rule of nf_tables may exempt packets from conntrack, by its chains that come before conntrack.

use netlink_packet_core::NLM_F_DUMP;
use netlink_packet_netfilter::nftables::{NfTablesMessage, RuleAttribute, RuleMessage};

use super::{
    dump::{Asked, DumpError, is_loaded},
    expression::{Expression, RuleVerdict},
    reached::base_chains,
    ruleset::{Base, NEW_RULE, family_number, rule},
    xt::is_notrack,
};
use crate::netfilter::rules::{Family, model::Hook};

/// `NF_IP_PRI_CONNTRACK`, where conntrack decides.
const CONNTRACK: i32 = -200;
/// Chains and rules looked at; of more it is not known.
const CHAINS: usize = 256;
const RULES: usize = 4096;

/// True also where it is too much to look at.
///
/// # Errors
/// When the kernel doesn't tell its chains or rules.
pub(in crate::netfilter::rules) fn may_exempt() -> Result<bool, DumpError> {
    // Asking would load it.
    if !is_loaded() {
        return Ok(false);
    }
    let mut asked = Asked::open()?;
    let mut looked_at = 0;
    for table in base_chains(&mut asked)? {
        let before = table
            .chains
            .iter()
            .filter(|(_, base)| precedes_conntrack(table.family, base));
        let mut chains: Vec<String> = before.map(|(name, _)| name.clone()).collect();
        let mut next = 0;
        while let Some(chain) = chains.get(next).cloned() {
            next += 1;
            let names = [&chain, &table.name];
            // Of a name that isn't UTF-8 the kernel can't be asked.
            if next > CHAINS
                || names
                    .iter()
                    .any(|name| name.contains(char::REPLACEMENT_CHARACTER))
            {
                return Ok(true);
            }
            let request = NfTablesMessage::GetRule(RuleMessage {
                attributes: vec![
                    RuleAttribute::Table(table.name.clone()),
                    RuleAttribute::Chain(chain),
                ],
            });
            let mut may = false;
            asked.ask(
                family_number(table.family).into(),
                request,
                NLM_F_DUMP,
                |message| {
                    if message.kind != NEW_RULE {
                        return true;
                    }
                    looked_at += 1;
                    match rule(message.attributes, 0) {
                        Some(rule) if looked_at <= RULES => {
                            may = may_be_exempted(&rule.expressions, &mut chains);
                        }
                        _ => may = true,
                    }
                    !may
                },
            )?;
            if may {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

fn precedes_conntrack(family: Family, base: &Base) -> bool {
    match base.hook {
        Hook::Ingress => true,
        Hook::Prerouting | Hook::Output => family == Family::Bridge || base.priority <= CONNTRACK,
        // Of a bridge, packets come to the hooks of IP after it.
        Hook::Input | Hook::Forward => family == Family::Bridge,
        Hook::Postrouting | Hook::Egress => false,
    }
}

/// Whether a rule may; chains that it leads to are added.
fn may_be_exempted(expressions: &[Expression], chains: &mut Vec<String>) -> bool {
    expressions.iter().any(|expression| match expression {
        Expression::NoTrack => true,
        Expression::Target(target) => is_notrack(target),
        // To which chains a map leads is not looked up.
        Expression::Choose { .. } => true,
        Expression::Do(RuleVerdict::Jump(chain) | RuleVerdict::Goto(chain)) => {
            if !chains.contains(chain) {
                chains.push(chain.clone());
            }
            false
        }
        _ => false,
    })
}
