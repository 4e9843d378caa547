//! A check's answer as one text, for tests that look for words in it.

use super::Answer;

/// Everything an answer says.
pub fn text(answer: &Answer) -> String {
    let mut lines = vec![answer.summary.clone()];
    for finding in &answer.findings {
        lines.push(format!("  {}", finding.what));
        lines.extend(finding.evidence.iter().map(|seen| format!("    seen: {seen}")));
        lines.extend(finding.fixes.iter().map(|fix| format!("    do:   {fix}")));
    }
    lines.extend(answer.log.iter().map(|line| format!("  log: {line}")));
    lines.extend(answer.unknown.iter().map(|what| format!("  not checked: {what}")));
    lines.push(String::new());
    lines.join("\n")
}
