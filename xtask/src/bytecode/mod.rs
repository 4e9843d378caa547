//! `cargo xtask bytecode`: the BPF objects, built so that the same tools give the same bytes anywhere.

pub mod content;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{
    cargo, files, run, setup,
    toolchain::{Compiler, Linker, Version},
};

/// Which objects there are: one a feature, each a `[[bin]]`.
const MANIFEST: &str = include_str!("../../../probe-ebpf/Cargo.toml");
/// What an object is built with, and what its name ends in: the second has messages, for `probe --kernel-log`.
const KINDS: [(&str, &str); 2] = [("kernel", ""), ("log", "-log")];

/// The objects, without the suffix of a kind.
pub fn objects() -> impl Iterator<Item = &'static str> {
    MANIFEST.split("[[bin]]").skip(1).filter_map(|bin| {
        let line = bin.lines().find_map(|line| line.strip_prefix("name = \""))?;
        Some(line.trim_end_matches('"'))
    })
}

/// The names of all that are built.
pub fn names() -> impl Iterator<Item = String> {
    KINDS
        .into_iter()
        .flat_map(|(_, suffix)| objects().map(move |name| format!("{name}{suffix}")))
}

const TARGET: &str = "bpfel-unknown-none";
/// What the objects are compiled from, beside the crates of `Cargo.lock`.
const SOURCES: [&str; 2] = ["probe-ebpf/src", "probe-ebpf/Cargo.toml"];

#[derive(clap::Args)]
pub struct Args {
    /// Rebuild and compare with the committed objects; change nothing
    #[arg(long)]
    pub check: bool,
}

/// `probe-ebpf/bytecode/toolchain.toml`: what the committed objects were built with and from.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    compiler: Version,
    bpf_linker: String,
    /// Of `SOURCES`, SHA-256: says without a compiler that the objects are older than their sources.
    sources: String,
    /// Of each object, SHA-256.
    objects: BTreeMap<String, String>,
}

pub fn run(args: &Args) -> Result<()> {
    let (compiler, linker) = setup::run()?;
    let built = build(&compiler, &linker)?;
    let record = Record {
        compiler: compiler.version.clone(),
        bpf_linker: Linker::VERSION.to_owned(),
        sources: sources()?,
        objects: built
            .iter()
            .map(|(name, bytes)| (name.clone(), hash(bytes)))
            .collect(),
    };
    if args.check {
        check(&built, &record)
    } else {
        write(&built, &record)
    }
}

/// Whether the committed objects were built from the sources beside them. Compiles nothing: what the sources give is compared by
/// `--check`.
///
/// # Errors
/// Says which command makes it so.
pub fn check_sources() -> Result<()> {
    if committed()?.sources == sources()? {
        return Ok(());
    }
    bail!(
        "{} changed since the objects were built: run `cargo xtask bytecode` and commit",
        SOURCES.join(" or ")
    );
}

fn sources() -> Result<String> {
    let root = run::root();
    let mut found = BTreeMap::new();
    for path in SOURCES {
        found.extend(files::read(&root, path)?);
    }
    Ok(files::digest(&found))
}

/// The record that is committed with the objects.
fn committed() -> Result<Record> {
    let path = directory().join("toolchain.toml");
    let text = fs::read_to_string(&path).with_context(|| format!("can't read {}", path.display()))?;
    toml::from_str(&text).with_context(|| format!("{} is malformed", path.display()))
}

/// Where the committed objects are.
pub fn directory() -> PathBuf {
    run::root().join("probe-ebpf/bytecode")
}

fn write(built: &BTreeMap<String, Vec<u8>>, record: &Record) -> Result<()> {
    let directory = directory();
    fs::create_dir_all(&directory)?;
    for (name, bytes) in built {
        let path = directory.join(name).with_extension("o");
        let changed = fs::read(&path).ok().as_ref() != Some(bytes);
        fs::write(&path, bytes).with_context(|| format!("can't write {}", path.display()))?;
        println!(
            "{}: {} bytes, {}",
            path.display(),
            bytes.len(),
            if changed { "changed" } else { "unchanged" }
        );
    }
    let text = toml::to_string(record)?;
    fs::write(
        directory.join("toolchain.toml"),
        format!("# Written by `cargo xtask bytecode`.\n{text}"),
    )?;
    Ok(())
}

