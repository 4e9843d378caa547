//! `probe-ebpf/bytecode/kernels.toml`: on which kernels the objects, the contract and the scenarios were proven.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::Write,
    path::PathBuf,
};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::{
    guest::Verdict,
    kernels::{Kernel, numbers},
    sources::{ProgramSource, Sources},
};
use crate::bytecode;

/// What makes a record that is out of date right.
const COMMAND: &str = "cargo xtask matrix --record";
const HEADER: &str = "# On which kernels the objects were proven. Written by `cargo xtask matrix --record`, checked by \
                      `cargo xtask test`.\n\n";

/// The whole file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Of which all proofs in it are.
    sources: Sources,
    /// By the guest's name.
    #[serde(default)]
    guests: BTreeMap<String, GuestRecord>,
}

/// What was proven in one guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct GuestRecord {
    /// Debian's package of the kernel's image, and its version.
    package: String,
    /// As `uname -r` prints it.
    release: String,
    /// By the name of a program of scenarios.
    #[serde(default)]
    programs: BTreeMap<String, ProgramRecord>,
}

/// All scenarios of a program in one guest; none failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct ProgramRecord {
    /// SHA-256 of the program's source.
    source: String,
    scenarios: BTreeMap<String, Outcome>,
}

/// What happened to a scenario.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Outcome {
    Passed,
    /// The kernel is older than `minimum`.
    Skipped {
        minimum: String,
        reason: String,
    },
}

/// What a complete record proves.
#[derive(Clone, Debug)]
pub struct Wanted {
    pub sources: Sources,
    pub guests: Vec<String>,
    pub programs: BTreeMap<String, ProgramSource>,
    /// Guests that prove only some of the programs.
    pub partial: BTreeMap<String, BTreeSet<String>>,
}

impl Wanted {
    /// Whether a guest is to prove a program.
    pub fn has(&self, guest: &str, program: &str) -> bool {
        self.programs.contains_key(program)
            && self.partial.get(guest).is_none_or(|only| only.contains(program))
    }
}

pub fn path() -> PathBuf {
    bytecode::directory().join("kernels.toml")
}

impl Record {
    /// The committed one; an empty one where there is none.
    pub fn read() -> Result<Self> {
        let path = path();
        if !path.exists() {
            return Ok(Self::default());
        }
        let text = fs::read_to_string(&path).with_context(|| format!("can't read {}", path.display()))?;
        toml::from_str(&text).with_context(|| format!("{} is malformed", path.display()))
    }

