//! Which room may use which, as docs/design.md draws the arrows.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    exceptions::{Exception, Exceptions},
    source::{Contents, Source, Use},
};

/// A crate of the workspace and what it depends on, tests aside.
#[derive(Clone, Debug)]
pub struct Package {
    pub name: String,
    pub dependencies: Vec<String>,
}

/// A rule, by the name that exceptions call it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    Dependencies,
    Commands,
    Report,
    Aya,
    Cli,
    Below,
    Features,
    Pure,
    Json,
    Lists,
    OneDefinition,
    OneName,
}

impl Rule {
    /// The rule in a sentence.
    pub const fn says(self) -> &'static str {
        match self {
            Self::Dependencies => "a crate depends on what its layer allows",
            Self::Commands => "only main.rs uses commands",
            Self::Report => "report uses the model and nothing else",
            Self::Aya => "only kernel names aya",
            Self::Cli => "cli parses and validates, it uses no room that reads the machine",
            Self::Below => "attribution, netfilter, recording and cluster use no room above them",
            Self::Features => "a command uses no other command, except those that put several together",
            Self::Pure => "the model has no files, sockets, processes, threads or clock",
            Self::Json => "JSON is written by report/lines.rs, which escapes it for terminals",
            Self::Lists => "an enumeration with a list of its values is made by names!",
            Self::OneDefinition => "a public type of the model has one definition",
            Self::OneName => "one type in the tree has this name",
        }
    }
}

/// What breaks a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    pub path: String,
    pub line: usize,
    pub rule: Rule,
    /// What is used or defined there.
    pub what: String,
}

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            path,
            line,
            rule,
            what,
        } = self;
        write!(f, "{path}:{line}: {what}: {}", rule.says())
    }
}

/// What the model does without, and the kernel's side of it.
const NOT_IN_THE_MODEL: [&str; 8] = ["tokio", "aya", "kube", "hyper", "http", "nix", "libc", "socket2"];
/// Rooms that read the machine or the cluster, and those above `cli`.
const NOT_IN_CLI: [&str; 11] = [
    "attribution",
    "capture",
    "cluster",
    "commands",
    "host",
    "kernel",
    "netfilter",
    "recording",
    "rtnetlink",
    "serve",
    "tls",
];
const BELOW: [&str; 4] = ["attribution", "netfilter", "recording", "cluster"];
/// Subcommands, below `commands`.
const FEATURES: [&str; 10] = [
    "agent", "bypass", "check", "cluster", "doctor", "etcd_log", "path", "vxlan", "watch", "who",
];
/// What puts several of them together.
const AGGREGATORS: [&str; 6] = [
    "commands",
    "commands::dispatch",
    "commands::agent",
    "commands::cluster",
    "commands::doctor",
    "commands::watch::explain",
];
/// Names that one type of probe-model and probe-user may have, whether it is public or not: those of what everything is about,
/// and those that say so little that each reader has to look up what they hold.
const ONE_NAME: [&str; 13] = [
    "Answer",
    "Cause",
    "Connection",
    "End",
    "Finding",
    "Found",
    "Known",
    "Line",
    "Look",
    "Node",
    "Place",
    "Question",
    "Seen",
];

/// Where the lists are made.
const NAMES: &str = "probe-model/src/names.rs";

/// Holds everything against every rule; sentences, one for each place that breaks one.
pub fn check(packages: &[Package], sources: &[Source], exceptions: &Exceptions<'_>) -> Vec<String> {
    let mut found: Vec<_> = packages.iter().flat_map(dependencies).collect();
    let mut definitions = BTreeMap::<String, Vec<(String, usize)>>::new();
    let mut named = BTreeMap::<String, Vec<(String, usize)>>::new();
    for source in sources.iter().filter(|source| !source.is_test()) {
        let Some(below) = source.below_src() else { continue };
        let Contents { uses, types, lists } = source.contents();
        let lists = lists.into_iter().filter(|_| source.path != NAMES);
        found.extend(lists.map(|line| Violation {
            path: source.path.clone(),
            line,
            rule: Rule::Lists,
            what: "ALL".to_owned(),
        }));
        for one in &uses {
            let rules = if source.path.starts_with("probe-model/") {
                model(one)
            } else {
                room(below, one)
            };
            found.extend(rules.into_iter().map(|rule| Violation {
                path: source.path.clone(),
                line: one.line,
                rule,
                what: one.to.join("::"),
            }));
        }
        for definition in types {
            let at = (source.path.clone(), definition.line);
            if ONE_NAME.contains(&definition.name.as_str()) {
                named.entry(definition.name.clone()).or_default().push(at.clone());
            }
            if definition.public && source.path.starts_with("probe-model/") {
                definitions.entry(definition.name).or_default().push(at);
            }
        }
    }
    found.extend(several(definitions, Rule::OneDefinition));
    found.extend(several(named, Rule::OneName));
    forgiven(found, exceptions.0)
}

