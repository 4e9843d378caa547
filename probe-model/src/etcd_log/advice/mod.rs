//! What an error means, and what to do about it.

mod errors;
mod other_servers;

#[cfg(test)]
mod tests;

use super::ServerKind;
pub use super::kind::kind;

/// An error by a part of its text.
struct Known {
    part: &'static str,
    advice: &'static str,
    /// Where it differs for a client that sent a ClientHello: there is a server name in the line.
    after_hello: Option<&'static str>,
}

const fn known(part: &'static str, advice: &'static str) -> Known {
    Known {
        part,
        advice,
        after_hello: None,
    }
}

const fn after_hello(part: &'static str, advice: &'static str, after_hello: &'static str) -> Known {
    Known {
        part,
        advice,
        after_hello: Some(after_hello),
    }
}

/// What to do, for an error as [`kind`] gives it. `sent_hello`: the client sent a ClientHello, because the line has a server name.
pub fn advice(kind: &str, sent_hello: bool, logged_by: ServerKind) -> &'static str {
    let rows = match logged_by {
        ServerKind::Etcd | ServerKind::Go => errors::ROWS,
        _ => other_servers::rows(logged_by),
    };
    let found = rows.iter().find(|known| kind.contains(known.part));
    match found {
        Some(known) => known.after_hello.filter(|_| sent_hello).unwrap_or(known.advice),
        None => {
            "No advice for this error: read the client's own log, and compare its TLS settings with the server's."
        }
    }
}
