use super::*;

fn reader() -> Reader {
    Reader::new(
        TimeZone::fixed(jiff::tz::offset(2)),
        "2026-11-24T00:00:00Z".parse().unwrap(),
    )
}

fn line(time: &str, error: &str, server_name: &str, endpoint: Option<Endpoint>) -> Line {
    Line::Rejected(Rejected {
        time: (!time.is_empty()).then(|| time.parse().unwrap()),
        peer: "192.168.88.12:62134".parse().unwrap(),
        error: error.to_owned(),
        server_name: server_name.to_owned(),
        endpoint,
        has_offset: false,
        zone: None,
        server: None,
        logged_by: ServerKind::Etcd,
    })
}

/// Reads a line, and leaves out what has a table of its own.
fn read(text: &str) -> Line {
    match reader().read(text) {
        Line::Rejected(rejected) => Line::Rejected(Rejected {
            has_offset: false,
            zone: None,
            server: None,
            ..rejected
        }),
        other => other,
    }
}

#[test]
fn words_that_do_not_stand_in_the_line() {
    for between in ["\0", "\x1b[0m ", "\\u0020"] {
        let line = format!(
            "2026-11-23 09:10:10 I | embed: rejected{between}connection from \"10.0.0.1:1\" (error \"EOF\")"
        );
        assert_eq!(reader().read(&line), Line::Other, "{line:?}");
    }
}

#[test]
fn offset_zone_and_server() {
    let reset = r#""192.168.88.12:62134" (error "read tcp 192.168.88.11:2380->192.168.88.12:62134: i/o timeout", ServerName "")"#;
    for (text, expected) in [
        (
            format!("2026-11-23 08:27:43.808481 I | embed: {PLAIN}"),
            (false, None, None),
        ),
        (
            format!("2026-11-23T08:27:43.810000001Z stderr F 2026-11-23 08:27:43 I | embed: {PLAIN}"),
            (true, None, None),
        ),
        (
            format!("rejected connection from {reset}"),
            (false, None, Some("192.168.88.11:2380")),
        ),
        // Of another connection.
        (
            format!(
                "rejected connection from {}",
                reset.replace("->192.168.88.12", "->192.168.88.13")
            ),
            (false, None, None),
        ),
        (
            r#"rejected connection from "[fe80::1%eth0]:62134" (error "EOF", ServerName "")"#.to_owned(),
            (false, Some("eth0"), None),
        ),
    ] {
        let Line::Rejected(read) = reader().read(&text) else {
            panic!("{text}");
        };
        let server = expected.2.map(|server: &str| server.parse().unwrap());
        assert_eq!(
            (read.has_offset, read.zone.as_deref(), read.server),
            (expected.0, expected.1, server),
            "{text}"
        );
    }
}

const PLAIN: &str = r#"rejected connection from "192.168.88.12:62134" (error "EOF", ServerName "")"#;
const ZAP: &str = r#""caller":"embed/config_logging.go:169","msg":"rejected connection","remote-addr":"192.168.88.12:62134","server-name":"","error":"EOF"}"#;

