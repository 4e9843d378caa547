//! A check's answer as one text, for tests that look for words in it.

use super::Answer;

/// Everything an answer says.
pub fn text(answer: &Answer) -> String {
    let mut lines = vec![answer.summary.clone()];
    for fault in &answer.faults {
        lines.push(format!("  {}", fault.says));
        lines.extend(fault.evidence.iter().map(|seen| format!("    seen: {seen}")));
        lines.extend(fault.remedies.iter().map(|remedy| format!("    do:   {remedy}")));
    }
    lines.extend(answer.log.iter().map(|line| format!("  log: {line}")));
    lines.extend(
        answer
            .unknown
            .iter()
            .map(|what| format!("  not looked at: {what}")),
    );
    lines.push(String::new());
    lines.join("\n")
}
