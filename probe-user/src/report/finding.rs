//! A finding for people, the same for every command.

use super::snapshot::{safe, uncut};
use crate::model::{Finding, finding::Kind};

/// Its kind, what is wrong, the evidence, the fixes.
pub fn text(out: &mut String, finding: &Finding) {
    let weak = if finding.certain { "" } else { " (inferred)" };
    out.push_str(&format!(
        "{}{weak}: {}\n",
        finding.kind.name(),
        safe(&finding.what)
    ));
    details(out, finding);
}

/// As one of a doctor's check, which has said its own name already.
pub fn of_check(out: &mut String, finding: &Finding) {
    let severity = finding.severity.name();
    match finding.kind {
        Kind::Doctor(_) => out.push_str(&format!("  {severity}: {}\n", safe(&finding.what))),
        Kind::Vxlan(_) | Kind::Bypass(_) => out.push_str(&format!(
            "  {severity}: {}: {}\n",
            finding.kind.name(),
            safe(&finding.what)
        )),
    }
    details(out, finding);
}

fn details(out: &mut String, finding: &Finding) {
    for evidence in &finding.evidence {
        out.push_str(&format!("    seen: {}\n", safe(evidence)));
    }
    for fix in &finding.fixes {
        out.push_str(&format!("    do:   {}\n", uncut(&fix.to_string())));
    }
}