fn check(built: &BTreeMap<String, Vec<u8>>, record: &Record) -> Result<()> {
    let directory = directory();
    let committed = committed()?;
    for name in built.keys() {
        let path = directory.join(name).with_extension("o");
        let bytes = fs::read(&path).with_context(|| format!("can't read {}", path.display()))?;
        if committed.objects.get(name) != Some(&hash(&bytes)) {
            bail!(
                "{} is not the object that toolchain.toml records: run `cargo xtask bytecode` and commit",
                path.display()
            );
        }
    }
    if committed.compiler == record.compiler && committed.bpf_linker == record.bpf_linker {
        if committed.objects != record.objects {
            bail!(
                "the committed objects are not built from these sources: run `cargo xtask bytecode` and commit"
            );
        }
        println!("objects: bit for bit what these sources give with the recorded compiler and linker");
        return Ok(());
    }
    println!(
        "objects: built here with {} and bpf-linker {}, recorded are {} and {}: they can't be compared byte by byte",
        record.compiler.rustc, record.bpf_linker, committed.compiler.rustc, committed.bpf_linker
    );
    prove(built)
}

/// Other tools give other bytes: then what counts is that the kernel takes them and they do their work.
fn prove(built: &BTreeMap<String, Vec<u8>>) -> Result<()> {
    let objects = run::target().join("bpf-rebuilt");
    fs::create_dir_all(&objects)?;
    for (name, bytes) in built {
        fs::write(objects.join(name).with_extension("o"), bytes)?;
    }
    println!("objects: checking that the rebuilt ones load and pass the scenarios of outcomes");
    let target = run::target().join("with-rebuilt-objects");
    let mut cargo = run::cargo();
    cargo
        .args(["build", "--release", "--package", "probe-user", "--target-dir"])
        .arg(&target);
    cargo::run(
        "building probe with the rebuilt objects",
        "some minutes, in a target directory of its own",
        cargo.env("PROBE_BYTECODE_DIR", &objects),
    )?;
    let mut cargo = run::cargo();
    cargo.args(["test", "--package", "probe-lab", "--test", "connection"]);
    cargo::run(
        "running the scenarios of outcomes with the rebuilt objects",
        "about a minute",
        cargo.env("PROBE_BIN", target.join("release/probe")),
    )
}

fn build(compiler: &Compiler, linker: &Linker) -> Result<BTreeMap<String, Vec<u8>>> {
    let target = run::target().join("bpf");
    let flags = flags(compiler, linker)?.join("\u{1f}");
    let mut built = BTreeMap::new();
    for (feature, suffix) in KINDS {
        compile(compiler, &flags, feature, &target)?;
        for name in objects() {
            let path = target.join(TARGET).join("bpf").join(name);
            no_panics(compiler, &path)?;
            strip(compiler, &path)?;
            let stripped = path.with_extension("stripped");
            let bytes = fs::read(&stripped).with_context(|| format!("can't read {}", stripped.display()))?;
            built.insert(format!("{name}{suffix}"), bytes);
        }
    }
    Ok(built)
}

fn compile(compiler: &Compiler, flags: &str, feature: &str, target: &Path) -> Result<()> {
    let (program, arguments) = compiler.cargo.split_first().context("no cargo")?;
    let mut cargo = Command::new(program);
    cargo
        .current_dir(run::root())
        .args(arguments)
        .args([
            "build",
            "-Zbuild-std=core",
            "--target",
            TARGET,
            "--profile",
            "bpf",
        ])
        .args([
            "--package",
            "probe-ebpf",
            "--features",
            feature,
            "--bins",
            "--locked",
            "--target-dir",
        ])
        .arg(target)
        .env("RUSTC", &compiler.rustc)
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_ENCODED_RUSTFLAGS", flags)
        .env_remove("RUSTFLAGS")
        .env_remove("RUSTUP_TOOLCHAIN");
    cargo::run(
        "building the BPF objects",
        "about half a minute when nothing is built yet",
        &mut cargo,
    )
}

