//! What a connection began with, in words.

use std::fmt::Write as _;

use crate::model::{
    Role,
    tls::{FirstMessage, Incomplete, Protocol, Tls, Why},
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
        FirstMessage::Other(Protocol::Unknown) => Some(format!("{side} sends no TLS")),
        FirstMessage::Other(protocol) => Some(format!("{side} sends {}, no TLS", protocol.name())),
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

#[cfg(test)]
mod tests {
    use super::text;
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
            "client sends HTTP, no TLS, server sends no TLS",
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
            assert_eq!(serde_json::to_string(tls).unwrap(), expected);
        }
    }
}
