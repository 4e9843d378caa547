use super::*;

fn read(kinds: &[ServerKind], before: &str, line: &str, after: &str) -> Vec<Line> {
    let reader = Reader::new(TimeZone::UTC, "2026-11-24T00:00:00Z".parse().unwrap()).with_kinds(kinds);
    let mut lines = Vec::new();
    let excerpt = Excerpt {
        before: before.as_bytes(),
        line,
        after: after.as_bytes(),
        more: false,
    };
    reader.read_excerpt(&excerpt, &mut lines);
    lines
}

const PEER: &str = "192.168.88.12:62134";

#[test]
fn each_server() {
    use ServerKind::{Go, HaProxy, Nginx, PostgreSql, Redis, Sshd};
    for (kind, before, line, error, server) in [
        (
            Go,
            "",
            "2026/11/23 09:10:10 http: TLS handshake error from 192.168.88.12:62134: EOF",
            "EOF",
            None,
        ),
        (
            Go,
            "",
            "I1123 09:10:10.613456       1 log.go:245] http: TLS handshake error from 192.168.88.12:62134: remote error: tls: bad certificate",
            "remote error: tls: bad certificate",
            None,
        ),
        (
            Go,
            "",
            r#"{"ts":"2026-11-23T09:10:10Z","level":"info","msg":"http: TLS handshake error from 192.168.88.12:62134: EOF\n"}"#,
            "EOF",
            None,
        ),
        (
            Go,
            "",
            "2026-11-23T09:10:10.7Z stderr F time=\"2026-11-23T09:10:10Z\" level=info msg=\"http: TLS handshake error from 192.168.88.12:62134: EOF\"",
            "EOF",
            None,
        ),
        (
            Go,
            "",
            "2026-11-23T09:10:10Z http2: server: error reading preface from client 192.168.88.12:62134: read tcp 10.0.0.1:443->192.168.88.12:62134: read: connection reset by peer",
            "read tcp 10.0.0.1:443->192.168.88.12:62134: read: connection reset by peer",
            Some("10.0.0.1:443"),
        ),
        (
            PostgreSql,
            "",
            r#"2026-11-23 09:10:10.613 UTC,,,32395,"192.168.88.12:62134",5f000000.7e00,1,"",2026-11-23 09:10:10 UTC,,0,LOG,08P01,"incomplete startup packet",,,,,,,,,"""#,
            "incomplete startup packet",
            None,
        ),
        (
            PostgreSql,
            "",
            "2026-11-23 09:10:10.613 UTC [32395] 192.168.88.12(62134) LOG:  incomplete startup packet",
            "incomplete startup packet",
            None,
        ),
        (
            PostgreSql,
            "2026-11-23 09:10:10 UTC [1] LOG:  connection received: host=10.0.0.1 port=1\n2026-11-23 09:10:10 UTC [32395] LOG:  connection received: host=192.168.88.12 port=62134\n",
            "2026-11-23 09:10:10.613 UTC [32395] LOG:  incomplete startup packet",
            "incomplete startup packet",
            None,
        ),
        (
            PostgreSql,
            "",
            r#"{"timestamp":"2026-11-23 09:10:10.613 UTC","pid":5,"remote_host":"192.168.88.12","remote_port":62134,"error_severity":"LOG","message":"incomplete startup packet"}"#,
            "incomplete startup packet",
            None,
        ),
        (
            Redis,
            "",
            "1:M 23 Nov 2026 09:10:10.613 # Possible SECURITY ATTACK detected. It looks like somebody is sending POST or Host: commands to Redis. Connection from 192.168.88.12:62134 aborted.",
            "Possible SECURITY ATTACK detected",
            None,
        ),
        (
            Sshd,
            "Nov 23 09:10:10 alpha sshd[4711]: error: kex_exchange_identification: Connection closed by remote host\n",
            "Nov 23 09:10:10 alpha sshd[4711]: Connection closed by 192.168.88.12 port 62134",
            "kex_exchange_identification: Connection closed by remote host",
            None,
        ),
        (
            Sshd,
            "",
            "Nov 23 09:10:10 alpha sshd-session[4711]: Connection reset by 192.168.88.12 port 62134 [preauth]",
            "Connection reset by the client before the login",
            None,
        ),
        (
            Sshd,
            "",
            "Nov 23 09:10:10 alpha sshd[4711]: Connection closed by authenticating user root 192.168.88.12 port 62134 [preauth]",
            "Connection closed by the client during the login",
            None,
        ),
        (
            Sshd,
            "",
            "Nov 23 09:10:10 alpha sshd[4711]: banner exchange: Connection from 192.168.88.12 port 62134: invalid format",
            "banner exchange: Connection: invalid format",
            None,
        ),
        (
            Sshd,
            "",
            "Nov 23 09:10:10 alpha sshd[4711]: Did not receive identification string from 192.168.88.12 port 62134",
            "Did not receive identification string",
            None,
        ),
        (
            HaProxy,
            "",
            "Nov 23 09:10:10 alpha haproxy[5]: 192.168.88.12:62134 [23/Nov/2026:09:10:10.613] api/1: SSL handshake failure",
            "SSL handshake failure",
            None,
        ),
        (
            HaProxy,
            "",
            "Nov 23 09:10:10 alpha haproxy[5]: 192.168.88.12:62134 [23/Nov/2026:09:10:10.613] api/1: Connection closed during SSL handshake",
            "Connection closed during SSL handshake",
            None,
        ),
        (
            HaProxy,
            "",
            "Nov 23 09:10:10 alpha haproxy[5]: ::ffff:192.168.88.12:62134 [23/Nov/2026:09:10:10.613] web web/<NOSRV> -1/-1/-1/-1/0 400 187 - - CR-- 1/1/0/0/0 0/0 \"<BADREQ>\"",
            "<BADREQ> CR--",
            None,
        ),
        (
            Nginx,
            "",
            r#"192.168.88.12:62134 - - [23/Nov/2026:09:10:10 +0000] "" 400 0 "-" "-""#,
            "empty request, status 400",
            None,
        ),
        (
            Nginx,
            "",
            r#"192.168.88.12:62134 - - [23/Nov/2026:09:10:10 +0000] "\x16\x03\x01\x00" 400 157 "-" "-""#,
            "TLS to a port without TLS",
            None,
        ),
    ] {
        let lines = read(&ServerKind::ALL, before, line, "");
        let [Line::Rejected(rejected)] = lines.as_slice() else {
            panic!("{line}: {lines:?}");
        };
        assert_eq!(rejected.logged_by, kind, "{line}");
        assert_eq!(rejected.peer.to_string(), PEER, "{line}");
        assert_eq!(rejected.error, error, "{line}");
        assert_eq!(
            rejected.server,
            server.map(|server: &str| server.parse().unwrap()),
            "{line}"
        );
        let time = rejected.time.map(|time| time.to_string()).unwrap_or_default();
        assert!(time.starts_with("2026-11-23T09:10:10"), "{line}: {time}");
        let advice = advice::advice(&advice::kind(&rejected.error), false, kind);
        assert!(!advice.starts_with("No advice"), "{line}");
        // Only that server's lines, when they alone are asked for.
        assert_eq!(read(&[kind], before, line, "").len(), 1, "{line}");
        assert!(
            read(&[ServerKind::Etcd, ServerKind::MySql], before, line, "").is_empty(),
            "{line}"
        );
    }
}

