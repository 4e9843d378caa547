//! The lines of an etcd log that tell of a rejected connection, in every shape that etcd 3.2 to 3.7, container runtimes
//! and journald give them.

pub mod advice;
pub mod matching;
mod quoted;
pub mod summary;
mod time;

#[cfg(test)]
mod many_tests;
#[cfg(test)]
mod tests;

use std::{borrow::Cow, net::SocketAddr};

use jiff::{Timestamp, tz::TimeZone};
use serde::Deserialize;

use self::{quoted::quoted, time::Reading};

/// What every such line has in it, whatever is around.
pub const REJECTED: &str = "rejected connection";

/// Wrappers in wrappers that are followed: a container runtime's around docker's around etcd's own.
const DEPTH: u8 = 4;

/// A connection that etcd gave up before it was one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejected {
    /// When etcd said so, or when the runtime or journald took the line. `None` where neither is in the line.
    pub time: Option<Timestamp>,
    /// As etcd sees the client.
    pub peer: SocketAddr,
    pub error: String,
    /// The name the client asked for (SNI); empty where it sent none.
    pub server_name: String,
    /// Which of etcd's listeners, since 3.5.15.
    pub endpoint: Option<Endpoint>,
    /// Whether `time` was written with its offset from UTC. Else the zone is the reader's assumption.
    pub has_offset: bool,
    /// The zone of an IPv6 link-local peer: the name of an interface of the node that logged.
    pub zone: Option<String>,
    /// The server's own address, where the error names it: `read tcp SERVER->CLIENT: …`.
    pub server: Option<SocketAddr>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Endpoint {
    Client,
    Peer,
}

/// What a line is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line {
    /// About something else.
    Other,
    Rejected(Rejected),
    /// About a rejected connection, but which one can't be read, for this reason.
    Unreadable(&'static str),
}

/// What a line itself does not say about its time.
#[derive(Clone, Debug)]
pub struct Reader {
    /// Of times written without one, as etcd up to 3.4 and journald do.
    zone: TimeZone,
    /// Journald leaves out the year: the latest that is not after this.
    now: Timestamp,
}

impl Reader {
    pub fn new(zone: TimeZone, now: Timestamp) -> Self {
        Self { zone, now }
    }

    /// Reads one line, without its line feed.
    pub fn read(&self, line: &str) -> Line {
        self.unwrap(line, None, DEPTH)
    }

    /// `outer` is when a wrapper says the line was written.
    fn unwrap(&self, line: &str, outer: Option<Timestamp>, depth: u8) -> Line {
        let line = line.trim();
        let Some(depth) = depth.checked_sub(1) else {
            return Line::Unreadable("it is wrapped too often");
        };
        if !line.contains(REJECTED) {
            return Line::Other;
        }
        if let Some((time, rest)) = runtime_prefix(line) {
            return self.unwrap(rest, Some(time), depth);
        }
        if line.starts_with('{') {
            return match serde_json::from_str(line) {
                Ok(object) => self.object(object, outer, depth),
                Err(_) => Line::Unreadable("its JSON is broken or cut off"),
            };
        }
        let Some((before, after)) = line.split_once(REJECTED) else {
            return Line::Other;
        };
        if let Some(after) = after.strip_prefix(" from ") {
            let reading = time::before(before, &self.zone, self.now);
            plain(after, reading, outer)
        } else if before.ends_with('\t') {
            let reading = time::before(before, &self.zone, self.now);
            console(after, reading, outer)
        } else if let Some((prefix, _)) = before.split_once('{') {
            let reading = time::before(prefix, &self.zone, self.now);
            let outer = time::choose(reading, outer).map(Reading::time);
            self.unwrap(&line[prefix.len()..], outer, depth)
        } else {
            Line::Other
        }
    }

    fn object(&self, object: Object<'_>, outer: Option<Timestamp>, depth: u8) -> Line {
        if let Some(message) = &object.msg {
            let reading = object.ts.as_ref().and_then(time::of_field);
            return zap(message, &object.fields, reading, outer);
        }
        if let Some(log) = object.log {
            let time = object.time.and_then(|time| time.parse().ok());
            return self.unwrap(&log, time.or(outer), depth);
        }
        if let Some(message) = object.message {
            let time = object
                .realtime
                .and_then(|micros| Timestamp::from_microsecond(micros.parse().ok()?).ok());
            return self.unwrap(&message, time.or(outer), depth);
        }
        Line::Other
    }
}

