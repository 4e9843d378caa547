//! Many lines of all shapes, decoys between them, against what was put in; then the same with random damage.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::random::Numbers;

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
    "2026-11-23T08:27:43.9Z stderr F the operator asked what a refused connection is",
    r#"{"log":"2026-11-23 08:27:43 I | mvcc: finished scheduled compaction\n","stream":"stderr","time":"2026-11-23T08:27:43.9Z"}"#,
    "",
];

/// About a rejected connection, but cut off.
const BROKEN: [&str; 4] = [
    r#"2026-11-23 08:27:43.808481 I | embed: rejected connection from "10.0.0.1:1" (error "EO"#,
    r#"{"level":"warn","ts":"2026-11-23T08:27:43.808Z","msg":"rejected connection","remote-addr":"10.0.0.1"#,
    r#"{"level":"warn","msg":"rejected connection","remote-addr":"no address","error":"EOF"}"#,
    "2026-11-23T08:27:43.9Z stderr F the operator asked what a rejected connection is",
];

/// What `line` makes.
const SHAPES: u64 = 22;

fn json(text: &str) -> String {
    serde_json::to_string(text).unwrap()
}

/// A line of a shape. Its times are all within 100 ms of 08:27:43.808 in the reader's zone.
fn line(numbers: &mut Numbers, shape: u64, peer: &str, error: &str) -> String {
    // Go quotes as JSON does, as far as these errors go.
    let message = format!(
        "rejected connection from \"{peer}\" (error {}, ServerName \"\")",
        json(error)
    );
    let plain = format!("2026-11-23 08:27:43.808481 I | embed: {message}");
    let endpoint = numbers.of(&["", " on client endpoint", " on peer endpoint"]);
    let zap = format!(
        r#"{{"level":"warn","ts":"2026-11-23T08:27:43.808Z","caller":"embed/config_logging.go:169","msg":"rejected connection{endpoint}","remote-addr":"{peer}","server-name":"","error":{}}}"#,
        json(error)
    );
    let console = format!("{{\"remote-addr\": \"{peer}\", \"error\": {}}}", json(error));
    let unix = "1795422463.808481";
    match shape {
        0 => plain,
        1 => zap,
        2 => format!("2026-11-23T08:27:43.9Z stderr F {plain}"),
        3 => format!("2026-11-23T08:27:43.9Z stdout F {zap}\r"),
        4 => format!("Nov 23 08:27:43.81 alpha etcd[4711]: {zap}"),
        5 => format!(
            r#"{{"log":{},"stream":"stderr","time":"2026-11-23T08:27:43.9Z"}}"#,
            json(&format!("{plain}\n"))
        ),
        6 => format!(
            r#"{{"MESSAGE":{},"__REALTIME_TIMESTAMP":"1795422463808481"}}"#,
            json(&zap)
        ),
        7 => format!("[pod/etcd-alpha/etcd] {plain}"),
        8 => format!("Mon 2026-11-23 08:27:43.808481 UTC alpha etcd[9508]: {message}"),
        9 => format!("{unix} alpha etcd[9508]: {message}"),
        10 => format!("<30>1 2026-11-23T08:27:43.808481Z alpha etcd 9508 - - {message}"),
        11 => format!(
            "Nov 23 08:27:43.81 alpha etcd[9508]: 2026-11-23T08:27:43.808481Z#011warn#011x.go:1#011rejected connection{endpoint}#011{console}"
        ),
        12 => format!(
            r#"{{"@timestamp":"2026-11-23T08:27:43.9Z","log":{{"offset":1}},"message":{0},"event":{{"original":{0}}}}}"#,
            json(&zap)
        ),
        13 => format!(
            "time=\"2026-11-23T08:27:43.9Z\" level=info msg={} component=etcd",
            json(&plain)
        ),
        14 => format!(
            r#"{{"streams":[{{"stream":{{"app":"etcd"}},"values":[["1795422463808481000",{}]]}}]}}"#,
            json(&message)
        ),
        15 => format!(
            "[2026/11/23 08:27:43.808 +00:00] [WARN] [x.go:1] [\"rejected connection\"] [remote-addr={peer}] [error={}]",
            json(error)
        ),
        16 => format!("11月 23 08:27:43.81 node1 etcd[9508]: {message}"),
        17 => format!("2026-11-23T08:27:43.9Z,alpha,\"{}\"", zap.replace('"', "\"\"")),
        18 => format!(
            r#"{{"logEvents":[{{"timestamp":1795422463808,"message":{}}}]}}"#,
            json(&message)
        ),
        19 => format!(
            "data: {{\"__REALTIME_TIMESTAMP\":\"1795422463808481\",\"MESSAGE\":{}}}",
            json(&message)
        ),
        20 => format!("nov. 23 08:27:43.81 node1 etcd[9508]: {zap}"),
        _ => format!(
            "2026-11-23T08:27:43.808481Z\twarn\tembed/config_logging.go:188\trejected connection{endpoint}\t{console}"
        ),
    }
}

fn reader() -> Reader {
    Reader::new(TimeZone::UTC, "2026-11-24T00:00:00Z".parse().unwrap())
}

fn peer(numbers: &mut Numbers) -> String {
    let host = 1 + numbers.below(40);
    match numbers.below(4) {
        0 => format!("[fd00::{host}]:{}", 1024 + host),
        _ => format!("192.168.88.{host}:{}", 1024 + host),
    }
}

