//! The guest's root: copies of this machine's programs with their libraries, probe, the scenarios, and our init.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};
use tempfile::NamedTempFile;

use super::{kernels::Kernel, sources::ProgramSource};
use crate::run;

/// What the scenarios and the init run.
const PROGRAMS: [&str; 39] = [
    "bpftool",
    "bridge",
    "cat",
    "conntrack",
    "date",
    "dmesg",
    "etcd",
    "ip",
    "ip6tables",
    "ip6tables-legacy-save",
    "ip6tables-nft-save",
    "ipset",
    "iptables",
    "iptables-legacy",
    "iptables-legacy-save",
    "iptables-nft",
    "iptables-nft-save",
    "iptables-restore",
    "ipvsadm",
    "kill",
    "mkdir",
    "modprobe",
    "mount",
    "nc",
    "nft",
    "nsenter",
    "openssl",
    "ping",
    "python3",
    "setpriv",
    "sh",
    "sleep",
    "sysctl",
    "tc",
    "tcpdump",
    "tr",
    "umount",
    "unshare",
    "wg",
];
/// Where they are; not PATH, where somebody's own python may come first.
const DIRECTORIES: [&str; 4] = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"];
/// What they load by name.
const TREES: [&str; 2] = ["/usr/lib/x86_64-linux-gnu/xtables", "/usr/lib/python3.11"];
const FILES: [&str; 3] = ["/etc/protocols", "/etc/services", "/usr/lib/ssl/openssl.cnf"];
/// Parts of the standard library that nothing here uses.
const PYTHON_LEFT_OUT: [&str; 10] = [
    "__pycache__",
    "config-3.11-x86_64-linux-gnu",
    "ensurepip",
    "idlelib",
    "lib2to3",
    "pydoc_data",
    "test",
    "tkinter",
    "turtledemo",
    "unittest",
];
/// Modules: networking, and what it is built on.
const MODULES: [&str; 5] = [
    "kernel/net",
    "kernel/lib",
    "kernel/crypto",
    // WireGuard's, up to 6.12.
    "kernel/arch/x86/crypto",
    "kernel/drivers/net",
];

/// A program of scenarios that a guest runs, and the test runner's arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    pub program: String,
    pub arguments: Vec<String>,
}

impl Step {
    /// The scenarios that it runs.
    pub fn names<'a>(&self, sources: &'a BTreeMap<String, ProgramSource>) -> impl Iterator<Item = &'a str> {
        let all = sources
            .get(&self.program)
            .into_iter()
            .flat_map(|source| &source.scenarios);
        all.map(String::as_str)
            .filter(|name| match self.arguments.as_slice() {
                [] => true,
                [exact, names @ ..] if exact == "--exact" => names.iter().any(|only| only == name),
                filters => filters.iter().any(|filter| name.contains(filter.as_str())),
            })
    }
}

/// The guests' root directory.
struct Root(PathBuf);

/// The archives that a guest's initial RAM file system is put together from.
pub struct Image {
    directory: PathBuf,
    /// All but the modules and the plan: the same for every guest.
    base: PathBuf,
}

impl Image {
    /// Packs what all guests have.
    pub fn new(directory: PathBuf, probe: &Path, scenarios: &[(String, PathBuf)]) -> Result<Self> {
        let root = Root::new(directory.join("root"), probe, scenarios)?;
        let base = directory.join("base.cpio");
        let file = File::create(&base).with_context(|| format!("can't write {}", base.display()))?;
        pack(&root.0, file)?;
        Ok(Self { directory, base })
    }

    /// A guest's: the kernel unpacks several archives, one after the other.
    pub fn pack(&self, kernel: &Kernel, plan: &[Step]) -> Result<NamedTempFile> {
        let parts = tempfile::tempdir_in(&self.directory)?;
        modules(kernel, parts.path())?;
        let lab = parts.path().join("lab");
        fs::create_dir_all(&lab)?;
        let plan: String = plan
            .iter()
            .map(|step| format!("{} {}\n", step.program, step.arguments.join(" ")))
            .collect();
        fs::write(lab.join("plan"), plan)?;
        let archive = tempfile::Builder::new()
            .suffix(".cpio")
            .tempfile_in(&self.directory)?;
        fs::copy(&self.base, archive.path())?;
        let end = File::options().append(true).open(archive.path())?;
        pack(parts.path(), end)?;
        Ok(archive)
    }
}

/// Packs a folder as an archive that a kernel unpacks.
fn pack(directory: &Path, into: File) -> Result<()> {
    let status = Command::new("sh")
        .args([
            "-c",
            "find . -print0 | cpio --null --quiet --create --format=newc",
        ])
        .current_dir(directory)
        .stdin(Stdio::null())
        .stdout(into)
        .status()
        .context("can't run cpio")?;
    if !status.success() {
        bail!("packing {} failed: {status}", directory.display());
    }
    Ok(())
}