    /// In one step: an interrupted recording continues with what was proven before.
    pub fn write(&self) -> Result<()> {
        let path = path();
        let write = || format!("can't write {}", path.display());
        let mut file = tempfile::Builder::new()
            .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))
            .tempfile_in(bytecode::directory())
            .with_context(write)?;
        file.write_all(self.text()?.as_bytes()).with_context(write)?;
        file.persist(&path).with_context(write)?;
        Ok(())
    }

    fn text(&self) -> Result<String> {
        Ok(format!("{HEADER}{}", toml::to_string_pretty(self)?))
    }

    /// Removes what is not of `wanted`.
    pub fn prune(&mut self, wanted: &Wanted) {
        if self.sources != wanted.sources {
            self.sources = wanted.sources.clone();
            self.guests.clear();
        }
        self.guests.retain(|name, _| wanted.guests.contains(name));
        for (guest, recorded) in &mut self.guests {
            let release = recorded.release.clone();
            recorded.programs.retain(|name, program| {
                let source = wanted.programs.get(name).filter(|_| wanted.has(guest, name));
                source.is_some_and(|source| program.fault(source, &release).is_none())
            });
        }
    }

    /// The kernel that was recorded for a guest.
    pub fn release(&self, guest: &str) -> Option<&str> {
        self.guests.get(guest).map(|guest| guest.release.as_str())
    }

    /// Whether it has a program's proof; only of a pruned record this means a valid one.
    pub fn has(&self, guest: &str, program: &str) -> bool {
        self.guests
            .get(guest)
            .is_some_and(|guest| guest.programs.contains_key(program))
    }

    /// Adds a program's proof, unless a scenario of it failed or is missing; then its fault. What was recorded for another
    /// kernel of this guest is removed.
    pub fn add(
        &mut self,
        guest: &str,
        kernel: &Kernel,
        program: &str,
        source: &ProgramSource,
        verdicts: &BTreeMap<String, Verdict>,
    ) -> Result<(), String> {
        let mut scenarios = BTreeMap::new();
        for (name, verdict) in verdicts {
            let outcome = match verdict {
                Verdict::Passed => Outcome::Passed,
                Verdict::Skipped { minimum, reason } => Outcome::Skipped {
                    minimum: minimum.clone(),
                    reason: reason.clone(),
                },
                Verdict::Failed => return Err(format!("{name} failed")),
            };
            scenarios.insert(name.clone(), outcome);
        }
        let proof = ProgramRecord {
            source: source.hash.clone(),
            scenarios,
        };
        if let Some(fault) = proof.fault(source, &kernel.release) {
            return Err(fault);
        }
        let new = GuestRecord {
            package: kernel.package.clone(),
            release: kernel.release.clone(),
            programs: BTreeMap::new(),
        };
        let recorded = self.guests.entry(guest.to_owned()).or_insert_with(|| new.clone());
        if recorded.release != new.release {
            *recorded = new;
        }
        recorded.programs.insert(program.to_owned(), proof);
        Ok(())
    }

    /// Why this is not the record of `wanted`, in one sentence with the command that makes it right.
    pub fn fault(&self, wanted: &Wanted) -> Option<String> {
        if self.guests.is_empty() {
            return Some(format!(
                "probe-ebpf/bytecode/kernels.toml proves nothing: run `{COMMAND}` and commit the file"
            ));
        }
        let mut faults = Vec::new();
        let changed = wanted.sources.changes(&self.sources);
        let sources: BTreeSet<&str> = wanted
            .programs
            .iter()
            .filter(|(name, source)| {
                let recorded = self.guests.values().filter_map(|guest| guest.programs.get(*name));
                recorded.into_iter().any(|program| program.source != source.hash)
            })
            .map(|(_, source)| source.path.as_str())
            .collect();
        let changed: Vec<&str> = changed.iter().map(String::as_str).chain(sources).collect();
        if !changed.is_empty() {
            faults.push(format!("{} changed since", changed.join(", ")));
        }
        for guest in &wanted.guests {
            match self.guests.get(guest) {
                Some(recorded) => faults.extend(recorded.faults(guest, wanted)),
                None => faults.push(format!("kernel {guest} is missing")),
            }
        }
        let extra = self.guests.keys().filter(|name| !wanted.guests.contains(name));
        faults.extend(extra.map(|name| format!("kernel {name} is not in the matrix")));
        (!faults.is_empty()).then(|| {
            format!(
                "probe-ebpf/bytecode/kernels.toml does not prove these sources ({}): run `{COMMAND}` and commit the file",
                faults.join("; ")
            )
        })
    }
}

impl GuestRecord {
    /// Of its programs, without those that only have another source.
    fn faults(&self, name: &str, wanted: &Wanted) -> Vec<String> {
        let mut faults = Vec::new();
        let mut missing = Vec::new();
        for (program, source) in wanted
            .programs
            .iter()
            .filter(|(program, _)| wanted.has(name, program))
        {
            match self.programs.get(program) {
                Some(recorded) if recorded.source == source.hash => {
                    let fault = recorded.fault(source, &self.release);
                    faults.extend(fault.map(|fault| format!("kernel {name}, {program}: {fault}")));
                }
                Some(_) => {}
                None => missing.push(program.as_str()),
            }
        }
        if !missing.is_empty() {
            faults.push(format!("kernel {name} lacks {}", missing.join(", ")));
        }
        let extra = self.programs.keys().filter(|program| !wanted.has(name, program));
        faults
            .extend(extra.map(|program| format!("kernel {name} has {program}, which is not in the matrix")));
        faults
    }
}

impl ProgramRecord {
    /// Why it is no proof of a program on a kernel.
    fn fault(&self, source: &ProgramSource, release: &str) -> Option<String> {
        if self.source != source.hash {
            return Some(format!("{} changed", source.path));
        }
        let recorded: BTreeSet<&String> = self.scenarios.keys().collect();
        let wanted: BTreeSet<&String> = source.scenarios.iter().collect();
        if let Some(name) = wanted.difference(&recorded).next() {
            return Some(format!("{name} did not run"));
        }
        if let Some(name) = recorded.difference(&wanted).next() {
            return Some(format!("{} has no {name}", source.path));
        }
        self.scenarios.iter().find_map(|(name, outcome)| match outcome {
            Outcome::Passed => None,
            Outcome::Skipped { minimum, .. } => {
                must_run(release, minimum).then(|| skipped_in_vain(name, minimum))
            }
        })
    }
}

/// Whether a kernel has what a scenario needs from `minimum` on.
pub fn must_run(release: &str, minimum: &str) -> bool {
    // What follows the version is Debian's.
    let version = release.split(['+', '-']).next().unwrap_or_default();
    numbers(version) >= numbers(minimum)
}