fn is_time(time: Timestamp) -> bool {
    ("2026-11-23T08:27:43.8Z".parse().unwrap()..="2026-11-23T08:27:43.9Z".parse().unwrap()).contains(&time)
}

#[test]
fn many_lines() {
    const LINES: usize = 100_000;
    let reader = reader();
    let mut numbers = Numbers(0x2545_f491_4f6c_dd1d);
    let (mut put_in, mut found) = (BTreeMap::<_, u64>::new(), BTreeMap::<_, u64>::new());
    let (mut broken, mut unreadable) = (0, 0);
    for _ in 0..LINES {
        let text = match numbers.below(10) {
            0..=2 => {
                let (shape, peer, error) = (numbers.below(SHAPES), peer(&mut numbers), numbers.of(&ERRORS));
                *put_in.entry((peer.clone(), error.to_owned())).or_default() += 1;
                line(&mut numbers, shape, &peer, error)
            }
            3 if numbers.below(100) == 0 => {
                broken += 1;
                numbers.of(&BROKEN).to_owned()
            }
            _ => numbers.of(&OTHERS).to_owned(),
        };
        match reader.read(&text) {
            Line::Other => {}
            Line::Rejected(rejected) => {
                assert!(rejected.time.is_some_and(is_time), "{text}: {:?}", rejected.time);
                *found
                    .entry((rejected.peer.to_string(), rejected.error))
                    .or_default() += 1;
            }
            Line::Unreadable(_) => unreadable += 1,
        }
    }
    let differs: Vec<_> = put_in
        .iter()
        .filter(|(key, count)| found.get(key) != Some(count))
        .take(3)
        .collect();
    assert!(differs.is_empty(), "{differs:?}");
    assert_eq!((unreadable, found.len()), (broken, put_in.len()));
}

/// Damages a line: what a disk, a viewer or a network does to it. No digit becomes another one: that nobody can see.
fn damage(numbers: &mut Numbers, text: &str) -> String {
    let at = |numbers: &mut Numbers, text: &str| {
        let mut at = numbers.below(text.len() as u64 + 1) as usize;
        while !text.is_char_boundary(at) {
            at -= 1;
        }
        at
    };
    let (first, second) = (at(numbers, text), at(numbers, text));
    let (start, end) = (first.min(second), first.max(second));
    match numbers.below(6) {
        // Cut off at the end, and at the start.
        0 => text[..first].to_owned(),
        // Of `11月` or `23/Nov` without the first digit nobody sees that one is missing.
        1 if !text[first..].starts_with(|character: char| character.is_ascii_digit()) => {
            text[first..].to_owned()
        }
        // Two lines in one.
        2 => format!("{}{text}", &text[..first]),
        // A character put in.
        3 => {
            let marks = [
                "\"", "\\", "{", "}", "[", "]", "(", ")", ",", "=", "\u{0}", "\u{1b}", "#", "é", "\n", "\t",
                " ", "|",
            ];
            let mark = numbers.of(&marks);
            let digit = |character: char| character.is_ascii_digit();
            let in_number = text[..first].ends_with(digit) && text[first..].starts_with(digit);
            // `1 1月` is the first of January.
            let is_blank = mark.trim_matches(['\0', '\u{1b}', ' ', '\n', '\t']).is_empty();
            if in_number && is_blank {
                return text.to_owned();
            }
            format!("{}{mark}{}", &text[..first], &text[first..])
        }
        // A part of it without digits left out or doubled.
        4 if !text[start..end].bytes().any(|byte| byte.is_ascii_digit()) => {
            format!("{}{}", &text[..start], &text[end..])
        }
        5 if !text[start..end].bytes().any(|byte| byte.is_ascii_digit()) => {
            format!("{}{}", &text[..end], &text[start..])
        }
        _ => text.to_owned(),
    }
}

/// Whatever happened to a line, no client and no time comes out that was not in it.
#[test]
fn damaged_lines() {
    const LINES: usize = 100_000;
    let reader = reader();
    let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15);
    let mut read = 0;
    let mut unread = BTreeSet::new();
    for _ in 0..LINES {
        let (shape, peer, error) = (numbers.below(SHAPES), peer(&mut numbers), numbers.of(&ERRORS));
        let whole = line(&mut numbers, shape, &peer, error);
        let text = damage(&mut numbers, &whole);
        let mut lines = Vec::new();
        let excerpt = Excerpt {
            line: &text,
            ..Excerpt::default()
        };
        reader.read_excerpt(&excerpt, &mut lines);
        assert!(lines.len() <= 4, "{text}");
        for found in lines {
            match found {
                Line::Rejected(rejected) => {
                    read += 1;
                    let found = rejected.peer.to_string();
                    assert_eq!(found, peer, "{text}");
                    // A blank before its fraction costs that.
                    let second = "2026-11-23T08:27:43Z".parse().unwrap();
                    let is_time = rejected.time.is_none_or(|time| time == second || is_time(time));
                    assert!(is_time, "{text}: {:?}", rejected.time);
                }
                Line::Unreadable(why) => drop(unread.insert(why)),
                Line::Other => panic!("{text}"),
            }
        }
    }
    assert!(read > LINES / 3 && unread.len() > 3, "{read} {unread:?}");
}
