//! The compiler and linker of the BPF objects.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::{cargo, run};

/// A rustc with its library's sources, and what calls it.
#[derive(Clone, Debug)]
pub struct Compiler {
    /// The compiler itself.
    pub rustc: PathBuf,
    /// `cargo`, with the arguments that choose a toolchain.
    pub cargo: Vec<OsString>,
    pub version: Version,
}

/// What tells one build of the objects from another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    /// The first line of `rustc -vV`.
    pub rustc: String,
    /// `22.1.4`.
    pub llvm: String,
}

impl Version {
    pub fn llvm_major(&self) -> &str {
        self.llvm.split('.').next().unwrap_or_default()
    }

    /// From `rustc -vV`.
    fn parse(text: &str) -> Option<Self> {
        let llvm = text
            .lines()
            .find_map(|line| line.strip_prefix("LLVM version: "))?;
        Some(Self {
            rustc: text.lines().next()?.to_owned(),
            llvm: llvm.trim().to_owned(),
        })
    }
}

impl Compiler {
    /// The compilers that can build `core` here, the best first: rustup's nightly, then Debian's rustc-web.
    pub fn find() -> Option<Self> {
        Self::nightly().or_else(Self::debian)
    }

    fn nightly() -> Option<Self> {
        let rustc =
            run::output(Command::new("rustup").args(["which", "--toolchain", "nightly", "rustc"])).ok()?;
        Self::with(
            PathBuf::from(rustc.trim()),
            vec!["rustup".into(), "run".into(), "nightly".into(), "cargo".into()],
        )
    }

    /// Debian builds rustc-web for its browsers: newer than its rustc, the sources in rust-web-src.
    fn debian() -> Option<Self> {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        Self::with(PathBuf::from("/usr/bin/rustc"), vec![cargo])
    }

    /// `None` when it is not there, can't be run, or has no sources of the library.
    fn with(rustc: PathBuf, cargo: Vec<OsString>) -> Option<Self> {
        let sysroot = run::output(Command::new(&rustc).args(["--print", "sysroot"])).ok()?;
        let library = Path::new(sysroot.trim()).join("lib/rustlib/src/rust/library/core");
        let version = Version::parse(&run::output(Command::new(&rustc).arg("-vV")).ok()?)?;
        library.exists().then_some(Self {
            rustc,
            cargo,
            version,
        })
    }

    pub fn sysroot(&self) -> Result<PathBuf> {
        let path = run::output(Command::new(&self.rustc).args(["--print", "sysroot"]))?;
        Ok(PathBuf::from(path.trim()))
    }
}

/// The linker that turns LLVM bitcode into BPF objects.
#[derive(Clone, Debug)]
pub struct Linker {
    pub path: PathBuf,
}

impl Linker {
    /// The version that is installed and recorded.
    pub const VERSION: &str = "0.13.0";

    /// Where it is installed for a compiler: its LLVM must be the compiler's.
    pub fn of(compiler: &Compiler) -> Self {
        let dir = format!(
            "bpf-linker-{}-llvm-{}",
            Self::VERSION,
            compiler.version.llvm_major()
        );
        Self {
            path: run::target()
                .join("bpf-toolchain")
                .join(dir)
                .join("bin/bpf-linker"),
        }
    }

    pub fn is_installed(&self) -> bool {
        run::output(Command::new(&self.path).arg("--version")).is_ok_and(|text| text.contains(Self::VERSION))
    }

    /// Builds it against `/usr/lib/llvm-<major>`.
    pub fn install(&self, compiler: &Compiler) -> Result<()> {
        let major = compiler.version.llvm_major();
        let llvm = format!("/usr/lib/llvm-{major}");
        let root = self
            .path
            .ancestors()
            .nth(2)
            .context("the linker's path has no parent")?;
        let mut cargo = run::cargo();
        cargo
            .args(["install", "bpf-linker", "--locked", "--no-default-features"])
            .args([
                "--version",
                Self::VERSION,
                "--features",
                &format!("llvm-{major}"),
                "--root",
            ])
            .arg(root)
            // Its own build script asks for the one, llvm-sys for the other.
            .env("LLVM_PREFIX", &llvm)
            .env(format!("LLVM_SYS_{major}1_PREFIX"), &llvm)
            .env_remove("RUSTFLAGS")
            .env_remove("RUSTC");
        cargo::run(
            format!("building bpf-linker {} for LLVM {major}", Self::VERSION),
            "about a minute, once",
            &mut cargo,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::Version;

    #[test]
    fn version_of_rustc() {
        let text = "rustc 1.96.0 (ac68faa20 2026-05-25)\nbinary: rustc\nhost: x\nrelease: 1.96.0\nLLVM version: 22.1.8\n";
        let version = Version::parse(text).unwrap();
        assert_eq!(
            (version.rustc.as_str(), version.llvm_major()),
            ("rustc 1.96.0 (ac68faa20 2026-05-25)", "22")
        );
        assert_eq!(Version::parse("rustc 1.96.0\n"), None);
        assert_eq!(Version::parse(""), None);
    }
}
