//! Lists of names in docs/ and deploy/, held against the types: each name stands there once, and no other does.

use std::{collections::BTreeSet, fs, path::Path};

use probe_ebpf::contract::hooks::{Access, BYPASS, DROPS, PATH, TLS, VXLAN, WATCH};

use crate::model::{
    JsonEvent, Listed, Outcome, Role, bypass,
    cause::CauseKind,
    doctor::{Check, CheckVerdict},
    finding::Kind,
    outcome::is_silent_client,
    part::Part,
    vxlan,
};

fn read(name: &str) -> String {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(name);
    fs::read_to_string(&file).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// The names in the first column of the table whose header begins with `| column |`: in backticks, several in one row, or a bare word
/// that may be a link.
fn column(text: &str, column: &str) -> Vec<String> {
    let header = format!("| {column} |");
    let rows = text.lines().skip_while(|line| !line.starts_with(&header)).skip(2);
    let cells = rows.map_while(|line| line.strip_prefix("| ")?.split(" |").next());
    let mut names = Vec::new();
    for cell in cells {
        if cell.contains('`') {
            names.extend(cell.split('`').skip(1).step_by(2).map(str::to_owned));
        } else {
            let word = cell.trim_start_matches('[').split(']').next().unwrap_or_default();
            names.push(word.to_owned());
        }
    }
    names
}

fn same(place: &str, mut found: Vec<String>, mut expected: Vec<&'static str>) {
    assert!(!found.is_empty(), "{place}: no such table");
    found.sort_unstable();
    expected.sort_unstable();
    assert_eq!(found, expected, "{place}");
}

fn names<T: Listed>() -> Vec<&'static str> {
    T::ALL.iter().map(|value| value.name()).collect()
}

#[test]
fn tables_have_every_name_once() {
    let table = |file: &str, first: &str| column(&read(file), first);
    same(
        "docs/outcomes.md",
        table("docs/outcomes.md", "outcome"),
        names::<Outcome>(),
    );
    same(
        "docs/vxlan.md",
        table("docs/vxlan.md", "fault"),
        names::<vxlan::Fault>(),
    );
    same(
        "docs/bypass.md",
        table("docs/bypass.md", "finding"),
        names::<bypass::finding::Fault>(),
    );
    same(
        "docs/doctor.md",
        table("docs/doctor.md", "check"),
        names::<Check>(),
    );
    // Two kinds of evidence for one cause are two rows.
    let mut causes = table("docs/outcomes.md", "cause");
    causes.dedup();
    same("docs/outcomes.md, causes", causes, CauseKind::NAMES.to_vec());
    let json = read("docs/json.md");
    let events = json
        .lines()
        .skip_while(|line| !line.starts_with("| event | `probe schema` |"))
        .skip(2);
    let of_schema = events.map_while(|line| line.strip_prefix("| ")?.split(" |").nth(1).map(str::to_owned));
    let mut events: Vec<_> = of_schema
        .flat_map(|cell| {
            cell.split('`')
                .skip(1)
                .step_by(2)
                .map(str::to_owned)
                .collect::<Vec<_>>()
        })
        .collect();
    // A snapshot is the summary, too.
    events.sort_unstable();
    events.dedup();
    same("docs/json.md", events, names::<JsonEvent>());
}

/// Each outcome and each check has a scenario, each fault a unit test that finds it.
#[test]
fn every_name_is_tested() {
    let connection = read("tests/scenarios/connection.rs");
    for name in names::<Outcome>() {
        assert!(
            connection.contains(&format!("\"{name}\"")),
            "{name}: no scenario in tests/scenarios/connection.rs"
        );
    }
    let doctor = read("tests/scenarios/doctor/main.rs");
    for name in names::<Check>() {
        read(&format!("tests/scenarios/doctor/{name}.rs"));
        assert!(
            doctor.contains(&format!("\"{name}\"")) && doctor.contains(&format!("mod {name};")),
            "{name}: not in tests/scenarios/doctor/main.rs"
        );
    }
    let vxlan = ["tests.rs", "tests_of_peers.rs", "tests_of_ways.rs"]
        .map(|file| read(&format!("probe-model/src/vxlan/{file}")))
        .concat();
    for fault in vxlan::Fault::ALL {
        assert!(
            vxlan.contains(&format!("Fault::{fault:?}")),
            "{fault:?}: no test in probe-model/src/vxlan"
        );
    }
    let bypass = read("probe-model/src/bypass/tests.rs");
    for name in names::<bypass::finding::Fault>() {
        assert!(
            bypass.contains(&format!("\"{name} ")),
            "{name}: no test in probe-model/src/bypass"
        );
    }
}

