//! `--cluster`: what of a command's work the agents of a cluster do.

use std::{ffi::OsString, path::PathBuf, time::Duration};

use clap::{
    ArgMatches, Args, ColorChoice, Command, CommandFactory, FromArgMatches, ValueEnum as _, error::ErrorKind,
    parser::ValueSource,
};
use jiff::SignedDuration;

use super::{Cli, settings};

/// What `kubectl probe` runs.
const PLUGIN: &str = "kubectl-probe";

/// Whom to ask.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "In a cluster")]
pub struct ClusterArgs {
    /// Query probe's agents in the cluster instead of this machine's kernel, through the API server's port-forward. Needs a
    /// kubeconfig and nothing else (docs/cluster.md)
    #[arg(long)]
    pub cluster: bool,

    /// Query only the agent on this node; repeat or separate by commas. Default: every node
    #[arg(
        long = "node",
        alias = "on",
        value_name = "NODE",
        value_delimiter = ',',
        requires = "cluster"
    )]
    pub nodes: Vec<String>,

    /// Context of the kubeconfig. Default: its current context
    #[arg(long, value_name = "NAME", requires = "cluster")]
    pub context: Option<String>,

    /// Namespace of the agents
    #[arg(long, value_name = "NAMESPACE", default_value = "probe", requires = "cluster")]
    pub agent_namespace: String,
}

/// For commands that ask Kubernetes nothing else.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "In a cluster")]
pub struct KubeconfigArgs {
    /// Kubeconfig of the cluster. Default: as kubectl finds it, KUBECONFIG or ~/.kube/config
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
    /// None: all.
    pub nodes: Vec<String>,
}

impl ClusterArgs {
    /// Whom to ask, where it is not this machine.
    pub fn agents(&self, kubeconfig: Option<&PathBuf>) -> Option<Agents> {
        self.cluster.then(|| Agents {
            kubeconfig: kubeconfig.cloned(),
            context: self.context.clone(),
            namespace: self.agent_namespace.clone(),
            nodes: self.nodes.clone(),
        })
    }
}

