use std::{collections::BTreeMap, fmt::Write as _, path::Path};

use super::{
    definitions::{ALL, Kind},
    *,
};
use crate::report::samples;

/// The documentation, as the definitions say.
fn documentation() -> String {
    let mut text = String::from(
        "# Metrics of `probe agent`\n\n\
         Made of the definitions in the source; a test holds it to them (`cargo xtask docs --write` writes it anew).\n\n\
         `http://…:9471/metrics`, OpenMetrics. Text from outside (names of pods, rules) is escaped and at most 200 columns\n\
         long. There are at most `metrics.max_series` series (10,000 by default), of one workload at most 64 ports: what\n\
         comes later is counted under the label value `other`, for lack of series in `probe_series_overflow_total` as well.\n\
         Counters begin at 0 when the agent, or the part of it, begins. `probe_connections_total` has as exemplar the pod and the address of a\n\
         connection's client.\n\n\
         | name | type | labels | what |\n|---|---|---|---|\n",
    );
    for metric in ALL {
        let labels: Vec<_> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
        let (name, kind) = match metric.kind {
            Kind::Counter => (format!("{}_total", metric.name), "counter"),
            Kind::Gauge => (metric.name.to_owned(), "gauge"),
        };
        writeln!(
            text,
            "| `{name}` | {kind} | {} | {} |",
            labels.join(", "),
            metric.what
        )
        .unwrap();
    }
    text
}

#[test]
fn the_documentation_is_of_these_definitions() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/metrics.md");
    if std::env::var_os("PROBE_WRITE_DOCS").is_some() {
        std::fs::write(&file, documentation()).unwrap();
    }
    assert_eq!(
        std::fs::read_to_string(&file).unwrap(),
        documentation(),
        "run `cargo xtask docs --write`"
    );
}

#[test]
fn names_are_as_prometheus_wants_them() {
    let mut names = BTreeMap::new();
    for metric in ALL {
        assert!(
            metric.name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'_')),
            "{}",
            metric.name
        );
        assert!(!metric.name.ends_with("_total"), "{}", metric.name);
        assert!(metric.what.ends_with('.') && !metric.what.contains('\n'));
        assert!(metric.kind == Kind::Gauge || !metric.name.contains("_bytes"));
        assert!(
            names.insert(metric.name, ()).is_none(),
            "{} is there twice",
            metric.name
        );
    }
}

#[test]
fn a_connection_counts_and_names_its_workload() {
    let metrics = Metrics::new(1000, "6.18");
    for connection in samples::all() {
        metrics.connection(&connection);
    }
    let text = metrics.encode();
    let connections: f64 = text
        .lines()
        .filter(|line| line.starts_with("probe_connections_total"))
        .map(|line| {
            let after = line.split_once("} ").unwrap().1;
            after.split(' ').next().unwrap().parse::<f64>().unwrap()
        })
        .sum();
    assert_eq!(connections as usize, samples::all().len(), "{text}");
    assert!(text.contains(r#"namespace="monitoring""#), "{text}");
}

#[test]
fn a_workload_that_tries_all_ports_takes_the_room_of_64() {
    let metrics = Metrics::new(1000, "6.18");
    for port in 1..=10_000 {
        metrics.counted(Role::Client, Outcome::Refused, port, &Owner::default(), 1);
    }
    let text = metrics.encode();
    let series = text
        .lines()
        .filter(|line| line.starts_with("probe_connections_total"))
        .count();
    assert_eq!(series, PORTS + 1);
    assert!(text.contains(r#"port="other"} 9936.0"#), "{text}");
}
