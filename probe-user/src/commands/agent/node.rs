//! The node's namespaces, those of its first process: an agent in a container enters them, with the threads that poll. The threads
//! that listen stay where they are.

use std::{
    fs::{self, File},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use nix::sched::{CloneFlags, setns, unshare};

/// The node's first process, where this one sees it (`hostPID` of a pod).
const NODE: &str = "/proc/1/ns";
const OWN: &str = "/proc/thread-self/ns";

/// Takes the calling thread, and those it begins later, to the node's network and mounts. Where they are its own already,
/// or it is not to be seen whose they are, it stays.
///
/// # Errors
/// When it is not allowed.
pub fn enter() -> Result<()> {
    let network = differs("net")?;
    let mounts = differs("mnt")?;
    if let Some(network) = network {
        setns(&network, CloneFlags::CLONE_NEWNET)
            .context("can't enter the node's network namespace (CAP_SYS_ADMIN)")?;
    }
    if let Some(mounts) = mounts {
        // Another thread's root and working directory are not this one's any more.
        unshare(CloneFlags::CLONE_FS).context("can't unshare the working directory")?;
        setns(&mounts, CloneFlags::CLONE_NEWNS)
            .context("can't enter the node's mount namespace (CAP_SYS_ADMIN, CAP_SYS_CHROOT)")?;
    }
    Ok(())
}

/// The node's namespace of this kind, where it is another.
fn differs(kind: &str) -> Result<Option<File>> {
    let path = |of: &str| -> PathBuf { Path::new(of).join(kind) };
    let inode = |of: &str| fs::metadata(path(of)).map(|file| file.ino());
    let node = match inode(NODE) {
        Ok(node) => node,
        // On the node itself, where a security policy hides process 1.
        Err(_) if !in_container() => return Ok(None),
        Err(error) => {
            return Err(error).with_context(|| {
                format!(
                    "can't see {NODE}/{kind}: the pod needs hostPID, CAP_SYS_PTRACE, and an AppArmor \
                     profile that allows it"
                )
            });
        }
    };
    if inode(OWN).is_ok_and(|own| own == node) {
        return Ok(None);
    }
    let file = File::open(path(NODE)).with_context(|| format!("can't open {NODE}/{kind}"))?;
    Ok(Some(file))
}

/// Whether this process is in a pod, by its environment.
fn in_container() -> bool {
    std::env::var_os("KUBERNETES_SERVICE_HOST").is_some()
}
