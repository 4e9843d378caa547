//! Arguments of the commands that read recordings.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::{
    Args,
    builder::{PossibleValuesParser, TypedValueParser},
};
use jiff::{
    SignedDuration, Timestamp, civil,
    tz::{Offset, TimeZone},
};

use super::{
    Agents,
    common::{AgentsArgs, duration, port, table_or_json},
    help,
};
use crate::{
    model::etcd_log::{self, ServerKind},
    report::Format,
};

const WHO_EXAMPLES: &str = "\
Examples:
  probe watch --port 2379 --record flows.jsonl       on every node, beforehand
  probe who 192.168.88.12:62134 --flows beta.jsonl   the owner, from a recording
  probe who 192.168.88.12:62134 --cluster            the owner, from the history of the node's agent
  journalctl -u sshd | probe who --from-text - --flows beta.jsonl
  probe who 192.168.88.12:62134 --at '2026-11-23 09:10:14' --flows alpha.jsonl --flows beta.jsonl";

/// Find the owners of client addresses and ports, from recordings or the agents' history
///
/// Reads recordings of `probe watch --record`, and with --cluster the history of the agents. Matches the client's own address and
/// the translated address that its server saw. An address can have several owners over time: the nearest to --at is first, each
/// with its distance.
#[derive(Args, Debug)]
#[command(after_help = help::sections(&[WHO_EXAMPLES]))]
pub struct WhoArgs {
    /// Client addresses and ports as a server or its log shows them: 192.168.88.12:62134, [fd00::12]:62134; `-` reads them from
    /// standard input
    #[arg(value_name = "ADDRESS:PORT", value_parser = WhoAddress::parse, required_unless_present = "from_text")]
    pub addresses: Vec<WhoAddress>,

    /// Look up every address and port in this text, also `ADDRESS port PORT`, at most 100,000; `-` is standard input
    #[arg(long, value_name = "FILE", conflicts_with = "addresses")]
    pub from_text: Option<PathBuf>,

    /// Time of the connection: 2026-11-23T09:10:14Z, '2026-11-23 09:10:14', or 09:10:14 for today; local time without a zone.
    /// Default: the latest first
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub at: Option<Timestamp>,

    #[command(flatten)]
    pub recordings: RecordingsArgs,
}

/// One that was named, or all that standard input has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhoAddress {
    Named(SocketAddr),
    StandardInput,
}

impl WhoAddress {
    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "-" => Ok(Self::StandardInput),
            _ => address(text).map(Self::Named),
        }
    }
}

const ETCD_LOG_EXAMPLES: &str = "\
Examples:
  probe watch --port 2379 --record flows.jsonl   on every node, while the problem occurs
  probe etcd-log etcd.log --flows alpha.jsonl --flows beta.jsonl
  kubectl logs -n kube-system etcd-alpha | probe etcd-log --flows alpha.jsonl --flows beta.jsonl
  kubectl logs -n kube-system etcd-alpha | probe etcd-log --cluster
  journalctl -u etcd -o json | probe etcd-log --flows alpha.jsonl";

const ETCD_LOG_NOTES: &str = "\
    Servers for --format: etcd, go (kube-apiserver, webhooks), postgresql, mysql, redis, sshd, haproxy, nginx. \
    LOGGED counts lines of the log, SEEN connections in the kernel during the same time: etcd's log drops lines under load. The exit code is 3 for a log without rejected connections, and 4 for one with unreadable lines.";

/// Find the pod behind each rejected connection of an etcd log, from recordings or the agents' history
///
/// Reads logs of etcd 3.2 to 3.7: text or JSON, with any prefix, inside the JSON of docker, journald or a collector.
/// Also reads lines about rejected connections of other servers. Lines without a match, or that can't be read, are reported with
/// the reason.
#[derive(Args, Debug)]
#[command(after_help = help::sections(&[ETCD_LOG_EXAMPLES, ETCD_LOG_NOTES]))]
pub struct EtcdLogArgs {
    /// Log files, or directories of rotated ones, also compressed (.gz, .zst); `-` is standard input
    #[arg(value_name = "LOG", default_value = "-")]
    pub logs: Vec<PathBuf>,

    /// Server that wrote the log; `auto` detects it line by line
    #[arg(long, value_name = "SERVER", default_value = AUTO, value_parser = log_format(), hide_possible_values = true)]
    pub format: LogFormat,

