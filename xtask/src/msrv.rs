//! The oldest compiler that the manifests declare: `rust-version`.

use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::run;

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

/// Whether the command compiles with it. A target directory of its own: what another compiler has built is no use to this one.
///
/// # Errors
/// The compiler's, or a dependency's that declares a newer one.
pub fn check() -> Result<()> {
    let mut cargo = with(&declared()?, "cargo");
    cargo
        .args([
            "check",
            "--quiet",
            "--package",
            "probe-user",
            "--locked",
            "--target-dir",
        ])
        .arg(run::target().join("msrv"));
    run::run(&mut cargo)
}

/// Finds the toolchain, or has rustup install it.
///
/// # Errors
/// When rustup does not have it and cannot install it.
pub fn install() -> Result<()> {
    let version = declared()?;
    if run::output(with(&version, "rustc").arg("--version")).is_ok() {
        return Ok(());
    }
    println!("installing Rust {version}");
    let mut rustup = Command::new("rustup");
    rustup
        .args([
            "toolchain",
            "install",
            &version,
            "--profile",
            "minimal",
            "--no-self-update",
        ])
        .stdin(Stdio::null());
    run::output(&mut rustup).map(|_| ()).with_context(|| {
        format!("Rust {version} is missing, install it with `rustup toolchain install {version}`")
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
