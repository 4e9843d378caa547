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

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, fs, path::Path};

    use super::*;
    use crate::model::{cause::CauseKind, path::Outcome};

    const TABLE: &str = include_str!("../../../docs/findings.md");

    /// The first cells of the rows below a heading, as far as they are in backticks.
    fn listed(heading: &str) -> BTreeSet<&'static str> {
        let (_, section) = TABLE
            .split_once(&format!("\n## {heading}\n"))
            .unwrap_or_else(|| panic!("no section {heading}"));
        let section = section.split("\n## ").next().unwrap_or_default();
        let name = |line: &'static str| line.strip_prefix("| `")?.split('`').next();
        section.lines().filter_map(name).collect()
    }

    #[test]
    fn the_table_of_findings_has_all() {
        let doctor = |kind: &Kind| matches!(kind, Kind::Doctor(_));
        let of_feature = |feature: &'static str| {
            Kind::all()
                .filter(move |kind| kind.feature() == feature)
                .map(Kind::name)
                .collect::<BTreeSet<_>>()
        };
        assert!(Kind::all().any(|kind| doctor(&kind)));
        for feature in ["vxlan", "bypass", "doctor"] {
            assert_eq!(listed(feature), of_feature(feature), "{feature}");
        }
        assert_eq!(listed("watch"), CauseKind::ALL.map(CauseKind::name).into());
        let mut outcomes: BTreeSet<_> = Outcome::ALL.map(Outcome::name).into();
        outcomes.remove(Outcome::Delivered.name());
        assert_eq!(listed("path"), outcomes);
    }

    /// `program::function` in the last cells: a program of `tests/scenarios`, and a test in it.
    #[test]
    fn the_table_of_findings_names_tests_that_are_there() {
        let scenarios = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/scenarios");
        let text = |program: &str| {
            let file = fs::read_to_string(scenarios.join(format!("{program}.rs")));
            let directory = fs::read_dir(scenarios.join(program))
                .into_iter()
                .flatten()
                .flatten();
            let parts = directory.filter_map(|entry| fs::read_to_string(entry.path()).ok());
            file.into_iter().chain(parts).collect::<String>()
        };
        let mut named = 0;
        for row in TABLE.lines().filter(|line| line.starts_with("| `")) {
            let by = row
                .trim_end_matches('|')
                .rsplit('|')
                .next()
                .unwrap_or_default()
                .trim();
            let Some((program, function)) = by.trim_matches('`').split_once("::") else {
                assert!(by.is_empty(), "{row}");
                assert!(!row.contains("| yes"), "no test is named: {row}");
                continue;
            };
            assert!(text(program).contains(&format!("fn {function}(")), "{by}");
            named += 1;
        }
        assert!(named > 20);
    }
}
