//! Commands of other programs, with errors that say which and how they ended.

use std::{
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
};

use anyhow::{Context, Result, bail};

/// The workspace.
pub fn root() -> PathBuf {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.parent().unwrap_or(package).to_owned()
}

/// Cargo's output directory of this workspace.
pub fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// `cargo`, as it was called, with the compiler beside it: `setup` may have put another into the system.
pub fn cargo() -> Command {
    let program = PathBuf::from(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    let mut cargo = Command::new(&program);
    cargo.current_dir(root());
    // What cargo says of this package to `cargo xtask` is not about what is built now. ring's build script reads these variables:
    // with other values than in a shell ring, rustls, kube and probe would be built again after a plain `cargo build`.
    for (name, _) in std::env::vars_os() {
        if name.as_encoded_bytes().starts_with(b"CARGO_PKG_")
            || name.as_encoded_bytes().starts_with(b"CARGO_MANIFEST_")
        {
            cargo.env_remove(name);
        }
    }
    let beside = program
        .parent()
        .filter(|directory| directory.join("rustc").exists());
    if let Some(directory) = beside {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let all = [directory.to_owned()]
            .into_iter()
            .chain(std::env::split_paths(&path));
        // Left as it is when a directory's name cannot stand in PATH.
        if let Ok(path) = std::env::join_paths(all) {
            cargo.env("PATH", path);
        }
    }
    cargo
}

/// Builds `probe` as its user does, and gives back the binary.
pub fn build_probe() -> Result<PathBuf> {
    crate::cargo::run(
        "building probe",
        "some minutes when nothing is built yet",
        cargo().args(["build", "--release", "--package", "probe-user", "--locked"]),
    )?;
    Ok(target().join("release/probe"))
}

/// Runs a command, its output on ours.
pub fn run(command: &mut Command) -> Result<()> {
    let status = command
        .status()
        .with_context(|| format!("can't run {}", words(command)))?;
    succeeded(command, status)
}

/// Whether a command did.
///
/// # Errors
/// Names the command, and how it ended.
pub fn succeeded(command: &Command, status: ExitStatus) -> Result<()> {
    if !status.success() {
        bail!("{} failed: {status}", words(command));
    }
    Ok(())
}

/// Runs a command and gives back what it printed.
pub fn output(command: &mut Command) -> Result<String> {
    let output = command.stderr(Stdio::piped()).output();
    let output = output.with_context(|| format!("can't run {}", words(command)))?;
    if !output.status.success() {
        let error = String::from_utf8_lossy(&output.stderr);
        bail!("{} failed: {}\n{}", words(command), output.status, error.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A command as one would type it, for messages.
pub fn words(command: &Command) -> String {
    let words: Vec<_> = [command.get_program()]
        .into_iter()
        .chain(command.get_args())
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    words.join(" ")
}
