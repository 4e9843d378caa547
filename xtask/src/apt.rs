//! Debian packages.

use std::{
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Result, bail};

use crate::{progress, root, run};

/// Installs those of `packages` that are missing.
///
/// # Errors
/// Names the missing packages where it can't install them: no apt, or not root.
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
    let install = || {
        apt(
            &format!("installing {list} for {purpose}"),
            &downloads(&missing),
            &[&INSTALL, missing.as_slice()].concat(),
        )
    };
    // The list may be old, or empty on a fresh machine.
    update()?;
    install().or_else(|_| {
        update()?;
        install()
    })
}

const INSTALL: [&str; 4] = ["install", "-y", "-qq", "--no-install-recommends"];

/// Downloads a package into a folder, without installing it.
///
/// # Errors
/// Where there is no apt, or it can't be had.
pub fn download(package: &str, into: &Path) -> Result<()> {
    let download = || {
        let mut apt = Command::new("apt-get");
        // As it is: the user that apt else takes for downloads can't write there.
        apt.args(["download", "-qq", "-o", "APT::Sandbox::User=root", package]);
        progress::run(
            format!("downloading Debian's package {package}"),
            "",
            apt.current_dir(into).stdin(Stdio::null()),
        )
    };
    download().or_else(|error| {
        // The list may be old, or empty on a fresh machine; to read it anew takes root.
        if !root::is() && !root::sudo_works() {
            return Err(error);
        }
        update()?;
        download()
    })
}

fn update() -> Result<()> {
    apt("downloading Debian's lists of packages", "", &["update", "-qq"])
}

/// How much an installation downloads, for a note; a guess without numbers where apt does not say.
fn downloads(packages: &[&str]) -> String {
    let mut apt = Command::new("apt-get");
    apt.args(INSTALL).arg("--print-uris").args(packages);
    let uris = run::output(apt.stdin(Stdio::null())).unwrap_or_default();
    let (count, bytes) = sizes(&uris);
    match count {
        0 => "downloads them and what they need".to_owned(),
        1 => format!("downloads 1 package, {:.1} MB", bytes as f64 / 1e6),
        _ => format!("downloads {count} packages, {:.1} MB", bytes as f64 / 1e6),
    }
}

/// Number and size of the files that `apt-get --print-uris` lists, as `'URI' FILE SIZE HASH` each.
fn sizes(uris: &str) -> (usize, u64) {
    let sizes = uris
        .lines()
        .filter(|line| line.starts_with('\''))
        .filter_map(|line| line.split_whitespace().nth(2)?.parse::<u64>().ok());
    sizes.fold((0, 0), |(count, bytes), size| (count + 1, bytes + size))
}

/// apt-get, as root.
fn apt(what: &str, note: &str, arguments: &[&str]) -> Result<()> {
    let mut command = if root::is() {
        Command::new("apt-get")
    } else {
        let mut sudo = Command::new("sudo");
        sudo.args(["-n", "--preserve-env=DEBIAN_FRONTEND", "apt-get"]);
        sudo
    };
    progress::run(
        what,
        note,
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

#[cfg(test)]
mod tests {
    use super::sizes;

    #[test]
    fn sizes_of_downloads() {
        let uris = "\
Reading package lists...
'http://deb.debian.org/debian/pool/main/b/bpftrace/bpftrace_0.17.0-1_amd64.deb' bpftrace_0.17.0-1_amd64.deb 1154320 MD5Sum:0
'http://deb.debian.org/debian/pool/main/b/bpfcc/libbpfcc_0.26.0_amd64.deb' libbpfcc_0.26.0_amd64.deb 845680 SHA256:1
";
        assert_eq!(sizes(uris), (2, 2_000_000));
        assert_eq!(sizes(""), (0, 0));
    }
}
