//! `cargo xtask setup`: what builds the BPF objects.

use std::{
    path::Path,
    process::{Command, ExitStatus, Stdio},
};

use anyhow::{Result, anyhow};

use crate::{
    apt,
    progress::Progress,
    toolchain::{Compiler, Linker},
};

/// What bpf-linker links with besides LLVM.
const LIBRARIES: [&str; 2] = ["zlib1g-dev", "libzstd-dev"];

/// Finds or installs compiler and linker, and says what it does.
pub fn run() -> Result<(Compiler, Linker)> {
    let compiler = compiler()?;
    println!(
        "compiler: {} (LLVM {}), {}",
        compiler.version.rustc,
        compiler.version.llvm,
        compiler.rustc.display()
    );
    let linker = Linker::of(&compiler);
    if linker.is_installed() {
        println!(
            "linker: bpf-linker {}, {}",
            Linker::VERSION,
            linker.path.display()
        );
    } else {
        let major = compiler.version.llvm_major();
        let llvm = format!("llvm-{major}-dev");
        if !Path::new(&format!("/usr/lib/llvm-{major}/include/llvm-c")).exists() {
            apt::install("bpf-linker", &[&llvm])?;
        }
        apt::install("bpf-linker", &LIBRARIES)?;
        linker.install(&compiler)?;
        println!(
            "linker: bpf-linker {}, {}",
            Linker::VERSION,
            linker.path.display()
        );
    }
    Ok((compiler, linker))
}

fn compiler() -> Result<Compiler> {
    if let Some(compiler) = Compiler::find() {
        return Ok(compiler);
    }
    println!(
        "no compiler with its library's sources yet (rustup's nightly with rust-src, or Debian's rustc-web)"
    );
    let debian = apt::install("the BPF compiler", &["rustc-web", "rust-web-src"]);
    if debian.is_ok()
        && let Some(compiler) = Compiler::find()
    {
        return Ok(compiler);
    }
    let progress = Progress::start("installing rustup's nightly with rust-src", "rustup downloads it");
    let rustup = Command::new("rustup")
        .args([
            "toolchain",
            "install",
            "nightly",
            "--profile",
            "minimal",
            "--component",
            "rust-src",
        ])
        .stdin(Stdio::null())
        .status();
    if rustup.as_ref().is_ok_and(ExitStatus::success) {
        progress.done();
    }
    Compiler::find().ok_or_else(|| {
        let debian = debian.err().map_or_else(|| "installed, but without sources".to_owned(), |e| format!("{e:#}"));
        let rustup = rustup.map_or_else(|e| e.to_string(), |status| status.to_string());
        anyhow!(
            "no compiler for the BPF objects.\n  Debian: {debian}\n  rustup: {rustup}\n\
             Install either: `rustup toolchain install nightly --component rust-src`, or the packages rustc-web and \
             rust-web-src. probe itself builds without: the objects are in probe-ebpf/bytecode."
        )
    })
}