/// Types that have more than one definition, each as many times as that; where the model has one, that is the one to keep.
fn several(
    definitions: BTreeMap<String, Vec<(String, usize)>>,
    rule: Rule,
) -> impl Iterator<Item = Violation> {
    let is_model = |path: &str| path.starts_with("probe-model/");
    definitions
        .into_iter()
        .filter(|(_, places)| places.len() > 1)
        .flat_map(move |(what, mut places)| {
            if places.iter().filter(|(path, _)| is_model(path)).count() == 1 {
                places.retain(|(path, _)| !is_model(path));
            }
            places.into_iter().map(move |(path, line)| Violation {
                path,
                line,
                rule,
                what: what.clone(),
            })
        })
}

/// Without the exceptions; one that nothing needs is a fault, too.
fn forgiven(found: Vec<Violation>, exceptions: &[Exception]) -> Vec<String> {
    let mut needed = BTreeSet::new();
    let mut said: BTreeSet<_> = BTreeSet::new();
    for violation in found {
        let forgives = |exception: &Exception| {
            exception.rule == violation.rule
                && violation.path.contains(exception.place)
                && is_below(&violation.what, exception.what)
        };
        let forgiven: Vec<_> = (0..exceptions.len())
            .filter(|at| exceptions.get(*at).is_some_and(forgives))
            .collect();
        if forgiven.is_empty() {
            said.insert((violation.path.clone(), violation.line, violation.to_string()));
        }
        needed.extend(forgiven);
    }
    let idle = exceptions.iter().enumerate();
    let idle = idle.filter(|(at, _)| !needed.contains(at)).map(|(_, exception)| {
        format!(
            "xtask/src/architecture/exceptions.rs: {} in {} needs no exception any more ({}): take it out",
            exception.what, exception.place, exception.reason
        )
    });
    said.into_iter().map(|(_, _, said)| said).chain(idle).collect()
}

