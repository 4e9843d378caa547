//! Alerts, dashboard and documents against each other.

use std::collections::{BTreeMap, BTreeSet};

use super::{MADE, prometheus_rule, read};

/// Of kube-state-metrics and of Prometheus itself.
const OTHERS: [&str; 2] = ["kube_node_info", "up"];
/// Labels that Prometheus gives every series of a target, or that histograms and the like have.
const TARGET: [&str; 5] = ["job", "instance", "node", "namespace", "pod"];

/// Every metric that docs/metrics.md has, with its labels.
fn documented() -> BTreeMap<String, BTreeSet<String>> {
    let text = std::fs::read_to_string(crate::run::root().join("docs/metrics.md")).unwrap();
    let quoted = |cell: &str| {
        cell.split('`')
            .skip(1)
            .step_by(2)
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let row = |line: &str| {
        let cells: Vec<_> = line.strip_prefix('|')?.split('|').collect();
        let name = quoted(cells.first()?).pop()?;
        Some((name, quoted(cells.get(2)?).into_iter().collect()))
    };
    text.lines().filter_map(row).collect()
}

/// What is asked of Prometheus in the dashboard: queries, and those that fill variables.
fn queries(value: &serde_json::Value, into: &mut Vec<String>) {
    match value {
        serde_json::Value::Object(object) => {
            for (key, value) in object {
                match value {
                    serde_json::Value::String(text) if key == "expr" || key == "query" => {
                        into.push(text.clone());
                    }
                    other => queries(other, into),
                }
            }
        }
        serde_json::Value::Array(array) => array.iter().for_each(|value| queries(value, into)),
        _ => {}
    }
}

/// The expressions of rules.yaml: `expr:`, on its line or in the block below it.
fn expressions(rules: &str) -> Vec<String> {
    let mut all = Vec::new();
    let mut lines = rules.lines().peekable();
    while let Some(line) = lines.next() {
        let Some(rest) = line.trim_start().strip_prefix("expr:") else {
            continue;
        };
        let indent = line.len() - line.trim_start().len();
        let mut text = rest.trim_start_matches([' ', '|']).to_owned();
        while let Some(next) = lines.next_if(|next| next.len() - next.trim_start().len() > indent) {
            text.push(' ');
            text.push_str(next.trim());
        }
        all.push(text);
    }
    all
}

/// Metrics in a query, each with the labels it is selected by.
fn metrics(query: &str) -> Vec<(String, Vec<String>)> {
    let mut found = Vec::new();
    let mut rest = query;
    while let Some(start) = rest.find(|c: char| c.is_ascii_alphabetic() || c == '_' || c == '"') {
        rest = &rest[start..];
        if let Some(string) = rest.strip_prefix('"') {
            rest = string.split_once('"').map_or("", |(_, after)| after);
            continue;
        }
        let end = rest
            .find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
            .unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        rest = after;
        if !word.starts_with("probe_") && !word.starts_with("process_") && !OTHERS.contains(&word) {
            continue;
        }
        let mut labels = Vec::new();
        if let Some((selectors, after)) = after.strip_prefix('{').and_then(|inside| inside.split_once('}')) {
            labels.extend(
                selectors
                    .split(',')
                    .filter_map(|selector| Some(selector.split(['=', '!']).next()?.trim().to_owned()))
                    .filter(|label| !label.is_empty() && !label.contains('"')),
            );
            rest = after;
        }
        found.push((word.to_owned(), labels));
    }
    found
}

/// Metrics and labels in queries that docs/metrics.md does not have.
fn unknown(queries: &[String]) -> Vec<String> {
    let documented = documented();
    let mut unknown = Vec::new();
    for (metric, labels) in queries.iter().flat_map(|query| metrics(query)) {
        let known = match documented.get(&metric) {
            Some(known) => known,
            None if OTHERS.contains(&metric.as_str()) => continue,
            None => {
                unknown.push(metric);
                continue;
            }
        };
        let strange = labels
            .iter()
            .filter(|label| !known.contains(*label) && !TARGET.contains(&label.as_str()));
        unknown.extend(strange.map(|label| format!("{metric}{{{label}}}")));
    }
    unknown
}

fn dashboard() -> Vec<String> {
    let mut all = Vec::new();
    queries(
        &serde_json::from_str(&read("dashboard.json").unwrap()).unwrap(),
        &mut all,
    );
    all
}

#[test]
fn alerts_ask_for_metrics_that_are_there() {
    let expressions = expressions(&read("rules.yaml").unwrap());
    assert!(expressions.len() > 10, "{expressions:?}");
    assert!(
        expressions.iter().all(|query| !metrics(query).is_empty()),
        "{expressions:?}"
    );
    assert_eq!(unknown(&expressions), Vec::<String>::new());
}

#[test]
fn the_dashboard_asks_for_metrics_that_are_there() {
    let queries = dashboard();
    assert!(queries.len() > 10, "{queries:?}");
    assert_eq!(unknown(&queries), Vec::<String>::new());
}

/// The tests of rules feed on metrics, too: a renamed one would leave them green.
#[test]
fn rules_are_tested_with_metrics_that_are_there() {
    let text = read("rules_test.yaml").unwrap();
    let series: Vec<_> = text
        .lines()
        .filter_map(|line| line.trim_start().strip_prefix("- series: '")?.strip_suffix('\''))
        .map(str::to_owned)
        .collect();
    assert!(series.len() > 10);
    assert_eq!(unknown(&series), Vec::<String>::new());
}

#[test]
fn what_is_unknown_is_found() {
    let asked = [
        "sum(rate(probe_nothing_total[5m])) / probe_part_up{part=\"watch\",colour=~\"red|{blue}\"}"
            .to_owned(),
    ];
    assert_eq!(unknown(&asked), ["probe_nothing_total", "probe_part_up{colour}"]);
}

#[test]
fn the_operators_object_is_made_of_the_rules() {
    let rules = read("rules.yaml").unwrap();
    assert_eq!(
        read(MADE).unwrap(),
        prometheus_rule(&rules),
        "run `cargo xtask monitoring --write`"
    );
}

#[test]
fn every_alert_is_tested_and_has_a_runbook() {
    let rules = read("rules.yaml").unwrap();
    let tests = read("rules_test.yaml").unwrap();
    let runbooks = std::fs::read_to_string(crate::run::root().join("docs/runbooks.md")).unwrap();
    let alerts: Vec<_> = rules
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- alert: "))
        .collect();
    assert!(alerts.len() > 10, "{alerts:?}");
    for alert in &alerts {
        let link = format!("runbook_url: docs/runbooks.md#{}\n", alert.to_lowercase());
        assert!(rules.contains(&link), "{alert} links to no runbook");
        assert!(
            runbooks.contains(&format!("\n## {alert}\n")),
            "{alert} has no runbook"
        );
        assert!(
            tests.contains(&format!("alertname: {alert}\n")),
            "{alert} is not tested"
        );
    }
    let told: Vec<_> = runbooks
        .lines()
        .filter_map(|line| line.strip_prefix("## "))
        .collect();
    for runbook in told {
        assert!(alerts.contains(&runbook), "{runbook} is no alert");
    }
}
