//! What a record of kernels is of: the objects, the contract, the lab and the scenarios, by the SHA-256 of their files.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::{bytecode, files, run};

/// What every proof depends on. User space is not part of it: a change there must not cost a recording.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sources {
    /// `probe-ebpf/src/contract`.
    pub contract: String,
    /// `tests/src`, and the init of the guests.
    pub lab: String,
    /// Each object of `probe-ebpf/bytecode`, without the numbers of its source lines.
    pub objects: BTreeMap<String, String>,
}

/// The source of a program of scenarios.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProgramSource {
    /// Its path below the workspace.
    pub path: String,
    pub hash: String,
    /// The scenarios in it.
    pub scenarios: BTreeSet<String>,
}

impl Sources {
    /// Those of the working tree.
    pub fn read() -> Result<Self> {
        let root = run::root();
        let mut lab = files::read(&root, "tests/src")?;
        lab.extend(files::read(&root, "xtask/src/matrix/init.sh")?);
        let objects = bytecode::names().map(|name| {
            let path = bytecode::directory().join(&name).with_extension("o");
            let bytes = fs::read(&path).with_context(|| format!("can't read {}", path.display()))?;
            Ok((name, bytecode::content::hash(&bytes)?))
        });
        Ok(Self {
            contract: files::digest(&files::read(&root, "probe-ebpf/src/contract")?),
            lab: files::digest(&lab),
            objects: objects.collect::<Result<_>>()?,
        })
    }

    /// What differs from `recorded`, in words.
    pub fn changes(&self, recorded: &Self) -> Vec<String> {
        let names: BTreeSet<&String> = self.objects.keys().chain(recorded.objects.keys()).collect();
        let mut changed: Vec<String> = names
            .into_iter()
            .filter(|name| self.objects.get(*name) != recorded.objects.get(*name))
            .map(|name| format!("object {name}.o"))
            .collect();
        if self.contract != recorded.contract {
            changed.push("the contract (probe-ebpf/src/contract)".to_owned());
        }
        if self.lab != recorded.lab {
            changed.push("the lab (tests/src, xtask/src/matrix/init.sh)".to_owned());
        }
        changed
    }
}

/// The sources of these programs of scenarios.
pub fn programs(names: &[&str]) -> Result<BTreeMap<String, ProgramSource>> {
    let root = run::root();
    let manifest = root.join("tests/Cargo.toml");
    let text = fs::read_to_string(&manifest).with_context(|| format!("can't read {}", manifest.display()))?;
    let paths = paths(&text).with_context(|| format!("{} is malformed", manifest.display()))?;
    names
        .iter()
        .map(|name| {
            let path = paths
                .get(*name)
                .with_context(|| format!("tests/Cargo.toml names no program of scenarios {name}"))?;
            // A program of several files has a folder of its own.
            let path = path.strip_suffix("/main.rs").unwrap_or(path);
            let path = format!("tests/{path}");
            let files = files::read(&root, &path)?;
            let source = ProgramSource {
                hash: files::digest(&files),
                scenarios: scenarios(&files)?,
                path,
            };
            Ok(((*name).to_owned(), source))
        })
        .collect()
}

/// Names and paths of the test programs of a manifest.
fn paths(manifest: &str) -> Result<BTreeMap<String, String>> {
    #[derive(Deserialize)]
    struct Manifest {
        test: Vec<Test>,
    }
    #[derive(Deserialize)]
    struct Test {
        name: String,
        path: String,
    }
    let manifest: Manifest = toml::from_str(manifest)?;
    Ok(manifest
        .test
        .into_iter()
        .map(|test| (test.name, test.path))
        .collect())
}

/// The names that the test runner gives to the tests of a program. Read from the source, because the record is checked where
/// no program of scenarios is built; when kernels are recorded, they are compared with the runner's own.
fn scenarios(files: &BTreeMap<String, Vec<u8>>) -> Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    for (path, bytes) in files {
        let stem = Path::new(path).file_stem().unwrap_or_default().to_string_lossy();
        let module = if files.len() == 1 || stem == "main" {
            String::new()
        } else {
            format!("{stem}::")
        };
        let text = String::from_utf8_lossy(bytes);
        let mut is_test = false;
        for line in text.lines().map(str::trim) {
            if line == "#[test]" {
                is_test = true;
            } else if is_test && let Some(rest) = line.strip_prefix("fn ") {
                let Some((name, _)) = rest.split_once('(') else {
                    bail!("{path}: can't read the test's name: {line}");
                };
                found.insert(format!("{module}{name}"));
                is_test = false;
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::tests::folder;

    #[test]
    fn scenarios_of_a_program() {
        for (files, expected) in [
            (
                &[(
                    "tests/scenarios/tls.rs",
                    "#[test]\nfn a() {\n}\n\nfn helper() {}\n\n/// Why.\n#[test]\n#[expect(clippy::x)]\nfn b() {\n}\n",
                )][..],
                &["a", "b"][..],
            ),
            (
                &[
                    ("tests/scenarios/doctor/main.rs", "#[test]\nfn a() {\n}\n"),
                    ("tests/scenarios/doctor/dns.rs", "    #[test]\n    fn b() {\n}\n"),
                ],
                &["a", "dns::b"],
            ),
            (&[("tests/scenarios/tls.rs", "// #[test]\nfn a() {}\n")], &[]),
        ] {
            let found = scenarios(&folder(files)).unwrap();
            assert!(found.iter().eq(expected), "{found:?} {expected:?}");
        }
    }

    #[test]
    fn changes_in_words() {
        let sources = |contract: &str, lab: &str, objects: &[(&str, &str)]| Sources {
            contract: contract.to_owned(),
            lab: lab.to_owned(),
            objects: objects
                .iter()
                .map(|(name, hash)| ((*name).to_owned(), (*hash).to_owned()))
                .collect(),
        };
        let recorded = sources("c", "l", &[("path", "1"), ("tls", "2")]);
        for (now, expected) in [
            (sources("c", "l", &[("path", "1"), ("tls", "2")]), &[][..]),
            (
                sources("c", "l", &[("path", "1"), ("tls", "3")]),
                &["object tls.o"],
            ),
            (sources("c", "l", &[("path", "1")]), &["object tls.o"]),
            (
                sources("c", "l", &[("dns", "1"), ("path", "1"), ("tls", "2")]),
                &["object dns.o"],
            ),
            (
                sources("d", "m", &[("path", "1"), ("tls", "2")]),
                &[
                    "the contract (probe-ebpf/src/contract)",
                    "the lab (tests/src, xtask/src/matrix/init.sh)",
                ],
            ),
        ] {
            assert_eq!(now.changes(&recorded), expected);
        }
    }

    #[test]
    fn programs_of_the_tree() {
        let found = programs(&["connection", "doctor"]).unwrap();
        assert!(found["connection"].scenarios.contains("half_open"));
        assert_eq!(found["connection"].path, "tests/scenarios/connection.rs");
        assert_eq!(found["doctor"].path, "tests/scenarios/doctor");
        assert!(programs(&["nonsense"]).is_err());
    }
}