/// How often the agents' snapshots are shown.
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
        duration: Option<Duration>,
    ) -> Result<Self, clap::Error> {
        let positive = |time| settings::positive("--interval", time);
        let interval = interval.map(positive).transpose()?.filter(|_| !once);
        if duration.is_some() && interval.is_none() {
            return Err(settings::usage(
                "with --cluster, --duration needs --interval: the agents' latest snapshots are printed at once, or again \
                 every --interval"
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
            imply_cluster(&command, &mut arguments);
        }
        if let Some(color) = color(&arguments) {
            command = command.color(color);
        }
        let matches = command.try_get_matches_from_mut(arguments)?;
        if let Some(error) = nodes(&matches) {
            return Err(command.error(ErrorKind::ArgumentConflict, error));
        }
        Self::from_arg_matches(&matches).map_err(|error| error.format(&mut command))
    }
}

/// Whether the executable is called as kubectl calls a plugin.
fn is_plugin(executable: Option<&OsString>) -> bool {
    let name = executable.and_then(|executable| std::path::Path::new(executable).file_stem());
    name.is_some_and(|name| name == PLUGIN)
}

/// Asked of kubectl, the agents are meant, by the commands that can ask them.
fn imply_cluster(command: &Command, arguments: &mut Vec<OsString>) {
    let can = |name: &OsString| {
        let command = command.find_subcommand(name);
        command.is_some_and(|command| {
            command
                .get_arguments()
                .any(|argument| argument.get_id() == "cluster")
        })
    };
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

/// What is wrong with the names of nodes: this node's name makes no sense where agents are asked, several nodes can't be
/// selected where none are.
fn nodes(matches: &ArgMatches) -> Option<&'static str> {
    let (_, command) = matches.subcommand()?;
    // Without debug assertions clap does not say that a command has no such argument; a flag that it has always has a value.
    let cluster = *command.try_get_one::<bool>("cluster").ok()??;
    let names_this = command.try_contains_id("node_name").is_ok()
        && command.value_source("node_name") == Some(ValueSource::CommandLine);
    let selected = command.get_many::<String>("nodes").map_or(0, Iterator::count);
    if cluster && names_this {
        Some("--node-name is the name of this node; with --cluster, --node NODE selects the nodes to query")
    } else if !cluster && (selected > 1 || selected == 1 && names_this) {
        Some("--node selects nodes of a cluster: it needs --cluster")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Bypass, Command as Parsed, Doctor, Path, Vxlan, Watch};

    /// What fixes print, people paste.
    #[test]
    fn commands_of_fixes_are_ours() {
        for fix in crate::model::probe_command::examples() {
            let printed = fix.to_string();
            assert_eq!(parsed(&printed).err(), None, "{printed}");
        }
        for wrong in ["probe path 10.96.0.1:443", "probe path --port 53 --protocol udp"] {
            assert!(parsed(wrong).is_err(), "{wrong}");
        }
    }

    fn parsed(line: &str) -> Result<Parsed, String> {
        let words = line.split_whitespace().map(OsString::from);
        Cli::of(words)
            .map(|cli| cli.command)
            .map_err(|error| error.to_string())
    }

    fn agents(line: &str) -> Option<Agents> {
        match parsed(line).unwrap() {
            Parsed::Watch(args) => args.agents(),
            Parsed::Vxlan(args) => args.agents(),
            Parsed::Bypass(args) => args.agents(),
            Parsed::Doctor(args) => args.agents(),
            Parsed::Who(args) => args.agents(),
            Parsed::EtcdLog(args) => args.agents(),
            Parsed::Path(_)
            | Parsed::Check(_)
            | Parsed::Agent(_)
            | Parsed::Completions(_)
            | Parsed::Man(_)
            | Parsed::Schema(_) => None,
        }
    }

    #[test]
    fn whom_to_ask() {
        let plain = Agents {
            kubeconfig: None,
            context: None,
            namespace: "probe".to_owned(),
            nodes: Vec::new(),
        };
        let all = Agents {
            kubeconfig: Some("k".into()),
            context: Some("c".to_owned()),
            namespace: "n".to_owned(),
            nodes: vec!["alpha".to_owned(), "beta".to_owned()],
        };
        for command in ["watch", "vxlan", "bypass", "doctor", "who 10.0.0.1:1", "etcd-log"] {
            assert_eq!(agents(&format!("probe {command} --cluster")), Some(plain.clone()));
            let line = format!(
                "probe {command} --cluster --kubeconfig k --context c --agent-namespace n --node alpha,beta"
            );
            assert_eq!(agents(&line), Some(all.clone()));
            assert_eq!(agents(&line.replace("--node", "--on")), Some(all.clone()));
            assert_eq!(
                agents(&format!("/usr/bin/kubectl-probe {command}")),
                Some(plain.clone())
            );
        }
        for command in ["watch", "who 10.0.0.1:1 --flows f", "check"] {
            assert_eq!(agents(&format!("probe {command}")), None);
        }
        assert_eq!(agents("kubectl-probe vxlan --cluster"), Some(plain.clone()));
        assert_eq!(agents("kubectl-probe notrack"), Some(plain));
        assert_eq!(agents("kubectl-probe check"), None);
    }

    fn node_name(line: &str) -> Option<String> {
        match parsed(line).unwrap() {
            Parsed::Watch(args) => Watch::try_from(*args).unwrap().node,
            Parsed::Path(args) => Path::try_from(args).unwrap().node,
            Parsed::Doctor(args) => Doctor::try_from(args).unwrap().node,
            Parsed::Vxlan(args) => Vxlan::try_from(args).unwrap().pace.node,
            Parsed::Bypass(args) => Bypass::try_from(args).unwrap().pace.node,
            Parsed::Who(_)
            | Parsed::EtcdLog(_)
            | Parsed::Check(_)
            | Parsed::Agent(_)
            | Parsed::Completions(_)
            | Parsed::Man(_)
            | Parsed::Schema(_) => None,
        }
    }

    #[test]
    fn the_name_of_this_node() {
        for command in ["watch", "path", "doctor", "vxlan", "bypass"] {
            let name = node_name(&format!("probe {command} --node-name beta"));
            assert_eq!(name.as_deref(), Some("beta"), "{command}");
        }
        // Its former spelling, where that can't mean another node.
        for command in ["watch", "path"] {
            let name = node_name(&format!("probe {command} --node beta"));
            assert_eq!(name.as_deref(), Some("beta"), "{command}");
        }
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
            ("probe vxlan --node beta", "--cluster"),
            ("probe who 10.0.0.1:1 --flows f --node beta", "--cluster"),
            ("probe watch --node alpha,beta", "--cluster"),
            ("probe watch --node alpha --node-name beta", "--cluster"),
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
            ("probe watch --cluster --node-name beta", "--node NODE"),
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
            let Ok(Parsed::Vxlan(args)) = parsed(&format!("probe vxlan --cluster {line}")) else {
                panic!("{line}")
            };
            let looks = args.looks().unwrap();
            assert_eq!(looks.ok().map(|looks| looks.again), again, "{line}");
        }
    }
}
