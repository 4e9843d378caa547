//! A binary that needs nothing of the system it runs on but the kernel.

use std::{
    path::PathBuf,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;

use crate::{apt, cargo, progress, run};

/// What is built for. musl, as its libraries come with the compiler and are made to be linked in, resolver and all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Target {
    #[value(name = "x86_64-unknown-linux-musl")]
    X86_64,
    #[value(name = "aarch64-unknown-linux-musl")]
    Aarch64,
}

impl Target {
    /// This machine's.
    pub const fn here() -> Self {
        if cfg!(target_arch = "aarch64") {
            Self::Aarch64
        } else {
            Self::X86_64
        }
    }

    /// As rustc names it.
    pub fn triple(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64-unknown-linux-musl",
            Self::Aarch64 => "aarch64-unknown-linux-musl",
        }
    }

    /// As Go, and so images, name it.
    pub fn architecture(self) -> &'static str {
        match self {
            Self::X86_64 => "amd64",
            Self::Aarch64 => "arm64",
        }
    }

    /// `e_machine` of its binaries.
    fn machine(self) -> u16 {
        match self {
            Self::X86_64 => 62,
            Self::Aarch64 => 183,
        }
    }

    /// The compiler of the C parts, which also links: the system's own does, as they ask nothing of a C library that
    /// its headers and musl disagree on, and the start files and libraries are rustc's.
    fn c_compiler(self) -> Result<&'static str> {
        if self == Self::here() {
            return Ok("cc");
        }
        let (compiler, packages): (_, [&str; 2]) = match self {
            Self::X86_64 => (
                "x86_64-linux-gnu-gcc",
                ["gcc-x86-64-linux-gnu", "libc6-dev-amd64-cross"],
            ),
            Self::Aarch64 => (
                "aarch64-linux-gnu-gcc",
                ["gcc-aarch64-linux-gnu", "libc6-dev-arm64-cross"],
            ),
        };
        let there = Command::new(compiler)
            .arg("--version")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        if !there.is_ok_and(|status| status.success()) {
            apt::install("a binary for another architecture", &packages)?;
        }
        Ok(compiler)
    }

    /// Builds `probe`, and gives back the binary.
    pub fn build(self) -> Result<PathBuf> {
        cargo::run(
            format!("building probe for {}", self.triple()),
            "some minutes, as it is optimised across all crates",
            self.cargo("build")?.args(["--profile", "dist"]),
        )?;
        Ok(run::target().join(self.triple()).join("dist/probe"))
    }

    /// Whether `probe` can be built: types of C differ between libraries and architectures.
    pub fn compiles(self) -> Result<()> {
        cargo::run(
            format!("checking probe for {}", self.triple()),
            "",
            &mut self.cargo("check")?,
        )
    }

    /// cargo doing something with `probe` for this target.
    fn cargo(self, does: &str) -> Result<Command> {
        self.install()?;
        self.command(run::cargo(), does)
    }

    /// The same with another toolchain's `cargo`, which has Rust's libraries for this target.
    ///
    /// # Errors
    /// When there is no compiler for the C parts.
    pub fn command(self, mut cargo: Command, does: &str) -> Result<Command> {
        let triple = self.triple();
        let compiler = self.c_compiler()?;
        let lower = triple.replace('-', "_");
        cargo
            .args([does, "--package", "probe-user", "--locked"])
            .args(["--target", triple])
            .args(["--config", &format!("target.{triple}.rustflags={}", flags())]);
        let mut default = |name: String, value: &str| {
            if std::env::var_os(&name).is_none() {
                cargo.env(name, value);
            }
        };
        default(format!("CC_{lower}"), compiler);
        // Some distributions' compilers put in calls that glibc alone has.
        default(format!("CFLAGS_{lower}"), "-U_FORTIFY_SOURCE");
        default(format!("CARGO_TARGET_{}_LINKER", lower.to_uppercase()), compiler);
        Ok(cargo)
    }

    /// Rust's own libraries for it.
    ///
    /// # Errors
    /// When they are missing, and rustup can't add them.
    pub fn install(self) -> Result<()> {
        let triple = self.triple();
        let libdir =
            run::output(Command::new("rustc").args(["--print", "target-libdir", "--target", triple]));
        if libdir.is_ok_and(|directory| PathBuf::from(directory.trim()).exists()) {
            return Ok(());
        }
        progress::run(
            format!("installing Rust's libraries for {triple}"),
            "rustup downloads them",
            Command::new("rustup")
                .args(["target", "add", triple])
                .stdin(Stdio::null()),
        )
        .with_context(|| {
            format!("Rust's libraries for {triple} are missing, and rustup, which has them, can't add them")
        })
    }

    /// Whether a binary is for this target and loads no library.
    ///
    /// # Errors
    /// Says what it is else.
    pub fn check(self, binary: &[u8]) -> Result<()> {
        let header = binary.get(..64).context("it is too short for a binary")?;
        ensure!(
            header.starts_with(b"\x7fELF\x02\x01"),
            "it is no little-endian 64-bit ELF binary"
        );
        let half = |at: usize| u16::from_le_bytes([header[at], header[at + 1]]);
        ensure!(
            half(18) == self.machine(),
            "it is for another architecture than {}",
            self.architecture()
        );
        let mut offset = [0; 8];
        offset.copy_from_slice(&header[32..40]);
        let (start, size, count) = (u64::from_le_bytes(offset), half(54), half(56));
        let start = usize::try_from(start).context("its program headers are nowhere")?;
        for index in 0..usize::from(count) {
            let at = start.saturating_add(index * usize::from(size));
            let kind = binary
                .get(at..at.saturating_add(4))
                .context("its program headers are cut off")?;
            if kind == PT_INTERP.to_le_bytes() {
                bail!("it is not static: it names a loader for shared libraries");
            }
        }
        ensure!(count > 0, "it has no program headers");
        Ok(())
    }
}