/// The fault of a scenario that was skipped and had to run.
pub fn skipped_in_vain(name: &str, minimum: &str) -> String {
    format!("{name} was skipped, and must run from kernel {minimum} on")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kernel(release: &str) -> Kernel {
        Kernel {
            release: release.to_owned(),
            package: format!("linux-image-{release} 1"),
            image: PathBuf::new(),
            modules: PathBuf::new(),
            enforce_signatures: false,
        }
    }

    fn source(hash: &str, scenarios: &[&str]) -> ProgramSource {
        ProgramSource {
            path: "tests/scenarios/tls.rs".to_owned(),
            hash: hash.to_owned(),
            scenarios: scenarios.iter().map(|name| (*name).to_owned()).collect(),
        }
    }

    fn wanted() -> Wanted {
        Wanted {
            sources: Sources {
                contract: "c1".to_owned(),
                lab: "l1".to_owned(),
                objects: BTreeMap::from([("tls".to_owned(), "o1".to_owned())]),
            },
            guests: vec!["5.10".to_owned(), "6.1".to_owned()],
            programs: BTreeMap::from([("tls".to_owned(), source("s1", &["a", "b"]))]),
            partial: BTreeMap::new(),
        }
    }

    fn skipped(minimum: &str) -> Verdict {
        Verdict::Skipped {
            minimum: minimum.to_owned(),
            reason: "no such hook".to_owned(),
        }
    }

    fn verdicts(b: Option<Verdict>) -> BTreeMap<String, Verdict> {
        let mut verdicts = BTreeMap::from([("a".to_owned(), Verdict::Passed)]);
        verdicts.extend(b.map(|verdict| ("b".to_owned(), verdict)));
        verdicts
    }

    /// Proven on both kernels, one scenario skipped on the older.
    fn complete() -> Record {
        let wanted = wanted();
        let mut record = Record::default();
        record.prune(&wanted);
        assert!(record.fault(&wanted).unwrap().contains("proves nothing"));
        for (guest, release, b) in [
            ("5.10", "5.10.0-32-cloud-amd64", skipped("5.17")),
            ("6.1", "6.1.0-50-cloud-amd64", Verdict::Passed),
        ] {
            let program = &wanted.programs["tls"];
            record
                .add(guest, &kernel(release), "tls", program, &verdicts(Some(b)))
                .unwrap();
        }
        record
    }

    fn program(record: &mut Record) -> &mut ProgramRecord {
        let guest = record.guests.get_mut("6.1").unwrap();
        guest.programs.get_mut("tls").unwrap()
    }

    #[test]
    fn round_trip() {
        let record = complete();
        let text = record.text().unwrap();
        assert_eq!(toml::from_str::<Record>(&text).unwrap(), record, "{text}");
        assert!(text.contains("a = \"passed\""), "{text}");
        assert_eq!(record.fault(&wanted()), None);
    }

    #[test]
    fn only_complete_proofs_are_added() {
        let mut of_another = verdicts(Some(Verdict::Passed));
        of_another.insert("c".to_owned(), Verdict::Passed);
        for (verdicts, release, expected) in [
            (verdicts(Some(Verdict::Passed)), "6.1.0-50-cloud-amd64", Ok(())),
            (
                verdicts(Some(Verdict::Failed)),
                "6.1.0-50-cloud-amd64",
                Err("b failed"),
            ),
            (verdicts(None), "6.1.0-50-cloud-amd64", Err("b did not run")),
            (
                of_another,
                "6.1.0-50-cloud-amd64",
                Err("tests/scenarios/tls.rs has no c"),
            ),
            (verdicts(Some(skipped("6.4"))), "6.1.0-50-cloud-amd64", Ok(())),
            (verdicts(Some(skipped("6.12"))), "6.1.0-50-cloud-amd64", Ok(())),
            (
                verdicts(Some(skipped("6.1"))),
                "6.1.0-50-cloud-amd64",
                Err("b was skipped, and must run from kernel 6.1 on"),
            ),
            (
                verdicts(Some(skipped("6.4"))),
                "6.12.117+deb13-cloud-amd64",
                Err("b was skipped, and must run from kernel 6.4 on"),
            ),
        ] {
            let mut record = Record::default();
            let wanted = wanted();
            let result = record.add("6.1", &kernel(release), "tls", &wanted.programs["tls"], &verdicts);
            assert_eq!(
                result.as_ref().map_err(String::as_str),
                expected.as_ref().map(|()| &()).map_err(|text| *text)
            );
            assert_eq!(record.has("6.1", "tls"), expected.is_ok());
        }
    }

    #[test]
    fn another_kernel_is_another_proof() {
        let (mut record, wanted) = (complete(), wanted());
        let program = &wanted.programs["tls"];
        let passed = verdicts(Some(Verdict::Passed));
        record
            .add(
                "6.1",
                &kernel("6.1.0-51-cloud-amd64"),
                "connection",
                program,
                &passed,
            )
            .unwrap();
        assert_eq!(record.release("6.1"), Some("6.1.0-51-cloud-amd64"));
        assert!(!record.has("6.1", "tls") && record.has("5.10", "tls"));
    }

    /// Each change of the tree or of the record: what the check says, and what is left to prove.
    #[test]
    fn what_makes_a_record_stale() {
        type Change = fn(&mut Wanted, &mut Record);
        let cases: [(Change, Option<&str>, &[&str]); 14] = [
            (|_, _| {}, None, &[]),
            (
                |wanted, _| {
                    wanted.sources.objects.insert("tls".to_owned(), "o2".to_owned());
                },
                Some("object tls.o changed since"),
                &["5.10", "6.1"],
            ),
            (
                |wanted, _| wanted.sources.contract = "c2".to_owned(),
                Some("the contract (probe-ebpf/src/contract) changed since"),
                &["5.10", "6.1"],
            ),
            (
                |wanted, _| wanted.sources.lab = "l2".to_owned(),
                Some("the lab (tests/src, xtask/src/matrix/init.sh) changed since"),
                &["5.10", "6.1"],
            ),
            (
                |wanted, _| {
                    wanted
                        .programs
                        .insert("tls".to_owned(), source("s2", &["a", "b"]));
                },
                Some("tests/scenarios/tls.rs changed since"),
                &["5.10", "6.1"],
            ),
            (
                |_, record| {
                    record.guests.remove("6.1");
                },
                Some("kernel 6.1 is missing"),
                &["6.1"],
            ),
            (
                |_, record| {
                    record.guests.get_mut("6.1").unwrap().programs.clear();
                },
                Some("kernel 6.1 lacks tls"),
                &["6.1"],
            ),
            (
                |_, record| {
                    program(record).scenarios.remove("b");
                },
                Some("kernel 6.1, tls: b did not run"),
                &["6.1"],
            ),
            (
                |_, record| {
                    program(record).scenarios.insert("z".to_owned(), Outcome::Passed);
                },
                Some("kernel 6.1, tls: tests/scenarios/tls.rs has no z"),
                &["6.1"],
            ),
            (
                |_, record| {
                    "5.17.0-1".clone_into(&mut record.guests.get_mut("5.10").unwrap().release);
                },
                Some("kernel 5.10, tls: b was skipped, and must run from kernel 5.17 on"),
                &["5.10"],
            ),
            (
                |wanted, _| wanted.guests.truncate(1),
                Some("kernel 6.1 is not in the matrix"),
                &[],
            ),
            (
                |wanted, _| {
                    wanted.programs.insert("dns".to_owned(), source("s1", &["c"]));
                },
                Some("kernel 5.10 lacks dns; kernel 6.1 lacks dns"),
                &["5.10", "6.1"],
            ),
            (
                |wanted, _| {
                    wanted.programs.insert("dns".to_owned(), source("s1", &["c"]));
                    wanted
                        .partial
                        .insert("6.1".to_owned(), BTreeSet::from(["tls".to_owned()]));
                },
                Some("kernel 5.10 lacks dns"),
                &["5.10"],
            ),
            (
                |wanted, _| {
                    wanted.partial.insert("6.1".to_owned(), BTreeSet::new());
                },
                Some("kernel 6.1 has tls, which is not in the matrix"),
                &[],
            ),
        ];
        for (change, expected, left) in cases {
            let (mut wanted, mut record) = (wanted(), complete());
            change(&mut wanted, &mut record);
            let sentence = expected.map(|why| {
                format!(
                    "probe-ebpf/bytecode/kernels.toml does not prove these sources ({why}): run `cargo xtask matrix \
                     --record` and commit the file"
                )
            });
            assert_eq!(record.fault(&wanted), sentence);
            record.prune(&wanted);
            let to_prove: Vec<&String> = wanted
                .guests
                .iter()
                .filter(|guest| {
                    let mut programs = wanted.programs.keys();
                    programs.any(|program| wanted.has(guest, program) && !record.has(guest, program))
                })
                .collect();
            assert_eq!(to_prove, left, "{expected:?}");
        }
    }
}