#[test]
fn every_shape() {
    let client = Some(Endpoint::Client);
    for (text, expected) in [
        // 3.2 to 3.4: the process's own time zone.
        (
            format!("2026-11-23 08:27:43.808481 I | embed: {PLAIN}"),
            line("2026-11-23T06:27:43.808481Z", "EOF", "", None),
        ),
        (
            r#"2026-11-23 08:27:43.808481 I | embed: rejected connection from "192.168.88.12:62134" (error "tls: failed to verify client certificate: x509: certificate signed by unknown authority", ServerName "etcd", IPAddresses ["10.0.0.1"], DNSNames ["a" "b"])"#.to_owned(),
            line(
                "2026-11-23T06:27:43.808481Z",
                "tls: failed to verify client certificate: x509: certificate signed by unknown authority",
                "etcd",
                None,
            ),
        ),
        (
            r#"2026-11-23 08:27:43.808481 I | embed: rejected connection from "192.168.88.12:62134" (error "read tcp 192.168.88.11:2379->192.168.88.12:62134: read: connection reset by peer", ServerName "")"#.to_owned(),
            line(
                "2026-11-23T06:27:43.808481Z",
                "read tcp 192.168.88.11:2379->192.168.88.12:62134: read: connection reset by peer",
                "",
                None,
            ),
        ),
        // Before 3.3 without a server name.
        (
            r#"2026-11-23 08:27:43 I | embed: rejected connection from "192.168.88.12:62134" (error "EOF")"#.to_owned(),
            line("2026-11-23T06:27:43Z", "EOF", "", None),
        ),
        // The same in a container: the runtime's time has a zone.
        (
            format!("2026-11-23T08:27:43.810000001Z stderr F 2026-11-23 08:27:43.808481 I | embed: {PLAIN}"),
            line("2026-11-23T08:27:43.810000001Z", "EOF", "", None),
        ),
        // Under journald, with its own prefix, without, with a precise time, and as JSON.
        (
            format!("Nov 23 08:27:43 alpha etcd[4711]: {PLAIN}"),
            line("2026-11-23T06:27:43Z", "EOF", "", None),
        ),
        (
            format!("Dec  3 08:27:43.25 alpha etcd[4711]: {PLAIN}"),
            line("2025-12-03T06:27:43.25Z", "EOF", "", None),
        ),
        (
            format!("2026-11-23T08:27:43+0200 alpha etcd[4711]: {PLAIN}"),
            line("2026-11-23T06:27:43Z", "EOF", "", None),
        ),
        (PLAIN.to_owned(), line("", "EOF", "", None)),
        (
            format!("embed: {PLAIN}"),
            line("", "EOF", "", None),
        ),
        (
            r#"{"__REALTIME_TIMESTAMP":"1795422463808481","PRIORITY":"6","MESSAGE":"rejected connection from \"192.168.88.12:62134\" (error \"EOF\", ServerName \"\")"}"#.to_owned(),
            line("2026-11-23T08:27:43.808481Z", "EOF", "", None),
        ),
        (
            format!(r#"Nov 23 08:27:43 alpha etcd[4711]: {{"level":"warn","ts":"2026-11-23T06:27:43.808Z",{ZAP}"#),
            line("2026-11-23T06:27:43.808Z", "EOF", "", None),
        ),
        // zap: milliseconds, microseconds, an offset, seconds since 1970.
        (
            format!(r#"{{"level":"warn","ts":"2026-11-23T08:27:43.808Z",{ZAP}"#),
            line("2026-11-23T08:27:43.808Z", "EOF", "", None),
        ),
        (
            format!(r#"{{"level":"warn","ts":"2026-11-23T08:27:43.80848Z",{ZAP}"#),
            line("2026-11-23T08:27:43.80848Z", "EOF", "", None),
        ),
        (
            format!(r#"{{"level":"warn","ts":"2026-11-23T10:27:43.808481+0200",{ZAP}"#),
            line("2026-11-23T08:27:43.808481Z", "EOF", "", None),
        ),
        (
            format!(r#"{{"level":"warn","ts":1795422463.5,{ZAP}"#),
            line("2026-11-23T08:27:43.5Z", "EOF", "", None),
        ),
        // With a peer certificate, 3.5.15 and later.
        (
            r#"{"level":"warn","ts":"2026-11-23T08:27:43.808481Z","caller":"embed/config_logging.go:194","msg":"rejected connection on client endpoint","remote-addr":"192.168.88.12:62134","server-name":"etcd","ip-addresses":["10.0.0.1"],"dns-names":["a"],"error":"tls: client didn't provide a certificate"}"#.to_owned(),
            line(
                "2026-11-23T08:27:43.808481Z",
                "tls: client didn't provide a certificate",
                "etcd",
                client,
            ),
        ),
        (
            r#"{"level":"debug","ts":"2026-11-23T08:27:43.808481Z","msg":"rejected connection on peer endpoint","remote-addr":"192.168.88.12:62134","server-name":"","error":"EOF"}"#.to_owned(),
            line("2026-11-23T08:27:43.808481Z", "EOF", "", Some(Endpoint::Peer)),
        ),
        // In a pod.
        (
            format!(r#"2026-11-23T08:27:43.9Z stderr F {{"level":"warn","ts":"2026-11-23T08:27:43.808Z",{ZAP}"#),
            line("2026-11-23T08:27:43.808Z", "EOF", "", None),
        ),
        // docker.
        (
            r#"{"log":"{\"level\":\"warn\",\"ts\":\"2026-11-23T08:27:43.808Z\",\"msg\":\"rejected connection\",\"remote-addr\":\"192.168.88.12:62134\",\"server-name\":\"\",\"error\":\"EOF\"}\n","stream":"stderr","time":"2026-11-23T08:27:43.9Z"}"#.to_owned(),
            line("2026-11-23T08:27:43.808Z", "EOF", "", None),
        ),
        (
            r#"{"log":"2026-11-23 08:27:43.808481 I | embed: rejected connection from \"192.168.88.12:62134\" (error \"EOF\", ServerName \"\")\n","stream":"stderr","time":"2026-11-23T08:27:43.9Z"}"#.to_owned(),
            line("2026-11-23T08:27:43.9Z", "EOF", "", None),
        ),
        // --log-format=console
        (
            "2026-11-23T08:27:43.808481Z\twarn\tembed/config_logging.go:188\trejected connection on client endpoint\t{\"remote-addr\": \"192.168.88.12:62134\", \"server-name\": \"\", \"error\": \"EOF\"}".to_owned(),
            line("2026-11-23T08:27:43.808481Z", "EOF", "", client),
        ),
    ] {
        assert_eq!(read(&text), expected, "{text}");
        // However the file ends its lines.
        assert_eq!(read(&format!("{text}\r")), expected, "{text}");
    }
}

#[test]
fn shapes_of_tools_and_collectors() {
    let time = "2026-11-23T06:27:43.808Z";
    let eof = || line(time, "EOF", "", None);
    let seconds = || line("2026-11-23T06:27:43Z", "EOF", "", None);
    let zap = format!(r#"{{"level":"warn","ts":"{time}",{ZAP}"#);
    let quoted_zap = serde_json::to_string(&zap).unwrap();
    let escaped = PLAIN.replace('"', "\\\"");
    for (text, expected) in [
        // A word before the line: kubectl logs --prefix, docker compose, stern, talosctl, logcli.
        (format!("[pod/etcd-alpha/etcd] 2026-11-23 08:27:43.808 I | embed: {PLAIN}"), eof()),
        (format!("etcd1.local  | {zap}"), eof()),
        (format!("\x1b[36metcd1 |\x1b[0m {zap}"), eof()),
        (format!("etcd-alpha etcd {zap}"), eof()),
        (format!("192.0.2.11: {zap}"), eof()),
        (format!("2026-11-23T06:27:50Z {{app=\"etcd\"}} {zap}"), eof()),
        (format!("2026-11-23T08:27:43.808+02:00 {{app=\"etcd\"}} {PLAIN}"), eof()),
        // journalctl -o short-full, short-unix, json-sse, json with bytes; other languages.
        (format!("Mon 2026-11-23 06:27:43 UTC alpha etcd[9508]: {PLAIN}"), seconds()),
        (format!("1795415263.808000 alpha etcd[9508]: {PLAIN}"), eof()),
        (format!("[12345.678901] alpha etcd[9508]: {PLAIN}"), line("", "EOF", "", None)),
        (
            format!(r#"data: {{"__REALTIME_TIMESTAMP": "1795415263808000", "MESSAGE": "{escaped}"}}"#),
            eof(),
        ),
        (
            format!(
                r#"{{"__REALTIME_TIMESTAMP": "1795415263808000", "MESSAGE": {:?}}}"#,
                PLAIN.as_bytes()
            ),
            eof(),
        ),
        (format!("11月 23 08:27:43 node1 etcd[9508]: {PLAIN}"), seconds()),
        (format!("nov. 23 08:27:43 node1 etcd[9508]: {PLAIN}"), seconds()),
        // syslog: RFC 5424, tabs and colours as rsyslog escapes them, JSON behind a tag.
        (format!("<30>1 {time} alpha etcd 9508 - - {PLAIN}"), eof()),
        (
            format!("Nov 23 08:27:43 alpha etcd[9508]: {time}#011warn#011embed/config_logging.go:188#011rejected connection#011{{\"remote-addr\": \"192.168.88.12:62134\", \"server-name\": \"\", \"error\": \"EOF\"}}"),
            eof(),
        ),
        (format!("Nov 23 08:27:43 alpha etcd[9508]: #033[33m{zap}#033[0m"), eof()),
        (format!("Nov 23 08:27:43 alpha etcd: {zap}"), eof()),
        // Tabs that a terminal made blanks.
        (
            format!("{time}  warn  embed/config_logging.go:188  rejected connection  {{\"remote-addr\": \"192.168.88.12:62134\", \"error\": \"EOF\"}}"),
            eof(),
        ),
        // Collectors.
        (
            format!(r#"{{"@timestamp": "2026-11-23T06:27:50Z", "log": {{"offset": 1, "file": {{"path": "/var/log/etcd.log"}}}}, "message": {quoted_zap}, "event": {{"original": {quoted_zap}}}}}"#),
            eof(),
        ),
        (format!(r#"{{"@timestamp": "{time}", "message": "{escaped}", "stream": "stderr"}}"#), eof()),
        (
            format!(r#"{{"@timestamp": "2026-11-23T06:27:50Z", "level": "warn", "ts": "{time}", {ZAP}"#),
            eof(),
        ),
        (
            format!(r#"{{"@timestamp": "2026-11-23T06:27:50Z", "message": "x", "structured": {zap}, "kubernetes": {{"pod_name": "etcd-alpha"}}}}"#),
            eof(),
        ),
        (
            format!(r#"{{"@timestamp":"{time}","message":"rejected connection","fields":{{"remote_addr":"192.168.88.12:62134","error":{{"message":"EOF"}}}}}}"#),
            eof(),
        ),
        (
            format!(r#"{{"timestamp":"{time}","etcd.msg":"rejected connection","etcd.remote-addr":"192.168.88.12:62134","etcd.error":"EOF"}}"#),
            eof(),
        ),
        (
            format!(r#"{{"_index":"logs","_source":{{"@timestamp":"2026-11-23T06:27:50Z","message":{quoted_zap}}}}}"#),
            eof(),
        ),
        (format!(r#"{{"result":{{"_raw":{quoted_zap},"_time":"2026-11-23 08:27:50.000 CET"}}}}"#), eof()),
        (
            format!(r#"{{"streams":[{{"stream":{{"app":"etcd"}},"values":[["1795415263808000000","{escaped}"]]}}]}}"#),
            eof(),
        ),
        (format!(r#"{{"labels":{{"app":"etcd"}},"line":"{escaped}","timestamp":"{time}"}}"#), eof()),
        (format!(r#"{{"logEvents":[{{"id":"1","timestamp":1795415263808,"message":"{escaped}"}}]}}"#), eof()),
        (format!(r#"{{"textPayload":"{escaped}","timestamp":"{time}","receiveTimestamp":"2026-11-23T06:28:00Z"}}"#), eof()),
        (format!(r#"{{"jsonPayload":{zap},"timestamp":"2026-11-23T06:27:50Z"}}"#), eof()),
        (
            format!(r#"{{"resourceLogs":[{{"scopeLogs":[{{"logRecords":[{{"timeUnixNano":"1795415263808000000","body":{{"stringValue":"{escaped}"}}}}]}}]}}]}}"#),
            eof(),
        ),
        (format!(r#"{{"date":1795415263.808,"log":"{escaped}\n"}}"#), eof()),
        (format!(r#"{{"log":"2026-11-23T06:27:50Z stderr F {escaped}","time":"{time}"}}"#), line("2026-11-23T06:27:50Z", "EOF", "", None)),
        // Of supervisors: k0s, and jq's output without -r.
        (
            format!("Nov 23 08:27:50 cp1 k0s[1419]: time=\"2026-11-23 08:27:50\" level=info msg=\"2026-11-23 08:27:43.808 I | embed: {escaped}\" component=etcd stream=stderr"),
            eof(),
        ),
        (format!("time=\"2026-11-23T06:27:50Z\" level=info msg={quoted_zap} component=etcd"), eof()),
        (quoted_zap.clone(), eof()),
        // Tables: quotes doubled.
        (format!("2026-11-23T06:27:50Z,alpha,\"{}\"", zap.replace('"', "\"\"")), eof()),
        // Of documents and tickets, and of Logstash's own notation.
        (format!("2026-11-23 08:27:43.808 I | embed: {}", PLAIN.replace('"', "&quot;")), eof()),
        (
            "2026-11-23 08:27:43.808 I | embed: rejected connection from \u{201c}192.168.88.12:62134\u{201d} (error \u{201c}EOF\u{201d}, ServerName \u{201c}\u{201d})".to_owned(),
            eof(),
        ),
        (format!("    \"message\" => {quoted_zap},"), eof()),
        (format!("etcd.log:12:2026-11-23 08:27:43.808 I | embed: {PLAIN}"), eof()),
        // PD and TiKV, and logfmt.
        (
            "[2026/11/23 08:27:43.808 +02:00] [WARN] [config_logging.go:279] [\"rejected connection\"] [remote-addr=192.168.88.12:62134] [server-name=] [error=EOF]".to_owned(),
            eof(),
        ),
        (
            "[2026/11/23 08:27:43.808 +02:00] [WARN] [config_logging.go:279] [\"rejected connection\"] [remote-addr=192.168.88.12:62134] [server-name=pd] [ip-addresses=\"[10.0.0.1]\"] [dns-names=\"[]\"] [error=\"tls: bad [x]\"]".to_owned(),
            line(time, "tls: bad [x]", "pd", None),
        ),
        (
            format!("ts={time} level=warn caller=embed/config_logging.go:169 msg=\"rejected connection on peer endpoint\" remote-addr=192.168.88.12:62134 server-name= error=\"unexpected EOF\""),
            line(time, "unexpected EOF", "", Some(Endpoint::Peer)),
        ),
        // 3.2 before the error was quoted.
        (
            "2026-11-23 08:27:43.808 I | embed: rejected connection from \"192.168.88.12:62134\" (EOF)".to_owned(),
            eof(),
        ),
        (
            "2026-11-23 08:27:43.808 I | embed: rejected connection from \"192.168.88.12:62134\" (tls: first record (of it) does not look like a TLS handshake)".to_owned(),
            line(time, "tls: first record (of it) does not look like a TLS handshake", "", None),
        ),
        // A message alone, as a backup of logs keeps it.
        (
            format!(r#"{{"log":"{escaped}","severity":"INFO","source":"embed"}}"#),
            line("", "EOF", "", None),
        ),
        (
            format!(r#"{{"level":"warn",{ZAP}"#),
            line("", "EOF", "", None),
        ),
        // Marks of encodings.
        (format!("\u{feff}{zap}"), eof()),
    ] {
        assert_eq!(read(&text), expected, "{text}");
        assert_eq!(read(&format!("{text}\r\n")), expected, "{text}");
    }
}

/// Reads all that a text is about, with the lines before and after it.
fn all(before: &str, text: &str, after: &str) -> (Vec<Line>, Extent) {
    let mut lines = Vec::new();
    let excerpt = Excerpt {
        before: before.as_bytes(),
        line: text,
        after: after.as_bytes(),
        more: false,
    };
    let extent = reader().read_excerpt(&excerpt, &mut lines);
    (lines, extent)
}

fn seen(lines: &[Line]) -> Vec<(String, Option<String>, String)> {
    lines
        .iter()
        .map(|line| match line {
            Line::Rejected(rejected) => (
                rejected.peer.to_string(),
                rejected.time.map(|time| time.to_string()),
                rejected.error.clone(),
            ),
            other => panic!("{other:?}"),
        })
        .collect()
}

#[test]
fn an_offset_that_is_given() {
    let reader = reader().in_offset(jiff::tz::offset(-7));
    for (text, time) in [
        (
            format!("2026-11-23 08:27:43 I | embed: {PLAIN}"),
            Some("2026-11-23T15:27:43Z"),
        ),
        (
            format!("2026-11-23T08:27:43Z alpha: {PLAIN}"),
            Some("2026-11-23T08:27:43Z"),
        ),
        (PLAIN.to_owned(), None),
    ] {
        let Line::Rejected(read) = reader.read(&text) else {
            panic!("{text}");
        };
        assert_eq!(read.time, time.map(|time: &str| time.parse().unwrap()), "{text}");
        assert_eq!(read.has_offset, time.is_some(), "{text}");
    }
}

#[test]
fn several_in_one_line() {
    let one = |port: u16| {
        format!(
            r#"{{"ts":"2026-11-23T06:27:43Z","msg":"rejected connection","remote-addr":"10.0.0.1:{port}","error":"EOF"}}"#
        )
    };
    for (text, ports) in [
        (format!("{}{}", one(1), one(2)), vec![1, 2]),
        (format!("{} {} {}", one(1), one(2), one(2)), vec![1, 2, 2]),
        (format!("[{},{}]", one(1), one(2)), vec![1, 2]),
        (
            format!(
                r#"{{"hits":{{"hits":[{{"_source":{}}},{{"_source":{}}}]}}}}"#,
                one(1),
                one(1)
            ),
            vec![1, 1],
        ),
        // One that a collector keeps twice.
        (
            format!(
                r#"{{"message":{0},"event":{{"original":{0}}}}}"#,
                serde_json::to_string(&one(3)).unwrap()
            ),
            vec![3],
        ),
        (
            format!(
                r#"{{"log":{}}}"#,
                serde_json::to_string(&format!("{}\n{}\n", one(4), one(5))).unwrap()
            ),
            vec![4, 5],
        ),
    ] {
        let read = seen(&all("", &text, "").0);
        let expected: Vec<_> = ports.iter().map(|port| format!("10.0.0.1:{port}")).collect();
        assert_eq!(
            read.iter().map(|(peer, ..)| peer.clone()).collect::<Vec<_>>(),
            expected,
            "{text}"
        );
        assert!(read.iter().all(|(_, time, _)| time.is_some()), "{text}");
    }
}

#[test]
fn what_takes_several_lines() {
    let pretty = serde_json::to_string_pretty(&serde_json::json!({
        "hits": [{"_source": {
            "@timestamp": "2026-11-23T06:27:43Z",
            "message": PLAIN,
        }}]
    }))
    .unwrap();
    let at = |text: &str, word: &str| {
        let line = text.lines().position(|line| line.contains(word)).unwrap();
        let lines: Vec<_> = text.lines().collect();
        let end = |lines: &[&str]| lines.iter().map(|line| format!("{line}\n")).collect::<String>();
        (
            end(&lines[..line]),
            lines[line].to_owned(),
            end(&lines[line + 1..]),
        )
    };
    let zap = format!(r#"{{"level":"warn","ts":"2026-11-23T06:27:43Z",{ZAP}"#);
    let wrapped_at = |column: usize| format!("{}\n{}\nnext\n", &zap[..column], &zap[column..]);
    let printed =
        serde_json::to_string_pretty(&serde_json::from_str::<serde_json::Value>(&zap).unwrap()).unwrap();
    let plain = format!("2026-11-23 08:27:43 I | embed: {PLAIN}");
    for (text, lines) in [
        (
            format!(
                "Mon 2026-11-23 06:27:43.5 UTC [s=0639;i=1]\n    PRIORITY=6\n    MESSAGE={PLAIN}\n    _PID=9508\n"
            ),
            0,
        ),
        (
            format!(
                "__CURSOR=s=1\n__REALTIME_TIMESTAMP=1795415263000000\n__MONOTONIC_TIMESTAMP=5\nPRIORITY=6\nMESSAGE={PLAIN}\n_PID=9508\n\n"
            ),
            0,
        ),
        (
            format!(
                "__REALTIME_TIMESTAMP=1795415263000000\nPRIORITY=6\nMESSAGE\n\u{4b}\0\0\0\0\0\0\0{PLAIN}\n_PID=9508\n\n"
            ),
            0,
        ),
        (pretty, 1),
        (printed, 4),
        (zap.replace("\",\"", "\",\n \""), 3),
        // Wrapped by a viewer, in the middle of a word or of an address.
        (wrapped_at(zap.find("62134").unwrap() + 2), 1),
        (wrapped_at(zap.len() - 3), 1),
        (
            format!(
                "first\n{}\n{}\n",
                &plain[..plain.len() - 20],
                &plain[plain.len() - 20..]
            ),
            1,
        ),
    ] {
        let (before, line, after) = at(&text, REJECTED);
        let (read, extent) = all(&before, &line, &after);
        let read = seen(&read);
        assert_eq!(read.len(), 1, "{text}");
        let (peer, time, error) = &read[0];
        assert_eq!(
            (peer.as_str(), error.as_str()),
            ("192.168.88.12:62134", "EOF"),
            "{text}"
        );
        assert!(
            time.as_deref()
                .is_some_and(|time| time.starts_with("2026-11-23T06:27:43")),
            "{text}: {time:?}"
        );
        assert_eq!(
            extent,
            Extent {
                lines,
                wants_more: false
            },
            "{text}"
        );
    }
}

/// Lines that stand beside a line that is cut off are not part of it.
#[test]
fn other_lines_are_not_joined() {
    let zap = format!(r#"{{"level":"warn","ts":"2026-11-23T06:27:43Z",{ZAP}"#);
    let plain = format!("2026-11-23 08:27:43 I | embed: {PLAIN}");
    let other = r#"{"level":"info","ts":"2026-11-23T06:27:44Z","msg":"serving client traffic"}"#;
    for (line, after) in [
        (&zap[..zap.find("62134").unwrap() + 2], other),
        (&zap[..zap.find("62134").unwrap() + 2], zap.as_str()),
        (&plain[..plain.find("62134").unwrap() + 2], plain.as_str()),
        (&plain[..plain.len() - 20], plain.as_str()),
        (
            &plain[..plain.len() - 20],
            "2026-11-23 08:27:44 I | etcdserver: (error \"EOF\", ServerName \"\")",
        ),
        (&plain[..plain.len() - 20], ""),
    ] {
        let (read, _) = all(&format!("{other}\n"), line, &format!("{after}\n"));
        assert!(
            matches!(read.as_slice(), [Line::Unreadable(_)]),
            "{line}\n{after}: {read:?}"
        );
    }
}

#[test]
fn what_is_not_one() {
    for text in [
        "",
        "{}",
        "2026-11-23 08:27:43.808481 I | etcdserver: published",
        r#"{"level":"info","ts":"2026-11-23T08:27:43.808Z","msg":"serving client traffic"}"#,
        r#"{"level":"warn","msg":"apply took too long","request":"rejected connection"}"#,
        r#"{"log":"nothing\n","time":"2026-11-23T08:27:43.9Z"}"#,
        // Of other servers, which are not asked about.
        "http: TLS handshake error from 10.0.0.1:5555: EOF",
    ] {
        assert_eq!(read(text), Line::Other, "{text}");
    }
}

#[test]
fn what_cant_be_read_is_said() {
    let wrapped = (0..9).fold("rejected connection".to_owned(), |inner, _| {
        serde_json::json!({ "log": inner + " " }).to_string()
    });
    for (text, why) in [
        (
            PLAIN.strip_suffix(r#"", ServerName "")"#).unwrap().to_owned(),
            "it is cut off",
        ),
        (
            r#"embed: rejected connection from "10.0.0.1:1" (EO"#.to_owned(),
            "it is cut off",
        ),
        (
            r#"embed: rejected connection from "10.0.0.1:1" (error "EOF""#.to_owned(),
            "it is cut off",
        ),
        ("rejected connection".to_owned(), "it is cut off"),
        (
            r#"[WARN] ["rejected connection"] [remote-addr=10.0.0.1:1] [error=EO"#.to_owned(),
            "it is cut off",
        ),
        (
            r#"msg="rejected connection" remote-addr=10.0.0.1:1"#.to_owned(),
            "it is cut off",
        ),
        (
            r#"msg="rejected connection" error=EOF"#.to_owned(),
            "it has no remote-addr",
        ),
        (
            r#"rejected connection from "192.168.88.12" (error "EOF", ServerName "")"#.to_owned(),
            "its address is not one",
        ),
        (
            format!(r#"{{"level":"warn",{}"#, ZAP.strip_suffix('}').unwrap()),
            "its JSON is cut off",
        ),
        (format!(r#"{{"level":warn,{ZAP}"#), "its JSON is broken"),
        (
            r#"{"msg":"rejected connection","error":"EOF"}"#.to_owned(),
            "it has no remote-addr",
        ),
        (
            "the operator asked what a rejected connection is".to_owned(),
            "it has no known shape",
        ),
        (
            r#"{"log":"a rejected connection of somebody"}"#.to_owned(),
            "it has no known shape",
        ),
        (wrapped, "it is wrapped too often"),
    ] {
        assert_eq!(read(&text), Line::Unreadable(why), "{text}");
    }
}
