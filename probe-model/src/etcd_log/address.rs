//! Addresses as logs write them.

use std::net::{IpAddr, SocketAddr};

/// An address and port, IPv4 mapped into IPv6 as IPv4. Go writes an IPv6 zone by its name, which says nothing here.
pub fn address(text: &str) -> Option<SocketAddr> {
    let parsed = match text.split_once('%') {
        Some((address, rest)) => format!("{address}{}", &rest[rest.find(']')?..]).parse(),
        None => text.parse::<SocketAddr>(),
    };
    let address = parsed.ok()?;
    Some(SocketAddr::new(address.ip().to_canonical(), address.port()))
}

/// An address alone, with its zone left out.
pub fn host(text: &str) -> Option<IpAddr> {
    let text = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'))
        .unwrap_or(text);
    let text = text.split_once('%').map_or(text, |(address, _)| address);
    text.parse::<IpAddr>().ok().map(|address| address.to_canonical())
}

/// An address with the port after its last colon, with brackets around IPv6 or without: `::ffff:10.0.0.1:40000`.
pub fn loose(text: &str) -> Option<SocketAddr> {
    address(text).or_else(|| {
        let (host_part, port) = text.rsplit_once(':')?;
        // `2001:db8::1` has no port: its last group is no port behind a whole address either.
        let is_whole = host_part.contains('.') || host_part.matches(':').count() == 7;
        let ip = host(host_part).filter(|_| is_whole)?;
        Some(SocketAddr::new(ip, port.parse().ok()?))
    })
}

/// The interface of a link-local address: `[fe80::1%eth0]:2379`.
pub fn zone(peer: &str) -> Option<&str> {
    let (_, rest) = peer.split_once('%')?;
    rest.split_once(']').map(|(zone, _)| zone)
}

/// Go's errors of a connection name both addresses, its own first: `read tcp SERVER->CLIENT: i/o timeout`.
pub fn server(error: &str, peer: SocketAddr) -> Option<SocketAddr> {
    error.split_ascii_whitespace().find_map(|word| {
        let (own, other) = word.split_once("->")?;
        let other = address(other.trim_end_matches(':'))?;
        (other == peer).then(|| address(own)).flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        for (text, expected) in [
            ("10.244.1.2:1", Some("10.244.1.2:1")),
            ("[fd77::2]:65535", Some("[fd77::2]:65535")),
            ("[::ffff:10.244.1.2]:80", Some("10.244.1.2:80")),
            ("[fe80::1%eth0]:443", Some("[fe80::1]:443")),
            ("[fe80::1%eth0", None),
            ("10.244.1.2", None),
            ("etcd:2379", None),
        ] {
            let expected = expected.map(|text| text.parse().unwrap());
            assert_eq!(address(text), expected, "{text}");
        }
    }

    #[test]
    fn a_port_behind_the_last_colon() {
        for (text, expected) in [
            ("10.0.0.1:80", Some("10.0.0.1:80")),
            ("::ffff:10.0.0.1:40000", Some("10.0.0.1:40000")),
            ("fd00:0:0:0:0:0:0:1:443", Some("[fd00::1]:443")),
            ("2001:db8::1:443", None),
            ("::1:443", None),
            ("host:443", None),
        ] {
            let expected = expected.map(|text| text.parse().unwrap());
            assert_eq!(loose(text), expected, "{text}");
        }
    }
}