/// Whether a path is another, or in it.
fn is_below(path: &str, above: &str) -> bool {
    path.strip_prefix(above)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

fn dependencies(package: &Package) -> Vec<Violation> {
    let is_ours = |name: &str| name == "xtask" || name.starts_with("probe-");
    let allows = |dependency: &str| match package.name.as_str() {
        "probe-ebpf" => !is_ours(dependency),
        "probe-model" => {
            !NOT_IN_THE_MODEL.contains(&dependency) && (!is_ours(dependency) || dependency == "probe-ebpf")
        }
        _ => true,
    };
    let forbidden = package.dependencies.iter().filter(|name| !allows(name));
    forbidden
        .map(|name| Violation {
            path: format!("{}/Cargo.toml", package.name),
            line: 1,
            rule: Rule::Dependencies,
            what: name.clone(),
        })
        .collect()
}

/// The rules of probe-user that a use breaks.
fn room(file: &str, one: &Use) -> Vec<Rule> {
    let first = |path: &[String]| path.first().cloned().unwrap_or_default();
    let (from, to) = (first(&one.from), first(&one.to));
    let (from, to) = (from.as_str(), to.as_str());
    let mut broken = Vec::new();
    if to == "serde_json"
        && one
            .to
            .get(1)
            .is_some_and(|name| ["to_string", "to_vec", "to_writer"].contains(&name.as_str()))
        && file != "report/lines.rs"
    {
        broken.push(Rule::Json);
    }
    if !one.ours {
        // System calls: the host's name, users, files.
        if from == "cli" && to == "nix" {
            broken.push(Rule::Cli);
        }
        if ["aya", "aya_obj", "aya_log"].contains(&to) && from != "kernel" {
            broken.push(Rule::Aya);
        }
        return broken;
    }
    if to == "commands" && from != "commands" && !["main.rs", "lib.rs"].contains(&file) {
        broken.push(Rule::Commands);
    }
    if from == "report" && !["model", "report"].contains(&to) {
        broken.push(Rule::Report);
    }
    if from == "cli" && NOT_IN_CLI.contains(&to) {
        broken.push(Rule::Cli);
    }
    if BELOW.contains(&from) && ["commands", "cli", "report"].contains(&to) {
        broken.push(Rule::Below);
    }
    if from == "commands"
        && to == "commands"
        && let Some(feature) = one.to.get(1)
        && FEATURES.contains(&feature.as_str())
        && one.from.get(1) != Some(feature)
        && !is_aggregator(&one.from)
    {
        broken.push(Rule::Features);
    }
    broken
}

fn is_aggregator(module: &[String]) -> bool {
    let module = module.join("::");
    AGGREGATORS.iter().any(|aggregator| {
        // What is in `commands` itself is each of its modules.
        module == *aggregator || *aggregator != "commands" && is_below(&module, aggregator)
    })
}

/// The rules of probe-model that a use breaks.
fn model(one: &Use) -> Vec<Rule> {
    let path: Vec<_> = one.to.iter().map(String::as_str).collect();
    let forbidden = match path.as_slice() {
        ["std", "fs" | "process" | "thread" | "env" | "os", ..] => true,
        ["std", "net", name, ..] => ![
            "AddrParseError",
            "IpAddr",
            "Ipv4Addr",
            "Ipv6Addr",
            "SocketAddr",
            "SocketAddrV4",
            "SocketAddrV6",
        ]
        .contains(name),
        ["std", "time", "SystemTime", ..] => true,
        [.., "Timestamp" | "Zoned" | "Instant" | "SystemTime", "now"] => true,
        _ => false,
    };
    if !one.ours && forbidden {
        vec![Rule::Pure]
    } else {
        Vec::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told_with(sources: &[(&str, &str)], exceptions: &[Exception]) -> Vec<String> {
        let sources: Vec<_> = sources
            .iter()
            .map(|(path, text)| Source {
                path: (*path).to_owned(),
                text: (*text).to_owned(),
            })
            .collect();
        check(&[], &sources, &Exceptions(exceptions))
    }

    fn told(path: &str, text: &str) -> Vec<String> {
        told_with(&[(path, text)], &[])
    }

    #[test]
    fn dependencies_of_crates() {
        let package = |name: &str, dependencies: &[&str]| Package {
            name: name.to_owned(),
            dependencies: dependencies.iter().map(|&name| name.to_owned()).collect(),
        };
        let packages = [
            package("probe-ebpf", &["bytemuck", "probe-model"]),
            package("probe-model", &["serde", "tokio", "probe-ebpf", "probe-user"]),
            package("probe-user", &["tokio", "probe-model"]),
        ];
        let told = check(&packages, &[], &Exceptions(&[]));
        assert_eq!(
            told,
            [
                "probe-ebpf/Cargo.toml:1: probe-model: a crate depends on what its layer allows",
                "probe-model/Cargo.toml:1: probe-user: a crate depends on what its layer allows",
                "probe-model/Cargo.toml:1: tokio: a crate depends on what its layer allows",
            ]
        );
    }

    #[test]
    fn arrows_between_rooms() {
        for (file, text, rule) in [
            ("main.rs", "use probe_user::commands;", None),
            (
                "host/files.rs",
                "use crate::commands::clock;",
                Some(Rule::Commands),
            ),
            ("commands/who.rs", "use crate::commands::clock;", None),
            (
                "report/text.rs",
                "use crate::{model::Owner, report::escape};",
                None,
            ),
            (
                "report/text.rs",
                "fn f(x: crate::kernel::Y) {}",
                Some(Rule::Report),
            ),
            ("report/text.rs", "#[cfg(test)]\nuse crate::kernel;", None),
            ("kernel/maps.rs", "use aya::Ebpf;", None),
            ("host/files.rs", "fn f(x: aya::Ebpf) {}", Some(Rule::Aya)),
            ("cli/path.rs", "use crate::{model, report::Format};", None),
            ("cli/path.rs", "use crate::host::files;", Some(Rule::Cli)),
            ("cli.rs", "use crate::rtnetlink;", Some(Rule::Cli)),
            (
                "cli/settings.rs",
                "fn f() { nix::unistd::gethostname() }",
                Some(Rule::Cli),
            ),
            ("host/mod.rs", "use nix::unistd;", None),
            ("recording/read.rs", "use crate::report::say;", Some(Rule::Below)),
            ("cluster/ask.rs", "use super::super::cli;", Some(Rule::Below)),
            ("commands/vxlan.rs", "use super::bypass::f;", Some(Rule::Features)),
            (
                "commands/vxlan/rules.rs",
                "use super::super::bypass;",
                Some(Rule::Features),
            ),
            ("commands/vxlan/rules.rs", "use super::snapshot;", None),
            ("commands/vxlan.rs", "use super::periodic;", None),
            ("commands/rules.rs", "use super::vxlan;", Some(Rule::Features)),
            (
                "commands/watch/tls.rs",
                "use crate::commands::bypass;",
                Some(Rule::Features),
            ),
            (
                "commands/watch/explain/mod.rs",
                "use crate::commands::bypass;",
                None,
            ),
            ("commands/agent/log.rs", "use crate::commands::watch;", None),
            ("commands/dispatch.rs", "use super::{agent, watch};", None),
            (
                "commands/who.rs",
                "fn f() { serde_json::to_string(&x) }",
                Some(Rule::Json),
            ),
            ("report/lines.rs", "use serde_json::to_writer;", None),
        ] {
            let path = format!("probe-user/src/{file}");
            let expected: Vec<_> = rule.map(Rule::says).into_iter().collect();
            let told = told(&path, text);
            let told: Vec<_> = told
                .iter()
                .filter_map(|said| {
                    assert!(said.starts_with(&path), "{said}");
                    Some(said.rsplit_once(": ")?.1)
                })
                .collect();
            assert_eq!(told, expected, "{file}: {text}");
        }
    }

    #[test]
    fn the_model_is_pure() {
        for (text, forbidden) in [
            ("use std::{collections::HashMap, fs};", true),
            ("use std::net::{IpAddr, SocketAddr};", false),
            ("use std::net::{IpAddr, TcpStream};", true),
            ("use std::time::{Duration, Instant};", false),
            ("fn f() { Instant::now() }", true),
            ("fn f() { jiff::Timestamp::now() }", true),
            ("fn f() -> std::time::SystemTime {}", true),
            ("fn f() { std::thread::sleep(x) }", true),
            ("#[cfg(test)]\nmod tests { fn f() { std::fs::read(x) } }", false),
        ] {
            assert_eq!(
                !told("probe-model/src/x.rs", text).is_empty(),
                forbidden,
                "{text}"
            );
        }
        assert!(told("probe-user/src/host/files.rs", "use std::fs;").is_empty());
    }

    #[test]
    fn one_definition_of_each_type() {
        let sources = [
            (
                "probe-model/src/a.rs",
                "pub struct Fault;\npub enum Other {}\nstruct Private;",
            ),
            ("probe-model/src/b.rs", "\npub struct Fault;\nstruct Private;"),
            ("probe-user/src/c.rs", "pub struct Other;"),
        ];
        assert_eq!(
            told_with(&sources, &[]),
            [
                "probe-model/src/a.rs:1: Fault: a public type of the model has one definition",
                "probe-model/src/b.rs:2: Fault: a public type of the model has one definition",
            ]
        );
        let sources = [
            ("probe-model/src/a.rs", "struct Seen;"),
            ("probe-user/src/b.rs", "struct Seen;\nstruct Known;"),
        ];
        assert_eq!(
            told_with(&sources, &[]),
            ["probe-user/src/b.rs:1: Seen: one type in the tree has this name"]
        );
        let sources = [
            ("probe-user/src/a.rs", "struct Seen;"),
            ("probe-user/src/b.rs", "struct Seen;"),
        ];
        assert_eq!(told_with(&sources, &[]).len(), 2);
    }

    #[test]
    fn a_list_written_by_hand() {
        assert_eq!(
            told(
                "probe-user/src/x.rs",
                "impl A { const ALL: [Self; 1] = [Self::B]; }"
            ),
            ["probe-user/src/x.rs:1: ALL: an enumeration with a list of its values is made by names!"]
        );
    }

    /// The list of exceptions can only get shorter.
    #[test]
    fn an_exception_that_nothing_needs() {
        let exception = Exception {
            rule: Rule::Cli,
            place: "probe-user/src/cli",
            what: "kernel::object::Source",
            reason: "a setting",
        };
        let uses = |text| told_with(&[("probe-user/src/cli/path.rs", text)], &[exception]);
        assert_eq!(uses("use crate::kernel::object::Source;"), [""; 0]);
        assert_eq!(uses("use crate::kernel::object::{Source, Object};").len(), 1);
        assert_eq!(
            uses("use crate::model;"),
            [
                "xtask/src/architecture/exceptions.rs: kernel::object::Source in probe-user/src/cli needs no exception any \
              more (a setting): take it out"
            ]
        );
    }
}
