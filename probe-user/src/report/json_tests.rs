use jiff::tz::TimeZone;
use serde_json::{Value, json};

use super::*;
use crate::report::samples;

fn shown(record: &model::Connection) -> String {
    let mut out = Vec::new();
    connection(
        &mut out,
        &mut Clock::new(TimeZone::UTC),
        None,
        Some("beta"),
        record,
    )
    .unwrap();
    String::from_utf8(out).unwrap()
}

/// Those with a field of each other one, and with the limits of what a field holds.
fn with_each_field_of_others() -> Vec<model::Connection> {
    use std::time::Duration;

    use model::{Connection, connection::Payload};

    type Put = Box<dyn FnOnce(&mut Connection)>;
    let mut some = samples::all();
    some.extend(samples::every_field());
    some.extend([samples::failed(), samples::both_ends()]);
    some.push(Connection {
        time: jiff::Timestamp::MIN,
        duration: Duration::MAX,
        netns: u32::MAX,
        payload: Some(Payload {
            sent: u64::MAX,
            received: 10,
        }),
        source: "[::ffff:10.0.0.1]:65535".parse().unwrap(),
        destination: "[::]:0".parse().unwrap(),
        ..samples::incident()
    });
    let mut all = Vec::new();
    for one in &some {
        for other in &some {
            // Every field is named: a new one does not compile until it is here.
            let Connection {
                time,
                duration,
                role,
                outcome,
                source,
                destination,
                dialled,
                seen_as,
                untranslated,
                payload,
                unacknowledged,
                netns,
                owner,
                peer,
                cause,
                tls,
                cadence,
            } = other.clone();
            let put: [Put; 17] = [
                Box::new(move |one| one.time = time),
                Box::new(move |one| one.duration = duration),
                Box::new(move |one| one.role = role),
                Box::new(move |one| one.outcome = outcome),
                Box::new(move |one| one.source = source),
                Box::new(move |one| one.destination = destination),
                Box::new(move |one| one.dialled = dialled),
                Box::new(move |one| one.seen_as = seen_as),
                Box::new(move |one| one.untranslated = untranslated),
                Box::new(move |one| one.payload = payload),
                Box::new(move |one| one.unacknowledged = unacknowledged),
                Box::new(move |one| one.netns = netns),
                Box::new(move |one| one.owner = owner),
                Box::new(move |one| one.peer = peer),
                Box::new(move |one| one.cause = cause),
                Box::new(move |one| one.tls = tls),
                Box::new(move |one| one.cadence = cadence),
            ];
            all.extend(put.map(|put| {
                let mut one = one.clone();
                put(&mut one);
                one
            }));
        }
    }
    all
}

/// What is written without serde is what serde makes of the model, byte by byte.
#[test]
fn json_is_the_model_itself() {
    let mut owners = OwnersJson::default();
    let mut clock = Clock::new(TimeZone::UTC);
    let (mut common_ones, mut all) = (0, 0);
    for record in with_each_field_of_others() {
        for node in [None, Some("beta"), Some("\"\u{202e}")] {
            let (mut by_hand, mut by_serde) = (Vec::new(), Vec::new());
            let written = common(&mut by_hand, &mut clock, &mut owners, node, &record).unwrap();
            connection(&mut by_serde, &mut clock, None, node, &record).unwrap();
            all += 1;
            common_ones += usize::from(written);
            let expected: &[u8] = if written { &by_serde } else { &[] };
            assert_eq!(str::from_utf8(&by_hand), str::from_utf8(expected));
            let mut either = Vec::new();
            connection(&mut either, &mut clock, Some(&mut owners), node, &record).unwrap();
            assert_eq!(either, by_serde);
        }
    }
    assert!(all > 10_000 && common_ones * 2 > all, "{common_ones} of {all}");
}

