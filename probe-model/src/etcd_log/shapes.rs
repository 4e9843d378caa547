//! etcd's own shapes: text of 3.2 to 3.4, zap's console encoder, brackets of PD and TiKV, logfmt.

use super::{
    Endpoint, Line, REJECTED, Rejected, ServerKind,
    address::{address, server, zone},
    json::{self, Json, NoJson},
    pairs,
    quoted::quoted,
    time::Reading,
};

pub const CUT_OFF: &str = "it is cut off";
pub const JSON_CUT_OFF: &str = "its JSON is cut off";
pub const JSON_BROKEN: &str = "its JSON is broken";
const NO_SHAPE: &str = "it has no known shape";
const NO_ADDRESS: &str = "its address is not one";
pub const NO_PEER: &str = "it has no remote-addr";

/// The listener that a message names, if it is one of etcd's about a rejected connection.
pub fn endpoint(message: &str) -> Option<Option<Endpoint>> {
    match message.trim().strip_prefix(REJECTED)? {
        "" => Some(None),
        " on client endpoint" => Some(Some(Endpoint::Client)),
        " on peer endpoint" => Some(Some(Endpoint::Peer)),
        _ => None,
    }
}

/// What stands behind [`REJECTED`].
pub fn read(after: &str, reading: Option<Reading>) -> Line {
    if let Some(after) = after.strip_prefix(" from ") {
        return plain(after, reading);
    }
    // `rejected connection"] [remote-addr=…]`, `rejected connection" remote-addr=…`
    if let Some((words, fields)) = after.split_once('"')
        && let Some(endpoint) = endpoint(&format!("{REJECTED}{words}"))
    {
        return by_pairs(fields, endpoint, reading);
    }
    let (words, fields) = match after.find(['{', '\t']) {
        Some(at) => after.split_at(at),
        None => (after, ""),
    };
    match endpoint(&format!("{REJECTED}{words}").replace('\t', " ")) {
        Some(endpoint) => console(fields.trim_start(), endpoint, reading),
        None => Line::Unreadable(NO_SHAPE),
    }
}

/// `"IP:port" (error "EOF", ServerName "")`, strings as Go quotes them. Before 3.2.6 `(EOF)`.
fn plain(text: &str, reading: Option<Reading>) -> Line {
    let read = || {
        let (peer, rest) = match quoted(text) {
            Some((peer, rest)) => (peer, rest),
            None if text.starts_with('"') => return None,
            None => {
                let (peer, _) = text.split_once(' ')?;
                (peer.to_owned(), &text[peer.len()..])
            }
        };
        let rest = rest.trim_start().strip_prefix('(')?;
        let Some(error) = rest.strip_prefix("error ").filter(|rest| !rest.starts_with(':')) else {
            return Some((peer, enclosed(rest)?.to_owned(), String::new()));
        };
        let Some((error, rest)) = quoted(error) else {
            // Without quotes, as some forks have it. What begins with one is cut off.
            let inside = enclosed(error).filter(|error| !error.starts_with('"'))?;
            let (error, name) = inside.split_once(", ServerName ").unwrap_or((inside, ""));
            let name = quoted(name).map(|(name, _)| name);
            return Some((peer, error.to_owned(), name.unwrap_or_default()));
        };
        let server_name = match rest.strip_prefix(", ServerName ") {
            Some(rest) => quoted(rest)?.0,
            None if rest.starts_with(')') => String::new(),
            None => return None,
        };
        Some((peer, error, server_name))
    };
    match read() {
        None => Line::Unreadable(CUT_OFF),
        Some((peer, error, server_name)) => rejected(&peer, error, server_name, None, reading),
    }
}

/// What stands before the parenthesis that closes one already open.
fn enclosed(text: &str) -> Option<&str> {
    let mut open = 1_u32;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'(' => open += 1,
            b')' => open -= 1,
            _ => {}
        }
        if open == 0 {
            return Some(&text[..at]);
        }
    }
    None
}

