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
fn what_is_not_one() {
    for text in [
        "",
        "{}",
        "2026-11-23 08:27:43.808481 I | etcdserver: published",
        r#"{"level":"info","ts":"2026-11-23T08:27:43.808Z","msg":"serving client traffic"}"#,
        r#"{"level":"warn","msg":"apply took too long","request":"rejected connection"}"#,
        "the operator asked what a rejected connection is",
        r#"{"log":"nothing\n","time":"2026-11-23T08:27:43.9Z"}"#,
    ] {
        assert_eq!(read(text), Line::Other, "{text}");
    }
}

#[test]
fn what_cant_be_read_is_said() {
    for (text, why) in [
        (PLAIN.strip_suffix(r#"", ServerName "")"#).unwrap().to_owned(), "it is cut off"),
        (r#"rejected connection from "192.168.88.12" (error "EOF", ServerName "")"#.to_owned(), "its address is not one"),
        (format!(r#"{{"level":"warn",{}"#, ZAP.strip_suffix('}').unwrap()), "its JSON is broken or cut off"),
        (r#"{"msg":"rejected connection","error":"EOF"}"#.to_owned(), "it has no remote-addr"),
        (
            r#"{"log":"{\"log\":\"{\\\"log\\\":\\\"{\\\\\\\"log\\\\\\\":\\\\\\\"rejected connection\\\\\\\"}\\\"}\"}"}"#.to_owned(),
            "it is wrapped too often",
        ),
    ] {
        assert_eq!(read(&text), Line::Unreadable(why), "{text}");
    }
}

#[test]
fn addresses() {
    for (text, expected) in [
        ("10.244.1.2:1", Some("10.244.1.2:1")),
        ("[fd77::2]:65535", Some("[fd77::2]:65535")),
        ("[::ffff:10.244.1.2]:80", Some("10.244.1.2:80")),
        ("[fe80::1%eth0]:443", Some("[fe80::1]:443")),
        ("[fe80::1%eth0", None),
        ("10.244.1.2", None),
        ("etcd:2379", None),
    ] {
        assert_eq!(
            address(text),
            expected.map(|text| text.parse().unwrap()),
            "{text}"
        );
    }
}
