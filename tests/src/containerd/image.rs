//! Two images without a registry, as one archive that `ctr images import` takes.

use std::{
    fs::{self, File},
    path::Path,
};

use anyhow::{Context, Result};
use serde_json::json;
use sha2::{Digest, Sha256};
use tar::{Builder, EntryType, Header};

/// A sandbox's: a busybox that sleeps.
pub const PAUSE: &str = "docker.io/probe-lab/pause:1";
/// An empty root whose directories point into /usr, which is mounted from the machine: all its programs run inside.
pub const HOST: &str = "docker.io/probe-lab/host:1";

const BUSYBOX: &str = "/bin/busybox";
const DIRECTORIES: [&str; 7] = ["dev", "etc", "proc", "run", "sys", "tmp", "var"];

/// Writes both into one file.
pub fn write(path: &Path) -> Result<()> {
    let busybox = fs::read(BUSYBOX).with_context(|| format!("can't read {BUSYBOX}"))?;
    let pause = layer(
        &["bin"],
        &[("bin/busybox", &busybox)],
        &[("bin/sleep", "busybox")],
    )?;
    let links = ["bin", "sbin", "lib", "lib64"].map(|name| (name, format!("usr/{name}")));
    let links = links.each_ref().map(|(name, target)| (*name, target.as_str()));
    let host = layer(&["usr"], &[], &links)?;

    let mut archive = Builder::new(File::create(path)?);
    let mut manifest = Vec::new();
    for (tag, layer) in [(PAUSE, pause), (HOST, host)] {
        let diff = hex(&layer);
        let config = json!({
            "architecture": "amd64",
            "os": "linux",
            "config": {"Cmd": ["/bin/sleep", "1000000000"], "Env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"]},
            "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{diff}")]},
            "history": [{"created_by": tag}],
        });
        let config = config.to_string().into_bytes();
        let config_name = format!("{}.json", hex(&config));
        let layer_name = format!("{diff}/layer.tar");
        file(&mut archive, &config_name, &config)?;
        file(&mut archive, &layer_name, &layer)?;
        manifest.push(json!({"Config": config_name, "RepoTags": [tag], "Layers": [layer_name]}));
    }
    file(
        &mut archive,
        "manifest.json",
        serde_json::to_string(&manifest)?.as_bytes(),
    )?;
    archive.finish()?;
    Ok(())
}

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

fn layer(directories: &[&str], files: &[(&str, &[u8])], links: &[(&str, &str)]) -> Result<Vec<u8>> {
    let mut tar = Builder::new(Vec::new());
    for name in DIRECTORIES.iter().chain(directories) {
        let mut header = header(EntryType::Directory, 0);
        tar.append_data(&mut header, name, [].as_slice())?;
    }
    for (name, content) in files {
        file(&mut tar, name, content)?;
    }
    for (name, target) in links {
        let mut header = header(EntryType::Symlink, 0);
        tar.append_link(&mut header, name, target)?;
    }
    Ok(tar.into_inner()?)
}

fn file(tar: &mut Builder<impl std::io::Write>, name: &str, content: &[u8]) -> Result<()> {
    let mut header = header(EntryType::Regular, content.len() as u64);
    Ok(tar.append_data(&mut header, name, content)?)
}

fn header(kind: EntryType, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_mode(0o755);
    header.set_uid(0);
    header.set_gid(0);
    header
}