    /// UTC offset of log times without a zone: +02:00, -07, UTC. Default: this machine's
    #[arg(long, value_name = "OFFSET", value_parser = offset, allow_hyphen_values = true)]
    pub utc_offset: Option<Offset>,

    /// Largest difference between the log's time and the connection's end: clocks of nodes differ
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = duration)]
    pub within: SignedDuration,

    /// Ports of the server that wrote the log; repeat or separate by commas. Default: 2379 and 2380, and those of the recordings
    #[arg(long = "port", value_name = "PORT", value_delimiter = ',', value_parser = port)]
    pub ports: Vec<u16>,

    /// Node whose server wrote the log: only its processes connect from a loopback address. Default: from the recordings
    #[arg(long, value_name = "NODE")]
    pub node_name: Option<String>,

    #[command(flatten)]
    pub recordings: RecordingsArgs,
}

/// `--format`: one server, or `auto`.
const AUTO: &str = "auto";

/// Whose lines are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    Auto,
    Only(ServerKind),
}

impl LogFormat {
    pub fn kinds(self) -> Vec<ServerKind> {
        match self {
            Self::Auto => ServerKind::ALL.to_vec(),
            Self::Only(kind) => vec![kind],
        }
    }
}

fn log_format() -> impl TypedValueParser<Value = LogFormat> {
    let names = [AUTO].into_iter().chain(ServerKind::NAMES);
    PossibleValuesParser::new(names)
        .map(|name| ServerKind::from_name(&name).map_or(LogFormat::Auto, LogFormat::Only))
}

#[derive(Args, Debug)]
pub struct RecordingsArgs {
    /// Read this recording, and the older FILE.1 beside it; repeat for several nodes
    #[arg(long, value_name = "FILE", required_unless_present = "cluster")]
    pub flows: Vec<PathBuf>,

    /// Output format: lines for reading, or one JSON object a line
    #[arg(short, long, value_name = "FORMAT", default_value = Format::Table.name(), value_parser = table_or_json())]
    pub output: Format,

    #[command(flatten)]
    pub agents: AgentsArgs,
}

impl WhoArgs {
    /// Whom to ask besides the recordings.
    pub fn agents(&self) -> Option<Agents> {
        self.recordings.agents.agents()
    }
}

impl EtcdLogArgs {
    /// Whom to ask besides the recordings.
    pub fn agents(&self) -> Option<Agents> {
        self.recordings.agents.agents()
    }
}

/// What `probe who` does.
#[derive(Clone, Debug)]
pub struct Who {
    pub addresses: Vec<SocketAddr>,
    /// A text with further ones; `-` is standard input.
    pub text: Option<PathBuf>,
    pub at: Option<Timestamp>,
    pub flows: Vec<PathBuf>,
    pub agents: Option<Agents>,
    pub json: bool,
}

impl From<WhoArgs> for Who {
    fn from(args: WhoArgs) -> Self {
        Self {
            agents: args.agents(),
            text: match args.addresses.contains(&WhoAddress::StandardInput) {
                true => Some(PathBuf::from("-")),
                false => args.from_text,
            },
            addresses: args
                .addresses
                .into_iter()
                .filter_map(|address| match address {
                    WhoAddress::Named(address) => Some(address),
                    WhoAddress::StandardInput => None,
                })
                .collect(),
            at: args.at,
            flows: args.recordings.flows,
            json: args.recordings.output == Format::Json,
        }
    }
}

/// What `probe etcd-log` does.
#[derive(Clone, Debug)]
pub struct EtcdLog {
    pub logs: Vec<PathBuf>,
    /// Whose lines are read.
    pub kinds: Vec<ServerKind>,
    pub utc_offset: Option<Offset>,
    pub within: Duration,
    pub flows: Vec<PathBuf>,
    pub agents: Option<Agents>,
    /// The server's ports, where they were named.
    pub ports: Option<Vec<u16>>,
    /// The node that wrote the log.
    pub node: Option<String>,
    pub json: bool,
}

impl From<EtcdLogArgs> for EtcdLog {
    fn from(args: EtcdLogArgs) -> Self {
        Self {
            agents: args.agents(),
            kinds: args.format.kinds(),
            utc_offset: args.utc_offset,
            logs: args.logs,
            ports: Some(args.ports).filter(|ports| !ports.is_empty()),
            node: args.node_name,
            within: args.within.unsigned_abs(),
            flows: args.recordings.flows,
            json: args.recordings.output == Format::Json,
        }
    }
}

