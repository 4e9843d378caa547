//! The same question of other servers: where their lines have the client, and what they say of it.
//!
//! One row for each kind of line. A row that finds no client of its own in a line says why, so that the line is counted.

use std::net::SocketAddr;

use super::{
    Excerpt, ServerKind,
    address::{address, host, loose, server},
    block::lines_backwards,
    json::Json,
    quoted::quoted,
};

/// Lines around a line of sshd and PostgreSQL that belong to the same client.
const NEAR: usize = 64;

/// A line that has the words of a row.
pub struct Mention<'a> {
    pub text: &'a str,
    /// The client, where a wrapper has it as fields.
    pub peer: Option<SocketAddr>,
    pub excerpt: &'a Excerpt<'a>,
}

/// What a line says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    pub kind: ServerKind,
    pub peer: SocketAddr,
    pub error: String,
    /// The server's own address, where the line has it.
    pub server: Option<SocketAddr>,
}

/// One kind of line.
pub struct LinePattern {
    pub kind: ServerKind,
    /// The words that every such line has in it.
    pub pattern: &'static str,
    read: fn(&Part<'_>) -> Reading,
}

/// The client and the error; nothing, where the line is about something else; or why they can't be read.
type Reading = Result<Option<(SocketAddr, String, Option<SocketAddr>)>, &'static str>;

/// A line around the words of a row.
struct Part<'a> {
    before: &'a str,
    pattern: &'static str,
    after: &'a str,
    mention: &'a Mention<'a>,
}

const fn row(kind: ServerKind, pattern: &'static str, read: fn(&Part<'_>) -> Reading) -> LinePattern {
    LinePattern { kind, pattern, read }
}

/// The first that reads a line counts.
pub const ROWS: &[LinePattern] = &[
    row(ServerKind::Go, "TLS handshake error from ", go),
    row(ServerKind::Go, "error reading preface from client ", go),
    row(ServerKind::Go, "failed to complete security handshake from ", go),
    row(ServerKind::PostgreSql, "incomplete startup packet", postgres),
    row(
        ServerKind::PostgreSql,
        "invalid length of startup packet",
        postgres,
    ),
    row(
        ServerKind::PostgreSql,
        "could not accept SSL connection: ",
        postgres,
    ),
    row(ServerKind::PostgreSql, "unsupported frontend protocol ", postgres),
    row(
        ServerKind::MySql,
        "Got an error reading communication packets",
        mysql,
    ),
    row(
        ServerKind::MySql,
        "Got timeout reading communication packets",
        mysql,
    ),
    row(
        ServerKind::MySql,
        "This connection closed normally without authentication",
        mysql,
    ),
    row(ServerKind::Redis, "Possible SECURITY ATTACK detected", redis),
    row(
        ServerKind::Sshd,
        "kex_exchange_identification: ",
        sshd_identification,
    ),
    row(ServerKind::Sshd, "banner exchange: Connection from ", sshd),
    row(
        ServerKind::Sshd,
        "Did not receive identification string from ",
        sshd,
    ),
    row(ServerKind::Sshd, "Bad protocol version identification ", sshd),
    row(ServerKind::Sshd, "Unable to negotiate with ", sshd),
    row(ServerKind::Sshd, "Connection closed by ", sshd_closed),
    row(ServerKind::Sshd, "Connection reset by ", sshd_closed),
    row(ServerKind::HaProxy, "SSL handshake", haproxy),
    row(ServerKind::HaProxy, "<BADREQ>", haproxy),
    row(ServerKind::Nginx, "SSL handshaking", nginx_error),
    row(
        ServerKind::Nginx,
        "client sent plain HTTP request to HTTPS port",
        nginx_error,
    ),
    row(
        ServerKind::Nginx,
        "client closed connection while waiting for request",
        nginx_error,
    ),
    row(ServerKind::Nginx, "\"\" 400 ", nginx_access),
    row(ServerKind::Nginx, "\"-\" 400 ", nginx_access),
    row(ServerKind::Nginx, "\"\" 408 ", nginx_access),
    row(ServerKind::Nginx, "\"-\" 408 ", nginx_access),
    row(ServerKind::Nginx, "\"\\x16\\x03", nginx_access),
];