/// Names the loader; a static binary, position-independent or not, has none.
const PT_INTERP: u32 = 3;

/// Keeps this machine's folders out of the binary, which else has them in its panic messages.
fn flags() -> String {
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo")));
    let folders = [(home, "/cargo"), (Some(run::root()), "/probe")];
    let flags: Vec<_> = folders
        .into_iter()
        .filter_map(|(from, to)| Some(format!("--remap-path-prefix={}={to}", from?.to_str()?)))
        .collect();
    // An array of strings is written in TOML as in JSON.
    serde_json::json!(flags).to_string()
}

#[cfg(test)]
mod tests {
    use super::Target;

    /// A header, and one program header of this kind.
    fn elf(machine: u16, kind: u32) -> Vec<u8> {
        let mut file = b"\x7fELF\x02\x01\x01".to_vec();
        file.resize(64, 0);
        file[18..20].copy_from_slice(&machine.to_le_bytes());
        file[32..40].copy_from_slice(&64u64.to_le_bytes());
        file[54..56].copy_from_slice(&56u16.to_le_bytes());
        file[56..58].copy_from_slice(&1u16.to_le_bytes());
        file.extend(kind.to_le_bytes());
        file.resize(64 + 56, 0);
        file
    }

    #[test]
    fn only_static_binaries_of_the_architecture() {
        let says = |target: Target, binary: &[u8]| target.check(binary).map_err(|error| error.to_string());
        assert_eq!(says(Target::X86_64, &elf(62, 1)), Ok(()));
        assert_eq!(says(Target::Aarch64, &elf(183, 1)), Ok(()));
        for (binary, expected) in [
            (elf(62, 3), "not static"),
            (elf(183, 1), "another architecture"),
            (elf(62, 1)[..64].to_vec(), "cut off"),
            (b"#!/bin/sh\n".to_vec(), "too short"),
            (vec![0; 64], "no little-endian"),
        ] {
            let error = says(Target::X86_64, &binary).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }

    /// What runs this test is linked with glibc, wherever the tests run.
    #[test]
    #[cfg(all(target_env = "gnu", target_arch = "x86_64"))]
    fn this_very_test_is_not_static() {
        let binary = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let error = Target::X86_64.check(&binary).unwrap_err().to_string();
        assert!(error.contains("not static"), "{error}");
    }
}
