//! `cargo xtask test --only architecture`: no arrow between crates and rooms that docs/design.md does not draw, and one
//! definition of each type of the model.

mod exceptions;
mod rules;
mod source;

use std::{fs, path::Path};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use self::{
    exceptions::{Exceptions, TODAY},
    rules::Package,
    source::Source,
};
use crate::run;

/// Crates whose sources are read.
const CRATES: [&str; 2] = ["probe-model", "probe-user"];

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<MetadataPackage>,
}

#[derive(Deserialize)]
struct MetadataPackage {
    name: String,
    dependencies: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    name: String,
    kind: Option<String>,
}

/// Holds the tree against the rules.
///
/// # Errors
/// A place that breaks one, with all others; a source that can't be read.
pub fn check() -> Result<()> {
    let mut sources = Vec::new();
    for name in CRATES {
        read(
            &run::root().join(name).join("src"),
            &format!("{name}/src"),
            &mut sources,
        )?;
    }
    let broken = rules::check(&packages()?, &sources, &Exceptions(TODAY));
    for line in &broken {
        println!("{line}");
    }
    if !broken.is_empty() {
        bail!("{} places break a rule", broken.len());
    }
    println!(
        "{} files, {} exceptions (xtask/src/architecture/exceptions.rs)",
        sources.len(),
        TODAY.len()
    );
    Ok(())
}

/// The crates of the workspace, from their manifests.
fn packages() -> Result<Vec<Package>> {
    let output = run::cargo()
        .args([
            "metadata",
            "--format-version",
            "1",
            "--no-deps",
            "--locked",
            "--offline",
        ])
        .output()
        .context("can't run cargo metadata")?;
    if !output.status.success() {
        bail!(
            "cargo metadata failed: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    let metadata: Metadata =
        serde_json::from_slice(&output.stdout).context("cargo metadata printed something else than JSON")?;
    let package = |package: MetadataPackage| Package {
        name: package.name,
        dependencies: package
            .dependencies
            .into_iter()
            .filter(|dependency| dependency.kind.as_deref() != Some("dev"))
            .map(|dependency| dependency.name)
            .collect(),
    };
    Ok(metadata.packages.into_iter().map(package).collect())
}

/// All sources in a folder, by name.
fn read(folder: &Path, shown: &str, sources: &mut Vec<Source>) -> Result<()> {
    let context = || format!("can't read {}", folder.display());
    let mut entries = fs::read_dir(folder)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .with_context(context)?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let (path, shown) = (
            entry.path(),
            format!("{shown}/{}", entry.file_name().to_string_lossy()),
        );
        if path.is_dir() {
            read(&path, &shown, sources)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).with_context(|| format!("can't read {}", path.display()))?;
            sources.push(Source { path: shown, text });
        }
    }
    Ok(())
}