/// What a line says, by the first row that knows; nothing where it is about something else.
pub fn read(kinds: &[ServerKind], mention: &Mention<'_>) -> Option<Result<Told, &'static str>> {
    ROWS.iter()
        .filter(|row| kinds.contains(&row.kind))
        .find_map(|row| {
            let at = mention.text.find(row.pattern)?;
            let part = Part {
                before: &mention.text[..at],
                pattern: row.pattern,
                after: &mention.text[at + row.pattern.len()..],
                mention,
            };
            let told = (row.read)(&part).transpose()?;
            Some(told.map(|(peer, error, server)| Told {
                kind: row.kind,
                peer: SocketAddr::new(peer.ip().to_canonical(), peer.port()),
                error: error.trim_end_matches(['"', '\'']).trim().to_owned(),
                server,
            }))
        })
}

/// The client's address and port as fields of an entry: PostgreSQL's jsonlog, access logs in JSON.
pub fn peer_fields(object: &Json<'_>) -> Option<SocketAddr> {
    const NAMES: [(&str, &str); 6] = [
        ("remote_host", "remote_port"),
        ("remote_addr", "remote_port"),
        ("client_ip", "client_port"),
        ("client", "client_port"),
        ("ci", "cp"),
        ("src_ip", "src_port"),
    ];
    NAMES.iter().find_map(|(name, port)| {
        let ip = host(object.get(name)?.text()?)?;
        let port = match object.get(port)? {
            Json::Integer(port) => u16::try_from(*port).ok()?,
            other => other.text()?.parse().ok()?,
        };
        Some(SocketAddr::new(ip, port))
    })
}

impl Part<'_> {
    /// The words of the row and what follows them, up to `end`.
    fn message(&self, end: &[char]) -> String {
        let after = self.after.find(end).map_or(self.after, |end| &self.after[..end]);
        format!("{}{after}", self.pattern).trim().to_owned()
    }

    /// The number of the process in brackets, as syslog and PostgreSQL write it: `sshd[4711]`.
    fn process(&self) -> Option<&str> {
        let (before, _) = self.before.rsplit_once(']')?;
        let (_, number) = before.rsplit_once('[')?;
        (!number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())).then_some(number)
    }
}

/// `10.0.0.1:5555: EOF`, the address in quotes or not.
fn go(part: &Part<'_>) -> Reading {
    let (peer, rest) = match quoted(part.after) {
        Some((peer, rest)) => (peer, rest.strip_prefix(": ")),
        None => match part.after.split_once(": ") {
            Some((peer, rest)) => (peer.to_owned(), Some(rest)),
            None => (part.after.to_owned(), None),
        },
    };
    match (address(peer.trim()), rest) {
        (Some(peer), Some(error)) if !error.trim().is_empty() => {
            Ok(Some((peer, error.to_owned(), server(error, peer))))
        }
        (Some(_), _) => Err("it is cut off"),
        (None, _) => Err("its address is not one"),
    }
}

/// In a CSV field `"10.0.0.1:5555"`, as `%r` (`10.0.0.1(5555)`) of `log_line_prefix`, as `host=10.0.0.1 port=5555`, or in the line
/// `connection received` of the same process.
fn postgres(part: &Part<'_>) -> Reading {
    const NO_PORT: &str =
        "no client port in the line: set log_line_prefix = '%m [%p] %r ', or log_connections = on";
    let error = part.message(&['"', '\n']);
    let told = |peer| Ok(Some((peer, error.clone(), None)));
    if let Some(peer) = part.mention.peer.or_else(|| received(part.before)) {
        return told(peer);
    }
    if let Some(peer) = part
        .before
        .split(',')
        .find_map(|field| loose(field.strip_prefix('"')?.strip_suffix('"')?))
    {
        return told(peer);
    }
    let in_parentheses = |word: &str| {
        let (ip, port) = word
            .trim_end_matches([':', ',', ']'])
            .strip_suffix(')')?
            .split_once('(')?;
        Some(SocketAddr::new(
            host(ip.trim_start_matches(['[', '@', ',']))?,
            port.parse().ok()?,
        ))
    };
    let in_prefix = |word: &str| in_parentheses(word).or_else(|| loose(word.strip_prefix("client=")?));
    if let Some(peer) = part.before.split_ascii_whitespace().find_map(in_prefix) {
        return told(peer);
    }
    if part.before.contains("[local]") {
        return Ok(None);
    }
    let Some(process) = part.process() else {
        return Err(NO_PORT);
    };
    let process = format!("[{process}]");
    let found = lines_backwards(part.mention.excerpt.before)
        .take(NEAR)
        .find_map(|line| {
            let line = String::from_utf8_lossy(line);
            (line.contains(&process) && line.contains("connection received: ")).then(|| received(&line))
        });
    found.flatten().map_or(Err(NO_PORT), told)
}

