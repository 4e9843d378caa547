use jiff::tz::offset;

use super::*;

/// The reader is two hours east of Greenwich, on the 24th of November 2026.
fn read(prefix: &str) -> Option<Reading> {
    before(
        prefix,
        &TimeZone::fixed(offset(2)),
        "2026-11-24T00:00:00Z".parse().unwrap(),
    )
}

#[test]
fn times_behind_any_words() {
    for (prefix, has_offset, expected) in [
        // etcd itself, container runtimes, tools that put a word before the line.
        (
            "2026-11-23 11:10:10.613387 I | embed: ",
            false,
            "2026-11-23T09:10:10.613387Z",
        ),
        (
            "2026-11-23T09:10:10.61480015Z stderr F ",
            true,
            "2026-11-23T09:10:10.61480015Z",
        ),
        (
            "2026-11-23T09:10:10.7Z stderr F 2026-11-23 11:10:10.613 I | ",
            true,
            "2026-11-23T09:10:10.7Z",
        ),
        (
            "2026-11-23T09:10:10.7Z stderr F 2026-11-23T09:10:10.613Z\twarn\t",
            true,
            "2026-11-23T09:10:10.613Z",
        ),
        (
            "[pod/etcd-alpha/etcd] 2026-11-23 11:10:10.613387 I | ",
            false,
            "2026-11-23T09:10:10.613387Z",
        ),
        (
            "etcd-1  | 2026-11-23 11:10:10.5 I | ",
            false,
            "2026-11-23T09:10:10.5Z",
        ),
        (
            "kube-system etcd-alpha etcd 2026-11-23T09:10:10Z ",
            true,
            "2026-11-23T09:10:10Z",
        ),
        (
            "2026-11-23T09:10:10Z {app=\"etcd\", node=\"alpha\"} ",
            true,
            "2026-11-23T09:10:10Z",
        ),
        (
            "192.0.2.11: 2026-11-23T11:10:10.613+0200\twarn\t",
            true,
            "2026-11-23T09:10:10.613Z",
        ),
        // grep's.
        (
            "12:2026-11-23 11:10:10.613 I | ",
            false,
            "2026-11-23T09:10:10.613Z",
        ),
        (
            "/var/log/etcd.log:12:2026-11-23T09:10:10.613Z\twarn\t",
            true,
            "2026-11-23T09:10:10.613Z",
        ),
        (
            "/var/log/messages:Nov 23 11:10:10 alpha etcd[1]: ",
            false,
            "2026-11-23T09:10:10Z",
        ),
        (
            "0.log:I1123 11:10:10.613456 1 server.go:10] ",
            false,
            "2026-11-23T09:10:10.613456Z",
        ),
        // syslog.
        (
            "Nov 23 11:10:10 alpha etcd[4711]: ",
            false,
            "2026-11-23T09:10:10Z",
        ),
        (
            "<30>Nov 23 11:10:10 alpha etcd[4711]: ",
            false,
            "2026-11-23T09:10:10Z",
        ),
        (
            "Dec  3 11:10:10.25 alpha etcd[4711]: ",
            false,
            "2025-12-03T09:10:10.25Z",
        ),
        (
            "<30>1 2026-11-23T09:10:10.613456Z alpha etcd 9508 - - ",
            true,
            "2026-11-23T09:10:10.613456Z",
        ),
        (
            "<165>1 2026-11-23T11:10:10+02:00 alpha etcd - - - ",
            true,
            "2026-11-23T09:10:10Z",
        ),
        (
            "Nov 23 2026 11:10:10 alpha %ETCD: ",
            false,
            "2026-11-23T09:10:10Z",
        ),
        // journalctl -o short-full, short-iso, short-iso-precise, short-unix, and of other languages.
        (
            "Mon 2026-11-23 09:10:10 UTC alpha etcd[9508]: ",
            true,
            "2026-11-23T09:10:10Z",
        ),
        (
            "Mo 2026-11-23 11:10:10 CET alpha etcd[9508]: ",
            false,
            "2026-11-23T09:10:10Z",
        ),
        (
            "Mon 2026-11-23 09:10:10.613456 UTC [s=0639;i=1]",
            true,
            "2026-11-23T09:10:10.613456Z",
        ),
        (
            "2026-11-23T11:10:10+0200 alpha etcd[9508]: ",
            true,
            "2026-11-23T09:10:10Z",
        ),
        (
            "2026-11-23T11:10:10.613456+0200 alpha etcd[9508]: ",
            true,
            "2026-11-23T09:10:10.613456Z",
        ),
        (
            "1795425010.613456 alpha etcd[9508]: ",
            true,
            "2026-11-23T09:10:10.613456Z",
        ),
        (
            "11月 23 11:10:10 node1 etcd[9508]: ",
            false,
            "2026-11-23T09:10:10Z",
        ),
        (
            "11월 23 11:10:10 node1 etcd[9508]: ",
            false,
            "2026-11-23T09:10:10Z",
        ),
        (
            "11月23日 11:10:10 node1 etcd[9508]: ",
            false,
            "2026-11-23T09:10:10Z",
        ),
        ("2026年 11月 23日 11:10:10 ", false, "2026-11-23T09:10:10Z"),
        (
            "nov. 23 11:10:10 node1 etcd[9508]: ",
            false,
            "2026-11-23T09:10:10Z",
        ),
        (
            "23. Nov 11:10:10 node1 etcd[9508]: ",
            false,
            "2026-11-23T09:10:10Z",
        ),
        (
            "Mai 03 11:10:10 node1 etcd[9508]: ",
            false,
            "2026-05-03T09:10:10Z",
        ),
        (
            "ноя 23 11:10:10 node1 etcd[9508]: ",
            false,
            "2026-11-23T09:10:10Z",
        ),
        // klog, Go's log, C's ctime, Redis, web servers, TiKV, MySQL, Windows, Kibana.
        (
            "I1123 11:10:10.613456    4711 server.go:10] ",
            false,
            "2026-11-23T09:10:10.613456Z",
        ),
        ("2026/11/23 11:10:10 ", false, "2026-11-23T09:10:10Z"),
        ("Mon Nov 23 11:10:10 2026 ", false, "2026-11-23T09:10:10Z"),
        ("Mon Nov 23 09:10:10 UTC 2026 ", true, "2026-11-23T09:10:10Z"),
        ("Mon, 23 Nov 2026 09:10:10 GMT ", true, "2026-11-23T09:10:10Z"),
        (
            "1:M 23 Nov 2026 11:10:10.613 # ",
            false,
            "2026-11-23T09:10:10.613Z",
        ),
        (
            "10.0.0.1 - - [23/Nov/2026:09:10:10 +0000] ",
            true,
            "2026-11-23T09:10:10Z",
        ),
        (
            "10.0.0.1:4 [23/Nov/2026:11:10:10.613] http-in ",
            false,
            "2026-11-23T09:10:10.613Z",
        ),
        (
            "[2026/11/23 11:10:10.123 +02:00] [WARN] [\"",
            true,
            "2026-11-23T09:10:10.123Z",
        ),
        ("261123  9:10:10 [Warning] ", false, "2026-11-23T07:10:10Z"),
        ("11/23/2026 9:10:10 PM ", false, "2026-11-23T19:10:10Z"),
        ("Nov 23, 2026 @ 11:10:10.613 ", false, "2026-11-23T09:10:10.613Z"),
        (
            "2026-11-23 09:10:10.613 UTC [32395] LOG:  ",
            true,
            "2026-11-23T09:10:10.613Z",
        ),
        (
            "2026-11-23 11:10:10.613 +0200 CEST ",
            true,
            "2026-11-23T09:10:10.613Z",
        ),
        ("2026-11-23 11:10:10,613 WARN ", false, "2026-11-23T09:10:10.613Z"),
        ("2026-11-23 11:10:10+02 ", true, "2026-11-23T09:10:10Z"),
        (
            "time=\"2026-11-23T09:10:10Z\" level=info msg=",
            true,
            "2026-11-23T09:10:10Z",
        ),
        (
            "ts=2026-11-23T09:10:10.613Z caller=etcd.go:1 ",
            true,
            "2026-11-23T09:10:10.613Z",
        ),
        ("1.795425010613e+09\twarn\t", true, "2026-11-23T09:10:10.613Z"),
    ] {
        let time = expected.parse().unwrap();
        let expected = if has_offset {
            Reading::Exact(time)
        } else {
            Reading::Assumed(time)
        };
        assert_eq!(read(prefix), Some(expected), "{prefix}");
    }
}