impl EtcdLog {
    /// The server ports that agents are asked for.
    pub fn agent_ports(&self) -> Vec<u16> {
        let usual = || match self.kinds.contains(&ServerKind::Etcd) {
            true => vec![2379, 2380],
            false => Vec::new(),
        };
        self.ports.clone().unwrap_or_else(usual)
    }
}

fn address(text: &str) -> Result<SocketAddr, String> {
    etcd_log::address(text)
        .ok_or_else(|| "not an address and a port such as 192.168.88.12:62134 or [fd00::12]:62134".to_owned())
}

fn offset(text: &str) -> Result<Offset, String> {
    etcd_log::offset(text).ok_or_else(|| "not an offset such as +02:00, -07 or UTC".to_owned())
}

/// A time with a zone, or one where the operator is: with a date, or of today.
fn time(text: &str) -> Result<Timestamp, String> {
    let local = || {
        let zone = TimeZone::system();
        let today = zone.to_datetime(Timestamp::now()).date();
        let time = match text.parse::<civil::DateTime>() {
            Ok(time) => time,
            Err(_) => today.to_datetime(text.parse::<civil::Time>().ok()?),
        };
        zone.to_timestamp(time).ok()
    };
    text.parse().ok().or_else(local).ok_or_else(|| {
        "not a time such as 2026-11-23T09:10:14Z, '2026-11-23 09:10:14' or 09:10:14".to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, Command};

    fn etcd_log(line: &str) -> Result<EtcdLog, String> {
        let words = line.split_whitespace().map(Into::into);
        match Cli::of(words).map(|cli| cli.command) {
            Ok(Command::EtcdLog(args)) => Ok(args.into()),
            Ok(other) => panic!("{line}: {other:?}"),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Recordings never swallow a log.
    #[test]
    fn the_logs_and_the_recordings() {
        for (line, logs, flows) in [
            ("probe etcd-log --flows a etcd.log", &["etcd.log"][..], &["a"][..]),
            ("probe etcd-log etcd.log --flows a", &["etcd.log"], &["a"]),
            (
                "probe etcd-log --flows a --flows b etcd.log",
                &["etcd.log"],
                &["a", "b"],
            ),
            ("probe etcd-log --flows a", &["-"], &["a"]),
            (
                "probe etcd-log a.log b.log --flows a",
                &["a.log", "b.log"],
                &["a"],
            ),
            // The former spelling: what is a recording is found when it is read.
            (
                "probe etcd-log etcd.log -o json --flows a b",
                &["etcd.log", "b"],
                &["a"],
            ),
        ] {
            let settings = etcd_log(line).unwrap();
            let paths = |names: &[&str]| names.iter().map(PathBuf::from).collect::<Vec<_>>();
            assert_eq!(settings.logs, paths(logs), "{line}");
            assert_eq!(settings.flows, paths(flows), "{line}");
        }
        for (line, says) in [
            ("probe etcd-log etcd.log", "--flows"),
            ("probe etcd-log --flows a --format elephant", "elephant"),
            ("probe etcd-log --flows a --utc-offset CET", "+02:00"),
            ("probe who 10.0.0.1:1 --flows a b", "not an address and a port"),
            ("probe who --flows a", "ADDRESS:PORT"),
            (
                "probe who 10.0.0.1:1 --from-text b --flows a",
                "cannot be used with",
            ),
        ] {
            let words = line.split_whitespace().map(Into::into);
            let error = Cli::of(words).expect_err(line).to_string();
            assert!(error.contains(says), "{line}: {error}");
        }
    }
    #[test]
    fn servers_and_offsets() {
        for (options, kinds, offset) in [
            ("", ServerKind::ALL.to_vec(), None),
            ("--format auto", ServerKind::ALL.to_vec(), None),
            ("--format postgresql", vec![ServerKind::PostgreSql], None),
            (
                "--utc-offset -07:00",
                ServerKind::ALL.to_vec(),
                Some(Offset::constant(-7)),
            ),
            ("--utc-offset UTC", ServerKind::ALL.to_vec(), Some(Offset::UTC)),
        ] {
            let settings = etcd_log(&format!("probe etcd-log --flows a {options}")).unwrap();
            assert_eq!(
                (settings.kinds, settings.utc_offset),
                (kinds, offset),
                "{options}"
            );
        }
    }
}
