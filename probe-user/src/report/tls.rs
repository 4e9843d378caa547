//! What a connection began with, in words and in JSON.

use std::fmt::Write as _;

use serde::Serialize;

use crate::model::{
    Role,
    tls::{Alert, FirstMessage, Incomplete, Protocol, Tls, Version, Why},
};

/// In one line, with what came from outside as it came.
pub fn text(tls: &Tls) -> String {
    let mut parts = Vec::new();
    let offered = tls.client.hello();
    match (&tls.server, offered) {
        (FirstMessage::Hello(chosen), _) => parts.push(chosen.version.to_string()),
        (FirstMessage::Nothing, Some(offered)) => {
            let best = offered.best().map(|best| format!("{best} offered, "));
            parts.push(format!("{}no ServerHello", best.unwrap_or_default()));
        }
        (FirstMessage::Nothing | FirstMessage::Other(_) | FirstMessage::Incomplete(_), _) => {}
    }
    if let Some(offered) = offered {
        let name = offered.server_name.as_deref();
        parts.push(name.map_or_else(
            || "no server name".to_owned(),
            |name| format!("server name {name}"),
        ));
    }
    let chosen = tls.server.hello().and_then(|hello| hello.alpn.as_deref());
    let offers = offered.filter(|offered| !offered.alpn.is_empty());
    match (chosen, offers) {
        (Some(chosen), _) => parts.push(format!("ALPN {chosen}")),
        (None, Some(offered)) => parts.push(format!("ALPN offered {}", offered.alpn.join(","))),
        (None, None) => {}
    }
    parts.extend(fault(Role::Client, "ClientHello", &tls.client));
    parts.extend(fault(Role::Server, "ServerHello", &tls.server));
    for alert in &tls.alerts {
        parts.push(format!(
            "{} sent alert {} ({})",
            alert.from.name(),
            alert.description(),
            alert.code
        ));
    }
    parts.join(", ")
}

fn fault<H>(side: Role, hello: &str, said: &FirstMessage<H>) -> Option<String> {
    let side = side.name();
    match said {
        FirstMessage::Nothing | FirstMessage::Hello(_) => None,
        FirstMessage::Other(Protocol::Unknown) => Some(format!("{side} speaks no TLS")),
        FirstMessage::Other(protocol) => Some(format!("{side} speaks {}, no TLS", protocol.name())),
        FirstMessage::Incomplete(Incomplete { seen, of, why }) => {
            let mut text = match (seen, of) {
                (0, None) => format!("beginning of the {side} "),
                _ => format!("{hello} "),
            };
            // Writing to memory does not fail.
            let _ = match (why, of) {
                (Why::Malformed, _) => write!(text, "can't be read"),
                (Why::Cut, Some(of)) => write!(text, "incomplete: {seen} of {of} B were sent"),
                (Why::Cut, None) => write!(text, "incomplete: {seen} B were sent"),
                (Why::Unseen, Some(of)) => write!(text, "not seen whole: {seen} of {of} B"),
                (Why::Unseen, None) => write!(text, "not seen"),
            };
            Some(text)
        }
    }
}

/// `tls` of a connection in JSON.
#[derive(Serialize)]
pub struct Object<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    sni: Option<&'a str>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    no_sni: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<String>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    alpn: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    alpn_chosen: Option<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    versions_offered: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    not_tls: Option<Sides<&'static str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    incomplete: Option<Sides<Part>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    alerts: Vec<Sent>,
}

#[derive(Serialize)]
struct Sides<T> {
    #[serde(skip_serializing_if = "Option::is_none")]
    client: Option<T>,
    #[serde(skip_serializing_if = "Option::is_none")]
    server: Option<T>,
}

impl<T> Sides<T> {
    fn some(client: Option<T>, server: Option<T>) -> Option<Self> {
        (client.is_some() || server.is_some()).then_some(Self { client, server })
    }
}