/// `host=10.0.0.1 port=5555`
fn received(text: &str) -> Option<SocketAddr> {
    let (_, rest) = text.rsplit_once("host=")?;
    let (ip, rest) = rest.split_once(' ')?;
    let port = rest.trim_start().strip_prefix("port=")?;
    let end = port
        .find(|character: char| !character.is_ascii_digit())
        .unwrap_or(port.len());
    Some(SocketAddr::new(host(ip)?, port[..end].parse().ok()?))
}

/// MySQL writes the host alone: `host: '10.0.0.1'`.
fn mysql(part: &Part<'_>) -> Reading {
    if let Some(peer) = part.mention.peer {
        return Ok(Some((peer, part.message(&[')', '\n']), None)));
    }
    if !part.before.contains("Aborted connection") {
        return Ok(None);
    }
    Err(
        "no client port in the line: MySQL writes the host alone; find the client with probe watch --port 3306",
    )
}

/// `Connection from 10.0.0.1:5555 aborted.`
fn redis(part: &Part<'_>) -> Reading {
    let peer = part
        .after
        .split_once("Connection from ")
        .and_then(|(_, rest)| loose(rest.split_ascii_whitespace().next()?));
    match peer {
        Some(peer) => Ok(Some((peer, part.pattern.to_owned(), None))),
        None => Err("no client port in the line: Redis writes it since 6.2"),
    }
}

/// `10.0.0.1 port 5555`, with words before it or after it.
fn ssh_peer(text: &str) -> Option<(SocketAddr, &str)> {
    text.match_indices(" port ").find_map(|(at, _)| {
        let ip = host(text[..at].rsplit(' ').next()?)?;
        let port = &text[at + " port ".len()..];
        let end = port
            .find(|character: char| !character.is_ascii_digit())
            .unwrap_or(port.len());
        Some((SocketAddr::new(ip, port[..end].parse().ok()?), &port[end..]))
    })
}

const NO_SSH_PORT: &str = "no client port in the line: set LogLevel VERBOSE in sshd_config";

fn is_ssh(part: &Part<'_>) -> bool {
    part.before.contains("sshd")
}

fn sshd(part: &Part<'_>) -> Reading {
    match ssh_peer(part.after) {
        Some((peer, rest)) => {
            let what = rest.trim_start_matches([':', ' ']).trim();
            let words = part
                .pattern
                .trim_end_matches("from ")
                .trim_end_matches("with ")
                .trim_end();
            let error = if what.is_empty() || what == "[preauth]" {
                words.to_owned()
            } else {
                format!("{words}: {what}")
            };
            Ok(Some((peer, error, None)))
        }
        None if is_ssh(part) => Err(NO_SSH_PORT),
        None => Ok(None),
    }
}

/// The client is in the next line of the same process: `Connection closed by 10.0.0.1 port 5555`.
fn sshd_identification(part: &Part<'_>) -> Reading {
    let Some(process) = part.process().filter(|_| is_ssh(part)) else {
        return Err(NO_SSH_PORT);
    };
    let process = format!("[{process}]");
    let after = String::from_utf8_lossy(part.mention.excerpt.after);
    let has_client = |line: &str| {
        line.contains(&process)
            && (line.contains("Connection closed by ")
                || line.contains("Connection reset by ")
                || line.contains("banner exchange: "))
    };
    if after.lines().take(NEAR).any(has_client) {
        return Ok(None);
    }
    Err(NO_SSH_PORT)
}