/// Where things are must not be in the objects.
fn flags(compiler: &Compiler, linker: &Linker) -> Result<Vec<String>> {
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo")));
    let home = home.context("neither CARGO_HOME nor HOME is set")?;
    let remap = |from: &Path, to: &str| format!("--remap-path-prefix={}={to}", from.display());
    let mut flags = vec![
        "-Dwarnings".to_owned(),
        "-Cdebuginfo=2".to_owned(),
        "-Clink-arg=--btf".to_owned(),
        format!("-Clinker={}", linker.path.display()),
        remap(&compiler.sysroot()?.join("lib/rustlib/src/rust"), "/rustc"),
        remap(&run::root(), "/probe"),
    ];
    // The registry's folder has a name of its own on every machine that mirrors it.
    let registry = home.join("registry/src");
    for index in fs::read_dir(&registry).into_iter().flatten().flatten() {
        flags.push(remap(&index.path(), "/crates"));
    }
    Ok(flags)
}

fn no_panics(compiler: &Compiler, object: &Path) -> Result<()> {
    let symbols = run::output(Command::new(llvm(compiler, "llvm-nm")).arg(object))?;
    let panics: Vec<&str> = symbols.lines().filter(|line| is_panic(line)).collect();
    if !panics.is_empty() {
        bail!(
            "{} can panic, which a kernel program can't: {}",
            object.display(),
            panics.join(", ")
        );
    }
    Ok(())
}

/// A mangled or plain name of core's panic machinery.
fn is_panic(symbol: &str) -> bool {
    [
        "9panicking",
        "panicking::",
        "panic_fmt",
        "panic_bounds",
        "unwrap_failed",
        "expect_failed",
    ]
    .iter()
    .any(|name| symbol.contains(name))
}

/// Without DWARF, with BTF: a third of the size, and no more to compare than what the kernel sees. No loader applies the
/// relocations of BTF, which are a third of what is left.
fn strip(compiler: &Compiler, object: &Path) -> Result<()> {
    let stripped = object.with_extension("stripped");
    run::run(
        Command::new(llvm(compiler, "llvm-objcopy"))
            .args([
                "--strip-debug",
                "--remove-section=.rel.BTF",
                "--remove-section=.rel.BTF.ext",
            ])
            .arg(object)
            .arg(stripped),
    )
}

/// A tool of the compiler's LLVM.
fn llvm(compiler: &Compiler, tool: &str) -> PathBuf {
    let major = compiler.version.llvm_major();
    PathBuf::from(format!("/usr/lib/llvm-{major}/bin")).join(tool)
}

/// SHA-256, in hexadecimal digits.
pub fn hash(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// In hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::{is_panic, objects};
    use crate::run;

    #[test]
    fn objects_of_the_manifest() {
        let names: Vec<_> = objects().collect();
        assert!(names.is_sorted() && names.contains(&"connection"), "{names:?}");
        for name in names {
            let sources = run::root().join("probe-ebpf/src/bin").join(name);
            assert!(
                sources.is_dir() || sources.with_extension("rs").is_file(),
                "{name}"
            );
        }
    }

    /// A ring buffer's record is not zeroed: a field that the program does not write is old kernel memory. Neither compiler nor
    /// verifier sees it.
    #[test]
    fn every_field_of_a_record_is_written() {
        let read =
            |path: &str| std::fs::read_to_string(run::root().join("probe-ebpf/src").join(path)).unwrap();
        for (contract, record, program, variable) in [
            ("connection", "Record", "bin/connection/main.rs", "record"),
            ("path", "Event", "bin/path/event.rs", "event"),
        ] {
            let contract = read(&format!("contract/{contract}.rs"));
            let (_, definition) = contract.split_once(&format!("pub struct {record} {{\n")).unwrap();
            let (fields, _) = definition.split_once("\n}").unwrap();
            let program = read(program);
            for field in fields.lines().filter_map(|line| line.trim().strip_prefix("pub ")) {
                let (field, _) = field.split_once(':').unwrap();
                let place = format!("(*{variable}).{field}");
                let written = program.contains(&format!("{place} = "))
                    || program.contains(&format!("&raw mut {place})"));
                assert!(written, "{record}.{field} is not written");
            }
        }
    }

    #[test]
    fn panic_symbols() {
        for (symbol, expected) in [
            ("0000 t _RNvNtCs1_4core9panicking18panic_bounds_check", true),
            ("0000 t _ZN4core6option13unwrap_failed17h0E", true),
            ("0000 T conn_state", false),
            ("0000 W memcpy", false),
        ] {
            assert_eq!(is_panic(symbol), expected, "{symbol}");
        }
    }
}
