//! Errors of servers that are not in Go.

use super::{Known, known};
use crate::etcd_log::ServerKind;

pub const fn rows(kind: ServerKind) -> &'static [Known] {
    match kind {
        // Theirs are in a table of their own.
        ServerKind::Etcd | ServerKind::Go => &[],
        ServerKind::PostgreSql => POSTGRESQL,
        ServerKind::MySql => MYSQL,
        ServerKind::Redis => REDIS,
        ServerKind::Sshd => SSHD,
        ServerKind::HaProxy => HAPROXY,
        ServerKind::Nginx => NGINX,
    }
}

const POSTGRESQL: &[Known] = &[
    known(
        "incomplete startup packet",
        "The client connected and hung up before its startup packet: a port check. Use pg_isready, or remove the check.",
    ),
    known(
        "invalid length of startup packet",
        "The client sends another protocol to PostgreSQL, such as HTTP or TLS: correct its port, or find \
         the scanner.",
    ),
    known(
        "could not accept SSL connection",
        "The TLS handshake failed: compare sslmode, the root certificate and the TLS versions of client and server.",
    ),
    known(
        "unsupported frontend protocol",
        "The client uses a protocol version that PostgreSQL does not know: update its driver, or find the \
         scanner.",
    ),
];

const MYSQL: &[Known] = &[known(
    "",
    "The client hung up without authentication or without a quit: a port check, or a pool that drops connections. Use mysqladmin \
     ping for checks.",
)];

const REDIS: &[Known] = &[known(
    "SECURITY ATTACK",
    "The client sends HTTP to Redis: correct the URL of its health check or its scrape (redis_exporter has a port of its own).",
)];

const SSHD: &[Known] = &[
    known(
        "client sent invalid protocol identifier",
        "The client sends another protocol to sshd, such as HTTP: correct its port, or find the scanner.",
    ),
    known(
        "banner line contains invalid",
        "The client sends another protocol to sshd: correct its port, or find the scanner.",
    ),
    known(
        "invalid format",
        "The client sends another protocol to sshd, such as HTTP or TLS: correct its port, or find the \
         scanner.",
    ),
    known(
        "Bad protocol version",
        "The client sends another protocol to sshd: correct its port, or find the scanner.",
    ),
    known(
        "no matching",
        "Client and sshd share no algorithm: update the client, or allow its algorithm in sshd_config.",
    ),
    known(
        "during the login",
        "The client gave up during the login: check its user name and its keys.",
    ),
    known(
        "",
        "The client connected and hung up before it sent its version: a port check. Let the check read the banner, or remove it.",
    ),
];

const HAPROXY: &[Known] = &[
    known(
        "SSL handshake",
        "The TLS handshake failed: a port check without TLS (use the option check-ssl, or another port), or a client that refuses \
         the certificate.",
    ),
    known(
        "<BADREQ> C",
        "The client hung up before its request: a port check or a browser's spare connection. option dontlognull hides the empty ones.",
    ),
    known(
        "<BADREQ> c",
        "The client sent no request in time (timeout http-request): a connection left open.",
    ),
    known(
        "<BADREQ>",
        "The client sent no valid HTTP: correct its protocol or port, or find the scanner.",
    ),
];

const NGINX: &[Known] = &[
    known(
        "TLS to a port without TLS",
        "The client sends TLS to a port without TLS: use http:// in its URL, or listen with ssl.",
    ),
    known(
        "plain HTTP request to HTTPS port",
        "The client sends HTTP to a TLS port: use https:// in its URL.",
    ),
    known(
        "SSL handshaking",
        "The TLS handshake failed: a port check without TLS, or a client that refuses the certificate. Read the client's log.",
    ),
    known(
        "408",
        "The client sent no request in time: a connection left open.",
    ),
    known(
        "",
        "The client connected and hung up without a request: a port check. Let it query a health URL over HTTP.",
    ),
];