/// Copies a kernel's modules below `root`.
fn modules(kernel: &Kernel, root: &Path) -> Result<()> {
    let to = root.join("usr/lib/modules").join(&kernel.release);
    fs::create_dir_all(to.join("kernel"))?;
    // depmod looks for them there.
    symlink("usr/lib", root.join("lib"))?;
    for entry in fs::read_dir(&kernel.modules)?.flatten() {
        if entry.file_name().to_string_lossy().starts_with("modules.") {
            fs::copy(entry.path(), to.join(entry.file_name()))?;
        }
    }
    for part in MODULES {
        let from = kernel.modules.join(part);
        if from.exists() {
            let above = to.join(part);
            let above = above.parent().unwrap_or(&to);
            fs::create_dir_all(above)?;
            run::run(Command::new("cp").arg("-r").arg(from).arg(above))?;
        }
    }
    run::output(Command::new("depmod").arg("-b").arg(root).arg(&kernel.release))?;
    Ok(())
}

impl Root {
    fn new(directory: PathBuf, probe: &Path, scenarios: &[(String, PathBuf)]) -> Result<Self> {
        if directory.exists() {
            fs::remove_dir_all(&directory)?;
        }
        let root = Self(directory);
        for path in [
            "dev",
            "etc",
            "proc",
            "root",
            "run",
            "sys",
            "tmp",
            "usr/bin",
            "usr/sbin",
            "usr/lib",
            "usr/lib64",
            "var/log",
            "lab",
        ] {
            fs::create_dir_all(root.0.join(path))?;
        }
        for name in ["bin", "sbin", "lib", "lib64"] {
            symlink(Path::new("usr").join(name), root.0.join(name))?;
        }
        fs::write(root.0.join("etc/passwd"), "root:x:0:0::/root:/bin/sh\n")?;
        let mut libraries = BTreeSet::new();
        for name in PROGRAMS {
            root.program(name, &mut libraries)?;
        }
        for tree in TREES {
            root.tree(Path::new(tree), &mut libraries)?;
        }
        for file in FILES {
            if Path::new(file).exists() {
                root.copy(Path::new(file), file)?;
            }
        }
        for (name, path) in scenarios {
            root.stripped(path, &format!("lab/{name}"))?;
            libraries.extend(needed(path)?);
        }
        root.stripped(probe, "usr/bin/probe")?;
        libraries.extend(needed(probe)?);
        for library in libraries {
            root.copy(&library, &library.display().to_string())?;
        }
        let init = root.0.join("init");
        fs::write(&init, include_str!("init.sh"))?;
        fs::set_permissions(&init, fs::Permissions::from_mode(0o755))?;
        Ok(root)
    }

    fn program(&self, name: &str, libraries: &mut BTreeSet<PathBuf>) -> Result<()> {
        let path = DIRECTORIES
            .iter()
            .map(|directory| Path::new(directory).join(name))
            .find(|path| path.exists())
            .with_context(|| format!("the guests need {name}, which is not installed"))?;
        libraries.extend(needed(&path)?);
        // By its name, not by what a link leads to: some do what they are called.
        let place = path.parent().and_then(Path::file_name).unwrap_or_default();
        self.copy(&path, &format!("usr/{}/{name}", place.to_string_lossy()))
    }

    fn tree(&self, directory: &Path, libraries: &mut BTreeSet<PathBuf>) -> Result<()> {
        for entry in fs::read_dir(directory).with_context(|| format!("can't read {}", directory.display()))? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if PYTHON_LEFT_OUT.contains(&&*name) {
                continue;
            }
            if path.is_dir() {
                self.tree(&path, libraries)?;
            } else {
                self.copy(&path, &path.display().to_string())?;
                if path.extension().is_some_and(|extension| extension == "so") {
                    libraries.extend(needed(&path)?);
                }
            }
        }
        Ok(())
    }

    /// Copies what `from` is or leads to.
    fn copy(&self, from: &Path, to: &str) -> Result<()> {
        let to = self.place(to)?;
        fs::copy(from, &to).with_context(|| format!("can't copy {} to {}", from.display(), to.display()))?;
        Ok(())
    }

    fn stripped(&self, from: &Path, to: &str) -> Result<()> {
        let to = self.place(to)?;
        run::run(Command::new("strip").arg("-o").arg(to).arg(from))
    }

    fn place(&self, path: &str) -> Result<PathBuf> {
        let path = self.0.join(path.trim_start_matches('/'));
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory)?;
        }
        Ok(path)
    }
}

/// The shared libraries of a program or library, with theirs; none of a static one.
fn needed(path: &Path) -> Result<Vec<PathBuf>> {
    let output = Command::new("ldd").arg(path).stderr(Stdio::null()).output();
    let output = output.context("can't run ldd")?;
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text
        .lines()
        .filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')))
        .map(PathBuf::from)
        .collect())
}
