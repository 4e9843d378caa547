use std::{
    collections::BTreeSet,
    fmt::Write as _,
    net::{IpAddr, Ipv4Addr},
    path::Path,
};

use super::{
    definitions::{ALL, Kind},
    *,
};
use crate::{
    model::{
        network::{Device, Vxlan},
        vxlan::{
            finding::Diagnosed,
            overlay::{Overlay, Peer, PeerSource},
            traffic::Traffic,
            view::View,
        },
    },
    report::samples,
};

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
    let mut names = BTreeSet::new();
    for metric in ALL {
        assert!(
            metric.name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'_')),
            "{}",
            metric.name
        );
        assert!(!metric.name.ends_with("_total"), "{}", metric.name);
        assert!(metric.what.ends_with('.') && !metric.what.contains('\n'));
        assert!(metric.kind == Kind::Gauge || !metric.name.contains("_bytes"));
        assert!(names.insert(metric.name), "{} is there twice", metric.name);
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

#[test]
fn a_peer_with_a_warning_is_up() {
    const PEER: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 168, 88, 12));
    let device = Device {
        index: 3,
        name: "flannel.1".to_owned(),
        up: true,
        ethernet: true,
        mtu: 1450,
        mac: None,
        controller: None,
        bridge: false,
        received: 0,
        sent: 0,
        send_failures: 0,
        vxlan: None,
        xdp: None,
    };
    let overlay = Overlay {
        device,
        vxlan: Vxlan::default(),
        underlay: None,
        other_underlays: Vec::new(),
        kind: PeerSource::Entries,
        peers: vec![Peer {
            vtep: Some(PEER),
            ..Peer::default()
        }],
        conflict: None,
        is_port_shared: false,
        lacks_address: false,
        underlay_down: None,
        overlaps: Vec::new(),
        subnet_length: None,
    };
    for (severity, up) in [(Severity::Warning, 1), (Severity::Failed, 0)] {
        let mut finding = Diagnosed::new(
            VxlanFault::PrefixOverlap,
            "flannel.1",
            Some(PEER),
            "overlap".to_owned(),
        );
        finding.severity = severity;
        let metrics = Metrics::new(100, "6.8.0");
        metrics.vxlan(&View {
            time: samples::time(),
            overlays: vec![overlay.clone()],
            devices: [(3, "flannel.1".to_owned())].into(),
            names: HashMap::new(),
            traffic: Traffic::default(),
            findings: vec![finding],
            unread: Vec::new(),
        });
        let line = format!("probe_vxlan_peer_up{{device=\"flannel.1\",peer=\"{PEER}\"}} {up}.0");
        assert!(metrics.encode().contains(&line), "{line}\n{}", metrics.encode());
    }
}
