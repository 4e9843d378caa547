//! The check of untracked packets.

use super::{Answer, Check, Finding, Kind};
use crate::{
    bypass::{View, diagnosis::ANY, view::RuleState},
    plural::counted,
    probe_command,
};

/// The answer from one snapshot. A rule without hits is a warning: it takes effect with the first matching packet.
pub fn judge(view: &View) -> Answer {
    let intended = view.rules.iter().filter(|rule| rule.intended.is_some()).count();
    let summary = match (view.streams.len(), view.rules.len()) {
        (0, 0) => "no untracked packet, and no NOTRACK rule".to_owned(),
        (streams, rules) if rules == intended => {
            let streams = counted(streams, "untracked stream", "untracked streams");
            let rules = counted(rules, "NOTRACK rule", "NOTRACK rules");
            format!("{streams}, all intended ({rules})")
        }
        (streams, rules) => {
            let streams = counted(streams, "untracked stream", "untracked streams");
            let rules = counted(rules, "NOTRACK rule", "NOTRACK rules");
            format!("{streams}, {rules}")
        }
    };
    let mut findings = view.findings.clone();
    let is_named = |text: &str| {
        view.findings
            .iter()
            .any(|finding| finding.rules.iter().any(|rule| rule == text))
    };
    let latent = view.rules.iter().filter(|rule| {
        rule.intended.is_none() && RuleState::of(rule) == RuleState::Latent && !is_named(&rule.name())
    });
    findings.extend(latent.map(|rule| {
        Finding::warning(
            Kind::Doctor(Check::Bypass),
            "a NOTRACK rule exempts packets from conntrack; no packet matched it during the check",
        )
        .seen(rule.name())
        .fix(probe_command::bypass(
            "shows the affected traffic, once there is any",
        ))
        .fixed_by(rule.rule.fixes(&ANY))
    }));
    Answer::of(Check::Bypass, summary, findings)
        .unless(view.verdict())
        .without(view.unread.clone())
}
