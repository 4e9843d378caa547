//! What only root can do.

use std::{
    os::unix::process::CommandExt,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};

/// Whether this process is root.
pub fn is() -> bool {
    nix::unistd::geteuid().is_root()
}

/// Starts this same task again with sudo, in place of this process; `why` it needs to is said.
///
/// # Errors
/// Always: it only returns when that did not go.
pub fn become_it(why: &str) -> Result<()> {
    let program = std::env::current_exe().context("can't find this program")?;
    eprintln!("{why}: going on with sudo");
    let error = Command::new("sudo")
        .args(["--preserve-env=PATH,HOME,CARGO,CARGO_HOME,RUSTUP_HOME,CARGO_TARGET_DIR,PROBE_BIN"])
        .arg(program)
        .args(std::env::args_os().skip(1))
        .exec();
    bail!("{why}, and sudo can't be run ({error}): run it as root")
}

/// Whether sudo works without a password.
pub fn sudo_works() -> bool {
    Command::new("sudo")
        .args(["-n", "true"])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}
