//! `--cluster`: what of a command's work the agents of a cluster do.

use std::{ffi::OsString, path::PathBuf, time::Duration};

use clap::{
    ArgMatches, Args, ColorChoice, CommandFactory, FromArgMatches, ValueEnum as _, error::ErrorKind,
    parser::ValueSource,
};
use jiff::SignedDuration;

use super::{Cli, settings};

/// Commands that the agents of a cluster can do.
const COMMANDS: [&str; 6] = ["watch", "vxlan", "bypass", "doctor", "who", "etcd-log"];
/// What `kubectl probe` runs.
const PLUGIN: &str = "kubectl-probe";

/// Whom to ask.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "In a cluster")]
pub struct ClusterArgs {
    /// Ask the agents of probe in the cluster instead of this machine's kernel, by the API server's port-forward: nothing but
    /// a kubeconfig is needed (docs/cluster.md)
    #[arg(long)]
    pub cluster: bool,

    /// Only the agent on this node; repeat or separate by commas
    #[arg(long = "on", value_name = "NODE", value_delimiter = ',', requires = "cluster")]
    pub on: Vec<String>,

    /// The kubeconfig's context. Default: its current one
    #[arg(long, value_name = "NAME", requires = "cluster")]
    pub context: Option<String>,

    /// The agents' namespace
    #[arg(long, value_name = "NAMESPACE", default_value = "probe", requires = "cluster")]
    pub agent_namespace: String,
}

/// For commands that ask Kubernetes nothing else.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "In a cluster")]
pub struct KubeconfigArgs {
    /// The cluster's credentials. Default: as kubectl has it, KUBECONFIG or ~/.kube/config
    #[arg(long, value_name = "FILE", requires = "cluster")]
    pub kubeconfig: Option<PathBuf>,
}

/// The agents to ask, and as whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agents {
    /// None: as kubectl finds it.
    pub kubeconfig: Option<PathBuf>,
    pub context: Option<String>,
    pub namespace: String,
    /// Nodes; none: all.
    pub on: Vec<String>,
}

impl ClusterArgs {
    /// Whom to ask, where it is not this machine.
    pub fn agents(&self, kubeconfig: Option<&PathBuf>) -> Option<Agents> {
        self.cluster.then(|| Agents {
            kubeconfig: kubeconfig.cloned(),
            context: self.context.clone(),
            namespace: self.agent_namespace.clone(),
            on: self.on.clone(),
        })
    }
}

/// How often the agents' looks are shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterLooks {
    pub agents: Agents,
    pub json: bool,
    /// Once, or so often and so long.
    pub again: Option<(Duration, Option<Duration>)>,
}

impl ClusterLooks {
    /// # Errors
    /// A time that is none, or that has nothing to be the time of.
    pub fn of(
        agents: Agents,
        json: bool,
        once: bool,
        interval: Option<SignedDuration>,
        duration: Option<SignedDuration>,
    ) -> Result<Self, clap::Error> {
        let time = |option, time: Option<SignedDuration>| {
            time.map(|time| settings::positive(option, time)).transpose()
        };
        let interval = time("--interval", interval)?.filter(|_| !once);
        let duration = time("--duration", duration)?;
        if duration.is_some() && interval.is_none() {
            return Err(settings::usage(
                "with --cluster, the agents have looked already: --duration is how long to look again and again, every \
                 --interval"
                    .to_owned(),
            ));
        }
        Ok(Self {
            agents,
            json,
            again: interval.map(|interval| (interval, duration)),
        })
    }
}

impl Cli {
    /// Parses a command line, also that of `kubectl probe`.
    ///
    /// # Errors
    /// Usage, or help that was asked for.
    pub fn of(arguments: impl IntoIterator<Item = OsString>) -> Result<Self, clap::Error> {
        let mut arguments: Vec<OsString> = arguments.into_iter().collect();
        let mut command = Self::command();
        if is_plugin(arguments.first()) {
            command = command.bin_name("kubectl probe");
            imply_cluster(&mut arguments);
        }
        if let Some(color) = color(&arguments) {
            command = command.color(color);
        }
        let matches = command.try_get_matches_from_mut(arguments)?;
        if names_this_node(&matches) {
            return Err(command.error(
                ErrorKind::ArgumentConflict,
                "--node is this machine's name; with --cluster, --on NODE asks that node's agent",
            ));
        }
        Self::from_arg_matches(&matches).map_err(|error| error.format(&mut command))
    }
}

/// Whether the executable is called as kubectl calls a plugin.
fn is_plugin(executable: Option<&OsString>) -> bool {
    let name = executable.and_then(|executable| std::path::Path::new(executable).file_stem());
    name.is_some_and(|name| name == PLUGIN)
}

/// Asked of kubectl, the agents are meant.
fn imply_cluster(arguments: &mut Vec<OsString>) {
    let can = |command: &OsString| COMMANDS.iter().any(|name| command == name);
    let given = arguments.iter().any(|argument| argument == "--cluster");
    if arguments.get(1).is_some_and(can) && !given {
        arguments.insert(2, "--cluster".into());
    }
}

/// What `--color` says, for help and messages that are written before the command line is understood.
fn color(arguments: &[OsString]) -> Option<ColorChoice> {
    let mut arguments = arguments.iter().skip(1).take_while(|argument| *argument != "--");
    while let Some(argument) = arguments.next() {
        let text = argument.to_str().unwrap_or_default();
        let value = match text.strip_prefix("--color") {
            Some("") => arguments.next()?.to_str(),
            Some(rest) => rest.strip_prefix('='),
            None => None,
        };
        if let Some(value) = value {
            return ColorChoice::from_str(value, false).ok();
        }
    }
    None
}

