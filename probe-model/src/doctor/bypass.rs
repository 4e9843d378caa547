//! What a look at untracked packets comes to.

use super::{Answer, Check, Finding, Kind};
use crate::{
    bypass::{View, diagnosis::ANY, view::RuleState},
    plural::counted,
    probe_command,
};

/// The answer of one look. A rule that nothing has hit yet is a warning: it will.
pub fn judge(view: &View) -> Answer {
    let intended = view.rules.iter().filter(|rule| rule.intended.is_some()).count();
    let summary = match (view.streams.len(), view.rules.len()) {
        (0, 0) => "no packet slipped past conntrack, and no rule lets one".to_owned(),
        (streams, rules) if rules == intended => {
            let lets = counted(rules, "rule lets past", "rules let past");
            format!(
                "{}; what {lets} is intended",
                counted(streams, "untracked stream", "untracked streams")
            )
        }
        (streams, rules) => {
            let let_past = counted(rules, "rule that lets", "rules that let");
            let streams = counted(streams, "untracked stream", "untracked streams");
            format!("{streams}, {let_past} packets past conntrack")
        }
    };
    let mut findings = view.findings.clone();
    let blamed = |text: &str| {
        view.findings
            .iter()
            .any(|finding| finding.rules.iter().any(|rule| rule == text))
    };
    let latent = view.rules.iter().filter(|rule| {
        rule.intended.is_none() && RuleState::of(rule) == RuleState::Latent && !blamed(&rule.name())
    });
    findings.extend(latent.map(|rule| {
        Finding::warning(
            Kind::Doctor(Check::Bypass),
            "a rule lets packets past conntrack, which nothing met while probe looked",
        )
        .seen(rule.name())
        .fix(probe_command::bypass("shows what it does once there is traffic"))
        .fixed_by(rule.rule.fixes(&ANY))
    }));
    Answer::of(Check::Bypass, summary, findings)
        .unless(view.verdict())
        .without(view.unread.clone())
}
