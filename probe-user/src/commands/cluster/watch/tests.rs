use std::sync::Mutex;

use clap::Parser as _;
use serde_json::Value;

use super::*;
use crate::{
    cli::{Cli, Command},
    report::{Format, samples},
};

#[derive(Clone, Default)]
struct Shared(Arc<Mutex<Vec<u8>>>);

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// What `probe watch --cluster` with these options makes of what nodes say.
fn told(options: &str, said: Vec<(&'static str, Connection)>) -> Vec<Value> {
    let words = ["probe", "watch", "--cluster"]
        .into_iter()
        .chain(options.split_whitespace());
    let Command::Watch(args) = Cli::try_parse_from(words).unwrap().command else {
        panic!("not watch")
    };
    let out = Shared::default();
    let reporter = Reporter::new(Format::Json, None, false, out.clone());
    let mut watching = Watching::new(Watch::try_from(*args).unwrap(), reporter, None);
    for (node, connection) in said {
        let node: Arc<str> = node.into();
        watching.nodes.add(Arc::clone(&node));
        let answers = Heard::Answers { again: None };
        let heard = Heard::Connection(Box::new(connection), 100);
        for heard in [answers, heard] {
            let node = Arc::clone(&node);
            watching.heard(News { node, heard });
        }
    }
    watching.finish().unwrap();
    let out = out.0.lock().unwrap();
    let lines = out.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    lines.map(|line| serde_json::from_slice(line).unwrap()).collect()
}

fn at(milliseconds: u64, connection: Connection) -> Connection {
    Connection {
        time: samples::time() + Duration::from_millis(milliseconds),
        ..connection
    }
}

/// Processes of the same name in network namespaces of the same number, on two nodes, are two sources.
#[test]
fn of_all_nodes_in_the_order_of_time() {
    let kubelet = || Connection {
        owner: Arc::new(samples::host("kubelet", 7)),
        cadence: None,
        ..samples::incident()
    };
    let lines = told(
        "",
        vec![
            ("beta", at(20, kubelet())),
            ("beta", at(40, kubelet())),
            ("alpha", at(10, kubelet())),
            ("alpha", at(30, samples::both_ends())),
        ],
    );
    let nodes: Vec<_> = lines.iter().map(|line| line["node"].clone()).collect();
    assert_eq!(
        nodes,
        ["alpha", "beta", "alpha", "beta"]
            .map(Value::from)
            .into_iter()
            .chain([Value::Null])
            .collect::<Vec<_>>()
    );
    // The agent's count, or this run's where the agent has none.
    let counts: Vec<_> = lines.iter().map(|line| line["count"].as_u64()).collect();
    assert_eq!(counts, [Some(1), Some(1), Some(12), Some(2), None]);
    let summary = lines.last().unwrap();
    let mut sources: Vec<_> = summary["sources"]
        .as_array()
        .unwrap()
        .iter()
        .map(|source| {
            (
                source["node"].as_str().unwrap(),
                source["count"].as_u64().unwrap(),
            )
        })
        .collect();
    sources.sort_unstable();
    assert_eq!(sources, [("alpha", 1), ("alpha", 1), ("beta", 2)]);
}

/// Whatever an agent tells, only what was asked for is shown.
#[test]
fn filters_hold() {
    let said = || {
        let web = Connection {
            owner: Arc::new(samples::pod("shop", "web-0", "nginx", 1)),
            destination: "10.96.0.1:443".parse().unwrap(),
            ..samples::incident()
        };
        vec![
            ("beta", samples::incident()),
            ("beta", samples::failed()),
            ("beta", web),
        ]
    };
    for (options, shown) in [
        ("", 3),
        ("--port 443", 1),
        ("--port 2379", 2),
        ("--namespace shop", 1),
        ("--pod sdp-monitor", 2),
        ("--pod shop/web", 1),
        ("--pod shop/sdp-monitor", 0),
        ("--outcome unanswered", 1),
        ("--role server", 0),
        ("--peer 10.96.0.0/16", 1),
        ("--count 2", 2),
    ] {
        assert_eq!(told(options, said()).len(), shown + 1, "{options}");
    }
}
