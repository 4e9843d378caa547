//! What a kernel and this process can do for each command.

/// All that `probe check` finds out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelCheck {
    /// As `uname -r` says.
    pub kernel: String,
    pub facts: Vec<Fact>,
    pub commands: Vec<Command>,
}

/// Something of the system that matters to probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fact {
    /// The field in JSON.
    pub name: &'static str,
    /// The same for people.
    pub title: &'static str,
    pub value: String,
}

/// A command of probe's, with the hooks it wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    pub name: &'static str,
    pub hooks: Vec<CheckedHook>,
    /// What this kernel takes from it besides hooks: what is missing, and what is lost without it.
    pub absent: Vec<Loss>,
    /// Why it can't run at all.
    pub fault: Option<String>,
}

/// Something a command learns from the kernel, and the programs that can, the best first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckedHook {
    pub gives: &'static str,
    /// Without it the command can't run.
    pub required: bool,
    pub programs: Vec<Program>,
}

/// One program, tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    pub name: &'static str,
    pub tracepoint: &'static str,
    /// Why the kernel did not take it.
    pub refused: Option<String>,
}

/// Something missing, and what is lost without it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loss {
    pub what: String,
    pub lost: String,
}

/// How a command runs here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Runs {
    Fully,
    /// Without these.
    Degraded(Vec<String>),
    /// For this reason.
    Not(String),
}

impl Runs {
    /// The name in JSON.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Fully => "fully",
            Self::Degraded(_) => "degraded",
            Self::Not(_) => "not at all",
        }
    }
}

impl CheckedHook {
    /// The program in use: the first that the kernel took.
    pub fn used(&self) -> Option<&Program> {
        self.programs.iter().find(|program| program.refused.is_none())
    }
}

impl Command {
    pub fn runs(&self) -> Runs {
        if let Some(fault) = &self.fault {
            return Runs::Not(fault.clone());
        }
        let missing = || self.hooks.iter().filter(|hook| hook.used().is_none());
        if let Some(hook) = missing().find(|hook| hook.required) {
            return Runs::Not(format!("no tracepoint of this kernel gives {}", hook.gives));
        }
        let absent = self.absent.iter().map(|loss| loss.lost.clone());
        let mut lost: Vec<_> = missing()
            .map(|hook| hook.gives.to_owned())
            .chain(absent)
            .collect();
        lost.dedup();
        if lost.is_empty() {
            Runs::Fully
        } else {
            Runs::Degraded(lost)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_a_command_runs() {
        let hook = |required, refused: [bool; 2]| CheckedHook {
            gives: "this",
            required,
            programs: refused
                .map(|refused| Program {
                    name: "p",
                    tracepoint: "tp",
                    refused: refused.then(|| "no".to_owned()),
                })
                .to_vec(),
        };
        let loss = || Loss {
            what: "field".to_owned(),
            lost: "that".to_owned(),
        };
        for (hooks, absent, fault, expected) in [
            (vec![hook(true, [false, false])], vec![], None, "fully"),
            (vec![hook(true, [true, false])], vec![], None, "fully"),
            (vec![hook(false, [true, true])], vec![], None, "degraded"),
            (vec![hook(true, [false, true])], vec![loss()], None, "degraded"),
            (vec![hook(true, [true, true])], vec![], None, "not at all"),
            (vec![], vec![], Some("no BTF"), "not at all"),
        ] {
            let command = Command {
                name: "watch",
                hooks,
                absent,
                fault: fault.map(str::to_owned),
            };
            assert_eq!(command.runs().name(), expected, "{command:?}");
        }
    }
}
