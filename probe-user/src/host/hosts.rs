//! `/etc/hosts`: names with an address of the node's own.

use std::net::IpAddr;

/// Addresses of one name that are taken.
const MOST: usize = 8;

/// The addresses of a name.
pub fn addresses(text: &str, name: &str) -> Vec<IpAddr> {
    let of_line = |line: &str| {
        let line = line.split('#').next().unwrap_or_default();
        let (address, names) = line.trim().split_once(char::is_whitespace)?;
        let has = names
            .split_whitespace()
            .any(|found| found.eq_ignore_ascii_case(name));
        has.then(|| address.parse().ok()).flatten()
    };
    text.lines().filter_map(of_line).take(MOST).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let text =
            "# 10.0.0.9 api\n127.0.0.1\tlocalhost\n10.0.0.1  api.lab  API # old\nfd00::1 api\nx api\napi\n";
        let found = |name| {
            addresses(text, name)
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
        };
        assert_eq!(found("api"), ["10.0.0.1", "fd00::1"]);
        assert_eq!(found("api.lab"), ["10.0.0.1"]);
        assert!(found("old").is_empty() && found("10.0.0.1").is_empty());
    }
}
