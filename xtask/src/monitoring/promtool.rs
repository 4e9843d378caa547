//! Prometheus' own checker of rules.

use std::{
    fs,
    io::Read,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result};

use crate::{apt, run};

/// Where it is.
#[derive(Debug)]
pub struct Promtool(PathBuf);

impl Promtool {
    pub fn command(&self) -> Command {
        Command::new(&self.0)
    }

    fn works(&self) -> bool {
        let run = self
            .command()
            .arg("--version")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        run.is_ok_and(|status| status.success())
    }
}

/// The system's, or else the one in Debian's package `prometheus`, which is not installed: it would start a server.
pub fn find() -> Result<Promtool> {
    let installed = Promtool("promtool".into());
    if installed.works() {
        return Ok(installed);
    }
    let directory = run::target().join("promtool");
    let ours = Promtool(directory.join("promtool"));
    if !ours.works() {
        fs::create_dir_all(&directory)?;
        unpack(&directory, &ours.0).context("promtool checks the alert rules, and can't be had")?;
    }
    Ok(ours)
}

fn unpack(directory: &Path, to: &Path) -> Result<()> {
    let download = tempfile::tempdir_in(directory)?;
    apt::download("prometheus", download.path())?;
    let package = fs::read_dir(download.path())?
        .next()
        .context("nothing was downloaded")??;
    let content = Command::new("dpkg-deb")
        .arg("--fsys-tarfile")
        .arg(package.path())
        .stderr(Stdio::inherit())
        .output()
        .context("can't run dpkg-deb")?;
    let mut archive = tar::Archive::new(content.stdout.as_slice());
    for entry in archive.entries()? {
        let mut entry = entry?;
        if entry.path()?.ends_with("usr/bin/promtool") {
            let mut program = Vec::new();
            entry.read_to_end(&mut program)?;
            fs::write(to, program)?;
            fs::set_permissions(to, fs::Permissions::from_mode(0o755))?;
            return Ok(());
        }
    }
    anyhow::bail!("the package prometheus has no promtool")
}