#[test]
fn no_time_is_made_up() {
    for prefix in [
        "",
        "embed: ",
        "alpha etcd[9508]: ",
        // Since the boot.
        "[12345.678901] alpha etcd[9508]: ",
        "[    5.123456] etcd[9508]: ",
        "09:10:10 ",
        "09:10:10.613 etcd ",
        // Two days.
        "11/12/2026 09:10:10 ",
        // No such day or hour.
        "2026-13-01 09:10:10 ",
        "2026-11-23 25:10:10 ",
        "Feb 30 09:10:10 ",
        // Of something else.
        "start=2026-11-23T09:10:10Z ",
        "etcd-20261123 ",
        "pod/etcd-1795425010.613456/etcd ",
        "9999999999.5 ",
        // October in Croatia, November in Poland.
        "lis 23 09:10:10 ",
    ] {
        assert_eq!(read(prefix), None, "{prefix}");
    }
}

#[test]
fn numbers_by_their_size() {
    let expected = "2026-11-23T09:10:10Z".parse().unwrap();
    for field in [
        Json::Integer(1_795_425_010),
        Json::Integer(1_795_425_010_000),
        Json::Integer(1_795_425_010_000_000),
        Json::Integer(1_795_425_010_000_000_000),
        Json::Float(1_795_425_010.0),
        Json::Text("1795425010000000".into()),
        Json::Text("2026-11-23T09:10:10Z".into()),
        Json::Array(vec![Json::Text("2026-11-23T09:10:10.000Z".into())]),
    ] {
        let read = of_field(&field, &TimeZone::UTC, Timestamp::UNIX_EPOCH);
        assert_eq!(read, Some(Reading::Exact(expected)), "{field:?}");
    }
    for field in [
        Json::Integer(0),
        Json::Integer(4711),
        Json::Float(1e30),
        Json::Bool(true),
        Json::Text("soon".into()),
    ] {
        assert_eq!(
            of_field(&field, &TimeZone::UTC, Timestamp::UNIX_EPOCH),
            None,
            "{field:?}"
        );
    }
}
