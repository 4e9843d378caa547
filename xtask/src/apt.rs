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
    let root = root::is();
    if !root && !root::sudo_works() {
        bail!("{purpose} needs packages that are not installed: run `sudo apt-get install {list}`");
    }
    println!("installing for {purpose}: {list}");
    let apt = |arguments: &[&str]| {
        let mut command = if root {
            Command::new("apt-get")
        } else {
            Command::new("sudo")
        };
        if !root {
            command.args(["-n", "--preserve-env=DEBIAN_FRONTEND", "apt-get"]);
        }
        run::run(
            command
                .env("DEBIAN_FRONTEND", "noninteractive")
                .args(arguments)
                .stdin(Stdio::null()),
        )
    };
    let mut install = vec!["install", "-y", "-qq", "--no-install-recommends"];
    install.extend(&missing);
    // The list may be old, or empty on a fresh machine.
    apt(&["update", "-qq"])?;
    apt(&install).or_else(|_| {
        apt(&["update", "-qq"])?;
        apt(&install)
    })
}

fn installed(package: &str) -> bool {
    Command::new("dpkg-query")
        .args(["-W", "-f=${Status}", package])
        .stderr(Stdio::null())
        .output()
        .is_ok_and(|output| output.stdout.ends_with(b"install ok installed"))
}
