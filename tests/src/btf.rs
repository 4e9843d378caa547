//! The kernel's type information, and what is told in its place.

use std::fs;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

/// Where the kernel shows it.
pub const BTF: &str = "/sys/kernel/btf/vmlinux";

/// This kernel's type information with names changed for others of the same length, and the directory it is in.
///
/// # Errors
/// When the kernel shows none, or a name is not in it.
pub fn doctored(changes: &[(&str, &str)]) -> Result<(TempDir, String)> {
    let mut bytes = fs::read(BTF)?;
    let mut places = Vec::new();
    for (from, to) in changes {
        ensure!(
            from.len() == to.len(),
            "{from} and {to} are not of the same length"
        );
        let wanted = format!("\0{from}\0").into_bytes();
        let at = bytes
            .windows(wanted.len())
            .position(|window| window == wanted)
            .with_context(|| format!("no {from} in {BTF}"))?;
        places.push((at + 1, to));
    }
    for (at, to) in places {
        let place = bytes.iter_mut().skip(at);
        place.zip(to.bytes()).for_each(|(byte, new)| *byte = new);
    }
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("btf");
    fs::write(&path, bytes)?;
    let path = path
        .to_str()
        .context("the temporary directory's name is no text")?
        .to_owned();
    Ok((dir, path))
}