/// zap's own object, docker's around a line, or journald's (`journalctl -o json`).
#[derive(Deserialize)]
struct Object<'a> {
    #[serde(borrow)]
    msg: Option<Cow<'a, str>>,
    ts: Option<time::Field>,
    #[serde(flatten, borrow)]
    fields: Fields<'a>,
    #[serde(borrow)]
    log: Option<Cow<'a, str>>,
    #[serde(borrow)]
    time: Option<Cow<'a, str>>,
    #[serde(borrow, rename = "MESSAGE")]
    message: Option<Cow<'a, str>>,
    #[serde(borrow, rename = "__REALTIME_TIMESTAMP")]
    realtime: Option<Cow<'a, str>>,
}

/// What zap adds to the message.
#[derive(Deserialize)]
struct Fields<'a> {
    #[serde(borrow, rename = "remote-addr")]
    peer: Option<Cow<'a, str>>,
    #[serde(borrow)]
    error: Option<Cow<'a, str>>,
    #[serde(borrow, rename = "server-name")]
    server_name: Option<Cow<'a, str>>,
}

/// `2026-11-23T09:10:10.613456789Z stderr F ` of containerd and CRI-O.
fn runtime_prefix(line: &str) -> Option<(Timestamp, &str)> {
    let (time, rest) = line.split_once(' ')?;
    let (stream, rest) = rest.split_once(' ')?;
    let (_, rest) = rest.split_once(' ')?;
    matches!(stream, "stdout" | "stderr").then_some((time.parse().ok()?, rest))
}

/// `"IP:port" (error "EOF", ServerName "")`, strings as Go quotes them.
fn plain(text: &str, reading: Option<Reading>, outer: Option<Timestamp>) -> Line {
    let read = || {
        let (peer, rest) = quoted(text)?;
        let (error, rest) = quoted(rest.strip_prefix(" (error ")?)?;
        let server_name = rest
            .strip_prefix(", ServerName ")
            .and_then(quoted)
            .map(|(name, _)| name);
        Some((peer, error, server_name.unwrap_or_default()))
    };
    match read() {
        None => Line::Unreadable("it is cut off"),
        Some((peer, error, server_name)) => {
            rejected(&peer, error, server_name, None, time::choose(reading, outer))
        }
    }
}

/// ` on client endpoint\t{"remote-addr": …}` of zap's console encoder.
fn console(text: &str, reading: Option<Reading>, outer: Option<Timestamp>) -> Line {
    let Some((rest, fields)) = text.split_once('\t') else {
        return Line::Unreadable("it is cut off");
    };
    match serde_json::from_str(fields) {
        Ok(fields) => zap(&format!("{REJECTED}{rest}"), &fields, reading, outer),
        Err(_) => Line::Unreadable("its JSON is broken or cut off"),
    }
}

fn zap(message: &str, fields: &Fields<'_>, reading: Option<Reading>, outer: Option<Timestamp>) -> Line {
    let endpoint = match message {
        REJECTED => None,
        "rejected connection on client endpoint" => Some(Endpoint::Client),
        "rejected connection on peer endpoint" => Some(Endpoint::Peer),
        _ => return Line::Other,
    };
    let text = |field: &Option<Cow<'_, str>>| field.as_deref().unwrap_or_default().to_owned();
    match &fields.peer {
        None => Line::Unreadable("it has no remote-addr"),
        Some(peer) => rejected(
            peer,
            text(&fields.error),
            text(&fields.server_name),
            endpoint,
            time::choose(reading, outer),
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
        return Line::Unreadable("its address is not one");
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
    })
}

/// The interface of a link-local address: `[fe80::1%eth0]:2379`.
fn zone(peer: &str) -> Option<&str> {
    let (_, rest) = peer.split_once('%')?;
    rest.split_once(']').map(|(zone, _)| zone)
}

/// Go's errors of a connection name both addresses, its own first: `read tcp SERVER->CLIENT: i/o timeout`.
fn server(error: &str, peer: SocketAddr) -> Option<SocketAddr> {
    error.split_ascii_whitespace().find_map(|word| {
        let (own, other) = word.split_once("->")?;
        let other = address(other.trim_end_matches(':'))?;
        (other == peer).then(|| address(own)).flatten()
    })
}

/// An address and port, IPv4 mapped into IPv6 as IPv4. Go writes an IPv6 zone by its name, which says nothing here.
pub fn address(text: &str) -> Option<SocketAddr> {
    let parsed = match text.split_once('%') {
        Some((address, rest)) => format!("{address}{}", &rest[rest.find(']')?..]).parse(),
        None => text.parse::<SocketAddr>(),
    };
    let address = parsed.ok()?;
    Some(SocketAddr::new(address.ip().to_canonical(), address.port()))
}
