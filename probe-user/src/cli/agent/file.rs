//! The configuration file of `probe agent`, as it is written. `agent.toml` beside it has every option with its line of
//! documentation; a test holds the two together.

use std::{net::SocketAddr, path::PathBuf};

use bytesize::ByteSize;
use ipnet::IpNet;
use jiff::SignedDuration;
use serde::{Deserialize, Deserializer, de::Error};

use crate::{cli::settings::MAX_RATE, model::Outcome};

/// All defaults, documented.
pub const DEFAULT: &str = include_str!("agent.toml");

/// Sections that had another name, and their name.
const FORMER: [(&str, &str); 2] = [("looks", "snapshots"), ("memory", "history")];

/// The sections of a file that have a former name, and their name.
pub fn former_sections(text: &str) -> Vec<(&'static str, &'static str)> {
    let sections: toml::Table = text.parse().unwrap_or_default();
    let mut former = FORMER.to_vec();
    former.retain(|(section, _)| sections.contains_key(*section));
    former
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct File {
    pub node: NodeSection,
    pub watch: Watch,
    pub vxlan: Vxlan,
    pub bypass: Bypass,
    #[serde(alias = "looks")]
    pub snapshots: Snapshots,
    #[serde(alias = "memory")]
    pub history: History,
    pub log: Log,
    pub query: Query,
    pub metrics: Metrics,
    pub names: Names,
    pub limits: Limits,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct NodeSection {
    pub name: String,
    pub namespaces: Namespaces,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Namespaces {
    #[default]
    Auto,
    Own,
}

#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct Watch {
    pub enabled: bool,
    pub ports: Vec<u16>,
    #[serde(deserialize_with = "prefixes")]
    pub peers: Vec<IpNet>,
    #[serde(deserialize_with = "outcomes")]
    pub outcomes: Vec<Outcome>,
    pub max_connections: u32,
    pub max_rate: u32,
    #[serde(deserialize_with = "bytes")]
    pub ring_size: ByteSize,
}

impl Default for Watch {
    fn default() -> Self {
        Self {
            enabled: true,
            ports: Vec::new(),
            peers: Vec::new(),
            outcomes: Vec::new(),
            max_connections: 65_536,
            max_rate: MAX_RATE,
            ring_size: ByteSize::mib(4),
        }
    }
}

#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    pub cpu: f64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { cpu: 5.0 }
    }
}

#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct Vxlan {
    pub enabled: bool,
    pub max_peers: u32,
}

impl Default for Vxlan {
    fn default() -> Self {
        Self {
            enabled: true,
            max_peers: 4096,
        }
    }
}

#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct Bypass {
    pub enabled: bool,
    pub max_streams: u32,
}

impl Default for Bypass {
    fn default() -> Self {
        Self {
            enabled: true,
            max_streams: 8192,
        }
    }
}

#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct Snapshots {
    #[serde(deserialize_with = "time")]
    pub interval: SignedDuration,
}

impl Default for Snapshots {
    fn default() -> Self {
        Self {
            interval: SignedDuration::from_secs(2),
        }
    }
}

#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct History {
    pub connections: u32,
    pub ports: Vec<u16>,
    #[serde(deserialize_with = "bytes")]
    pub size: ByteSize,
    #[serde(deserialize_with = "time")]
    pub age: SignedDuration,
    pub directory: PathBuf,
    #[serde(deserialize_with = "bytes")]
    pub disk_size: ByteSize,
    #[serde(deserialize_with = "time")]
    pub disk_age: SignedDuration,
}

impl Default for History {
    fn default() -> Self {
        Self {
            connections: 8192,
            ports: vec![2379, 2380],
            size: ByteSize::mib(12),
            age: SignedDuration::from_hours(24),
            directory: PathBuf::new(),
            disk_size: ByteSize::mib(256),
            disk_age: SignedDuration::from_hours(14 * 24),
        }
    }
}

#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    pub connections: bool,
    pub findings: bool,
    pub rate: u32,
}

impl Default for Log {
    fn default() -> Self {
        Self {
            connections: true,
            findings: true,
            rate: 50,
        }
    }
}

#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct Query {
    pub listen: SocketAddr,
}

impl Default for Query {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 9470)),
        }
    }
}

#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct Metrics {
    #[serde(deserialize_with = "listen")]
    pub listen: Option<SocketAddr>,
    pub max_series: u32,
    pub program_time: bool,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            listen: Some(SocketAddr::from(([0, 0, 0, 0], 9471))),
            max_series: 10_000,
            program_time: false,
        }
    }
}

#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct Names {
    pub cri: PathBuf,
    pub pod_logs: PathBuf,
    pub kubernetes: PathBuf,
    #[serde(deserialize_with = "uri")]
    pub kubelet: Option<http::Uri>,
    pub kubelet_insecure_tls: bool,
    pub show_secrets: bool,
}

impl Default for Names {
    fn default() -> Self {
        Self {
            cri: "auto".into(),
            pod_logs: "/var/log/pods".into(),
            kubernetes: "auto".into(),
            kubelet: None,
            kubelet_insecure_tls: false,
            show_secrets: false,
        }
    }
}