/// `{"remote-addr": …}` of zap's console encoder.
fn console(fields: &str, endpoint: Option<Endpoint>, reading: Option<Reading>) -> Line {
    if fields.is_empty() {
        return Line::Unreadable(CUT_OFF);
    }
    match json::first(fields) {
        Ok((fields, _)) => zap(&fields, endpoint, reading),
        Err(NoJson::CutOff) => Line::Unreadable(JSON_CUT_OFF),
        Err(NoJson::Broken) if !fields.starts_with('{') => Line::Unreadable(NO_SHAPE),
        Err(NoJson::Broken) => Line::Unreadable(JSON_BROKEN),
    }
}

/// `] [remote-addr=192.168.88.12:62134] [error=EOF]`, ` remote-addr=192.168.88.12:62134 error=EOF`.
fn by_pairs(text: &str, endpoint: Option<Endpoint>, reading: Option<Reading>) -> Line {
    let (mut peer, mut error, mut server_name) = (None, None, String::new());
    for pair in pairs::pairs(text) {
        let Some((key, value)) = pair else {
            return Line::Unreadable(CUT_OFF);
        };
        match normal(key) {
            "remote-addr" => peer = peer.or(Some(value)),
            "error" => error = error.or(Some(value)),
            "server-name" => server_name = value,
            _ => {}
        }
    }
    match (peer, error) {
        (None, _) => Line::Unreadable(NO_PEER),
        // The error comes last: a line without it is not whole.
        (Some(_), None) => Line::Unreadable(CUT_OFF),
        (Some(peer), Some(error)) => rejected(&peer, error, server_name, endpoint, reading),
    }
}

/// A key as zap has it, of how collectors write it: `etcd.remote_addr`.
fn normal(key: &str) -> &str {
    let last = key.rsplit(['.', '/']).next().unwrap_or(key);
    match last {
        "remote-addr" | "remote_addr" | "remoteAddr" | "remoteaddr" | "remote-address" | "remote_address" => {
            "remote-addr"
        }
        "server-name" | "server_name" | "serverName" | "servername" => "server-name",
        "err" => "error",
        _ => last,
    }
}

/// Whether an object has zap's fields.
pub fn has_peer(object: &Json<'_>) -> bool {
    matches!(object, Json::Object(fields) if fields.iter().any(|(key, value)| normal(key) == "remote-addr" && value.text().is_some()))
}

/// The fields that zap adds to the message.
pub fn zap(object: &Json<'_>, endpoint: Option<Endpoint>, reading: Option<Reading>) -> Line {
    let Json::Object(fields) = object else {
        return Line::Unreadable(NO_PEER);
    };
    let text = |name: &str| {
        fields
            .iter()
            .filter(|(key, _)| normal(key) == name)
            .find_map(|(_, value)| value.text().or_else(|| value.get("message")?.text()))
    };
    // Elastic's name for it.
    let error = || {
        fields
            .iter()
            .find(|(key, _)| key == "error.message")
            .and_then(|(_, value)| value.text())
    };
    match text("remote-addr") {
        None => Line::Unreadable(NO_PEER),
        Some(peer) => rejected(
            peer,
            text("error").or_else(error).unwrap_or_default().to_owned(),
            text("server-name").unwrap_or_default().to_owned(),
            endpoint,
            reading,
        ),
    }
}

fn rejected(
    peer: &str,
    error: String,
    server_name: String,
    endpoint: Option<Endpoint>,
    reading: Option<Reading>,
) -> Line {
    let Some(address) = address(peer) else {
        return Line::Unreadable(NO_ADDRESS);
    };
    let server = server(&error, address);
    Line::Rejected(Rejected {
        time: reading.map(Reading::time),
        has_offset: matches!(reading, Some(Reading::Exact(_))),
        zone: zone(peer).map(str::to_owned),
        server,
        peer: address,
        error,
        server_name,
        endpoint,
        logged_by: ServerKind::Etcd,
    })
}
