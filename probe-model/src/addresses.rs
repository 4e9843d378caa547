//! Addresses with ports in any text.

use std::{
    collections::HashSet,
    net::{IpAddr, SocketAddr},
};

/// Those in one line, in order, each once: `192.168.88.12:62134`, `[fd00::12]:62134`, `192.168.88.12 port 62134`. Where the line tells
/// of a connection (`read tcp SERVER->CLIENT`) both are found.
pub fn addresses(line: &str) -> Vec<SocketAddr> {
    let mut found = Vec::new();
    let mut seen = HashSet::new();
    let mut words = words(line).peekable();
    while let Some(word) = words.next() {
        let address = with_port(word).or_else(|| {
            let address: IpAddr = word.trim_matches(['[', ']', ',']).parse().ok()?;
            let mut ahead = words.clone();
            let port = ahead
                .next()
                .filter(|word| word.trim_end_matches(',').eq_ignore_ascii_case("port"));
            let port = port
                .and_then(|_| ahead.next())?
                .trim_matches([',', ':', '.', ';'])
                .parse()
                .ok()?;
            Some(SocketAddr::new(address.to_canonical(), port))
        });
        if let Some(address) = address.filter(|address| address.port() != 0 && seen.insert(*address)) {
            found.push(address);
        }
    }
    found
}

/// What can be an address stands between these.
fn words(line: &str) -> impl Iterator<Item = &str> + Clone {
    let is_between = |c: char| c.is_whitespace() || "\"'()<>{}=;|,".contains(c);
    let parts = line.split(is_between).flat_map(|word| word.split("->"));
    parts.filter(|word| !word.is_empty())
}

fn with_port(word: &str) -> Option<SocketAddr> {
    let word = word.trim_end_matches([':', '.', ',', '-', '\\', '!', '?']);
    // A scheme before it, or a path behind.
    let word = word.rsplit_once("//").map_or(word, |(_, rest)| rest);
    let word = word.split_once('/').map_or(word, |(address, _)| address);
    // `client:192.168.88.12:62134` of a log with its fields' names.
    let from = word.find(|c: char| c == '[' || c.is_ascii_digit())?;
    let candidates = [Some(word), word.get(from..)];
    candidates
        .into_iter()
        .flatten()
        .find_map(crate::etcd_log::address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_a_line() {
        for (line, expected) in [
            ("", &[][..]),
            ("192.168.88.12:62134", &["192.168.88.12:62134"]),
            ("[fd00::12]:62134 10.0.0.1:1", &["[fd00::12]:62134", "10.0.0.1:1"]),
            ("[fe80::1%eth0]:40001", &["[fe80::1]:40001"]),
            ("[::ffff:10.0.0.1]:5", &["10.0.0.1:5"]),
            (
                "http: TLS handshake error from 192.168.88.12:62134: EOF",
                &["192.168.88.12:62134"],
            ),
            (
                "error: kex_exchange_identification: Connection closed by 192.168.88.12 port 62134",
                &["192.168.88.12:62134"],
            ),
            (
                "Connection from fd00::12 port 62134 on fd00::1 port 22.",
                &["[fd00::12]:62134", "[fd00::1]:22"],
            ),
            (
                r#"rejected connection from "192.168.88.12:62134" (error "read tcp 10.0.0.1:2379->192.168.88.12:62134: i/o timeout")"#,
                &["192.168.88.12:62134", "10.0.0.1:2379"],
            ),
            (
                r#"{"remote-addr":"192.168.88.12:62134","server-name":""}"#,
                &["192.168.88.12:62134"],
            ),
            (
                "connection received: host=10.0.0.9 port=51234",
                &["10.0.0.9:51234"],
            ),
            (
                "https://192.168.88.12:62134/health, tcp://[fd00::1]:5",
                &["192.168.88.12:62134", "[fd00::1]:5"],
            ),
            ("peer:192.168.88.12:62134,", &["192.168.88.12:62134"]),
            // No addresses.
            (
                "2026-11-23 09:10:10.613 pid 12:34 1.2.3.4 1.2.3:4 10.0.0.1:99999 300.1.1.1:5 10.0.0.1:0",
                &[],
            ),
            ("10.0.0.1 portal 5", &[]),
        ] {
            let found: Vec<_> = addresses(line).iter().map(SocketAddr::to_string).collect();
            assert_eq!(found, expected, "{line}");
        }
    }
}
