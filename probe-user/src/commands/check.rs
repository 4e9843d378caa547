//! `probe check`: tries all that the commands need of this kernel, and says what runs.

use anyhow::Result;

use super::print;
use crate::{
    cli::Check as Settings,
    kernel::{
        self, KernelError, bypass,
        capabilities::{self, Need},
        connection, drops,
        object::Checked,
        path, system, tls,
        types::KernelTypes,
        vxlan,
    },
    model::{
        Verdict,
        check::{CheckedHook, Command, Fact, KernelCheck, Loss, Program, Runs},
    },
    report,
};

/// Prints what runs here; `faulty` if a command does not run at all.
///
/// # Errors
/// When the output can't be written.
pub fn run(settings: Settings) -> Result<Verdict> {
    // Held for all objects. What is wrong with them is said by each command.
    let _types = KernelTypes::hold(&settings.source);
    let check = KernelCheck {
        kernel: kernel::release(),
        facts: facts(&settings),
        commands: vec![
            command("watch", &capabilities::WATCH, || {
                Ok(connection::check(settings.source.clone())?
                    .and(drops::check(settings.source.clone())?)
                    .and(tls::check(&settings.source)?))
            }),
            command("vxlan", &capabilities::VXLAN, || {
                vxlan::check(settings.source.clone())
            }),
            command("bypass", &capabilities::BYPASS, || {
                bypass::check(settings.source.clone())
            }),
            command("path", &capabilities::PATH, || {
                path::check(settings.source.clone())
            }),
        ],
    };
    let text = if settings.json {
        report::check::json(&check)? + "\n"
    } else {
        report::check::text(&check)
    };
    print(text)?;
    let mut commands = check.commands.iter();
    Ok(Verdict::of(
        commands.any(|command| matches!(command.runs(), Runs::Not(_))),
        true,
    ))
}

fn facts(settings: &Settings) -> Vec<Fact> {
    let mut all = [
        capabilities::WATCH.as_slice(),
        &capabilities::VXLAN,
        &capabilities::BYPASS,
        &capabilities::PATH,
    ]
    .concat();
    all.sort_by_key(|need| need.capability as u8);
    all.dedup_by_key(|need| need.capability);
    let missing = capabilities::missing(&all);
    let capabilities = if missing.is_empty() {
        "all requested".to_owned()
    } else {
        let list: Vec<_> = missing.iter().map(|need| need.capability.to_string()).collect();
        format!("without {}", list.join(", "))
    };
    [
        (
            "btf",
            "type information",
            system::type_information(&settings.source.btf),
        ),
        ("lockdown", "lockdown", system::lockdown()),
        ("tracefs", "tracefs", system::tracefs()),
        ("control_groups", "control groups", system::control_groups()),
        ("conntrack", "conntrack", system::conntrack()),
        ("capabilities", "capabilities", capabilities),
    ]
    .into_iter()
    .map(|(name, title, value)| Fact { name, title, value })
    .collect()
}

/// Tries one command: what it takes of this process, and of the kernel.
fn command(
    name: &'static str,
    needs: &[Need],
    check: impl FnOnce() -> Result<Checked, KernelError>,
) -> Command {
    let mut command = Command {
        name,
        hooks: Vec::new(),
        absent: Vec::new(),
        fault: None,
    };
    for need in capabilities::missing(needs) {
        let (what, takes) = (
            need.capability.to_string(),
            format!("{} is needed to {}", need.capability, need.purpose),
        );
        match need.lost {
            Some(lost) => command.absent.push(Loss {
                what,
                lost: lost.to_owned(),
            }),
            None => command.fault = command.fault.or(Some(takes)),
        }
    }
    if command.fault.is_some() {
        return command;
    }
    match check() {
        Ok(checked) => {
            command
                .absent
                .extend(checked.absent.into_iter().map(|absent| Loss {
                    what: absent.what,
                    lost: absent.lost.to_owned(),
                }));
            command.hooks = checked
                .hooks
                .into_iter()
                .map(|(hook, attempts)| CheckedHook {
                    gives: hook.gives,
                    required: hook.required,
                    programs: attempts
                        .into_iter()
                        .map(|attempt| Program {
                            name: attempt.program.name,
                            tracepoint: attempt.program.tracepoint,
                            refused: attempt.refused,
                        })
                        .collect(),
                })
                .collect();
        }
        Err(error) => command.fault = Some(error.to_string()),
    }
    command
}
