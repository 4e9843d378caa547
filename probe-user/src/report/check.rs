//! `probe check`: what runs here, for people and as JSON.

use std::collections::BTreeMap;

use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;

use super::{escape, lines};
use crate::model::check::{CheckedHook, Command, KernelCheck, Program, Runs};

/// The longest reason shown; JSON has all of it.
const REASON: usize = 400;

/// Facts, a line for each program of each hook, and last how each command runs.
pub fn text(check: &KernelCheck) -> String {
    let mut out = format!("kernel {}\n", safe(&check.kernel));
    let width = check.facts.iter().map(|fact| fact.title.len()).max().unwrap_or(0);
    for fact in &check.facts {
        out.push_str(&format!("  {:width$}  {}\n", fact.title, safe(&fact.value)));
    }
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(["COMMAND", "FOR", "TRACEPOINT", "PROGRAM", "HERE"]);
    for command in &check.commands {
        for hook in &command.hooks {
            for program in &hook.programs {
                table.add_row([
                    command.name,
                    hook.gives,
                    program.tracepoint,
                    program.name,
                    here(hook, program),
                ]);
            }
        }
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    if table.row_count() > 0 {
        out.push('\n');
        out.push_str(&table.trim_fmt());
        out.push('\n');
    }
    let refused: Vec<_> = check.commands.iter().flat_map(refusals).collect();
    if !refused.is_empty() {
        out.push_str("\nRefused:\n");
        refused
            .iter()
            .for_each(|line| out.push_str(&format!("  {line}\n")));
    }
    let missing: Vec<_> = check
        .commands
        .iter()
        .flat_map(|command| command.absent.iter().map(|loss| (command.name, loss)))
        .collect();
    if !missing.is_empty() {
        out.push_str("\nMissing:\n");
        for (command, loss) in missing {
            out.push_str(&format!(
                "  {command}: {}, needed for {}\n",
                safe(&loss.what),
                safe(&loss.lost)
            ));
        }
    }
    out.push('\n');
    for command in &check.commands {
        let name = command.name;
        out.push_str(&match command.runs() {
            Runs::Fully => format!("{name}: all hooks available.\n"),
            Runs::Degraded(lost) => {
                format!("{name}: degraded, without {}.\n", safe(&lost.join(", ")))
            }
            Runs::Not(why) => format!("{name}: can't run: {}.\n", safe(&why)),
        });
    }
    out
}

fn here(hook: &CheckedHook, program: &Program) -> &'static str {
    if program.refused.is_some() {
        "refused"
    } else if hook.used() == Some(program) {
        "used"
    } else {
        "available"
    }
}

fn refusals(command: &Command) -> impl Iterator<Item = String> {
    command.hooks.iter().flat_map(|hook| {
        hook.programs.iter().filter_map(|program| {
            let reason = program.refused.as_ref()?;
            Some(format!("{}: {}", program.name, safe(reason)))
        })
    })
}

/// What `probe check` prints: one object.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "Check"))]
pub(super) struct CheckEvent<'a> {
    /// Always `check`.
    event: &'static str,
    /// The kernel's release.
    kernel: &'a str,
    #[serde(flatten)]
    #[cfg_attr(test, schemars(with = "tests::Facts"))]
    facts: BTreeMap<&'static str, &'a str>,
    /// Each command.
    commands: Vec<CheckCommand<'a>>,
}

/// How a command runs here.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct CheckCommand<'a> {
    /// `watch`, `vxlan`, `bypass` or `path`.
    command: &'static str,
    /// `fully`, `degraded` or `not at all`.
    runs: &'static str,
    /// What is lost, if degraded.
    #[serde(skip_serializing_if = "Option::is_none")]
    without: Option<Vec<String>>,
    /// Why, if not at all.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// Each hook that it wants.
    hooks: Vec<CheckHook<'a>>,
}

/// A hook that a command wants.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct CheckHook<'a> {
    /// What it reports.
    gives: &'static str,
    /// True if the command can't run without it.
    required: bool,
    /// The tracepoint, function or netfilter hook in use; absent: what the hook reports is lost.
    #[serde(skip_serializing_if = "Option::is_none")]
    tracepoint: Option<&'static str>,
    /// The program in use.
    #[serde(skip_serializing_if = "Option::is_none")]
    program: Option<&'static str>,
    /// The programs that this kernel refused, each with the reason.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    refused: BTreeMap<&'static str, &'a str>,
}

/// One object.
///
/// # Errors
/// None in practice: all of it is JSON.
pub fn json(check: &KernelCheck) -> serde_json::Result<String> {
    let KernelCheck {
        kernel,
        facts,
        commands,
    } = check;
    lines::to_string(&CheckEvent {
        event: "check",
        kernel,
        facts: facts
            .iter()
            .map(|fact| (fact.name, fact.value.as_str()))
            .collect(),
        commands: commands.iter().map(command).collect(),
    })
}

fn command(command: &Command) -> CheckCommand<'_> {
    let runs = command.runs();
    let name = runs.name();
    let (without, reason) = match runs {
        Runs::Fully => (None, None),
        Runs::Degraded(lost) => (Some(lost), None),
        Runs::Not(why) => (None, Some(why)),
    };
    CheckCommand {
        command: command.name,
        runs: name,
        without,
        reason,
        hooks: command.hooks.iter().map(hook).collect(),
    }
}