/// Each hook's first program is in the tables of hooks, by its tracepoint or function. Those for IPv6 stand with IPv4's.
#[test]
fn kernels_page_has_every_hook() {
    let page = read("docs/kernels.md");
    let ipv6 = |name: &str| name.contains("v6") || name.contains('6');
    let all = [&WATCH[..], &VXLAN, &DROPS, &TLS, &BYPASS, &PATH].concat();
    for hook in all {
        let first = hook.programs.first().expect("a hook has a program");
        let stands = match first.access {
            Access::Classifier => page.contains("a tc program by tcx"),
            _ => page.contains(&format!("`{}`", first.tracepoint)),
        };
        assert!(
            stands || ipv6(first.tracepoint),
            "docs/kernels.md: nothing of {} ({})",
            first.tracepoint,
            hook.gives
        );
    }
}

/// A section of the doctor's page is of a check; those of vxlan and bypass have pages of their own.
#[test]
fn checks_have_sections() {
    let page = read("docs/doctor.md");
    for check in Check::ALL {
        let link = format!("(#{})", check.name());
        let anchor = format!("## {}", check.name());
        let has = |heading: &str| page.lines().any(|line| line.to_lowercase() == heading);
        assert!(
            !page.contains(&link) || has(&anchor),
            "{}: no section",
            check.name()
        );
    }
}

/// Names in quotes after `label`, separated as in a regular expression.
fn labelled(text: &str, label: &str) -> Vec<BTreeSet<String>> {
    let mut found = Vec::new();
    for operator in ["=~", "!~", "!=", "="] {
        for quote in ["\"", "\\\""] {
            let begin = format!("{label}{operator}{quote}");
            for after in text.split(&begin).skip(1) {
                let value = after.split(quote).next().unwrap_or_default();
                if !value.starts_with('$') && !value.starts_with('"') {
                    found.push(value.split('|').map(str::to_owned).collect());
                }
            }
        }
    }
    found
}

#[test]
fn alerts_and_dashboard_name_what_exists() {
    let files = ["deploy/monitoring/rules.yaml", "deploy/monitoring/dashboard.json"];
    let known = |label: &str| -> Vec<&'static str> {
        match label {
            "outcome" => names::<Outcome>(),
            "role" => names::<Role>(),
            "part" => Part::NAMES.to_vec(),
            "feature" => Kind::all().map(Kind::feature).collect(),
            "kind" => Kind::all().map(Kind::name).chain(CauseKind::NAMES).collect(),
            "check" => Check::NAMES.to_vec(),
            "verdict" => CheckVerdict::NAMES.to_vec(),
            _ => panic!("{label}"),
        }
    };
    let mut all = 0;
    for label in ["outcome", "role", "part", "feature", "kind", "check", "verdict"] {
        let known = known(label);
        for file in files {
            for name in labelled(&read(file), label).into_iter().flatten() {
                assert!(
                    known.contains(&name.as_str()),
                    "{file}: no {label} is called {name}"
                );
                all += 1;
            }
        }
    }
    assert!(all > 5, "{all}");
    // The alert is about clients that send nothing: all outcomes of such.
    let silent = Outcome::ALL
        .into_iter()
        .filter(|outcome| is_silent_client(*outcome));
    let silent: BTreeSet<_> = silent.map(|outcome| outcome.name().to_owned()).collect();
    let rules = labelled(&read(files[0]), "outcome");
    assert!(rules.contains(&silent), "{rules:?}");
}
