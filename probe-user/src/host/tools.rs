//! Where the tools are: here, or, from a container that has none, on the node.

use std::{
    env,
    fs::{self, File},
    os::unix::{
        fs::{MetadataExt as _, PermissionsExt as _},
        process::CommandExt as _,
    },
    path::{Path, PathBuf},
    process::Command,
};

use nix::sched::{CloneFlags, setns};

/// Looked through after PATH, which in containers and units may lack them.
const FOLDERS: [&str; 4] = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"];
/// The node's first process, where this one sees it (`hostPID` of a pod).
const NODE: &str = "/proc/1";
const SELF: &str = "/proc/thread-self";

/// Folders with programs, in this process's mounts or in the node's.
#[derive(Debug)]
pub struct Tools {
    folders: Vec<PathBuf>,
    node: Option<NodeMounts>,
}

/// The node's mounts.
#[derive(Debug)]
struct NodeMounts {
    root: PathBuf,
    mounts: File,
}

impl Tools {
    /// This process's own mounts, which are the node's on the node itself.
    pub fn here() -> Self {
        let path = env::var_os("PATH").unwrap_or_default();
        // A relative one is nothing to run programs from as root.
        let folders = env::split_paths(&path)
            .filter(|p| p.is_absolute())
            .chain(FOLDERS.map(PathBuf::from))
            .collect();
        Self { folders, node: None }
    }

    /// The node's, where they are others; going there takes CAP_SYS_ADMIN, CAP_SYS_CHROOT and CAP_SYS_PTRACE.
    pub fn node() -> Option<Self> {
        let mounts = |process: &str| Path::new(process).join("ns/mnt");
        let inode = |process: &str| fs::metadata(mounts(process)).map(|file| file.ino()).ok();
        if inode(NODE)? == inode(SELF)? {
            return None;
        }
        Some(Self {
            folders: FOLDERS.map(PathBuf::from).to_vec(),
            node: Some(NodeMounts {
                root: Path::new(NODE).join("root"),
                mounts: File::open(mounts(NODE)).ok()?,
            }),
        })
    }

    #[cfg(test)]
    pub fn of(folder: &Path) -> Self {
        Self {
            folders: vec![folder.to_owned()],
            node: None,
        }
    }

    /// The program of this name, as it is called there.
    pub fn find(&self, name: &str) -> Option<PathBuf> {
        let programs = self.folders.iter().map(|folder| folder.join(name));
        programs.into_iter().find(|program| match &self.node {
            None => program
                .metadata()
                .is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0),
            // A link there may lead to where there is nothing here.
            Some(node) => {
                let below = program.strip_prefix("/").unwrap_or(program);
                node.root.join(below).symlink_metadata().is_ok()
            }
        })
    }

    /// A command that runs a program which [`Tools::find`] found.
    pub fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        if let Some(mounts) = self.node.as_ref().and_then(|node| node.mounts.try_clone().ok()) {
            // SAFETY: between fork and exec it makes one system call, and allocates nothing.
            unsafe {
                command.pre_exec(move || Ok(setns(&mounts, CloneFlags::CLONE_NEWNS)?));
            }
        }
        command
    }
}