/// A line without the client's port is counted, and never matched.
#[test]
fn no_port_no_client() {
    for (line, word) in [
        (
            "2026-11-23 09:10:10.613 UTC [32395] LOG:  incomplete startup packet",
            "log_line_prefix",
        ),
        ("LOG:  incomplete startup packet", "log_line_prefix"),
        (
            "2026-11-23 09:10:10 UTC [5] 192.168.88.12 LOG:  incomplete startup packet",
            "log_line_prefix",
        ),
        (
            "2026-11-23T09:10:10.613456Z 8 [Note] Aborted connection 8 to db: 'unconnected' user: 'unauthenticated' host: '192.168.88.12' (Got an error reading communication packets)",
            "MySQL writes the host alone",
        ),
        (
            "2026-11-23  9:10:10 8 [Warning] Aborted connection 8 to db: 'unconnected' user: 'unauthenticated' host: '192.168.88.12' (This connection closed normally without authentication)",
            "MySQL writes the host alone",
        ),
        (
            "1:M 23 Nov 2026 09:10:10.613 # Possible SECURITY ATTACK detected. Connection aborted.",
            "6.2",
        ),
        (
            "Nov 23 09:10:10 alpha sshd[4711]: error: kex_exchange_identification: Connection closed by remote host",
            "LogLevel",
        ),
        (
            "2026/11/23 09:10:10 [info] 7#7: *5 peer closed connection in SSL handshake while SSL handshaking, client: 192.168.88.12, server: 0.0.0.0:443",
            "$remote_port",
        ),
        (
            r#"192.168.88.12 - - [23/Nov/2026:09:10:10 +0000] "" 400 0 "-" "-""#,
            "$remote_port",
        ),
        ("http: TLS handshake error from 192.168.88.12:62134", "cut off"),
        ("http: TLS handshake error from somebody: EOF", "not one"),
    ] {
        let lines = read(&ServerKind::ALL, "", line, "");
        let [Line::Unreadable(why)] = lines.as_slice() else {
            panic!("{line}: {lines:?}");
        };
        assert!(why.contains(word), "{line}: {why}");
    }
}

#[test]
fn lines_about_something_else() {
    for (line, after) in [
        (
            "2026-11-23 09:10:10 UTC [local] LOG:  incomplete startup packet",
            "",
        ),
        ("Connection closed by foreign host.", ""),
        (
            "Nov 23 09:10:10 alpha ftpd[5]: Connection closed by 192.168.88.12 port 62134",
            "",
        ),
        ("during the SSL handshake", ""),
        // Counted with the line that has the client.
        (
            "Nov 23 09:10:10 alpha sshd[4711]: error: kex_exchange_identification: Connection closed by remote host",
            "Nov 23 09:10:10 alpha sshd[4711]: Connection closed by 192.168.88.12 port 62134\n",
        ),
    ] {
        assert_eq!(read(&ServerKind::ALL, "", line, after), [], "{line}");
    }
}

#[test]
fn each_row_has_its_own_words() {
    for (at, row) in servers::ROWS.iter().enumerate() {
        assert!(!row.pattern.contains(REJECTED));
        let same = servers::ROWS
            .iter()
            .position(|other| other.pattern == row.pattern);
        assert_eq!(same, Some(at), "{}", row.pattern);
    }
}
