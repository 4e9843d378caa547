//! Debian packages.

use std::{
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Result, bail};

use crate::{root, run};

/// Installs those of `packages` that are missing.
///
/// # Errors
/// Says which are missing where it can't install them: no apt, or not root.
pub fn install(purpose: &str, packages: &[&str]) -> Result<()> {
    let missing: Vec<&str> = packages
        .iter()
        .filter(|package| !installed(package))
        .copied()
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let list = missing.join(" ");
    if !Path::new("/usr/bin/apt-get").exists() {
        bail!(
            "{purpose} needs what Debian's packages {list} contain; there is no apt-get here to install them"
        );
    }
    if !root::is() && !root::sudo_works() {
        bail!("{purpose} needs packages that are not installed: run `sudo apt-get install {list}`");
    }
    println!("installing for {purpose}: {list}");
    let mut install = vec!["install", "-y", "-qq", "--no-install-recommends"];
    install.extend(&missing);
    // The list may be old, or empty on a fresh machine.
    apt(&["update", "-qq"])?;
    apt(&install).or_else(|_| {
        apt(&["update", "-qq"])?;
        apt(&install)
    })
}

/// Downloads a package into a folder, without installing it.
///
/// # Errors
/// Where there is no apt, or it can't be had.
pub fn download(package: &str, into: &Path) -> Result<()> {
    println!("downloading Debian's package {package}");
    let download = || {
        let mut apt = Command::new("apt-get");
        // As it is: the user that apt else takes for downloads can't write there.
        apt.args(["download", "-qq", "-o", "APT::Sandbox::User=root", package]);
        run::run(apt.current_dir(into).stdin(Stdio::null()))
    };
    download().or_else(|error| {
        // The list may be old, or empty on a fresh machine; to read it anew takes root.
        if !root::is() && !root::sudo_works() {
            return Err(error);
        }
        apt(&["update", "-qq"])?;
        download()
    })
}

/// apt-get, as root.
fn apt(arguments: &[&str]) -> Result<()> {
    let mut command = if root::is() {
        Command::new("apt-get")
    } else {
        let mut sudo = Command::new("sudo");
        sudo.args(["-n", "--preserve-env=DEBIAN_FRONTEND", "apt-get"]);
        sudo
    };
    run::run(
        command
            .env("DEBIAN_FRONTEND", "noninteractive")
            .args(arguments)
            .stdin(Stdio::null()),
    )
}

fn installed(package: &str) -> bool {
    Command::new("dpkg-query")
        .args(["-W", "-f=${Status}", package])
        .stderr(Stdio::null())
        .output()
        .is_ok_and(|output| output.stdout.ends_with(b"install ok installed"))
}