#[derive(Serialize)]
struct Part {
    seen: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    of: Option<usize>,
    why: &'static str,
}

#[derive(Serialize)]
struct Sent {
    from: &'static str,
    level: &'static str,
    description: &'static str,
    code: u8,
}

impl<'a> Object<'a> {
    pub fn new(tls: &'a Tls) -> Self {
        let client = tls.client.hello();
        let server = tls.server.hello();
        Self {
            sni: client.and_then(|hello| hello.server_name.as_deref()),
            no_sni: client.is_some_and(|hello| hello.server_name.is_none()),
            version: server.map(|hello| hello.version.to_string()),
            alpn: client.map(|hello| hello.alpn.as_slice()).unwrap_or_default(),
            alpn_chosen: server.and_then(|hello| hello.alpn.as_deref()),
            versions_offered: client
                .map(|hello| hello.versions.iter().map(Version::to_string).collect())
                .unwrap_or_default(),
            not_tls: Sides::some(other(&tls.client), other(&tls.server)),
            incomplete: Sides::some(part(&tls.client), part(&tls.server)),
            alerts: tls.alerts.iter().map(sent).collect(),
        }
    }
}

fn other<H>(said: &FirstMessage<H>) -> Option<&'static str> {
    match said {
        FirstMessage::Other(protocol) => Some(protocol.name()),
        FirstMessage::Nothing | FirstMessage::Hello(_) | FirstMessage::Incomplete(_) => None,
    }
}

fn part<H>(said: &FirstMessage<H>) -> Option<Part> {
    match said {
        FirstMessage::Incomplete(Incomplete { seen, of, why }) => Some(Part {
            seen: *seen,
            of: *of,
            why: why.name(),
        }),
        FirstMessage::Nothing | FirstMessage::Hello(_) | FirstMessage::Other(_) => None,
    }
}

fn sent(alert: &Alert) -> Sent {
    Sent {
        from: alert.from.name(),
        level: alert.level(),
        description: alert.description(),
        code: alert.code,
    }
}

#[cfg(test)]
mod tests {
    use super::{Object, text};
    use crate::report::samples;

    #[test]
    fn in_words() {
        let expected = [
            "TLS 1.3, server name shop.example, ALPN offered h2,http/1.1",
            "TLS 1.2, server name shop.example, ALPN h2\x1b[2J, client sent alert unknown_ca (48)",
            "TLS 1.2, no server name",
            "0x7f17 offered, no ServerHello, server name shop.example, ALPN offered h2,http/1.1",
            "0x7f17 offered, no ServerHello, server name shop.example, ALPN offered h2,http/1.1, server sent alert \
             protocol_version (70), server sent alert unknown (200)",
            "client speaks HTTP, no TLS, server speaks no TLS",
            "ClientHello incomplete: 100 of 517 B were sent",
            "ClientHello incomplete: 2 B were sent, beginning of the server not seen",
            "ClientHello not seen whole: 1400 of 1800 B, ServerHello can't be read",
        ];
        let texts: Vec<_> = samples::tls().iter().map(text).collect();
        assert_eq!(texts, expected);
    }

    #[test]
    fn in_json() {
        let expected = [
            r#"{"sni":"shop.example","version":"TLS 1.3","alpn":["h2","http/1.1"],"versions_offered":["TLS 1.3","TLS 1.2","0x7f17"]}"#,
            r#"{"sni":"shop.example","version":"TLS 1.2","alpn":["h2","http/1.1"],"alpn_chosen":"h2\u001b[2J","versions_offered":["TLS 1.3","TLS 1.2","0x7f17"],"alerts":[{"from":"client","level":"fatal","description":"unknown_ca","code":48}]}"#,
            r#"{"no_sni":true,"version":"TLS 1.2","versions_offered":["TLS 1.2"]}"#,
        ];
        for (tls, expected) in samples::tls().iter().zip(expected) {
            assert_eq!(serde_json::to_string(&Object::new(tls)).unwrap(), expected);
        }
    }
}