#[test]
fn the_schema_field_by_field() {
    let id = "4f5e6d7c8b9a0f1e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c4b5a69788796";
    assert_eq!(
        shown(&samples::incident()),
        [
            r#"{"event":"connection","time":"2026-11-23T09:10:14.145123Z","role":"client","outcome":"half-open","#,
            r#""source":{"address":"10.244.2.2","port":41234},"#,
            r#""destination":{"address":"192.168.88.11","port":2379},"#,
            r#""bytes_sent":0,"bytes_received":0,"duration_us":412,"#,
            r#""process":{"pid":4242,"name":"python3.11","#,
            r#""command":["python3.11","/app/monitor.py","--target","etcd 1"],"uid":0,"#,
            r#""executable":"/usr/bin/python3.11","source":"kernel"},"#,
            &format!(r#""container":{{"id":"{id}","runtime":"containerd"}},"#),
            r#""pod":{"namespace":"monitoring","name":"sdp-monitor-z8989","#,
            r#""uid":"0a1b2c3d-4e5f-6071-8293-a4b5c6d7e8f9","source":"pod-log-dir","qos":"BestEffort"},"#,
            r#""every_ms":5000,"netns":4026532401,"every_spread_ms":0,"count":12,"node":"beta"}"#,
            "\n",
        ]
        .concat()
    );
}

#[test]
fn translated_addresses() {
    let address = |text: &str| Some(text.parse().unwrap());
    let mut record = samples::incident();
    record.seen_as = address("192.168.88.12:62134");
    record.dialled = address("10.96.0.10:2379");
    let shown: Value = serde_json::from_str(&shown(&record)).unwrap();
    assert_eq!(
        shown["seen_as"],
        json!({"address": "192.168.88.12", "port": 62134})
    );
    assert_eq!(shown["dialled"], json!({"address": "10.96.0.10", "port": 2379}));
    assert_eq!(shown.get("untranslated"), None);

    let mut record = samples::incident();
    record.untranslated = Some(model::translation::Untranslated::NoEntry);
    let shown = self::shown(&record);
    assert!(shown.contains(r#""untranslated":"no-entry""#), "{shown}");
}

#[test]
fn why_it_failed() {
    let shown: Value = serde_json::from_str(&shown(&samples::failed())).unwrap();
    let what = "packets left untranslated: exempted by \u{1b}[2Jrule 1";
    assert_eq!(
        shown["cause"],
        json!({"kind": "untracked", "what": what, "rule": "rule 1", "service": "shop/web:https", "fixes": [{"shell": "iptables -D '$(reboot)'  # now", "argv": ["iptables", "-D", "$(reboot)"], "why": "now"}, {"text": "Or\nnot"}], "certain": true})
    );
}

/// Absent, not empty and not null, however little is known.
#[test]
fn what_is_not_known_is_absent() {
    fn check(value: &Value, line: &str) {
        match value {
            Value::Null => panic!("null in {line}"),
            Value::String(text) => assert!(!text.is_empty(), "empty text in {line}"),
            Value::Array(values) => {
                assert!(!values.is_empty(), "empty array in {line}");
                values.iter().for_each(|value| check(value, line));
            }
            Value::Object(fields) => {
                assert!(!fields.is_empty(), "empty object in {line}");
                fields.values().for_each(|value| check(value, line));
            }
            Value::Bool(_) | Value::Number(_) => {}
        }
    }
    let mut records = samples::all();
    let mut least = samples::incident();
    least.owner = std::sync::Arc::default();
    least.peer = Some(std::sync::Arc::default());
    (least.payload, least.cadence, least.netns) = (None, None, 0);
    least.source = "[::]:0".parse().unwrap();
    records.push(least.clone());
    let mut bare = samples::unnamed_pod("", 1);
    let process = bare.process.as_mut().unwrap();
    (process.command, process.executable, process.uid) = (model::CommandLine::default(), None, None);
    records.push(model::Connection {
        owner: bare.into(),
        ..samples::incident()
    });
    for record in &records {
        let line = shown(record);
        check(&serde_json::from_str(&line).unwrap(), &line);
    }
    let fields: Value = serde_json::from_str(&shown(&least)).unwrap();
    let fields: Vec<_> = fields.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(
        fields,
        [
            "destination",
            "duration_us",
            "event",
            "node",
            "outcome",
            "role",
            "time"
        ]
    );
}

#[test]
fn a_client_that_had_no_port_yet() {
    let mut record = samples::incident();
    record.source.set_port(0);
    assert!(shown(&record).contains(r#""source":{"address":"10.244.2.2"},"#));
}

#[test]
fn both_ends_and_what_was_cut() {
    let mut record = samples::both_ends();
    let mut owner = samples::host("etcd", 812);
    owner.process.as_mut().unwrap().command_cut = true;
    record.owner = owner.into();
    let value: Value = serde_json::from_str(&shown(&record)).unwrap();
    assert_eq!(value["process"]["name"], "etcd");
    assert_eq!(value["process"]["command_cut"], true);
    assert_eq!(value["peer"]["process"]["name"], "python3.11");
    assert_eq!(value["peer"]["pod"]["name"], "sdp-monitor-z8989");
}

#[test]
fn hostile_text_stays_on_its_line_and_comes_back_whole() {
    let name = "evil\x1b[2J\n\u{202e}\"\\x";
    let line = shown(&model::Connection {
        owner: samples::host(name, 1).into(),
        ..samples::incident()
    });
    assert_eq!(line.matches('\n').count(), 1);
    assert!(!line.contains('\x1b'));
    let value: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(value["process"]["name"], name);
}

#[test]
fn the_summary_is_one_line() {
    let mut out = Vec::new();
    let mut sample = samples::summary();
    sample.causes = vec![Counted {
        cause: samples::cause(),
        connections: 7,
    }];
    summary(&mut out, &mut Clock::new(TimeZone::UTC), &sample).unwrap();
    let text = String::from_utf8(out).unwrap();
    assert_eq!(text.matches('\n').count(), 1);
    let value: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(value["event"], "summary");
    assert_eq!(value["started"], "2026-11-23T09:10:14.145123Z");
    assert_eq!(
        (&value["counted"], &value["reported"]),
        (&json!(1540), &json!(1528))
    );
    assert_eq!(value["lost"], json!({"records": 12, "connections": 0}));
    assert_eq!(value["misses"], json!({"pods": 3}));
    let cause = &value["causes"][0];
    assert_eq!((&cause["count"], &cause["rule"]), (&json!(7), &json!("rule 1")));
    let sources = value["sources"].as_array().unwrap();
    assert_eq!(sources.len(), 25);
    assert_eq!(sources[0]["count"], 1440);
    assert_eq!(sources[0]["every_ms"], 250);
    assert_eq!(sources[0]["pod"]["namespace"], "shop");
    assert!(sources[0].get("source").is_none());
    let remote = sources.iter().find(|source| source["count"] == 31).unwrap();
    assert_eq!(remote["source"], json!({"address": "192.168.88.12"}));
    assert_eq!(remote["process"]["name"], "etcd");
}
