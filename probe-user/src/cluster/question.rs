//! What is asked of an agent: a path and its query.

use std::{fmt::Write as _, net::SocketAddr};

use jiff::Timestamp;

use crate::model::{Outcome, Role, doctor::Check};

/// Which connections are asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Connections {
    /// Those that ended since then.
    pub since: Option<Timestamp>,
    /// Server ports; none: every port.
    pub ports: Vec<u16>,
    pub role: Option<Role>,
    /// None: every outcome.
    pub outcomes: Vec<Outcome>,
    /// The client's own address, or the one that its server saw.
    pub address: Option<SocketAddr>,
    /// Those to come, too.
    pub follow: bool,
}

impl Connections {
    /// As it stands in a request.
    pub fn path(&self) -> String {
        let mut pairs: Vec<(&str, String)> = Vec::new();
        if let Some(since) = self.since {
            pairs.push(("since", since.to_string()));
        }
        if !self.ports.is_empty() {
            let ports: Vec<_> = self.ports.iter().map(u16::to_string).collect();
            pairs.push(("port", ports.join(",")));
        }
        if let Some(role) = self.role {
            pairs.push(("role", role.name().to_owned()));
        }
        if !self.outcomes.is_empty() {
            let outcomes: Vec<_> = self.outcomes.iter().map(|outcome| outcome.name()).collect();
            pairs.push(("outcome", outcomes.join(",")));
        }
        if let Some(address) = self.address {
            pairs.push(("address", address.to_string()));
        }
        if self.follow {
            pairs.push(("follow", "true".to_owned()));
        }
        let mut path = "/v1/connections".to_owned();
        for (index, (name, value)) in pairs.iter().enumerate() {
            path.push(if index == 0 { '?' } else { '&' });
            path.push_str(name);
            path.push('=');
            encode(&mut path, value);
        }
        path
    }
}

/// The latest snapshot of `what`, `vxlan` or `bypass`, as JSON or as text.
pub fn look(what: &str, json: bool) -> String {
    format!("/v1/{what}?output={}", if json { "json" } else { "table" })
}

/// What a node's doctor says of these checks.
pub fn doctor(checks: &[Check]) -> String {
    let names: Vec<_> = checks.iter().map(|check| check.name()).collect();
    format!("/v1/doctor?check={}", names.join(","))
}

/// What may stand in a query as it is does, all else as `%5B`.
fn encode(path: &mut String, value: &str) {
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~:,".contains(&byte) {
            path.push(char::from(byte));
        } else {
            // Writing to memory does not fail.
            let _ = write!(path, "%{byte:02X}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        let ask = Connections::default();
        for (question, path) in [
            (ask.clone(), "/v1/connections"),
            (
                Connections {
                    since: Some("2026-11-23T09:10:14.145123Z".parse().unwrap()),
                    ports: vec![2379, 2380],
                    follow: true,
                    ..ask.clone()
                },
                "/v1/connections?since=2026-11-23T09:10:14.145123Z&port=2379,2380&follow=true",
            ),
            (
                Connections {
                    role: Some(Role::Client),
                    outcomes: vec![Outcome::HalfOpen, Outcome::Refused],
                    address: Some("[fd00::12]:62134".parse().unwrap()),
                    ..ask
                },
                "/v1/connections?role=client&outcome=half-open,refused&address=%5Bfd00::12%5D:62134",
            ),
        ] {
            assert_eq!(question.path(), path);
            assert!(path.parse::<http::Uri>().is_ok());
        }
        assert_eq!(look("vxlan", true), "/v1/vxlan?output=json");
        assert_eq!(doctor(&[Check::Dns, Check::Node]), "/v1/doctor?check=dns,node");
    }
}