fn hook(hook: &CheckedHook) -> CheckHook<'_> {
    let CheckedHook {
        gives,
        required,
        programs,
    } = hook;
    let used = hook.used();
    let refused = programs
        .iter()
        .filter_map(|program| Some((program.name, program.refused.as_deref()?)));
    CheckHook {
        gives,
        required: *required,
        tracepoint: used.map(|used| used.tracepoint),
        program: used.map(|used| used.name),
        refused: refused.collect(),
    }
}

/// Words of the kernel and of files, fit for a terminal.
fn safe(text: &str) -> String {
    escape::text(text, REASON)
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::model::check::{Fact, Loss, Program};

    /// The facts by name: `commands/check.rs` finds them, in words.
    #[derive(schemars::JsonSchema)]
    #[expect(dead_code, reason = "for its schema")]
    pub struct Facts {
        /// Type information of the kernel.
        btf: String,
        /// Lockdown, which can forbid to read kernel memory.
        lockdown: String,
        /// Where tracefs is mounted.
        tracefs: String,
        /// The version of cgroups.
        control_groups: String,
        /// conntrack.
        conntrack: String,
        /// The capabilities of this process.
        capabilities: String,
    }

    fn sample() -> KernelCheck {
        let program = |tracepoint, name, refused: Option<&str>| Program {
            name,
            tracepoint,
            refused: refused.map(str::to_owned),
        };
        KernelCheck {
            kernel: "6.1.0-50-amd64".to_owned(),
            facts: vec![Fact {
                name: "lockdown",
                title: "lockdown",
                value: "none\x1b[2J".to_owned(),
            }],
            commands: vec![Command {
                name: "watch",
                hooks: vec![
                    CheckedHook {
                        gives: "connections",
                        required: true,
                        programs: vec![
                            program("state", "typed", Some("the verifier refuses it: R1 invalid")),
                            program("state", "raw", None),
                            program("other", "also", None),
                        ],
                    },
                    CheckedHook {
                        gives: "syn-only",
                        required: false,
                        programs: vec![program("synack", "again", Some("no such tracepoint"))],
                    },
                ],
                absent: vec![Loss {
                    what: "struct css_set.dfl_cgrp".to_owned(),
                    lost: "names of containers and pods".to_owned(),
                }],
                fault: None,
            }],
        }
    }

    #[test]
    fn for_people() {
        let text = text(&sample());
        assert_eq!(
            text,
            "kernel 6.1.0-50-amd64\n  lockdown  none\\x1b[2J\n\n\
             COMMAND  FOR          TRACEPOINT  PROGRAM  HERE\n\
             watch    connections  state       typed    refused\n\
             watch    connections  state       raw      used\n\
             watch    connections  other       also     available\n\
             watch    syn-only     synack      again    refused\n\n\
             Refused:\n  typed: the verifier refuses it: R1 invalid\n  again: no such tracepoint\n\n\
             Missing:\n  watch: struct css_set.dfl_cgrp, needed for names of containers and pods\n\n\
             watch: degraded, without syn-only, names of containers and pods.\n"
        );
    }

    /// What reaches the terminal of `-o json` moves and hides nothing, and means the same.
    #[test]
    fn json_on_a_terminal() {
        let tricks = "a\u{9b}2J\u{202e}b\u{7f}\u{200b}";
        let mut check = sample();
        tricks.clone_into(&mut check.kernel);
        tricks.clone_into(&mut check.facts[0].value);
        check.commands[0].hooks[0].programs[0].refused = Some(tricks.to_owned());
        tricks.clone_into(&mut check.commands[0].absent[0].lost);
        let json = json(&check).unwrap();
        assert_eq!(
            json.matches("a\\u009b2J\\u202eb\\u007f\\u200b").count(),
            4,
            "{json}"
        );
        assert!(json.bytes().all(|byte| matches!(byte, b' '..=b'~')), "{json}");
        let value: Value = serde_json::from_str(&json).unwrap();
        assert_eq!(value["kernel"], tricks);
    }

    #[test]
    fn as_json() {
        let value: Value = serde_json::from_str(&json(&sample()).unwrap()).unwrap();
        assert_eq!(value["event"], "check");
        assert_eq!(value["lockdown"], "none\x1b[2J");
        let watch = &value["commands"][0];
        assert_eq!(
            (&watch["command"], &watch["runs"]),
            (&"watch".into(), &"degraded".into())
        );
        assert_eq!(watch["without"][0], "syn-only");
        let hooks = &watch["hooks"];
        assert_eq!(
            (&hooks[0]["tracepoint"], &hooks[0]["program"]),
            (&"state".into(), &"raw".into())
        );
        assert_eq!(
            hooks[0]["refused"]["typed"],
            "the verifier refuses it: R1 invalid"
        );
        assert_eq!(hooks[1]["gives"], "syn-only");
        assert!(watch["hooks"][1].get("program").is_none());
    }
}