fn parsed<'de, T, D>(from: D) -> Result<T, D::Error>
where
    T: std::str::FromStr<Err: std::fmt::Display>,
    D: Deserializer<'de>,
{
    String::deserialize(from)?.parse().map_err(Error::custom)
}

/// `""` is none.
fn optional<'de, T, D>(from: D) -> Result<Option<T>, D::Error>
where
    T: std::str::FromStr<Err: std::fmt::Display>,
    D: Deserializer<'de>,
{
    let text = String::deserialize(from)?;
    let text = Some(text).filter(|text| !text.is_empty());
    text.map(|text| text.parse().map_err(Error::custom)).transpose()
}

fn time<'de, D: Deserializer<'de>>(from: D) -> Result<SignedDuration, D::Error> {
    let time: SignedDuration = parsed(from)?;
    if time.is_positive() {
        Ok(time)
    } else {
        Err(Error::custom("a time must be greater than zero"))
    }
}

fn bytes<'de, D: Deserializer<'de>>(from: D) -> Result<ByteSize, D::Error> {
    parsed(from)
}

fn listen<'de, D: Deserializer<'de>>(from: D) -> Result<Option<SocketAddr>, D::Error> {
    optional(from)
}

fn uri<'de, D: Deserializer<'de>>(from: D) -> Result<Option<http::Uri>, D::Error> {
    optional(from)
}

fn prefixes<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<IpNet>, D::Error> {
    let texts = Vec::<String>::deserialize(from)?;
    let prefix =
        |text: &String| super::super::prefix(text).map_err(|why| Error::custom(format!("{text:?} is {why}")));
    texts.iter().map(prefix).collect()
}

fn outcomes<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Outcome>, D::Error> {
    let names = Vec::<String>::deserialize(from)?;
    let outcome = |name: &String| {
        Outcome::ALL
            .into_iter()
            .find(|outcome| outcome.name() == name)
            .ok_or_else(|| {
                let known = Outcome::ALL.map(Outcome::name).join(", ");
                Error::custom(format!("no outcome {name:?}; there are {known}"))
            })
    };
    names.iter().map(outcome).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documented_defaults_are_the_defaults() {
        let file: File = toml::from_str(DEFAULT).unwrap();
        assert_eq!(file, File::default());
        assert_eq!(toml::from_str::<File>("").unwrap(), File::default());
    }

    #[test]
    fn every_option_is_documented() {
        // Each line of options follows a comment, and an unknown option is told with those that there are: all of them
        // must be in the documented file.
        let documented: toml::Table = DEFAULT.parse().unwrap();
        for (section, options) in &documented {
            let error = toml::from_str::<File>(&format!("[{section}]\nno_such_option = 1\n"))
                .unwrap_err()
                .to_string();
            let known: Vec<&str> = error.split('`').skip(3).step_by(2).collect();
            assert!(!known.is_empty(), "{error}");
            for option in known {
                assert!(
                    options.get(option).is_some(),
                    "{section}.{option} is not documented"
                );
            }
        }
        let mut before = "";
        for line in DEFAULT.lines() {
            if line.contains(" = ") && !line.starts_with('#') {
                assert!(before.starts_with('#'), "no documentation before {line}");
            }
            before = line;
        }
    }

    #[test]
    fn former_names_of_sections_are_read() {
        for (text, former) in [
            ("[looks]\ninterval = \"7s\"\n", vec![("looks", "snapshots")]),
            ("[snapshots]\ninterval = \"7s\"\n", vec![]),
            ("[memory]\nconnections = 7\n", vec![("memory", "history")]),
            ("[history]\nconnections = 7\n", vec![]),
        ] {
            let file: File = toml::from_str(text).unwrap();
            assert!(
                file.snapshots.interval == SignedDuration::from_secs(7) || file.history.connections == 7,
                "{text}"
            );
            assert_eq!(former_sections(text), former, "{text}");
        }
    }

    #[test]
    fn what_is_refused_and_how() {
        for (text, says) in [
            ("[wach]\n", "unknown field `wach`"),
            ("[watch]\nport = [1]\n", "unknown field `port`"),
            ("[watch]\nports = [70000]\n", "70000"),
            (
                "[watch]\noutcomes = [\"halfopen\"]\n",
                "no outcome \"halfopen\"; there are half-open,",
            ),
            ("[watch]\npeers = [\"10.0.0.0/33\"]\n", "neither an address nor"),
            ("[snapshots]\ninterval = \"0s\"\n", "greater than zero"),
            ("[snapshots]\ninterval = \"soon\"\n", "soon"),
            ("[query]\nlisten = \"localhost\"\n", "invalid socket address"),
            ("[node]\nnamespaces = \"other\"\n", "unknown variant `other`"),
            ("[log]\nrate = -1\n", "-1"),
        ] {
            let error = toml::from_str::<File>(text).unwrap_err().to_string();
            assert!(error.contains(says), "{text}: {error}");
        }
    }
}
