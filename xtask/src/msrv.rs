//! The oldest compiler that the manifests declare: `rust-version`.

use std::{
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::{cargo, image::binary::Target, progress, run};

#[derive(Deserialize)]
struct Manifest {
    workspace: Workspace,
}

#[derive(Deserialize)]
struct Workspace {
    package: Package,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Package {
    rust_version: String,
}

/// Whether the command compiles with it for `target`. In a target directory of its own: what another compiler has built is no use to
/// this one.
///
/// # Errors
/// The compiler's, or a dependency's that declares a newer one.
pub fn check(target: Target) -> Result<()> {
    let version = declared()?;
    let mut check = target.command(with(&version, "cargo"), "check")?;
    cargo::run(
        format!("checking probe with Rust {version} for {}", target.triple()),
        "one and a half minutes when nothing is built yet",
        check.arg("--target-dir").arg(run::target().join("msrv")),
    )
}

/// Finds the toolchain and its libraries for `target`, or has rustup install them.
///
/// # Errors
/// When rustup does not have them and cannot install them.
pub fn install(target: Target) -> Result<()> {
    let version = declared()?;
    let libraries =
        run::output(with(&version, "rustc").args(["--print", "target-libdir", "--target", target.triple()]));
    if libraries.is_ok_and(|directory| Path::new(directory.trim()).exists()) {
        return Ok(());
    }
    let mut rustup = Command::new("rustup");
    rustup
        .args([
            "toolchain",
            "install",
            &version,
            "--profile",
            "minimal",
            "--no-self-update",
            "--target",
            target.triple(),
        ])
        .stdin(Stdio::null());
    progress::run(
        format!("installing Rust {version} for {}", target.triple()),
        "rustup downloads it",
        &mut rustup,
    )
    .with_context(|| {
        format!(
            "Rust {version} is missing, install it with `rustup toolchain install {version} --target {}`",
            target.triple()
        )
    })
}

/// `rust-version` of the workspace.
fn declared() -> Result<String> {
    let path = run::root().join("Cargo.toml");
    let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let manifest: Manifest = toml::from_str(&text).with_context(|| format!("in {}", path.display()))?;
    Ok(manifest.workspace.package.rust_version)
}

/// A program of that toolchain. cargo's own variables name the compiler that runs this task.
fn with(version: &str, program: &str) -> Command {
    let mut command = Command::new("rustup");
    command
        .args(["run", version, program])
        .current_dir(run::root())
        .env_remove("CARGO")
        .env_remove("RUSTC")
        .env_remove("RUSTUP_TOOLCHAIN");
    command
}
