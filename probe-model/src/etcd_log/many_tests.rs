//! A million lines of all shapes, decoys between them, against what was put in.

use std::collections::BTreeMap;

use super::*;

const LINES: usize = 1_000_000;

/// Numbers that look random and are the same each time (xorshift).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }

    fn of<'a>(&mut self, all: &[&'a str]) -> &'a str {
        all[self.below(all.len() as u64) as usize]
    }
}

const ERRORS: [&str; 5] = [
    "EOF",
    "tls: first record does not look like a TLS handshake",
    "remote error: tls: bad certificate",
    "tls: \"quoted\" \\ and \t tab",
    "read tcp 192.168.88.11:2379->192.168.88.12:1: read: connection reset by peer",
];

const OTHERS: [&str; 6] = [
    "2026-11-23 08:27:43.808481 I | etcdserver: published {Name:alpha} to cluster 1",
    r#"{"level":"info","ts":"2026-11-23T08:27:43.808Z","msg":"serving client traffic","address":"192.168.88.11:2379"}"#,
    r#"{"level":"warn","ts":"2026-11-23T08:27:43.808Z","msg":"apply request took too long","request":"key:\"rejected connection\""}"#,
    "2026-11-23T08:27:43.9Z stderr F the operator asked what a rejected connection is",
    r#"{"log":"2026-11-23 08:27:43 I | mvcc: finished scheduled compaction\n","stream":"stderr","time":"2026-11-23T08:27:43.9Z"}"#,
    "",
];

/// About a rejected connection, but cut off.
const BROKEN: [&str; 3] = [
    r#"2026-11-23 08:27:43.808481 I | embed: rejected connection from "10.0.0.1:1" (error "EO"#,
    r#"{"level":"warn","ts":"2026-11-23T08:27:43.808Z","msg":"rejected connection","remote-addr":"10.0.0.1"#,
    r#"{"level":"warn","msg":"rejected connection","remote-addr":"no address","error":"EOF"}"#,
];

fn line(numbers: &mut Numbers, peer: &str, error: &str) -> String {
    let json = |text: &str| serde_json::to_string(text).unwrap();
    // Go quotes as JSON does, as far as these errors go.
    let plain = format!(
        "2026-11-23 08:27:43.808481 I | embed: rejected connection from \"{peer}\" (error {}, ServerName \"\")",
        json(error)
    );
    let zap = format!(
        r#"{{"level":"warn","ts":"2026-11-23T08:27:43.808Z","caller":"embed/config_logging.go:169","msg":"rejected connection{}","remote-addr":"{peer}","server-name":"","error":{}}}"#,
        numbers.of(&["", " on client endpoint", " on peer endpoint"]),
        json(error)
    );
    match numbers.below(8) {
        0 => plain,
        1 => zap,
        2 => format!("2026-11-23T08:27:43.9Z stderr F {plain}"),
        3 => format!("2026-11-23T08:27:43.9Z stdout F {zap}\r"),
        4 => format!("Nov 23 08:27:43 alpha etcd[4711]: {zap}"),
        5 => format!(
            r#"{{"log":{},"stream":"stderr","time":"2026-11-23T08:27:43.9Z"}}"#,
            json(&format!("{plain}\n"))
        ),
        6 => format!(
            r#"{{"MESSAGE":{},"__REALTIME_TIMESTAMP":"1795422463808481"}}"#,
            json(&zap)
        ),
        _ => format!(
            "2026-11-23T08:27:43.808481Z\twarn\tembed/config_logging.go:188\trejected connection\t{{\"remote-addr\": \"{peer}\", \"error\": {}}}",
            json(error)
        ),
    }
}

#[test]
fn a_million_lines() {
    let reader = Reader::new(TimeZone::UTC, "2026-11-24T00:00:00Z".parse().unwrap());
    let mut numbers = Numbers(0x2545_f491_4f6c_dd1d);
    let (mut put_in, mut found) = (BTreeMap::<_, u64>::new(), BTreeMap::<_, u64>::new());
    let (mut broken, mut unreadable) = (0, 0);
    for _ in 0..LINES {
        let text = match numbers.below(10) {
            0 => {
                let host = 1 + numbers.below(40);
                let peer = match numbers.below(4) {
                    0 => format!("[fd00::{host}]:{}", 1024 + host),
                    _ => format!("192.168.88.{host}:{}", 1024 + host),
                };
                let error = numbers.of(&ERRORS);
                *put_in.entry((peer.clone(), error.to_owned())).or_default() += 1;
                line(&mut numbers, &peer, error)
            }
            1 if numbers.below(100) == 0 => {
                broken += 1;
                numbers.of(&BROKEN).to_owned()
            }
            _ => numbers.of(&OTHERS).to_owned(),
        };
        match reader.read(&text) {
            Line::Other => {}
            Line::Rejected(rejected) => {
                assert!(rejected.time.is_some(), "{text}");
                *found
                    .entry((rejected.peer.to_string(), rejected.error))
                    .or_default() += 1;
            }
            Line::Unreadable(_) => unreadable += 1,
        }
    }
    assert_eq!((unreadable, found), (broken, put_in));
}
