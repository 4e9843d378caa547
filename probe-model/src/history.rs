//! Lines between the connections in an agent's answer about its history.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{recording_scope::RecordingScope, unlisted_time::UnlistedTime};

/// The last line of an answer: what the agent's history holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct HistoryEnd {
    /// Connections of its history that are in memory.
    #[serde(default)]
    pub held: u64,
    /// The time of the oldest, in memory or on disk.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<String>", extend("format" = "date-time")))]
    pub oldest: Option<Timestamp>,
    /// How many left the history; of a history on disk, how many are not in it because they could not be written.
    #[serde(default)]
    pub forgotten: u64,
    /// Losses of the kernel side.
    #[serde(default)]
    pub lost: u64,
    /// How its history is filtered, as far as the query reaches. Absent from an earlier version.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub scope: Option<RecordingScope>,
    /// Times since the agent's start in which connections were counted by source only, or lost. Absent from an earlier version.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub unlisted: Vec<UnlistedTime>,
}

/// Connections that a slow reader lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Gap {
    /// The number of connections.
    pub lost: u64,
}

/// No new connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Alive {}
