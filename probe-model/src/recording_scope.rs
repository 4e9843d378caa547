//! Which connections a recording has: what it was filtered by.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Outcome, outcome::is_healthy};

/// The filters of one recording; nothing set: every connection of the node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct RecordingScope {
    /// The server ports that were watched; empty: every port.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<u16>,
    /// Names of the outcomes that were left out.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub without: Vec<String>,
    /// The only role that was recorded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// The only peers that were recorded.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub peers: Vec<String>,
    /// Made before recordings named their filters: it has what was displayed.
    #[serde(skip)]
    pub unnamed: bool,
}

impl RecordingScope {
    /// Of a recording that does not name its filters. Earlier versions recorded what they displayed, which has no healthy
    /// connections unless they were asked for.
    pub fn unnamed(has_healthy: bool) -> Self {
        let without = Outcome::ALL.into_iter().filter(|outcome| is_healthy(*outcome));
        Self {
            without: without
                .filter(|_| !has_healthy)
                .map(|outcome| outcome.name().to_owned())
                .collect(),
            unnamed: true,
            ..Self::default()
        }
    }

    /// Whether a connection to a watched port can be missing for another reason than its port.
    pub fn is_partial(&self) -> bool {
        !self.without.is_empty() || self.role.is_some() || !self.peers.is_empty()
    }
}

/// What it leaves out, in words that follow "recorded": "without closed connections, only from peers 10.0.0.0/8".
impl fmt::Display for RecordingScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        if !self.without.is_empty() {
            parts.push(format!("without {} connections", self.without.join(" and ")));
        }
        if let Some(role) = &self.role {
            parts.push(format!("the {role} side only"));
        }
        if !self.peers.is_empty() {
            parts.push(format!("only with peers {}", self.peers.join(", ")));
        }
        f.write_str(&parts.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out() {
        let text = |text: &str| text.to_owned();
        for (scope, partial, says) in [
            (RecordingScope::default(), false, ""),
            (
                RecordingScope {
                    ports: vec![2379],
                    ..RecordingScope::default()
                },
                false,
                "",
            ),
            (
                RecordingScope::unnamed(false),
                true,
                "without closed and open connections",
            ),
            (RecordingScope::unnamed(true), false, ""),
            (
                RecordingScope {
                    role: Some(text("client")),
                    peers: vec![text("10.0.0.0/8"), text("::1/128")],
                    without: vec![text("closed")],
                    ..RecordingScope::default()
                },
                true,
                "without closed connections, the client side only, only with peers 10.0.0.0/8, ::1/128",
            ),
        ] {
            assert_eq!((scope.is_partial(), &*scope.to_string()), (partial, says));
        }
    }
}
