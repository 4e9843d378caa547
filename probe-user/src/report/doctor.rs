//! The answers of the doctor's checks, as text and as JSON.

use serde::Serialize;

use super::{finding, lines, snapshot::safe};
use crate::model::{
    Listed,
    doctor::{Answer, Check, CheckVerdict},
};

/// What `probe doctor` prints, one object a check.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "Doctor"))]
pub(super) struct DoctorEvent<'a> {
    /// Always `doctor`.
    event: &'static str,
    /// The name of the node.
    node: &'a str,
    #[serde(flatten)]
    answer: &'a Answer,
}

/// The last line of an agent's answer, after the last check.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct DoctorEnd<'a> {
    /// Always `end`.
    event: &'static str,
    /// The name of the node.
    node: &'a str,
}

/// The list of checks, with what each covers.
pub fn list() -> String {
    let mut out = String::new();
    for check in Check::ALL {
        out.push_str(&format!("{:<10}{}\n", check.name(), check.description()));
    }
    out
}

/// One check, for people.
pub fn text(answer: &Answer) -> String {
    let mut out = format!("{:<10}{:<16}", answer.check.name(), answer.verdict.name());
    out.push_str(&safe(&answer.summary));
    out.push('\n');
    for finding in &answer.findings {
        finding::of_check(&mut out, finding);
    }
    for line in &answer.log {
        out.push_str(&format!("  log: {}\n", safe(line)));
    }
    for unknown in &answer.unknown {
        out.push_str(&format!("  not checked: {}\n", safe(unknown)));
    }
    out
}

/// The number of answers by verdict, as text.
pub fn summary(answers: &[Answer]) -> String {
    let count = |verdict| answers.iter().filter(|answer| answer.verdict == verdict).count();
    format!(
        "\n{} failed, {} with warnings, {} ok, {} unknown, {} not applicable\n",
        count(CheckVerdict::Failed),
        count(CheckVerdict::Warning),
        count(CheckVerdict::Ok),
        count(CheckVerdict::Unknown),
        count(CheckVerdict::NotApplicable)
    )
}

/// One object a check.
///
/// # Errors
/// When it can't be written as JSON.
pub fn json(answer: &Answer, node: &str) -> serde_json::Result<String> {
    let event = "doctor";
    lines::to_string(&DoctorEvent { event, node, answer })
}

/// The line that says that all checks are done.
///
/// # Errors
/// When it can't be written as JSON.
pub fn end(node: &str) -> serde_json::Result<String> {
    lines::to_string(&DoctorEnd { event: "end", node })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{
        Finding,
        finding::{Fix, Kind},
    };

    fn sample() -> Answer {
        let kind = Kind::Doctor(Check::Bridge);
        let fault = Finding::failed(kind, "cni0 has an address of another subnet\x1b[2J")
            .seen("cni0: 10.244.7.1/24")
            .fix(Fix::run(
                ["ip", "link", "del", "cni0"],
                "the plugin of the next pod makes it",
            ));
        let warning = Finding::warning(kind, "2 reservations are of pods that are gone");
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
             \x20   do:   ip link del cni0  # the plugin of the next pod makes it\n\
             \x20 warning: 2 reservations are of pods that are gone\n\
             \x20 log: in kubelet's log once, at noon: \\x1b[1mcni0\n\
             \x20 not checked: the node's podCIDR: nobody to ask\n"
        );
        let answers = [sample(), Answer::not_applicable(Check::Vxlan, "no VXLAN device")];
        assert_eq!(
            summary(&answers),
            "\n1 failed, 0 with warnings, 0 ok, 0 unknown, 1 not applicable\n"
        );
        assert_eq!(list().lines().count(), Check::ALL.len());
    }

    /// What reaches the terminal of `-o json` moves and hides nothing, and means the same.
    #[test]
    fn json_on_a_terminal() {
        let tricks = "a\u{9b}2J\u{202e}b\u{7f}\u{200b}";
        let fault = Finding::failed(Kind::Doctor(Check::Bridge), tricks)
            .seen(tricks)
            .advise(tricks);
        let mut answer = Answer::of(Check::Bridge, tricks, vec![fault]).without(vec![tricks.to_owned()]);
        answer.log.push(tricks.to_owned());
        let json = json(&answer, tricks).unwrap();
        assert_eq!(
            json.matches("a\\u009b2J\\u202eb\\u007f\\u200b").count(),
            7,
            "{json}"
        );
        assert!(json.bytes().all(|byte| matches!(byte, b' '..=b'~')), "{json}");
        let value: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(value["summary"], tricks);
    }

    #[test]
    fn as_json() {
        let line = json(&sample(), "alpha").unwrap();
        assert!(!line.contains(char::is_control), "{line}");
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(value["event"], "doctor");
        assert_eq!(value["check"], "bridge");
        assert_eq!(value["verdict"], "failed");
        let [one, two] = [0, 1].map(|at| &value["findings"][at]);
        assert_eq!(
            (&one["kind"], &one["severity"]),
            (&"bridge".into(), &"failed".into())
        );
        assert_eq!(one["fixes"][0]["argv"][1], "link");
        assert_eq!(two["severity"], "warning");
        assert!(value["log"][0].as_str().unwrap().ends_with("cni0"));
        assert_eq!(value["unknown"][0], "the node's podCIDR: nobody to ask");
    }
}