/// Whether `--node` was given, not by the environment, to a command that asks agents.
fn names_this_node(matches: &ArgMatches) -> bool {
    let Some((name, command)) = matches.subcommand() else {
        return false;
    };
    COMMANDS.contains(&name)
        && command.get_flag("cluster")
        && command.try_contains_id("node").is_ok()
        && command.value_source("node") == Some(ValueSource::CommandLine)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Command;

    fn parsed(line: &str) -> Result<Command, String> {
        let words = line.split_whitespace().map(OsString::from);
        Cli::of(words)
            .map(|cli| cli.command)
            .map_err(|error| error.to_string())
    }

    fn agents(line: &str) -> Option<Agents> {
        match parsed(line).unwrap() {
            Command::Watch(args) => args.agents(),
            Command::Vxlan(args) => args.agents(),
            Command::Bypass(args) => args.agents(),
            Command::Doctor(args) => args.agents(),
            Command::Who(args) => args.agents(),
            Command::EtcdLog(args) => args.agents(),
            Command::Path(_)
            | Command::Check(_)
            | Command::Agent(_)
            | Command::Completions(_)
            | Command::Man(_) => None,
        }
    }

    #[test]
    fn whom_to_ask() {
        let plain = Agents {
            kubeconfig: None,
            context: None,
            namespace: "probe".to_owned(),
            on: Vec::new(),
        };
        let all = Agents {
            kubeconfig: Some("k".into()),
            context: Some("c".to_owned()),
            namespace: "n".to_owned(),
            on: vec!["alpha".to_owned(), "beta".to_owned()],
        };
        for command in ["watch", "vxlan", "bypass", "doctor", "who 10.0.0.1:1", "etcd-log"] {
            assert_eq!(agents(&format!("probe {command} --cluster")), Some(plain.clone()));
            let line = format!(
                "probe {command} --cluster --kubeconfig k --context c --agent-namespace n --on alpha,beta"
            );
            assert_eq!(agents(&line), Some(all.clone()));
            assert_eq!(
                agents(&format!("/usr/bin/kubectl-probe {command}")),
                Some(plain.clone())
            );
        }
        for command in ["watch", "who 10.0.0.1:1 --flows f", "check"] {
            assert_eq!(agents(&format!("probe {command}")), None);
        }
        assert_eq!(agents("kubectl-probe vxlan --cluster"), Some(plain));
        assert_eq!(agents("kubectl-probe check"), None);
    }

    #[test]
    fn color_before_the_command_line_is_understood() {
        for (line, expected) in [
            ("probe", None),
            ("probe --color=never --help", Some(ColorChoice::Never)),
            ("probe watch --color always", Some(ColorChoice::Always)),
            ("probe watch --color", None),
            ("probe watch --color red", None),
            ("probe watch --colour=never", None),
            ("probe watch -- --color=never", None),
        ] {
            let arguments: Vec<_> = line.split_whitespace().map(OsString::from).collect();
            assert_eq!(color(&arguments), expected, "{line}");
        }
    }

    #[test]
    fn what_is_refused_and_how() {
        for (line, says) in [
            ("probe watch --on beta", "--cluster"),
            ("probe watch --context c", "--cluster"),
            ("probe who 10.0.0.1:1", "--flows"),
            ("probe etcd-log", "--flows"),
            ("probe vxlan --kubeconfig k", "--cluster"),
            ("probe watch --cluster --netns n", "cannot be used with"),
            ("probe watch --cluster --ring-size 8MiB", "cannot be used with"),
            ("probe watch --cluster --no-explain", "cannot be used with"),
            ("probe watch --cluster --kubelet http://a", "cannot be used with"),
            ("probe watch --cluster --btf b", "cannot be used with"),
            ("probe vxlan --cluster --device d", "cannot be used with"),
            ("probe vxlan --cluster --flows", "cannot be used with"),
            ("probe bypass --cluster --cri c", "cannot be used with"),
            ("probe doctor --cluster --root r", "cannot be used with"),
            ("probe bypass --cluster --max-streams 64", "cannot be used with"),
            ("probe watch --cluster --node beta", "--on NODE"),
            ("probe watch --cluster -l app=web", "cannot be used with"),
            ("probe check --color red", "possible values: auto, always, never"),
            ("kubectl-probe watch --netns n", "cannot be used with"),
            ("kubectl-probe who", "kubectl probe who"),
            ("kubectl-probe --help", "kubectl probe"),
        ] {
            let error = parsed(line).expect_err(line);
            assert!(error.contains(says), "{line}: {error}");
        }
    }

    #[test]
    fn how_often_looks_are_shown() {
        let seconds = Duration::from_secs;
        for (line, again) in [
            ("", Some(None)),
            ("--once", Some(None)),
            ("--interval 2s", Some(Some((seconds(2), None)))),
            (
                "--interval 2s --duration 1m",
                Some(Some((seconds(2), Some(seconds(60))))),
            ),
            ("--interval 2s --once", Some(None)),
            ("--duration 1m", None),
            ("--interval 0s", None),
        ] {
            let Ok(Command::Vxlan(args)) = parsed(&format!("probe vxlan --cluster {line}")) else {
                panic!("{line}")
            };
            let looks = args.looks().unwrap();
            assert_eq!(looks.ok().map(|looks| looks.again), again, "{line}");
        }
    }
}