fn sshd_closed(part: &Part<'_>) -> Reading {
    if !is_ssh(part) {
        return Ok(None);
    }
    let Some((peer, _)) = ssh_peer(part.after) else {
        return Ok(None);
    };
    let before = part
        .process()
        .map(|process| format!("[{process}]"))
        .and_then(|process| {
            lines_backwards(part.mention.excerpt.before)
                .take(NEAR)
                .find_map(|line| {
                    let line = String::from_utf8_lossy(line);
                    let at = line
                        .find("kex_exchange_identification: ")
                        .filter(|_| line.contains(&process))?;
                    Some(line[at..].trim().to_owned())
                })
        });
    // `by authenticating user root 10.0.0.1 port 5555`: it came as far as the login.
    let error = before.unwrap_or_else(|| {
        let phase = if part.after.contains("user ") {
            "during the login"
        } else {
            "before the login"
        };
        format!("{} the client {phase}", part.pattern.trim_end())
    });
    Ok(Some((peer, error, None)))
}

/// `10.0.0.1:5555 [23/Nov/2026:09:10:10.655] frontend/1: SSL handshake failure`
fn haproxy(part: &Part<'_>) -> Reading {
    let Some((head, rest)) = part
        .before
        .rsplit_once(" [")
        .filter(|(_, rest)| rest.contains('/') && rest.contains(']'))
    else {
        return Ok(None);
    };
    let Some(peer) = head.rsplit(' ').next().and_then(loose) else {
        return Ok(None);
    };
    if part.pattern == "<BADREQ>" {
        // How the session ended: CR--, PR--, cR--.
        let is_state = |word: &&str| {
            word.len() == 4
                && word.ends_with("--")
                && word
                    .bytes()
                    .all(|byte| byte.is_ascii_alphabetic() || byte == b'-')
        };
        let state = rest.split_ascii_whitespace().find(is_state).unwrap_or("----");
        return Ok(Some((peer, format!("<BADREQ> {state}"), None)));
    }
    let words = rest.split_once(": ").map_or("", |(_, words)| words);
    Ok(Some((
        peer,
        format!("{words}{}", part.message(&['"', '\n'])),
        None,
    )))
}

const NO_NGINX_PORT: &str = "no client port in the line: write an access log with $remote_addr:$remote_port";

/// `… while SSL handshaking, client: 10.0.0.1, server: 0.0.0.0:443`
fn nginx_error(part: &Part<'_>) -> Reading {
    if let Some(peer) = part.mention.peer {
        return Ok(Some((peer, part.message(&[',']), None)));
    }
    match part.after.split_once(", client: ") {
        Some((_, rest)) => {
            let end = rest.find([',', ' ']).unwrap_or(rest.len());
            match loose(&rest[..end]) {
                Some(peer) => Ok(Some((peer, part.message(&[',']), None))),
                None => Err(NO_NGINX_PORT),
            }
        }
        None => Ok(None),
    }
}

/// `10.0.0.1:5555 - - [23/Nov/2026:09:10:10 +0000] "" 400 0 "-" "-"`
fn nginx_access(part: &Part<'_>) -> Reading {
    if !part.before.contains('[') && part.mention.peer.is_none() {
        return Ok(None);
    }
    let error = if part.pattern.contains("\\x16") {
        "TLS to a port without TLS".to_owned()
    } else {
        format!(
            "empty request, status {}",
            &part.pattern[part.pattern.len() - 4..].trim()
        )
    };
    let peer = part
        .mention
        .peer
        .or_else(|| part.before.split_ascii_whitespace().find_map(loose));
    match peer {
        Some(peer) => Ok(Some((peer, error, None))),
        None => Err(NO_NGINX_PORT),
    }
}
