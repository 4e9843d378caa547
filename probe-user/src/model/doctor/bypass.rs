//! What a look at untracked packets comes to.

use std::time::Duration;

use super::{Answer, Check, Fault};
use crate::model::bypass::{View, finding::Finding, view::RuleState};

/// The answer of one look that took so long. A rule that nothing has hit yet is a warning: it will.
pub fn judge(view: &View, duration: Duration) -> Answer {
    let summary = format!(
        "{} untracked {}, {} {} that let packets past conntrack, {} Services known, looked at for {:.0} s",
        view.streams.len(),
        if view.streams.len() == 1 {
            "stream"
        } else {
            "streams"
        },
        view.rules.len(),
        if view.rules.len() == 1 { "rule" } else { "rules" },
        view.services,
        duration.as_secs_f64()
    );
    let mut faults: Vec<_> = view.findings.iter().map(fault).collect();
    let blamed = |text: &str| {
        view.findings
            .iter()
            .any(|finding| finding.rules.iter().any(|rule| rule == text))
    };
    let latent = view.rules.iter().filter(|rule| {
        rule.intended.is_none() && RuleState::of(rule) == RuleState::Latent && !blamed(&rule.text)
    });
    faults.extend(latent.map(|rule| {
        Fault::warning("a rule lets packets past conntrack, which nothing met while probe looked")
            .seen(rule.text.clone())
            .remedy("probe bypass shows what it does once there is traffic; if nobody meant it, take it away")
    }));
    Answer::of(Check::Bypass, summary, faults).without(view.unread.clone())
}

fn fault(finding: &Finding) -> Fault {
    Fault {
        failed: true,
        says: format!("{}: {}", finding.fault.name(), finding.what),
        evidence: finding.evidence.clone(),
        remedies: vec![finding.remedy.clone()],
    }
}
