//! What an error of etcd's means, and what to do about it.

/// The error without what differs from line to line: `read tcp 10.0.0.1:2379->10.0.0.2:1: read: EOF` is `read: EOF`.
pub fn kind(error: &str) -> &str {
    let tcp = error
        .strip_prefix("read tcp ")
        .or_else(|| error.strip_prefix("write tcp "));
    let without_addresses = tcp.and_then(|rest| {
        let (_, rest) = rest.split_once("->")?;
        Some(rest.split_once(": ")?.1)
    });
    without_addresses.unwrap_or(error)
}

/// What to do, for an error as [`kind`] gives it.
pub fn advice(kind: &str) -> &'static str {
    for (part, advice) in ADVICE {
        if kind.contains(part) {
            return advice;
        }
    }
    "No advice for this error: see what this client does with etcd's port."
}

/// The first that is in the error. `unexpected EOF` comes before `EOF`.
const ADVICE: [(&str, &str); 11] = [
    (
        "unexpected EOF",
        "It hangs up in the middle of the TLS handshake: look for a timeout of the client, or etcd short of CPU.",
    ),
    (
        "EOF",
        "It connects and hangs up without a word: a port check. Let it ask /health over HTTP (etcd \
         --listen-metrics-urls) or send a TLS handshake with a client certificate; or take the check away.",
    ),
    (
        "connection reset by peer",
        "It connects and resets: a port check that does not close properly, a load balancer's most often. Let it ask \
         /health over HTTP (etcd --listen-metrics-urls).",
    ),
    (
        "first record does not look like a TLS handshake",
        "It speaks plain text to a TLS port: use https:// and a client certificate.",
    ),
    (
        "didn't provide a certificate",
        "Give it a client certificate of etcd's CA (etcdctl: --cert and --key).",
    ),
    (
        "unknown authority",
        "Its certificate is not of the CA that etcd trusts (--trusted-ca-file): issue it anew.",
    ),
    (
        "has expired",
        "Its certificate has expired, or a clock is wrong: renew the one, look at the other.",
    ),
    (
        "not yet valid",
        "Its certificate is not valid yet: look at the clocks.",
    ),
    (
        "bad certificate",
        "It refuses etcd's certificate: give it etcd's CA (etcdctl: --cacert), and the name it connects to as a SAN.",
    ),
    (
        "i/o timeout",
        "It connects and stays silent until etcd hangs up: a check that never closes, or packets lost on the way.",
    ),
    (
        "handshake failure",
        "They share no TLS version or cipher suite: look at etcd's --cipher-suites and --tls-min-version.",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_have_no_addresses() {
        for (error, expected) in [
            ("EOF", "EOF"),
            (
                "read tcp 192.168.88.11:2379->192.168.88.12:62134: read: connection reset by peer",
                "read: connection reset by peer",
            ),
            ("read tcp [fd00::1]:2379->[fd00::2]:1: i/o timeout", "i/o timeout"),
            ("read tcp", "read tcp"),
            ("write tcp a->b", "write tcp a->b"),
        ] {
            assert_eq!(kind(error), expected);
        }
    }

    #[test]
    fn each_error_has_its_own_advice() {
        for (error, word) in [
            ("EOF", "port check"),
            ("unexpected EOF", "middle"),
            ("read: connection reset by peer", "resets"),
            (
                "tls: first record does not look like a TLS handshake",
                "plain text",
            ),
            ("tls: client didn't provide a certificate", "--cert"),
            (
                "tls: failed to verify client certificate: x509: certificate signed by unknown authority",
                "--trusted-ca-file",
            ),
            (
                "tls: failed to verify certificate: x509: certificate has expired or is not yet valid",
                "expired",
            ),
            ("remote error: tls: bad certificate", "--cacert"),
            ("something new", "No advice"),
        ] {
            assert!(advice(kind(error)).contains(word), "{error}");
        }
    }
}
