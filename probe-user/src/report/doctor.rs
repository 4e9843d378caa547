//! What the doctor's checks came to, for people and as JSON.

use serde::Serialize;

use super::snapshot::safe;
use crate::model::doctor::{Answer, Check, Verdict};

/// One object of JSON.
#[derive(Serialize)]
struct Line<'a> {
    event: &'static str,
    node: &'a str,
    check: &'static str,
    verdict: &'static str,
    summary: &'a str,
    faults: Vec<Wrong<'a>>,
    unknown: &'a [String],
    log: &'a [String],
}

#[derive(Serialize)]
struct Wrong<'a> {
    severity: &'static str,
    says: &'a str,
    evidence: &'a [String],
    remedies: &'a [String],
}

const fn severity(failed: bool) -> &'static str {
    if failed { "failed" } else { "warning" }
}

/// Which checks there are, and what each looks at.
pub fn list() -> String {
    let mut out = String::new();
    for check in Check::ALL {
        out.push_str(&format!("{:<10}{}\n", check.name(), check.looks_at()));
    }
    out
}

/// One check, for people.
pub fn text(answer: &Answer) -> String {
    let mut out = format!("{:<10}{:<16}", answer.check.name(), answer.verdict.name());
    out.push_str(&safe(&answer.summary));
    out.push('\n');
    for fault in &answer.faults {
        out.push_str(&format!("  {}: {}\n", severity(fault.failed), safe(&fault.says)));
        for evidence in &fault.evidence {
            out.push_str(&format!("    seen: {}\n", safe(evidence)));
        }
        for remedy in &fault.remedies {
            out.push_str(&format!("    do:   {}\n", safe(remedy)));
        }
    }
    for line in &answer.log {
        out.push_str(&format!("  log: {}\n", safe(line)));
    }
    for unknown in &answer.unknown {
        out.push_str(&format!("  not looked at: {}\n", safe(unknown)));
    }
    out
}

/// How many came to what, for people.
pub fn summary(answers: &[Answer]) -> String {
    let count = |verdict| answers.iter().filter(|answer| answer.verdict == verdict).count();
    format!(
        "\n{} failed, {} with warnings, {} ok, {} not applicable\n",
        count(Verdict::Failed),
        count(Verdict::Warning),
        count(Verdict::Ok),
        count(Verdict::NotApplicable)
    )
}

/// One object a check.
///
/// # Errors
/// When it can't be written as JSON.
pub fn json(answer: &Answer, node: &str) -> serde_json::Result<String> {
    serde_json::to_string(&Line {
        event: "doctor",
        node,
        check: answer.check.name(),
        verdict: answer.verdict.name(),
        summary: &answer.summary,
        faults: answer
            .faults
            .iter()
            .map(|fault| Wrong {
                severity: severity(fault.failed),
                says: &fault.says,
                evidence: &fault.evidence,
                remedies: &fault.remedies,
            })
            .collect(),
        unknown: &answer.unknown,
        log: &answer.log,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::doctor::Fault;

    fn sample() -> Answer {
        let fault = Fault::failed("cni0 has an address of another subnet\x1b[2J")
            .seen("cni0: 10.244.7.1/24")
            .remedy("ip link del cni0");
        let warning = Fault::warning("2 reservations are of pods that are gone");
        let mut answer = Answer::of(
            Check::Bridge,
            "flannel's subnet is 10.244.1.0/24",
            vec![fault, warning],
        )
        .without(vec!["the node's podCIDR: nobody to ask".to_owned()]);
        answer
            .log
            .push("in kubelet's log once, at noon: \x1b[1mcni0".to_owned());
        answer
    }

    #[test]
    fn for_people() {
        assert_eq!(
            text(&sample()),
            "bridge    failed          flannel's subnet is 10.244.1.0/24\n\
             \x20 failed: cni0 has an address of another subnet\\x1b[2J\n\
             \x20   seen: cni0: 10.244.7.1/24\n\
             \x20   do:   ip link del cni0\n\
             \x20 warning: 2 reservations are of pods that are gone\n\
             \x20 log: in kubelet's log once, at noon: \\x1b[1mcni0\n\
             \x20 not looked at: the node's podCIDR: nobody to ask\n"
        );
        let answers = [sample(), Answer::not_applicable(Check::Vxlan, "no VXLAN device")];
        assert_eq!(
            summary(&answers),
            "\n1 failed, 0 with warnings, 0 ok, 1 not applicable\n"
        );
        assert_eq!(list().lines().count(), Check::ALL.len());
    }

    #[test]
    fn as_json() {
        let value: serde_json::Value = serde_json::from_str(&json(&sample(), "alpha").unwrap()).unwrap();
        assert_eq!(value["event"], "doctor");
        assert_eq!(value["check"], "bridge");
        assert_eq!(value["verdict"], "failed");
        assert_eq!(value["faults"][0]["severity"], "failed");
        assert_eq!(value["faults"][0]["remedies"][0], "ip link del cni0");
        assert_eq!(value["faults"][1]["severity"], "warning");
        assert!(value["log"][0].as_str().unwrap().ends_with("cni0"));
        assert_eq!(value["unknown"][0], "the node's podCIDR: nobody to ask");
    }
}
